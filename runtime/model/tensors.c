#include "model/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* What a dimension is. */
enum extent { E_NONE, E_HIDDEN, E_QUERY, E_KEY, E_FFN, E_HEAD_DIM, E_VOCAB };

/* When a tensor must be there. */
enum demand {
  ALWAYS,
  INPUT_BIAS,  /* with attention_bias, and in every Qwen2 */
  OUTPUT_BIAS, /* with attention_bias */
  MLP_BIAS,    /* with mlp_bias */
  HEAD_NORM,   /* in every Qwen3 */
  UNTIED,      /* without tie_word_embeddings */
};

#define LAYER "model.layers.%d."
static const pdt_tensor_row rows[] = {
    {PDT_TENSOR_EMBEDDING, PDT_ROLE_EMBEDDING, ALWAYS, {E_VOCAB, E_HIDDEN}},
    {LAYER "input_layernorm.weight", PDT_ROLE_NORM, ALWAYS, {E_HIDDEN}},
    {LAYER "self_attn.q_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_QUERY, E_HIDDEN}},
    {LAYER "self_attn.q_proj.bias", PDT_ROLE_BIAS, INPUT_BIAS, {E_QUERY}},
    {LAYER "self_attn.k_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_KEY, E_HIDDEN}},
    {LAYER "self_attn.k_proj.bias", PDT_ROLE_BIAS, INPUT_BIAS, {E_KEY}},
    {LAYER "self_attn.v_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_KEY, E_HIDDEN}},
    {LAYER "self_attn.v_proj.bias", PDT_ROLE_BIAS, INPUT_BIAS, {E_KEY}},
    {LAYER "self_attn.o_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_HIDDEN, E_QUERY}},
    {LAYER "self_attn.o_proj.bias", PDT_ROLE_BIAS, OUTPUT_BIAS, {E_HIDDEN}},
    {LAYER "self_attn.q_norm.weight", PDT_ROLE_NORM, HEAD_NORM, {E_HEAD_DIM}},
    {LAYER "self_attn.k_norm.weight", PDT_ROLE_NORM, HEAD_NORM, {E_HEAD_DIM}},
    {LAYER "post_attention_layernorm.weight", PDT_ROLE_NORM, ALWAYS, {E_HIDDEN}},
    {LAYER "mlp.gate_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_FFN, E_HIDDEN}},
    {LAYER "mlp.gate_proj.bias", PDT_ROLE_BIAS, MLP_BIAS, {E_FFN}},
    {LAYER "mlp.up_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_FFN, E_HIDDEN}},
    {LAYER "mlp.up_proj.bias", PDT_ROLE_BIAS, MLP_BIAS, {E_FFN}},
    {LAYER "mlp.down_proj.weight", PDT_ROLE_MATRIX, ALWAYS, {E_HIDDEN, E_FFN}},
    {LAYER "mlp.down_proj.bias", PDT_ROLE_BIAS, MLP_BIAS, {E_HIDDEN}},
    {PDT_TENSOR_FINAL_NORM, PDT_ROLE_NORM, ALWAYS, {E_HIDDEN}},
    {PDT_TENSOR_HEAD, PDT_ROLE_EMBEDDING, UNTIED, {E_VOCAB, E_HIDDEN}},
};
#undef LAYER

void pdt_layer_tensor_name(char name[PDT_TENSOR_NAME_BYTES], pdt_layer layer, const char *suffix) {
  snprintf(name, PDT_TENSOR_NAME_BYTES, "model.layers.%d.%s", layer, suffix);
}

static int64_t size_of(const void *of, int extent) {
  const pdt_model_config *config = of;
  const int64_t sizes[] = {
      [E_HIDDEN] = config->hidden_size,
      [E_QUERY] = (int64_t)config->heads * config->head_dim,
      [E_KEY] = (int64_t)config->kv_heads * config->head_dim,
      [E_FFN] = config->intermediate_size,
      [E_HEAD_DIM] = config->head_dim,
      [E_VOCAB] = config->vocab_size,
  };
  return sizes[extent];
}

static pdt_need need_of(const void *of, int when) {
  const pdt_model_config *config = of;
  const bool demanded[] = {
      [ALWAYS] = true,
      [INPUT_BIAS] = config->attention_bias || config->family == PDT_FAMILY_QWEN2,
      [OUTPUT_BIAS] = config->attention_bias,
      [MLP_BIAS] = config->mlp_bias,
      [HEAD_NORM] = config->family == PDT_FAMILY_QWEN3,
      [UNTIED] = !config->tie_word_embeddings,
  };
  return demanded[when] ? PDT_REQUIRED : PDT_OPTIONAL;
}

static const pdt_tensor_table table = {rows, sizeof rows / sizeof *rows, size_of, need_of};

static pdt_tensor_list list_of(const pdt_model_config *config) {
  return (pdt_tensor_list){&table, config, config->layers, NULL};
}

int32_t pdt_model_tensor_count(const pdt_model_config *config) {
  const pdt_tensor_list list = list_of(config);
  return pdt_tensor_list_count(&list);
}

void pdt_model_tensor_at(const pdt_model_config *config, int32_t index, pdt_wanted_tensor *out) {
  const pdt_tensor_list list = list_of(config);
  pdt_tensor_list_at(&list, index, out);
}

/* Attention either normalizes queries and keys or neither. */
static int check_qk_norms(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                          pdt_error *err) {
  for (pdt_layer l = 0; l < config->layers; l++) {
    char q[PDT_TENSOR_NAME_BYTES], k[PDT_TENSOR_NAME_BYTES];
    pdt_layer_tensor_name(q, l, "self_attn.q_norm.weight");
    pdt_layer_tensor_name(k, l, "self_attn.k_norm.weight");
    bool has_q = pdt_checkpoint_find(checkpoint, q), has_k = pdt_checkpoint_find(checkpoint, k);
    if (has_q != has_k)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s' is missing, though '%s' is there",
                      checkpoint->directory, has_q ? k : q, has_q ? q : k);
  }
  return 0;
}

/* ---- one matrix or two ---- */

enum { PIECE = 1 << 18 };

/* Elements [first, first + n) of a tensor as float. */
static int read_floats(const pdt_tensor *tensor, int64_t first, int64_t n, void *raw, float *out,
                       pdt_error *err) {
  if (pdt_tensor_read(tensor, first, n, raw, err)) return -1;
  pdt_to_float(tensor->dtype, raw, n, out);
  return 0;
}

/* Do two matrices of one shape hold the same numbers? */
static int same_values(const pdt_tensor *a, const pdt_tensor *b, bool *same, pdt_error *err) {
  float *raw, *x = NULL, *y = NULL;
  int rc = PDT_NEW(&raw, PIECE, "embedding", err) || PDT_NEW(&x, PIECE, "embedding", err) ||
           PDT_NEW(&y, PIECE, "embedding", err);
  *same = true;
  for (int64_t at = 0; !rc && *same && at < a->n_elems; at += PIECE) {
    int64_t n = a->n_elems - at < PIECE ? a->n_elems - at : PIECE;
    rc = read_floats(a, at, n, raw, x, err) || read_floats(b, at, n, raw, y, err);
    if (!rc) *same = memcmp(x, y, (size_t)n * sizeof *x) == 0;
  }
  free(raw);
  free(x);
  free(y);
  return rc ? -1 : 0;
}

/* A tied model with a head of its own in the file is not tied, unless the head is a copy. */
static int untie(pdt_model_config *config, const pdt_checkpoint *checkpoint, pdt_notices *notices,
                 pdt_error *err) {
  const pdt_tensor *embedding = pdt_checkpoint_find(checkpoint, PDT_TENSOR_EMBEDDING);
  const pdt_tensor *head = pdt_checkpoint_find(checkpoint, PDT_TENSOR_HEAD);
  bool same = true;
  if (!config->tie_word_embeddings || !embedding || !head) return 0;
  if (same_values(embedding, head, &same, err)) return -1;
  config->tie_word_embeddings = same;
  if (!same)
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%s: config.json ties the head to the embedding, but the file has both and they "
               "differ: each is used as it is, as in transformers",
               head->file->path);
  return 0;
}

/* ---- presence and shape ---- */

/* What could be wrong where config and files do not fit. */
static int hint_of_mismatch(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                            const pdt_wanted_tensor *want, bool missing, pdt_error *err) {
  const char *family = pdt_family_name(config->family);
  if (*config->guessed)
    return pdt_fail_hint(err, "config.json leaves %s to the defaults of %s", config->guessed,
                         family);
  if (checkpoint->passed_over)
    return pdt_fail_hint(err, "model.safetensors.index.json is there, too, and was not read");
  if (!missing && want->need == PDT_OPTIONAL)
    return pdt_fail_hint(err, "config.json does not ask for this tensor, but it is in the file");
  if (missing && strcmp(want->name, PDT_TENSOR_HEAD) == 0)
    return pdt_fail_hint(err, "config.json says, or leaves to the default, that "
                              "tie_word_embeddings is false");
  if (missing && want->n_dims == 1 && strstr(want->name, "self_attn"))
    return pdt_fail_hint(err, "%s",
                         config->attention_bias && strstr(want->name, "bias")
                             ? "config.json has attention_bias"
                             : "every model of the family has it");
  return pdt_fail_hint(err, "config.json and the file may be of different models");
}

static int check_one(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                     const pdt_wanted_tensor *want, pdt_error *err) {
  const pdt_tensor *tensor = pdt_model_tensor_find(config, checkpoint, want->name);
  if (!tensor) {
    if (want->need == PDT_OPTIONAL) return 0;
    pdt_checkpoint_missing(checkpoint, want->name, err);
    return hint_of_mismatch(config, checkpoint, want, true, err);
  }
  if (!pdt_tensor_expect(tensor, want->n_dims, want->shape, err)) return 0;
  return tensor->is_float ? hint_of_mismatch(config, checkpoint, want, false, err) : -1;
}

/* What is used though the config has none of it. */
static void tell_extras(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                        pdt_notices *notices) {
  const pdt_tensor *first = NULL;
  int32_t n = 0, count = pdt_model_tensor_count(config) - 1; /* but the head */
  for (int32_t i = 0; i < count; i++) {
    pdt_wanted_tensor want;
    pdt_model_tensor_at(config, i, &want);
    const pdt_tensor *found =
        want.need == PDT_OPTIONAL ? pdt_checkpoint_find(checkpoint, want.name) : NULL;
    if (found && n++ == 0) first = found;
  }
  if (first)
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%s: '%.100s'%s used, though a %s with this config.json has no such tensor and "
               "transformers would leave it out",
               first->file->path, first->name, n > 1 ? " and others are" : " is",
               pdt_family_name(config->family));
  const pdt_tensor *bias = pdt_checkpoint_find(checkpoint, "lm_head.bias");
  if (bias)
    pdt_notice(notices, PDT_NOTICE_WARNING, "%s: 'lm_head.bias' is not used: no family has one",
               bias->file->path);
}

/* Two tensors for one place: which of them is used. */
static void tell_doubles(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                         pdt_notices *notices) {
  const pdt_tensor *first = NULL, *second = NULL;
  int32_t n = 0, count = pdt_model_tensor_count(config);
  for (int32_t i = 0; i < count; i++) {
    pdt_wanted_tensor want;
    pdt_model_tensor_at(config, i, &want);
    const pdt_tensor *other = pdt_checkpoint_find_second(checkpoint, want.name);
    if (!other || n++ > 0) continue;
    first = pdt_checkpoint_find(checkpoint, want.name);
    second = other;
  }
  if (first)
    pdt_notice(notices, PDT_NOTICE_WARNING,
               "%s: '%.100s' is used and '%.100s' is not%s: both are names of one tensor, and "
               "transformers takes the first",
               second->file->path, first->name, second->name, n > 1 ? ", and so with others" : "");
}

int pdt_model_tensors_check(pdt_model_config *config, const pdt_checkpoint *checkpoint,
                            pdt_notices *notices, pdt_error *err) {
  int32_t n = pdt_model_tensor_count(config);
  for (int32_t i = 0; i < n; i++) {
    pdt_wanted_tensor want;
    pdt_model_tensor_at(config, i, &want);
    if (check_one(config, checkpoint, &want, err)) return -1;
  }
  if (check_qk_norms(config, checkpoint, err) || untie(config, checkpoint, notices, err)) return -1;
  tell_extras(config, checkpoint, notices);
  tell_doubles(config, checkpoint, notices);
  return 0;
}

const pdt_tensor *pdt_model_tensor_find(const pdt_model_config *config,
                                        const pdt_checkpoint *checkpoint, const char *name) {
  const pdt_tensor *found = pdt_checkpoint_find(checkpoint, name);
  if (!found && config->tie_word_embeddings && strcmp(name, PDT_TENSOR_EMBEDDING) == 0)
    found = pdt_checkpoint_find(checkpoint, PDT_TENSOR_HEAD);
  return found;
}

const pdt_tensor *pdt_model_head(const pdt_model_config *config, const pdt_checkpoint *checkpoint) {
  const char *name = config->tie_word_embeddings ? PDT_TENSOR_EMBEDDING : PDT_TENSOR_HEAD;
  return pdt_model_tensor_find(config, checkpoint, name);
}
