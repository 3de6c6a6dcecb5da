/* Conditioning of rows on their way through the trunk: windows, SNC, adapters. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "sidecar/internal.h"

static int32_t pages_of(int32_t notes) {
  return (notes + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS;
}

/* Floats of one (layer, head) in a page: keys, then values. */
static int64_t head_elems(const pdt_sidecar_config *config) {
  return (int64_t)2 * PDT_PAGE_TOKENS * config->snc_head_dim;
}

int64_t pdt_window_page_elems(const pdt_sidecar_config *config) {
  return (int64_t)config->n_instrumented * config->snc_heads * head_elems(config);
}

int pdt_sidecar_reserve(pdt_sidecar *s, int32_t max_rows, pdt_error *err) {
  pdt_sidecar_scratch_free(s);
  s->max_rows = max_rows;
  int64_t M = max_rows, d = s->config.hidden_size, q = pdt_sidecar_snc_width(&s->config);
  if (PDT_NEW(&s->scratch, 1, "sidecar buffers", err)) return -1;
  pdt_sidecar_scratch *b = s->scratch;
  if (PDT_NEW(&b->normed, M * d, "sidecar buffers", err) ||
      PDT_NEW(&b->query, M * q, "sidecar buffers", err) ||
      PDT_NEW(&b->context, M * q, "sidecar buffers", err) ||
      PDT_NEW(&b->delta, M * d, "sidecar buffers", err) ||
      PDT_NEW(&b->hidden, M * s->config.adapter_dim, "sidecar buffers", err) ||
      PDT_NEW(&b->runs, M + 1, "sidecar buffers", err))
    return -1;
  return 0;
}

int pdt_sidecar_scratch_fit(pdt_sidecar *s, int32_t budget, pdt_error *err) {
  pdt_sidecar_scratch *b = s->scratch;
  if (budget <= b->budget) return 0;
  free(b->attention);
  free(b->projected);
  b->budget = 0;
  b->attention = b->projected = NULL;
  b->attention_elems = (int64_t)(pages_of(budget) + 1) * PDT_PAGE_TOKENS;
  if (PDT_NEW(&b->attention, s->threads * b->attention_elems, "sidecar buffers", err) ||
      PDT_NEW(&b->projected, (int64_t)budget * pdt_sidecar_snc_width(&s->config), "sidecar buffers",
              err))
    return -1;
  b->budget = budget;
  return 0;
}

void pdt_sidecar_scratch_free(pdt_sidecar *s) {
  pdt_sidecar_scratch *b = s->scratch;
  if (!b) return;
  float *buffers[] = {b->normed, b->query,     b->context,  b->delta,
                      b->hidden, b->attention, b->projected};
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) free(buffers[i]);
  free(b->runs);
  free(b);
  s->scratch = NULL;
}

int pdt_window_new(pdt_window *w, pdt_sidecar *s, int32_t budget, pdt_error *err) {
  int32_t pages = pages_of(budget), da = s->config.agree_dim;
  *w = (pdt_window){.budget = budget};
  if (PDT_NEW(&w->notes, (int64_t)budget * s->config.notes_dim, "window", err) ||
      PDT_NEW(&w->kv, pages * pdt_window_page_elems(&s->config), "window", err) ||
      PDT_NEW(&w->pages, pages, "window", err) ||
      PDT_NEW(&w->agree_keys, (int64_t)budget * da, "window", err) ||
      PDT_NEW(&w->agree_values, (int64_t)budget * da, "window", err) ||
      pdt_sidecar_scratch_fit(s, budget, err)) {
    pdt_window_free(w);
    return -1;
  }
  for (int32_t p = 0; p < pages; p++) w->pages[p] = p;
  return 0;
}

void pdt_window_free(pdt_window *w) {
  free(w->notes);
  free(w->kv);
  free(w->pages);
  free(w->agree_keys);
  free(w->agree_values);
  *w = (pdt_window){0};
}

/* Where note i of (instrumented layer, head) is kept: keys with positions side by side. */
static float *note_place(const pdt_sidecar_config *config, const pdt_window *w, int32_t layer,
                         int32_t head, int32_t i) {
  return w->kv + i / PDT_PAGE_TOKENS * pdt_window_page_elems(config) +
         ((int64_t)layer * config->snc_heads + head) * head_elems(config);
}

/* Spreads projected notes [n, q] over the pages, as keys or as values. */
static void store_projection(const pdt_sidecar *s, pdt_window *w, int32_t layer, bool as_keys) {
  int32_t heads = s->config.snc_heads, hd = s->config.snc_head_dim;
  for (int32_t i = 0; i < w->n; i++)
    for (int32_t head = 0; head < heads; head++) {
      const float *from = s->scratch->projected + ((int64_t)i * heads + head) * hd;
      float *page = note_place(&s->config, w, layer, head, i);
      int32_t lane = i % PDT_PAGE_TOKENS;
      for (int32_t j = 0; j < hd; j++) {
        if (as_keys)
          page[j * PDT_PAGE_TOKENS + lane] = from[j];
        else
          page[(PDT_PAGE_TOKENS + lane) * hd + j] = from[j];
      }
    }
}

