#include "random_trunk.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/preset.h"
#include "random_weights.h"

static int random_matrix(pdt_trunk_weights *w, pdt_matrix *m, int32_t out, int32_t in,
                         uint64_t seed, pdt_error *err) {
  if (w->device->ops->matrix_new(w->device, m, out, in, PDT_BF16, in, err)) return -1;
  cudaError_t code = gpu_random_weights(m->data, 0.02f, seed);
  if (code == cudaSuccess) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "random weights: %s", cudaGetErrorString(code));
}

static int ones(pdt_trunk_weights *w, pdt_array *a, int32_t n, pdt_error *err) {
  float *host;
  if (w->device->ops->alloc(w->device, n, "norm", a, err) || PDT_NEW(&host, n, "norm", err))
    return -1;
  for (int32_t i = 0; i < n; i++) host[i] = 1;
  w->device->ops->upload(w->device, *a, host, n);
  free(host);
  return 0;
}

static int make_layer(pdt_trunk_weights *w, pdt_layer l, pdt_error *err) {
  const pdt_model_config *c = &w->config;
  pdt_layer_weights *layer = &w->layers[l];
  int32_t d = c->hidden_size, q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
  uint64_t seed = 4 * (uint64_t)l + 8;
  return ones(w, &layer->attention_norm, d, err) || ones(w, &layer->ffn_norm, d, err) ||
         random_matrix(w, &layer->qkv, q + 2 * kv, d, seed, err) ||
         random_matrix(w, &layer->attention_out, d, q, seed + 1, err) ||
         random_matrix(w, &layer->gate_up, 2 * c->intermediate_size, d, seed + 2, err) ||
         random_matrix(w, &layer->down, d, c->intermediate_size, seed + 3, err);
}

int gpu_random_trunk(pdt_trunk_weights *w, pdt_device *device, const char *shape, pdt_error *err) {
  char *text;
  *w = (pdt_trunk_weights){.device = device};
  if (pdt_model_preset(shape, &text, err)) return -1;
  json_t *json = json_loads(text, 0, NULL);
  int status = pdt_model_config_parse(&w->config, json, NULL, shape, NULL, err);
  json_decref(json);
  free(text);
  if (status) return -1;
  const pdt_model_config *c = &w->config;
  w->shard = pdt_shard_of(c, 0, 1);
  if (PDT_NEW(&w->layers, c->layers, "layers", err) ||
      random_matrix(w, &w->embedding, c->vocab_size, c->hidden_size, 1, err) ||
      (!c->tie_word_embeddings &&
       random_matrix(w, &w->own_head, c->vocab_size, c->hidden_size, 2, err)) ||
      ones(w, &w->final_norm, c->hidden_size, err))
    return -1;
  for (pdt_layer l = 0; l < c->layers; l++)
    if (make_layer(w, l, err)) return -1;
  return 0;
}
