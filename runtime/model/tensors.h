/* The tensors of a trunk, by Hugging Face's names. */
#ifndef PDT_MODEL_TENSORS_H
#define PDT_MODEL_TENSORS_H

#include "model/config.h"
#include "store/checkpoint.h"
#include "store/tensor_table.h"

/* "model.layers.{layer}.{suffix}", as in suffix "self_attn.q_proj.weight". */
void pdt_layer_tensor_name(char name[PDT_TENSOR_NAME_BYTES], pdt_layer layer, const char *suffix);

#define PDT_TENSOR_EMBEDDING  "model.embed_tokens.weight" /* [vocab, d] */
#define PDT_TENSOR_FINAL_NORM "model.norm.weight"         /* [d] */
#define PDT_TENSOR_HEAD       "lm_head.weight"            /* [vocab, d], untied models only */

/* The trunk's tensors, numbered: embedding, layers in order, final norm, head. Required is what the
 * family has, and what the config demands: q/k/v biases of Qwen2, q/k norms of Qwen3, the biases of
 * attention_bias and mlp_bias, the head of an untied model. The other biases and norms are
 * optional. Pure. */
int32_t pdt_model_tensor_count(const pdt_model_config *config);
void pdt_model_tensor_at(const pdt_model_config *config, int32_t index, pdt_wanted_tensor *out);

/* Checks presence, shape and type of every tensor (each may have its own of F32, F16, BF16), and
 * that q_norm and k_norm of a layer come together. Values are not looked at, but for two: where the
 * embedding and the head of a tied model differ, they are not tied, as in transformers, and
 * tie_word_embeddings becomes false. (A head that has the embedding's values is the embedding.)
 *
 * Optional tensors that the file has are used: PROTOCOL.md has "any linear layer's bias where the
 * file has one". transformers drops what the config denies, so that its answers differ; `notices`
 * (NULL: nobody listens) gets a warning. Errors: INPUT, naming the tensor; IO where the shard that
 * has it cannot be opened. */
int pdt_model_tensors_check(pdt_model_config *config, const pdt_checkpoint *checkpoint,
                            pdt_notices *notices, pdt_error *err);

/* The tensor of one of these names, NULL when there is none. The one matrix of a tied model goes by
 * the embedding's name, even where the file has it as the head's only. */
const pdt_tensor *pdt_model_tensor_find(const pdt_model_config *config,
                                        const pdt_checkpoint *checkpoint, const char *name);

/* The tensor that turns hidden states into logits: the embedding when tied. Never NULL after
 * pdt_model_tensors_check. */
const pdt_tensor *pdt_model_head(const pdt_model_config *config, const pdt_checkpoint *checkpoint);

#endif
