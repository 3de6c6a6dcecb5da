/* What conditions rows on their way through the trunk: attention to notes, adapters of streams. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/pages.h"

struct pdt_conditions {
  int32_t n, n_runs;
  pdt_row_condition *rows; /* [max_rows] */
  int32_t *runs;           /* [max_rows + 1] first rows of runs of one stream, and n */
};

int pdt_cpu_conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out,
                           pdt_error *err) {
  pdt_conditions *c;
  *out = NULL;
  if (PDT_NEW(&c, 1, "conditions", err)) return -1;
  if (PDT_NEW(&c->rows, max_rows, "conditions", err) ||
      PDT_NEW(&c->runs, (int64_t)max_rows + 1, "conditions", err)) {
    pdt_cpu_conditions_free(dev, c);
    return -1;
  }
  *out = c;
  return 0;
}

void pdt_cpu_conditions_free(pdt_device *dev, pdt_conditions *conditions) {
  (void)dev;
  if (!conditions) return;
  free(conditions->rows);
  free(conditions->runs);
  free(conditions);
}

void pdt_cpu_conditions_set(pdt_device *dev, pdt_conditions *conditions,
                            const pdt_row_condition *rows, int32_t n) {
  (void)dev;
  pdt_conditions *c = conditions;
  c->n = n;
  c->n_runs = 0;
  if (n > 0) memcpy(c->rows, rows, (size_t)n * sizeof *rows);
  for (int32_t r = 0; r < n; r++)
    if (r == 0 || rows[r].stream != rows[r - 1].stream) c->runs[c->n_runs++] = r;
  c->runs[c->n_runs] = n;
}

void pdt_cpu_store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer,
                         pdt_array keys, pdt_array values, int32_t n) {
  (void)dev;
  int32_t heads = window->shape.heads, hd = window->shape.head_dim;
  for (int32_t i = 0; i < n; i++)
    for (int32_t head = 0; head < heads; head++) {
      int64_t from = ((int64_t)i * heads + head) * hd;
      pdt_page_store(window, i / PDT_PAGE_TOKENS, i % PDT_PAGE_TOKENS, layer, head, keys.at + from,
                     values.at + from);
    }
}

/* Attention of one row's query heads over its window. */
static void attend_row(const pdt_device *dev, const pdt_row_condition *row,
                       const pdt_kv_shape *shape, pdt_layer layer, const float *query, float *out) {
  const pdt_cpu *cpu = dev->state;
  int64_t hd = shape->head_dim;
  for (int32_t head = 0; head < shape->heads; head++) {
    pdt_kv_view view = {.base = row->notes.at + pdt_page_offset(shape, layer, head),
                        .page_elems = pdt_kv_page_elems(shape),
                        .head_dim = shape->head_dim,
                        .spans = {{0}, {.pages = cpu->in_order, .tokens = row->n_notes}}};
    cpu->primitives->attention(&view, query + head * hd, 1, out + head * hd, pdt_cpu_scratch(dev));
  }
}

void pdt_cpu_note_attention(pdt_device *dev, const pdt_conditions *conditions,
                            const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                            pdt_array out) {
  const pdt_conditions *c = conditions;
  int64_t width = (int64_t)shape->heads * shape->head_dim;
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && c->n > 1)
  for (int32_t r = 0; r < c->n; r++)
    if (c->rows[r].n_notes > 0)
      attend_row(dev, &c->rows[r], shape, layer, query.at + r * width, out.at + r * width);
}

/* h += gate * delta over n floats. */
static void add_gated(float *h, const float *delta, float gate, int64_t n) {
  for (int64_t i = 0; i < n; i++) h[i] += gate * delta[i];
}

void pdt_cpu_add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                       pdt_array delta, float gate, int32_t width) {
  (void)dev;
  for (int64_t r = 0; r < conditions->n; r++)
    if (conditions->rows[r].n_notes > 0)
      add_gated(h.at + r * width, delta.at + r * width, gate, width);
}

/* One stream's adapter on a run of rows: hidden [n, a], delta [n, d]. */
static void adapt_run(const pdt_device *dev, const pdt_adapters *adapters,
                      const pdt_adapter *adapter, int32_t n, const float *normed, float *hidden,
                      float *delta, float *h) {
  int64_t d = adapters->width, a = adapters->dim;
  const pdt_cpu_primitives *k = pdt_cpu_of(dev);
  k->matmul(&adapter->down, normed, d, n, hidden, a, 1);
  for (int32_t r = 0; r < n; r++)
    for (int64_t i = 0; i < a; i++) hidden[r * a + i] += adapter->down_bias.at[i];
  k->gelu(hidden, n * a);
  k->matmul(&adapter->up, hidden, a, n, delta, d, 1);
  for (int32_t r = 0; r < n; r++)
    for (int64_t i = 0; i < d; i++) delta[r * d + i] += adapter->up_bias.at[i];
  add_gated(h, delta, adapters->gate, n * d);
}

void pdt_cpu_adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                   pdt_array normed, pdt_array scratch, pdt_array h) {
  const pdt_conditions *c = conditions;
  int64_t d = adapters->width, a = adapters->dim;
  float *deltas = scratch.at + c->n * a;
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && c->n_runs > 1)
  for (int32_t i = 0; i < c->n_runs; i++) {
    int64_t first = c->runs[i];
    adapt_run(dev, adapters, &adapters->by_stream[c->rows[first].stream],
              (int32_t)(c->runs[i + 1] - first), normed.at + first * d, scratch.at + first * a,
              deltas + first * d, h.at + first * d);
  }
}
