/* From a sidecar file to packed modules. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "sidecar/internal.h"

/* Every tensor was checked to be there by pdt_sidecar_config_load. */
static const pdt_tensor *find(const pdt_safetensors *file, const char *module, pdt_layer layer,
                              const char *name) {
  char full[PDT_TENSOR_NAME_BYTES];
  if (layer < 0)
    snprintf(full, sizeof full, "%s.%s", module, name);
  else
    snprintf(full, sizeof full, "%s.%d.%s", module, layer, name);
  return pdt_safetensors_find(file, full);
}

/* Rows [first, first + rows) of a matrix tensor, rows counted through its leading dimensions. */
static int matrix_rows(const pdt_sidecar *s, pdt_matrix *m, const pdt_tensor *tensor, int64_t first,
                       int32_t rows, pdt_error *err) {
  pdt_tensor_part part = {tensor, first, rows, 0};
  int32_t in = (int32_t)tensor->shape[tensor->n_dims - 1];
  const pdt_matrix_form form = {.in = in, .leaf_width = in};
  return pdt_load_matrix(s->device, m, &part, 1, &form, err);
}

static int matrix(const pdt_sidecar *s, pdt_matrix *m, const pdt_tensor *tensor, pdt_error *err) {
  return matrix_rows(s, m, tensor, 0, (int32_t)tensor->shape[0], err);
}

static int vector(const pdt_sidecar *s, pdt_array *v, const pdt_tensor *tensor, pdt_error *err) {
  return pdt_load_array(s->device, v, tensor, 0, tensor->n_elems, err);
}

static int scalar(float *value, const pdt_tensor *tensor, pdt_error *err) {
  float *one;
  if (pdt_load_vector(&one, tensor, 0, 1, err)) return -1;
  *value = *one;
  free(one);
  return 0;
}

/* What a path's output is multiplied by: its gate, and the layer's scale. */
static int gate(const pdt_sidecar *s, float *value, const pdt_tensor *tensor, pdt_layer l,
                pdt_error *err) {
  double scale = pdt_sidecar_layer_scale(&s->config, pdt_sidecar_instrumented_index(&s->config, l));
  if (scalar(value, tensor, err)) return -1;
  *value = (float)(scale / (1.0 + exp(-(double)*value)));
  return 0;
}

static int load_snc(const pdt_sidecar *s, pdt_sidecar_layer *layer, const pdt_safetensors *f,
                    pdt_layer l, pdt_error *err) {
  return vector(s, &layer->snc_norm, find(f, "snc", l, "norm.weight"), err) ||
         matrix(s, &layer->snc_q, find(f, "snc", l, "q_proj.weight"), err) ||
         matrix(s, &layer->snc_k, find(f, "snc", l, "k_proj.weight"), err) ||
         matrix(s, &layer->snc_v, find(f, "snc", l, "v_proj.weight"), err) ||
         matrix(s, &layer->snc_out, find(f, "snc", l, "o_proj.weight"), err) ||
         gate(s, &layer->snc_gate, find(f, "snc", l, "gate"), l, err);
}

static int load_adapters(const pdt_sidecar *s, pdt_sidecar_layer *layer, const pdt_safetensors *f,
                         pdt_layer l, pdt_error *err) {
  int32_t a = s->config.adapter_dim, d = s->config.hidden_size;
  if (PDT_NEW(&layer->adapters, s->config.streams, "adapters", err) ||
      vector(s, &layer->adapter_norm, find(f, "adapter", l, "norm.weight"), err) ||
      gate(s, &layer->adapter_gate, find(f, "adapter", l, "gate"), l, err))
    return -1;
  for (pdt_stream k = s->rank; k < s->config.streams; k += s->size) {
    pdt_adapter *adapter = &layer->adapters[k];
    int64_t down = (int64_t)k * a, up = (int64_t)k * d;
    if (matrix_rows(s, &adapter->down, find(f, "adapter", l, "down.weight"), down, a, err) ||
        matrix_rows(s, &adapter->up, find(f, "adapter", l, "up.weight"), up, d, err) ||
        pdt_load_array(s->device, &adapter->down_bias, find(f, "adapter", l, "down.bias"), down, a,
                       err) ||
        pdt_load_array(s->device, &adapter->up_bias, find(f, "adapter", l, "up.bias"), up, d, err))
      return -1;
  }
  return 0;
}

