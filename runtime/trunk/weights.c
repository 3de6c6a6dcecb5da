#include "trunk/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/load.h"
#include "model/tensors.h"

/* What the loading of one layer needs. */
typedef struct layer_loader {
  const pdt_trunk_weights *w;
  const pdt_checkpoint *checkpoint;
  pdt_dtype quantize;
  pdt_layer layer;
} layer_loader;

static const pdt_tensor *find(const layer_loader *at, const char *suffix) {
  char name[PDT_TENSOR_NAME_BYTES];
  pdt_layer_tensor_name(name, at->layer, suffix);
  return pdt_checkpoint_find(at->checkpoint, name);
}

/* A vector tensor whole; *out stays none when the file has none. */
static int whole_vector(const layer_loader *at, const char *suffix, pdt_array *out,
                        pdt_error *err) {
  const pdt_tensor *tensor = find(at, suffix);
  return tensor ? pdt_load_array(at->w->device, out, tensor, 0, tensor->n_elems, err) : 0;
}

/* A linear layer's part for the fused product it belongs to. */
typedef struct fused_part {
  const char *name; /* "self_attn.q_proj" */
  pdt_range rows;
} fused_part;

/* The biases of parts one behind the other, zeros for a layer that has none. */
static int fuse_biases(const layer_loader *at, const fused_part *parts,
                       const pdt_tensor *const *biases, int32_t n, pdt_array *out, pdt_error *err) {
  pdt_device *dev = at->w->device;
  int64_t total = 0, done = 0;
  for (int32_t i = 0; i < n; i++) total += parts[i].rows.end - parts[i].rows.begin;
  if (dev->ops->alloc(dev, total, "biases", out, err)) return -1;
  for (int32_t i = 0; i < n; i++) {
    int32_t count = parts[i].rows.end - parts[i].rows.begin;
    float *values;
    if (biases[i]) {
      if (pdt_load_vector(&values, biases[i], parts[i].rows.begin, count, err)) return -1;
      dev->ops->upload(dev, pdt_array_at(*out, done), values, count);
      free(values);
    }
    done += count;
  }
  return 0;
}

/* Parts one below the other: as one matrix as far as their types are equal, the others in `rest`.
 */
static int fuse_matrices(const layer_loader *at, const pdt_tensor_part *parts, int32_t n,
                         pdt_matrix *m, pdt_matrix *rest, pdt_error *err) {
  int32_t d = at->w->config.hidden_size;
  const pdt_matrix_form form = {.in = d, .leaf_width = d, .quantize = at->quantize};
  for (int32_t i = 0, same; i < n; i += same) {
    pdt_dtype dtype = pdt_load_dtype(&parts[i], &form);
    bool quantized = pdt_dtype_quantized(dtype);
    for (same = 1; i + same < n; same++) {
      pdt_dtype next = pdt_load_dtype(&parts[i + same], &form);
      if (next != dtype && (quantized || pdt_dtype_quantized(next))) break;
    }
    if (pdt_load_matrix(at->w->device, i == 0 ? m : rest++, parts + i, same, &form, err)) return -1;
  }
  return 0;
}

/* Matrices of several linear layers that read the same input, and their biases; a layer without
 * bias among ones with it gets zeros. */
static int fuse(const layer_loader *at, const fused_part *parts, int32_t n, pdt_matrix *m,
                pdt_matrix *rest, pdt_array *bias, pdt_error *err) {
  pdt_tensor_part rows[3];
  const pdt_tensor *biases[3];
  bool any_bias = false;
  for (int32_t i = 0; i < n; i++) {
    char suffix[64];
    int32_t count = parts[i].rows.end - parts[i].rows.begin;
    snprintf(suffix, sizeof suffix, "%s.weight", parts[i].name);
    rows[i] = (pdt_tensor_part){find(at, suffix), parts[i].rows.begin, count, 0};
    snprintf(suffix, sizeof suffix, "%s.bias", parts[i].name);
    biases[i] = find(at, suffix);
    any_bias = any_bias || biases[i];
  }
  if (fuse_matrices(at, rows, n, m, rest, err)) return -1;
  return any_bias ? fuse_biases(at, parts, biases, n, bias, err) : 0;
}

