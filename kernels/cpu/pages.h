/* What stands where in a page of keys and values: [layers, heads] of keys [head_dim, PAGE_TOKENS],
 * positions side by side, and behind them values [PAGE_TOKENS, head_dim]. */
#ifndef PDT_KERNELS_CPU_PAGES_H
#define PDT_KERNELS_CPU_PAGES_H

#include "kernels/kernels.h"

/* Elements from a page's start to (layer, head). */
static inline int64_t pdt_page_offset(const pdt_kv_shape *s, pdt_layer layer, int32_t head) {
  return ((int64_t)layer * s->heads + head) * 2 * PDT_PAGE_TOKENS * s->head_dim;
}

/* Puts a key and a value [head_dim] at place `lane` of a page. */
static inline void pdt_page_store(const pdt_kv_pool *kv, int64_t page, int32_t lane,
                                  pdt_layer layer, int32_t head, const float *key,
                                  const float *value) {
  int64_t hd = kv->shape.head_dim;
  float *keys =
      kv->data.at + page * pdt_kv_page_elems(&kv->shape) + pdt_page_offset(&kv->shape, layer, head);
  float *values = keys + PDT_PAGE_TOKENS * hd + lane * hd;
  for (int64_t i = 0; i < hd; i++) keys[i * PDT_PAGE_TOKENS + lane] = key[i];
  for (int64_t i = 0; i < hd; i++) values[i] = value[i];
}

#endif
