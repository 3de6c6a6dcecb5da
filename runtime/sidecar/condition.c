/* Conditioning of rows on their way through the trunk: windows, SNC, adapters. */
#include <stdlib.h>

#include "base/memory.h"
#include "sidecar/internal.h"

/* ---- buffers ---- */

static int new_arrays(pdt_sidecar *s, pdt_error *err) {
  pdt_sidecar_scratch *b = s->scratch;
  pdt_device *dev = s->device;
  int64_t M = s->max_rows, d = s->config.hidden_size, a = s->config.adapter_dim;
  int64_t q = pdt_sidecar_snc_width(&s->config);
  return dev->ops->alloc(dev, M * d, "sidecar buffers", &b->normed, err) ||
         dev->ops->alloc(dev, M * q, "sidecar buffers", &b->query, err) ||
         dev->ops->alloc(dev, M * q, "sidecar buffers", &b->context, err) ||
         dev->ops->alloc(dev, M * d, "sidecar buffers", &b->delta, err) ||
         dev->ops->alloc(dev, M * (a + d), "sidecar buffers", &b->adapted, err);
}

int pdt_sidecar_reserve(pdt_sidecar *s, const pdt_sidecar_limits *limits, pdt_error *err) {
  pdt_device *dev = s->device;
  const pdt_adapters adapters = {.width = s->config.hidden_size, .dim = s->config.adapter_dim};
  const pdt_room most = {.adapted_rows = limits->max_rows,
                         .adapters = &adapters,
                         .blocks = limits->blocks,
                         .block_tokens = limits->block_tokens,
                         .block_notes = limits->notes,
                         .block_heads = &s->heads};
  pdt_sidecar_scratch_free(s);
  s->max_rows = limits->max_rows;
  if (PDT_NEW(&s->scratch, 1, "sidecar buffers", err) ||
      PDT_NEW(&s->scratch->rows, s->max_rows, "sidecar buffers", err) || new_arrays(s, err) ||
      dev->ops->conditions_new(dev, s->max_rows, &s->scratch->conditions, err))
    return -1;
  return dev->ops->reserve(dev, &most, err);
}

/* Makes the scratch fit windows of `budget` notes. */
static int fit(pdt_sidecar *s, int32_t budget, pdt_error *err) {
  pdt_sidecar_scratch *b = s->scratch;
  pdt_device *dev = s->device;
  int64_t elems = (int64_t)budget * pdt_sidecar_snc_width(&s->config);
  const pdt_room most = {.notes = budget};
  if (budget <= b->budget) return 0;
  dev->ops->release(dev, b->keys);
  dev->ops->release(dev, b->values);
  b->keys = b->values = (pdt_array){0};
  b->budget = 0;
  if (dev->ops->alloc(dev, elems, "sidecar buffers", &b->keys, err) ||
      dev->ops->alloc(dev, elems, "sidecar buffers", &b->values, err) ||
      dev->ops->reserve(dev, &most, err))
    return -1;
  b->budget = budget;
  return 0;
}

void pdt_sidecar_scratch_free(pdt_sidecar *s) {
  pdt_sidecar_scratch *b = s->scratch;
  pdt_device *dev = s->device;
  if (!b) return;
  const pdt_array arrays[] = {b->normed,  b->query, b->context, b->delta,
                              b->adapted, b->keys,  b->values};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dev->ops->release(dev, arrays[i]);
  dev->ops->conditions_free(dev, b->conditions);
  free(b->rows);
  free(b);
  s->scratch = NULL;
}

/* ---- windows ---- */

int pdt_window_new(pdt_window *w, pdt_sidecar *s, int32_t budget, pdt_error *err) {
  const pdt_sidecar_config *c = &s->config;
  pdt_device *dev = s->device;
  int64_t dn = c->notes_dim, da = c->agree_dim;
  int64_t pages = budget / PDT_PAGE_TOKENS + (budget % PDT_PAGE_TOKENS != 0);
  *w = (pdt_window){.device = dev, .budget = budget};
  w->kv.shape = (pdt_kv_shape){c->n_instrumented, c->snc_heads, c->snc_head_dim};
  int64_t elems = pages * pdt_kv_page_elems(&w->kv.shape);
  if (PDT_NEW(&w->notes, budget * dn, "window", err) ||
      dev->ops->alloc(dev, budget * dn, "window", &w->there, err) ||
      dev->ops->alloc(dev, elems, "window", &w->kv.data, err) ||
      dev->ops->alloc(dev, budget * da, "window", &w->agree_keys, err) ||
      dev->ops->alloc(dev, budget * da, "window", &w->agree_values, err) || fit(s, budget, err)) {
    pdt_window_free(w);
    return -1;
  }
  return 0;
}