static pdt_range times(pdt_range range, int32_t factor) {
  return (pdt_range){range.begin * factor, range.end * factor};
}

static int load_attention(const layer_loader *at, pdt_layer_weights *layer, pdt_error *err) {
  const pdt_shard *shard = &at->w->shard;
  int32_t hd = at->w->config.head_dim, d = at->w->config.hidden_size;
  const fused_part qkv[] = {{"self_attn.q_proj", times(shard->heads, hd)},
                            {"self_attn.k_proj", times(shard->kv_heads, hd)},
                            {"self_attn.v_proj", times(shard->kv_heads, hd)}};
  pdt_range in = times(shard->heads, hd);
  pdt_tensor_part out = {find(at, "self_attn.o_proj.weight"), 0, d, in.begin};
  const pdt_matrix_form form = {in.end - in.begin, hd, at->quantize};
  if (fuse(at, qkv, 3, &layer->qkv, layer->qkv_rest, &layer->qkv_bias, err) ||
      pdt_load_matrix(at->w->device, &layer->attention_out, &out, 1, &form, err) ||
      whole_vector(at, "self_attn.o_proj.bias", &layer->attention_out_bias, err) ||
      whole_vector(at, "self_attn.q_norm.weight", &layer->q_norm, err) ||
      whole_vector(at, "self_attn.k_norm.weight", &layer->k_norm, err))
    return -1;
  return whole_vector(at, "input_layernorm.weight", &layer->attention_norm, err);
}

static int load_ffn(const layer_loader *at, pdt_layer_weights *layer, pdt_error *err) {
  pdt_range columns = at->w->shard.ffn;
  const fused_part gate_up[] = {{"mlp.gate_proj", columns}, {"mlp.up_proj", columns}};
  pdt_tensor_part down = {find(at, "mlp.down_proj.weight"), 0, at->w->config.hidden_size,
                          columns.begin};
  const pdt_matrix_form form = {columns.end - columns.begin, PDT_FFN_BLOCK, at->quantize};
  if (fuse(at, gate_up, 2, &layer->gate_up, layer->gate_up_rest, &layer->gate_up_bias, err) ||
      pdt_load_matrix(at->w->device, &layer->down, &down, 1, &form, err) ||
      whole_vector(at, "mlp.down_proj.bias", &layer->down_bias, err))
    return -1;
  return whole_vector(at, "post_attention_layernorm.weight", &layer->ffn_norm, err);
}

static int load_outside_layers(pdt_trunk_weights *w, const pdt_checkpoint *checkpoint,
                               bool quantize, pdt_error *err) {
  int32_t d = w->config.hidden_size, rows = w->shard.vocab.end - w->shard.vocab.begin;
  const pdt_tensor *embedding = pdt_model_tensor_find(&w->config, checkpoint, PDT_TENSOR_EMBEDDING);
  const pdt_tensor *head = pdt_model_head(&w->config, checkpoint);
  const pdt_tensor *norm = pdt_checkpoint_find(checkpoint, PDT_TENSOR_FINAL_NORM);
  pdt_tensor_part part = {embedding, w->shard.vocab.begin, rows, 0};
  const pdt_matrix_form form = {d, d, quantize ? PDT_Q8_0 : PDT_F32};
  if (pdt_load_matrix(w->device, &w->embedding, &part, 1, &form, err)) return -1;
  part.tensor = head;
  if (head != embedding && pdt_load_matrix(w->device, &w->own_head, &part, 1, &form, err))
    return -1;
  return pdt_load_array(w->device, &w->final_norm, norm, 0, d, err);
}

enum { LAYER_MATRICES = 7 };

static void list_matrices(pdt_layer_weights *layer, pdt_matrix *list[LAYER_MATRICES]) {
  pdt_matrix *all[LAYER_MATRICES] = {
      &layer->qkv,     &layer->qkv_rest[0],     &layer->qkv_rest[1], &layer->attention_out,
      &layer->gate_up, &layer->gate_up_rest[0], &layer->down};
  memcpy(list, all, sizeof all);
}

