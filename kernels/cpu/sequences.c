/* Attention over the pages of sequences. A page is [layers, heads] of keys [head_dim, PAGE_TOKENS],
 * positions side by side, and values [PAGE_TOKENS, head_dim]. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/pages.h"

struct pdt_batch {
  int32_t head_dim, n;
  double scale;
  double *inv_freq;    /* [head_dim / 2] */
  pdt_row_place *rows; /* [max_rows] */
  float *rope;         /* [max_rows, 2, head_dim / 2] cosines and sines of every row's position */
};

int64_t pdt_cpu_attention_elems(const pdt_room *most) {
  /* A sequence's two spans are each rounded up to a page, and the first may skip into one. */
  int64_t pages = most->positions / PDT_PAGE_TOKENS + 3,
          note_pages = most->notes / PDT_PAGE_TOKENS + 2;
  int64_t positions = most->heads * pages * PDT_PAGE_TOKENS, notes = note_pages * PDT_PAGE_TOKENS;
  return positions > notes ? positions : notes;
}

int pdt_cpu_batch_new(pdt_device *dev, int32_t max_rows, int32_t max_positions, int32_t head_dim,
                      const pdt_rotary *rotary, pdt_batch **out, pdt_error *err) {
  pdt_batch *b;
  int32_t half = head_dim / 2;
  (void)max_positions;
  *out = NULL;
  if (PDT_NEW(&b, 1, "batch", err)) return -1;
  if (PDT_NEW(&b->inv_freq, half, "batch", err) || PDT_NEW(&b->rows, max_rows, "batch", err) ||
      PDT_NEW(&b->rope, (int64_t)max_rows * 2 * half, "batch", err)) {
    pdt_cpu_batch_free(dev, b);
    return -1;
  }
  b->head_dim = head_dim;
  b->scale = rotary->scale;
  memcpy(b->inv_freq, rotary->inv_freq, (size_t)half * sizeof *b->inv_freq);
  *out = b;
  return 0;
}

void pdt_cpu_batch_free(pdt_device *dev, pdt_batch *batch) {
  (void)dev;
  if (!batch) return;
  free(batch->inv_freq);
  free(batch->rows);
  free(batch->rope);
  free(batch);
}

void pdt_cpu_batch_set(pdt_device *dev, pdt_batch *batch, const pdt_row_place *rows, int32_t n) {
  int32_t half = batch->head_dim / 2;
  batch->n = n;
  if (n > 0) memcpy(batch->rows, rows, (size_t)n * sizeof *rows);
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n >= 16)
  for (int32_t r = 0; r < n; r++) {
    float *cosine = batch->rope + (int64_t)r * 2 * half, *sine = cosine + half;
    for (int32_t j = 0; j < half; j++) {
      double angle = rows[r].position * batch->inv_freq[j];
      cosine[j] = (float)(cos(angle) * batch->scale);
      sine[j] = (float)(sin(angle) * batch->scale);
    }
  }
}

/* One head of a row, on its way through rotate_and_store. */
typedef struct head_place {
  const pdt_device *dev;
  const pdt_batch *batch;
  const pdt_kv_pool *kv;
  const pdt_attention *a;
  int32_t row;
} head_place;

/* Norms and rotates one head of a row in place. */
static void prepare_head(const head_place *p, float *head, pdt_array norm) {
  int32_t hd = p->batch->head_dim;
  const float *cosine = p->batch->rope + (int64_t)p->row * hd;
  const pdt_cpu_primitives *k = pdt_cpu_of(p->dev);
  if (norm.at) k->rms_norm(head, norm.at, p->a->eps, hd, head);
  k->rope(head, cosine, cosine + hd / 2, hd);
}

/* Stores the row's key and value of kv head j in its page. */
static void store(const head_place *p, pdt_layer layer, int32_t j, float *key, const float *value) {
  const pdt_row_place *where = &p->batch->rows[p->row];
  int32_t own = where->position - where->shared_tokens;
  prepare_head(p, key, p->a->k_norm);
  pdt_page_store(p->kv, where->pages[own / PDT_PAGE_TOKENS], own % PDT_PAGE_TOKENS, layer, j, key,
                 value);
}

/* Query heads that read kv head j. */
static pdt_range heads_of_kv(const pdt_attention *a, int32_t j) {
  int32_t begin = j * a->per_kv - a->first, end = begin + a->per_kv;
  return (pdt_range){begin > 0 ? begin : 0, end < a->n_heads ? end : a->n_heads};
}

void pdt_cpu_rotate_and_store(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                              pdt_layer layer, const pdt_attention *a, pdt_array qkv) {
  int64_t hd = batch->head_dim, h = a->n_heads, n_kv = kv->shape.heads;
#pragma omp parallel for collapse(2) num_threads(dev->threads) if (dev->threads > 1)
  for (int32_t r = 0; r < batch->n; r++)
    for (int32_t j = 0; j < n_kv; j++) {
      const head_place p = {dev, batch, kv, a, r};
      float *row = qkv.at + r * (h + 2 * n_kv) * hd;
      store(&p, layer, j, row + (h + j) * hd, row + (h + n_kv + j) * hd);
      pdt_range heads = heads_of_kv(a, j);
      for (int32_t i = heads.begin; i < heads.end; i++) prepare_head(&p, row + i * hd, a->q_norm);
    }
}

/* Positions first .. end-1 of a page list. */
static pdt_kv_span span_of(const int32_t *pages, int32_t first, int32_t end) {
  if (first >= end) return (pdt_kv_span){.pages = pages};
  return (pdt_kv_span){.pages = pages + first / PDT_PAGE_TOKENS,
                       .tokens = end - first,
                       .skip = first % PDT_PAGE_TOKENS};
}

/* What a row sees of a head: pages that lie before the window are not in the view. */
static pdt_kv_view view_of(const pdt_kv_pool *kv, const pdt_row_place *row, int32_t window,
                           pdt_layer layer, int32_t head) {
  int32_t length = row->position + 1, shared = row->shared_tokens;
  int32_t first = window && length > window ? length - window : 0;
  return (pdt_kv_view){
      .base = kv->data.at + pdt_page_offset(&kv->shape, layer, head),
      .page_elems = pdt_kv_page_elems(&kv->shape),
      .head_dim = kv->shape.head_dim,
      .spans = {span_of(row->shared_pages, first, shared),
                span_of(row->pages, first > shared ? first - shared : 0, length - shared)}};
}

void pdt_cpu_attention(pdt_device *dev, const pdt_batch *batch, const pdt_kv_pool *kv,
                       pdt_layer layer, const pdt_attention *a, pdt_array qkv, pdt_array out) {
  int64_t hd = batch->head_dim, h = a->n_heads, n_kv = kv->shape.heads;
#pragma omp parallel for collapse(2) schedule(dynamic)                                             \
    num_threads(dev->threads) if (dev->threads > 1)
  for (int32_t r = 0; r < batch->n; r++)
    for (int32_t j = 0; j < n_kv; j++) {
      pdt_range heads = heads_of_kv(a, j);
      pdt_kv_view view = view_of(kv, &batch->rows[r], a->window, layer, j);
      const float *q = qkv.at + (r * (h + 2 * n_kv) + heads.begin) * hd;
      pdt_cpu_of(dev)->attention(&view, q, heads.end - heads.begin,
                                 out.at + (r * h + heads.begin) * hd, pdt_cpu_scratch(dev));
    }
}