void pdt_window_free(pdt_window *w) {
  pdt_device *dev = w->device;
  if (!dev) return;
  const pdt_array arrays[] = {w->there, w->kv.data, w->agree_keys, w->agree_values};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dev->ops->release(dev, arrays[i]);
  free(w->notes);
  *w = (pdt_window){0};
}

void pdt_window_project(pdt_window *w, pdt_sidecar *s, int32_t n) {
  int64_t dn = s->config.notes_dim;
  pdt_device *dev = s->device;
  const pdt_kernels *k = dev->ops;
  const pdt_sidecar_scratch *b = s->scratch;
  w->n = n;
  k->upload(dev, w->there, w->notes, n * dn);
  for (int32_t i = 0; i < s->config.n_instrumented; i++) {
    k->matmul(dev, &s->layers[i].snc_k, w->there, dn, n, b->keys);
    k->matmul(dev, &s->layers[i].snc_v, w->there, dn, n, b->values);
    k->store_notes(dev, &w->kv, i, b->keys, b->values, n);
  }
  k->matmul(dev, &s->agree_key, w->there, dn, n, w->agree_keys);
  k->matmul(dev, &s->agree_value, w->there, dn, n, w->agree_values);
}

/* ---- rows ---- */

void pdt_sidecar_condition(pdt_sidecar *s, const pdt_conditioning *rows, int32_t n) {
  pdt_sidecar_scratch *b = s->scratch;
  for (int32_t r = 0; r < n; r++)
    b->rows[r] = (pdt_row_condition){rows[r].window->kv.data, rows[r].window->n, rows[r].stream};
  b->n_rows = n;
  s->device->ops->conditions_set(s->device, b->conditions, b->rows, n);
}

void pdt_sidecar_snc(pdt_sidecar *s, pdt_layer layer, pdt_array h) {
  int32_t at = pdt_sidecar_instrumented_index(&s->config, layer), n = s->scratch->n_rows;
  if (at < 0 || n == 0) return;
  const pdt_sidecar_layer *l = &s->layers[at];
  const pdt_sidecar_scratch *b = s->scratch;
  pdt_device *dev = s->device;
  const pdt_kernels *k = dev->ops;
  int32_t d = s->config.hidden_size, q = pdt_sidecar_snc_width(&s->config);
  const pdt_kv_shape shape = {s->config.n_instrumented, s->config.snc_heads,
                              s->config.snc_head_dim};
  k->norm_rows(dev, h, l->snc_norm, 1e-6f, n, d, b->normed);
  k->matmul(dev, &l->snc_q, b->normed, d, n, b->query);
  k->note_attention(dev, b->conditions, &shape, at, b->query, b->context);
  k->matmul(dev, &l->snc_out, b->context, q, n, b->delta);
  k->add_noted(dev, b->conditions, h, b->delta, l->snc_gate, d);
}

void pdt_sidecar_adapter(pdt_sidecar *s, pdt_layer layer, pdt_array h) {
  int32_t at = pdt_sidecar_instrumented_index(&s->config, layer), n = s->scratch->n_rows;
  if (at < 0 || n == 0) return;
  const pdt_sidecar_layer *l = &s->layers[at];
  const pdt_sidecar_scratch *b = s->scratch;
  pdt_device *dev = s->device;
  const pdt_adapters adapters = {l->adapters, s->config.streams, l->adapter_gate,
                                 s->config.hidden_size, s->config.adapter_dim};
  dev->ops->norm_rows(dev, h, l->adapter_norm, 1e-6f, n, s->config.hidden_size, b->normed);
  dev->ops->adapt(dev, b->conditions, &adapters, b->normed, b->adapted, h);
}

/* ---- blocks ---- */

pdt_block pdt_sidecar_block(const pdt_window *window, const pdt_plan *plan) {
  return (pdt_block){.n_notes = window->n,
                     .agree_keys = window->agree_keys,
                     .agree_values = window->agree_values,
                     .plan_ids = plan->ids,
                     .plan_items = plan->items};
}

void pdt_sidecar_close_blocks(pdt_sidecar *s, const pdt_block *blocks, int32_t n) {
  s->device->ops->close_blocks(s->device, &s->heads, blocks, n);
}