static pdt_bytes layer_bytes(const pdt_trunk_weights *w, pdt_layer_weights *layer) {
  pdt_matrix *matrices[LAYER_MATRICES];
  pdt_bytes bytes = 2 * w->config.hidden_size * (pdt_bytes)sizeof(float);
  list_matrices(layer, matrices);
  for (int i = 0; i < LAYER_MATRICES; i++) bytes += matrices[i]->bytes;
  return bytes;
}

/* A device that rounds rows does so for some types of weights. Where a layer's or the head's are of
 * another one, to be told so is what was asked for. */
static int check_rounding(const pdt_trunk_weights *w, const pdt_matrix *m, const char *where,
                          pdt_error *err) {
  uint32_t rounds = w->device->rounds;
  if (!rounds || !m->data || rounds >> m->dtype & 1) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "--compute bf16: expected weights of %s, which it rounds activations for, found "
                  "%s in %s",
                  rounds >> PDT_F16 & 1 ? "BF16 or F16" : "BF16", pdt_dtype_name(m->dtype), where);
}

static int check_layer(const pdt_trunk_weights *w, pdt_layer l, pdt_error *err) {
  pdt_matrix *matrices[LAYER_MATRICES];
  char where[32];
  int status = 0;
  snprintf(where, sizeof where, "layer %d", l);
  list_matrices(&w->layers[l], matrices);
  for (int i = 0; i < LAYER_MATRICES && !status; i++)
    status = check_rounding(w, matrices[i], where, err);
  return status;
}

int pdt_trunk_weights_load(pdt_trunk_weights *w, pdt_device *device, const pdt_model_config *config,
                           const pdt_checkpoint *checkpoint, const pdt_trunk_load *how,
                           pdt_error *err) {
  *w = (pdt_trunk_weights){
      .device = device, .config = *config, .shard = pdt_shard_of(config, how->rank, how->size)};
  int status = PDT_NEW(&w->layers, config->layers, "layers", err);
  if (!status) status = load_outside_layers(w, checkpoint, how->quantize != PDT_F32, err);
  if (!status) status = check_rounding(w, pdt_trunk_head(w), "the head", err);
  for (pdt_layer l = 0; l < config->layers && !status; l++) {
    layer_loader at = {w, checkpoint, how->quantize, l};
    status = load_attention(&at, &w->layers[l], err);
    if (!status) status = load_ffn(&at, &w->layers[l], err);
    if (!status) status = check_layer(w, l, err);
    if (!status) w->bytes += layer_bytes(w, &w->layers[l]);
  }
  if (status) {
    pdt_trunk_weights_free(w);
    return -1;
  }
  w->bytes += w->embedding.bytes + w->own_head.bytes;
  return 0;
}

static void free_layer(pdt_device *dev, pdt_layer_weights *layer) {
  pdt_matrix *matrices[LAYER_MATRICES];
  list_matrices(layer, matrices);
  for (int i = 0; i < LAYER_MATRICES; i++) dev->ops->matrix_free(dev, matrices[i]);
  const pdt_array vectors[] = {layer->attention_norm, layer->ffn_norm, layer->q_norm,
                               layer->k_norm,         layer->qkv_bias, layer->attention_out_bias,
                               layer->gate_up_bias,   layer->down_bias};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) dev->ops->release(dev, vectors[i]);
}

void pdt_trunk_weights_free(pdt_trunk_weights *w) {
  pdt_device *dev = w->device;
  if (!dev) return;
  for (pdt_layer l = 0; w->layers && l < w->config.layers; l++) free_layer(dev, &w->layers[l]);
  free(w->layers);
  dev->ops->release(dev, w->final_norm);
  dev->ops->matrix_free(dev, &w->embedding);
  dev->ops->matrix_free(dev, &w->own_head);
  *w = (pdt_trunk_weights){0};
}

const pdt_matrix *pdt_trunk_head(const pdt_trunk_weights *w) {
  return w->own_head.data ? &w->own_head : &w->embedding;
}
