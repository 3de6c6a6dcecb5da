#include "model/tensors.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

/* What a dimension of a layer's tensor is. */
typedef enum extent { E_NONE, E_HIDDEN, E_QUERY, E_KEY, E_FFN, E_HEAD_DIM } extent;

/* When a tensor must be there. */
typedef enum demand { ALWAYS, NEVER, WITH_ATTENTION_BIAS, WITH_MLP_BIAS } demand;

typedef struct layer_tensor {
  const char *suffix;
  extent rows, columns; /* columns E_NONE: a vector */
  demand demand;
} layer_tensor;

static const layer_tensor layer_tensors[] = {
    {"input_layernorm.weight", E_HIDDEN, E_NONE, ALWAYS},
    {"self_attn.q_proj.weight", E_QUERY, E_HIDDEN, ALWAYS},
    {"self_attn.q_proj.bias", E_QUERY, E_NONE, WITH_ATTENTION_BIAS},
    {"self_attn.k_proj.weight", E_KEY, E_HIDDEN, ALWAYS},
    {"self_attn.k_proj.bias", E_KEY, E_NONE, WITH_ATTENTION_BIAS},
    {"self_attn.v_proj.weight", E_KEY, E_HIDDEN, ALWAYS},
    {"self_attn.v_proj.bias", E_KEY, E_NONE, WITH_ATTENTION_BIAS},
    {"self_attn.o_proj.weight", E_HIDDEN, E_QUERY, ALWAYS},
    {"self_attn.o_proj.bias", E_HIDDEN, E_NONE, WITH_ATTENTION_BIAS},
    {"self_attn.q_norm.weight", E_HEAD_DIM, E_NONE, NEVER},
    {"self_attn.k_norm.weight", E_HEAD_DIM, E_NONE, NEVER},
    {"post_attention_layernorm.weight", E_HIDDEN, E_NONE, ALWAYS},
    {"mlp.gate_proj.weight", E_FFN, E_HIDDEN, ALWAYS},
    {"mlp.gate_proj.bias", E_FFN, E_NONE, WITH_MLP_BIAS},
    {"mlp.up_proj.weight", E_FFN, E_HIDDEN, ALWAYS},
    {"mlp.up_proj.bias", E_FFN, E_NONE, WITH_MLP_BIAS},
    {"mlp.down_proj.weight", E_HIDDEN, E_FFN, ALWAYS},
    {"mlp.down_proj.bias", E_HIDDEN, E_NONE, WITH_MLP_BIAS},
};
enum { PER_LAYER = sizeof layer_tensors / sizeof *layer_tensors };

void pdt_layer_tensor_name(char name[PDT_TENSOR_NAME_BYTES], pdt_layer layer, const char *suffix) {
  snprintf(name, PDT_TENSOR_NAME_BYTES, "model.layers.%d.%s", layer, suffix);
}

static int64_t size_of(const pdt_model_config *config, extent e) {
  switch (e) {
  case E_HIDDEN:
    return config->hidden_size;
  case E_QUERY:
    return (int64_t)config->heads * config->head_dim;
  case E_KEY:
    return (int64_t)config->kv_heads * config->head_dim;
  case E_FFN:
    return config->intermediate_size;
  case E_HEAD_DIM:
    return config->head_dim;
  default:
    return 0;
  }
}

static pdt_need need_of(const pdt_model_config *config, demand d) {
  bool required = d == ALWAYS || (d == WITH_ATTENTION_BIAS && config->attention_bias) ||
                  (d == WITH_MLP_BIAS && config->mlp_bias);
  return required ? PDT_REQUIRED : PDT_OPTIONAL;
}

int32_t pdt_model_tensor_count(const pdt_model_config *config) {
  return config->layers * PER_LAYER + 3;
}

static void layer_tensor_at(const pdt_model_config *config, int32_t index, pdt_model_tensor *out) {
  const layer_tensor *t = &layer_tensors[index % PER_LAYER];
  pdt_layer_tensor_name(out->name, index / PER_LAYER, t->suffix);
  out->n_dims = t->columns == E_NONE ? 1 : 2;
  out->shape[0] = size_of(config, t->rows);
  out->shape[1] = size_of(config, t->columns);
  out->need = need_of(config, t->demand);
}

void pdt_model_tensor_at(const pdt_model_config *config, int32_t index, pdt_model_tensor *out) {
  int32_t in_layers = config->layers * PER_LAYER;
  *out = (pdt_model_tensor){.need = PDT_REQUIRED};
  if (index > 0 && index <= in_layers) {
    layer_tensor_at(config, index - 1, out);
    return;
  }
  bool is_norm = index == in_layers + 1;
  const char *name = index == 0 ? PDT_TENSOR_EMBEDDING
                     : is_norm  ? PDT_TENSOR_FINAL_NORM
                                : PDT_TENSOR_HEAD;
  snprintf(out->name, sizeof out->name, "%s", name);
  out->n_dims = is_norm ? 1 : 2;
  out->shape[0] = is_norm ? config->hidden_size : config->vocab_size;
  out->shape[1] = is_norm ? 0 : config->hidden_size;
  if (index == in_layers + 2) out->need = PDT_OPTIONAL;
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

int pdt_model_tensors_check(const pdt_model_config *config, const pdt_checkpoint *checkpoint,
                            pdt_notices *notices, pdt_error *err) {
  (void)notices;
  int32_t n = pdt_model_tensor_count(config);
  for (int32_t i = 0; i < n; i++) {
    pdt_model_tensor want;
    const pdt_tensor *tensor;
    pdt_model_tensor_at(config, i, &want);
    if (want.need == PDT_OPTIONAL && !pdt_checkpoint_find(checkpoint, want.name)) continue;
    if (pdt_checkpoint_expect(checkpoint, want.name, want.n_dims, want.shape, &tensor, err))
      return -1;
  }
  return check_qk_norms(config, checkpoint, err);
}

const pdt_tensor *pdt_model_head(const pdt_model_config *config, const pdt_checkpoint *checkpoint) {
  const pdt_tensor *head =
      config->tie_word_embeddings ? NULL : pdt_checkpoint_find(checkpoint, PDT_TENSOR_HEAD);
  return head ? head : pdt_checkpoint_find(checkpoint, PDT_TENSOR_EMBEDDING);
}