void pdt_window_project(pdt_window *w, pdt_sidecar *s, int32_t n) {
  int32_t dn = s->config.notes_dim, da = s->config.agree_dim;
  int32_t q = pdt_sidecar_snc_width(&s->config);
  const pdt_kernels *k = s->kernels;
  w->n = n;
  for (int32_t i = 0; i < s->config.n_instrumented; i++) {
    const pdt_sidecar_layer *layer = &s->layers[i];
    k->matmul(&layer->snc_k, w->notes, dn, n, s->scratch->projected, q, s->threads);
    store_projection(s, w, i, true);
    k->matmul(&layer->snc_v, w->notes, dn, n, s->scratch->projected, q, s->threads);
    store_projection(s, w, i, false);
  }
  k->matmul(&s->agree_key, w->notes, dn, n, w->agree_keys, da, s->threads);
  k->matmul(&s->agree_value, w->notes, dn, n, w->agree_values, da, s->threads);
}

/* RMSNorm of all rows into the scratch. */
static void norm_rows(const pdt_sidecar *s, const float *weight, const float *h, int32_t n_rows) {
  int32_t d = s->config.hidden_size;
  for (int32_t r = 0; r < n_rows; r++)
    s->kernels->rms_norm(h + (int64_t)r * d, weight, 1e-6f, d, s->scratch->normed + (int64_t)r * d);
}

/* h += gate * delta over n floats. */
static void add_gated(float *h, const float *delta, float gate, int64_t n) {
  for (int64_t i = 0; i < n; i++) h[i] += gate * delta[i];
}

/* Attention of one row's query heads over its window. */
static void attend_row(const pdt_sidecar *s, int32_t layer, const pdt_window *w, int32_t row) {
  const pdt_sidecar_config *config = &s->config;
  int32_t hd = config->snc_head_dim;
  int64_t q = pdt_sidecar_snc_width(config);
  float *scratch = s->scratch->attention + pdt_thread() * s->scratch->attention_elems;
  for (int32_t head = 0; head < config->snc_heads; head++) {
    pdt_kv_view view = {.base = note_place(config, w, layer, head, 0),
                        .page_elems = pdt_window_page_elems(config),
                        .head_dim = hd,
                        .spans = {{0}, {.pages = w->pages, .tokens = w->n}}};
    s->kernels->attention(&view, s->scratch->query + row * q + head * hd, 1,
                          s->scratch->context + row * q + head * hd, scratch);
  }
}

void pdt_sidecar_snc(pdt_sidecar *s, pdt_layer layer, const pdt_conditioning *rows, float *h,
                     int32_t n_rows) {
  int32_t at = pdt_sidecar_instrumented_index(&s->config, layer);
  if (at < 0 || n_rows == 0) return;
  const pdt_sidecar_layer *l = &s->layers[at];
  const pdt_kernels *k = s->kernels;
  int32_t d = s->config.hidden_size, q = pdt_sidecar_snc_width(&s->config);
  norm_rows(s, l->snc_norm, h, n_rows);
  k->matmul(&l->snc_q, s->scratch->normed, d, n_rows, s->scratch->query, q, s->threads);
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1 && n_rows > 1)
  for (int32_t r = 0; r < n_rows; r++)
    if (rows[r].window->n > 0) attend_row(s, at, rows[r].window, r);
  k->matmul(&l->snc_out, s->scratch->context, q, n_rows, s->scratch->delta, d, s->threads);
  for (int32_t r = 0; r < n_rows; r++) /* an empty window leaves the row as it is */
    if (rows[r].window->n > 0)
      add_gated(h + (int64_t)r * d, s->scratch->delta + (int64_t)r * d, l->snc_gate, d);
}

/* One stream's adapter on a run of rows. */
static void adapt_run(const pdt_sidecar *s, const pdt_sidecar_layer *l, pdt_stream stream,
                      int32_t first, int32_t n, float *h) {
  int64_t d = s->config.hidden_size, a = s->config.adapter_dim;
  const pdt_adapter *adapter = &l->adapters[stream];
  const pdt_kernels *k = s->kernels;
  float *hidden = s->scratch->hidden + first * a, *delta = s->scratch->delta + first * d;
  k->matmul(&adapter->down, s->scratch->normed + first * d, d, n, hidden, a, 1);
  for (int32_t r = 0; r < n; r++)
    for (int64_t i = 0; i < a; i++) hidden[r * a + i] += adapter->down_bias[i];
  k->gelu(hidden, n * a);
  k->matmul(&adapter->up, hidden, a, n, delta, d, 1);
  for (int32_t r = 0; r < n; r++)
    for (int64_t i = 0; i < d; i++) delta[r * d + i] += adapter->up_bias[i];
  add_gated(h + first * d, delta, l->adapter_gate, n * d);
}

void pdt_sidecar_adapter(pdt_sidecar *s, pdt_layer layer, const pdt_conditioning *rows, float *h,
                         int32_t n_rows) {
  int32_t at = pdt_sidecar_instrumented_index(&s->config, layer);
  if (at < 0 || n_rows == 0) return;
  const pdt_sidecar_layer *l = &s->layers[at];
  norm_rows(s, l->adapter_norm, h, n_rows);
  int32_t n_runs = 0, *runs = s->scratch->runs;
  for (int32_t r = 0; r < n_rows; r++)
    if (r == 0 || rows[r].stream != rows[r - 1].stream) runs[n_runs++] = r;
  runs[n_runs] = n_rows;
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1 && n_runs > 1)
  for (int32_t i = 0; i < n_runs; i++)
    adapt_run(s, l, rows[runs[i]].stream, runs[i], runs[i + 1] - runs[i], h);
}
