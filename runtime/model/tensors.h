/* The tensors of a trunk, by Hugging Face's names. */
#ifndef PDT_MODEL_TENSORS_H
#define PDT_MODEL_TENSORS_H

#include "model/config.h"
#include "store/checkpoint.h"

enum { PDT_TENSOR_NAME_BYTES = 96 };

/* "model.layers.{layer}.{suffix}", as in suffix "self_attn.q_proj.weight". */
void pdt_layer_tensor_name(char name[PDT_TENSOR_NAME_BYTES], pdt_layer layer, const char *suffix);

#define PDT_TENSOR_EMBEDDING  "model.embed_tokens.weight" /* [vocab, d] */
#define PDT_TENSOR_FINAL_NORM "model.norm.weight"         /* [d] */
#define PDT_TENSOR_HEAD       "lm_head.weight"            /* [vocab, d], untied models only */

typedef enum pdt_need { PDT_REQUIRED, PDT_OPTIONAL } pdt_need;

/* One tensor that a trunk has or may have. */
typedef struct pdt_model_tensor {
  char name[PDT_TENSOR_NAME_BYTES];
  int64_t shape[2];
  int32_t n_dims; /* 1 for norms and biases, 2 for matrices [out, in] */
  pdt_need need;
} pdt_model_tensor;

/* The trunk's tensors, numbered: embedding, layers in order, final norm, head. Biases and the q/k
 * norms are optional unless the config demands them; so is the head, which is the embedding where
 * there is none. Pure. */
int32_t pdt_model_tensor_count(const pdt_model_config *config);
void pdt_model_tensor_at(const pdt_model_config *config, int32_t index, pdt_model_tensor *out);

/* Checks presence, shape and type of every tensor (each may have its own of F32, F16, BF16), and
 * that q_norm and k_norm of a layer come together. Values are not looked at: see base/finite.h.
 * `notices` (NULL: nobody listens) gets what was taken where config and tensors disagree.
 * Errors: INPUT, naming the tensor. */
int pdt_model_tensors_check(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                            pdt_notices *notices, pdt_error *err);

/* The tensor that turns hidden states into logits: the embedding when tied or when the file has no
 * lm_head.weight. Never NULL after pdt_model_tensors_check. */
const pdt_tensor *pdt_model_head(const pdt_model_config *config, const pdt_checkpoint *checkpoint);

#endif