static int load_pool(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  if (s->config.pool != PDT_POOL_ATTENTION) return 0;
  int32_t heads = s->config.pool_heads, width = s->config.pool_dim;
  if (matrix(s, &s->heads.pool_query, find(f, "pool", -1, "query.weight"), err) ||
      PDT_NEW(&s->heads.pool_value, heads, "pool", err))
    return -1;
  for (int32_t j = 0; j < heads; j++)
    if (matrix_rows(s, &s->heads.pool_value[j], find(f, "pool", -1, "value.weight"),
                    (int64_t)j * width, width, err))
      return -1;
  return 0;
}

static int load_speculation(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  if (matrix(s, &s->heads.speculation, find(f, "speculation", -1, "weight"), err) ||
      vector(s, &s->heads.speculation_bias, find(f, "speculation", -1, "bias"), err))
    return -1;
  if (s->config.speculation_hidden == 0) return 0;
  return matrix(s, &s->heads.hidden, find(f, "speculation", -1, "hidden.weight"), err) ||
         vector(s, &s->heads.hidden_bias, find(f, "speculation", -1, "hidden.bias"), err) ||
         matrix(s, &s->heads.hidden_out, find(f, "speculation", -1, "out.weight"), err);
}

static int load_coverage_and_agreement(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  return matrix(s, &s->coverage_item, find(f, "coverage", -1, "item.weight"), err) ||
         matrix(s, &s->heads.coverage_block, find(f, "coverage", -1, "block.weight"), err) ||
         scalar(&s->heads.coverage_bias, find(f, "coverage", -1, "bias"), err) ||
         matrix(s, &s->heads.agree_hidden, find(f, "agree", -1, "hidden.weight"), err) ||
         matrix(s, &s->heads.agree_pool, find(f, "agree", -1, "pool.weight"), err) ||
         matrix(s, &s->heads.agree_note, find(f, "agree", -1, "note.weight"), err) ||
         matrix(s, &s->heads.agree_coverage, find(f, "agree", -1, "coverage.weight"), err) ||
         matrix(s, &s->heads.agree_query, find(f, "agree", -1, "query.weight"), err) ||
         (s->config.note_query &&
          matrix(s, &s->heads.agree_note_query, find(f, "agree", -1, "note_query.weight"), err)) ||
         matrix(s, &s->agree_key, find(f, "agree", -1, "key.weight"), err) ||
         matrix(s, &s->agree_value, find(f, "agree", -1, "value.weight"), err) ||
         vector(s, &s->heads.agree_bias, find(f, "agree", -1, "bias"), err) ||
         vector(s, &s->heads.agree_out, find(f, "agree", -1, "out.weight"), err) ||
         scalar(&s->heads.agree_out_bias, find(f, "agree", -1, "out.bias"), err);
}

/* Rank `rank`'s of `size` shares of a matrix's rows. */
static int share(const pdt_sidecar *s, pdt_row_share *own, const pdt_tensor *tensor, pdt_rank rank,
                 pdt_rank size, pdt_error *err) {
  int64_t n = tensor->shape[0];
  own->begin = n * rank / size;
  own->end = n * (rank + 1) / size;
  return pdt_load_rows(s->device, &own->rows, tensor, own->begin, own->end, err);
}

static int load_planner(pdt_sidecar *s, const pdt_safetensors *f, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  bool full = c->planner == PDT_PLANNER_FULL;
  const pdt_tensor *planner = find(f, "planner", -1, full ? "proj.weight" : "slot.weight");
  const pdt_tensor *embedding = find(f, "plan", -1, "embedding.weight");
  s->places = (pdt_plan_places){.width = c->hidden_size,
                                .slots = c->plan_slots,
                                .n_places = c->plan_places,
                                .n_orders = c->plan_orders};
  if (share(s, &s->plan_embedding, embedding, s->rank, s->size, err) ||
      share(s, &s->planner, planner, full ? s->rank : 0, full ? s->size : 1, err) ||
      matrix(s, &s->plan_to_notes, find(f, "plan", -1, "to_notes.weight"), err))
    return -1;
  if (c->plan_places > 0 &&
      vector(s, &s->places.weights, find(f, "planner", -1, "place.weight"), err))
    return -1;
  if (c->plan_orders > 0 &&
      (vector(s, &s->places.mark, find(f, "planner", -1, "mark.weight"), err) ||
       scalar(&s->places.mark_bias, find(f, "planner", -1, "mark.bias"), err) ||
       vector(s, &s->places.orders, find(f, "planner", -1, "order.weight"), err)))
    return -1;
  return full ? 0 : vector(s, &s->planner_bias, find(f, "planner", -1, "slot.bias"), err);
}

