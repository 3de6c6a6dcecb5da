/* What a model's config.json says, as far as the runtime computes it (PROTOCOL.md, "Trunk"). What a
 * config asks for beyond that is refused by name: nothing is computed that is only nearly right. */
#ifndef PDT_MODEL_CONFIG_H
#define PDT_MODEL_CONFIG_H

#include "base/error.h"
#include "base/notices.h"
#include "base/types.h"
#include "model/rope.h"

struct json_t; /* jansson's */

typedef enum pdt_family {
  PDT_FAMILY_LLAMA, /* Llama 2 and 3, SmolLM2 */
  PDT_FAMILY_MISTRAL,
  PDT_FAMILY_QWEN2,
  PDT_FAMILY_QWEN3,
} pdt_family;

/* "llama", "mistral", "qwen2", "qwen3": config.json's model_type. */
const char *pdt_family_name(pdt_family family);

enum { PDT_MAX_EOS = 32, PDT_MAX_HEAD_DIM = 1024, PDT_MAX_LAYERS = 4096 };

typedef struct pdt_model_config {
  pdt_family family;
  int32_t hidden_size;       /* d */
  int32_t intermediate_size; /* columns of the FFN */
  pdt_layer layers;          /* L */
  int32_t heads, kv_heads;   /* kv_heads divides heads */
  int32_t head_dim;          /* even, at most PDT_MAX_HEAD_DIM */
  int32_t vocab_size;        /* rows of the embedding */
  int32_t max_positions;     /* longest sequence, in tokens */
  double rms_norm_eps;       /* > 0 */
  bool tie_word_embeddings;  /* the head is the embedding, whatever the file holds beside it */
  bool attention_bias;       /* q, k, v, o biases must be there: Llama and Qwen3 may ask so */
  bool mlp_bias;             /* gate, up, down biases must be there: Llama may ask so */
  int32_t n_eos;             /* end-of-sequence ids, ascending, each once; may be 0 */
  pdt_token eos[PDT_MAX_EOS];
  pdt_token bos; /* beginning of sequence, -1 when there is none */
  pdt_rope rope;
  int32_t
      window; /* tokens that a layer which slides attends to, its own the last; 0: none slides */
  uint8_t slides[PDT_MAX_LAYERS / 8]; /* a bit a layer, to be read by pdt_model_window */
  char guessed[256]; /* keys of sizes that the config leaves to the family, for hints; may be "" */
} pdt_model_config;

/* Reads DIRECTORY/config.json and, where it exists, generation_config.json (for its eos_token_id
 * alone; the union counts), or of a GGUF file what its metadata says of that (gguf_config.h).
 * `notices` (NULL: nobody listens) gets what was taken where the config leaves something open or
 * contradicts itself. Errors: IO, INPUT. */
int pdt_model_config_load(pdt_model_config *out, const char *directory, pdt_notices *notices,
                          pdt_error *err);

/* Reads one config.json, wherever it is, alone. */
int pdt_model_config_load_file(pdt_model_config *out, const char *path, pdt_notices *notices,
                               pdt_error *err);

/* From JSON that was parsed already; `generation` may be NULL; `where` names config in errors.
 * Pure. Errors: INPUT. */
int pdt_model_config_parse(pdt_model_config *out, const struct json_t *config,
                           const struct json_t *generation, const char *where, pdt_notices *notices,
                           pdt_error *err);

/* Is it one of the ids that end a sequence? */
bool pdt_model_is_eos(const pdt_model_config *config, pdt_token token);

/* Tokens that a layer's attention reaches: position i reads positions j with i - j < window. 0: all
 * positions before it and itself. */
int32_t pdt_model_window(const pdt_model_config *config, pdt_layer layer);

#endif