/* The sizes of the heads. */
static void size_heads(pdt_sidecar *s) {
  const pdt_sidecar_config *c = &s->config;
  bool attends = c->pool == PDT_POOL_ATTENTION;
  s->heads = (pdt_block_heads){.width = c->hidden_size,
                               .notes_dim = c->notes_dim,
                               .slots = c->plan_slots,
                               .coverage_dim = c->coverage_dim,
                               .agree_dim = c->agree_dim,
                               .pool_heads = attends ? c->pool_heads : 0,
                               .pool_dim = attends ? c->pool_dim : 0,
                               .pool_copies = attends ? c->pool_copies : 0,
                               .hidden_dim = c->speculation_hidden,
                               .note_query = c->note_query};
}

int pdt_sidecar_load(pdt_sidecar *s, pdt_device *device, const pdt_safetensors *file,
                     const pdt_model_config *trunk, pdt_rank rank, pdt_rank size, pdt_error *err) {
  *s = (pdt_sidecar){.device = device, .rank = rank, .size = size};
  if (pdt_sidecar_config_load(&s->config, file, trunk, err)) return -1;
  size_heads(s);
  int status = PDT_NEW(&s->layers, s->config.n_instrumented, "sidecar", err);
  for (int32_t i = 0; i < s->config.n_instrumented && !status; i++) {
    status = load_snc(s, &s->layers[i], file, s->config.instrumented[i], err) ||
             load_adapters(s, &s->layers[i], file, s->config.instrumented[i], err);
  }
  if (status || load_pool(s, file, err) || load_speculation(s, file, err) ||
      load_coverage_and_agreement(s, file, err) || load_planner(s, file, err)) {
    pdt_sidecar_free(s);
    return -1;
  }
  return 0;
}

static void free_layer(pdt_device *dev, pdt_sidecar_layer *layer, int32_t streams) {
  for (pdt_stream k = 0; layer->adapters && k < streams; k++) {
    pdt_adapter *adapter = &layer->adapters[k];
    dev->ops->matrix_free(dev, &adapter->down);
    dev->ops->matrix_free(dev, &adapter->up);
    dev->ops->release(dev, adapter->down_bias);
    dev->ops->release(dev, adapter->up_bias);
  }
  free(layer->adapters);
  dev->ops->release(dev, layer->adapter_norm);
  dev->ops->release(dev, layer->snc_norm);
  pdt_matrix *matrices[] = {&layer->snc_q, &layer->snc_k, &layer->snc_v, &layer->snc_out};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
    dev->ops->matrix_free(dev, matrices[i]);
}

static void free_heads(pdt_device *dev, pdt_block_heads *h) {
  pdt_matrix *matrices[] = {&h->pool_query,  &h->speculation,     &h->hidden,
                            &h->hidden_out,  &h->coverage_block,  &h->agree_hidden,
                            &h->agree_pool,  &h->agree_note,      &h->agree_coverage,
                            &h->agree_query, &h->agree_note_query};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
    dev->ops->matrix_free(dev, matrices[i]);
  for (int32_t j = 0; h->pool_value && j < h->pool_heads; j++)
    dev->ops->matrix_free(dev, &h->pool_value[j]);
  free(h->pool_value);
  const pdt_array vectors[] = {h->speculation_bias, h->hidden_bias, h->agree_bias, h->agree_out};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) dev->ops->release(dev, vectors[i]);
}

void pdt_sidecar_free(pdt_sidecar *s) {
  pdt_device *dev = s->device;
  if (!dev) return;
  for (int32_t i = 0; s->layers && i < s->config.n_instrumented; i++)
    free_layer(dev, &s->layers[i], s->config.streams);
  free(s->layers);
  free_heads(dev, &s->heads);
  pdt_matrix *matrices[] = {&s->agree_key, &s->agree_value, &s->coverage_item, &s->plan_to_notes};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
    dev->ops->matrix_free(dev, matrices[i]);
  dev->ops->release(dev, s->planner_bias);
  dev->ops->release(dev, s->places.weights);
  dev->ops->release(dev, s->places.mark);
  dev->ops->release(dev, s->places.orders);
  dev->ops->rows_free(dev, &s->plan_embedding.rows);
  dev->ops->rows_free(dev, &s->planner.rows);
  pdt_sidecar_scratch_free(s);
  pdt_sidecar_config_free(&s->config);
  *s = (pdt_sidecar){0};
}
