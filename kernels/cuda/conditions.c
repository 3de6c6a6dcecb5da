/* What conditions rows: windows of notes, and adapters of streams. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/backend.h"

struct pdt_conditions {
  int32_t n, n_runs, most_notes;
  pdt_cuda_run *runs;          /* [max_rows] of rows of one stream, side by side */
  pdt_cuda_run *chosen;        /* [max_rows] those of one product */
  pdt_stream *streams;         /* [max_rows] */
  pdt_cuda_condition *windows; /* device [max_rows] */
};

void pdt_cuda_conditions_free(pdt_device *dev, pdt_conditions *conditions) {
  if (!conditions) return;
  pdt_cuda_free(dev, conditions->windows);
  free(conditions->runs);
  free(conditions->chosen);
  free(conditions->streams);
  free(conditions);
}

int pdt_cuda_conditions_new(pdt_device *dev, int32_t max_rows, pdt_conditions **out,
                            pdt_error *err) {
  pdt_conditions *made;
  pdt_array windows;
  *out = NULL;
  if (PDT_NEW(&made, 1, "conditions", err)) return -1;
  if (PDT_NEW(&made->runs, max_rows, "conditions", err) ||
      PDT_NEW(&made->chosen, max_rows, "conditions", err) ||
      PDT_NEW(&made->streams, max_rows, "conditions", err) ||
      pdt_cuda_alloc(dev, max_rows * (int64_t)(sizeof *made->windows / sizeof(float)), "conditions",
                     &windows, err)) {
    pdt_cuda_conditions_free(dev, made);
    return -1;
  }
  made->windows = (pdt_cuda_condition *)(void *)windows.at;
  *out = made;
  return 0;
}

void pdt_cuda_conditions_set(pdt_device *dev, pdt_conditions *conditions,
                             const pdt_row_condition *rows, int32_t n) {
  pdt_cuda *c = pdt_cuda_of(dev);
  conditions->n = n;
  conditions->n_runs = conditions->most_notes = 0;
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  size_t bytes = (size_t)n * sizeof *conditions->windows;
  pdt_cuda_condition *stage = pdt_cuda_lend(c, (pdt_bytes)bytes);
  if (!stage) return;
  pdt_cuda_run *last = NULL;
  for (int32_t r = 0; r < n; r++) {
    stage[r] = (pdt_cuda_condition){.notes = rows[r].notes.at, .n_notes = rows[r].n_notes};
    if (rows[r].n_notes > conditions->most_notes) conditions->most_notes = rows[r].n_notes;
    conditions->streams[r] = rows[r].stream;
    if (!last || rows[r].stream != rows[r - 1].stream || last->rows == PDT_CUDA_RUN_ROWS) {
      last = &conditions->runs[conditions->n_runs++];
      *last = (pdt_cuda_run){.first = r};
    }
    last->rows++;
  }
  pdt_cuda_ok(c, pdt_cuda_transfer(c, conditions->windows, stage, bytes, cudaMemcpyHostToDevice),
              "conditions");
}

void pdt_cuda_store_notes(pdt_device *dev, const pdt_kv_pool *window, pdt_layer layer,
                          pdt_array keys, pdt_array values, int32_t n) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_pages pages = pdt_cuda_pages_at(&window->shape, window->data.at, layer);
  pdt_cuda_ok(c, pdt_launch_store_notes(&pages, keys.at, values.at, n, &c->queue), "notes");
}

void pdt_cuda_note_attention(pdt_device *dev, const pdt_conditions *conditions,
                             const pdt_kv_shape *shape, pdt_layer layer, pdt_array query,
                             pdt_array out) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_pages pages = pdt_cuda_pages_at(shape, NULL, 0);
  int64_t layer_at = layer * shape->heads * pages.head_elems;
  pdt_cuda_ok(c,
              pdt_launch_note_attention(conditions->windows, conditions->n, conditions->most_notes,
                                        &pages, layer_at, query.at, out.at, &c->queue),
              "attention to notes");
}

void pdt_cuda_add_noted(pdt_device *dev, const pdt_conditions *conditions, pdt_array h,
                        pdt_array delta, float gate, int32_t width) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (conditions->most_notes < 1 || !pdt_cuda_begin(dev)) return;
  c->pending = (pdt_cuda_pending){.what = PDT_CUDA_SUM,
                                  .n = (int64_t)conditions->n * width,
                                  .norm = {.x = h.at,
                                           .added = delta.at,
                                           .noted = conditions->windows,
                                           .gate = gate,
                                           .rows = conditions->n,
                                           .width = width}};
}

/* The product of every run with its stream's own weights, which may be of several types. */
static void multiply_runs(pdt_cuda *c, const pdt_conditions *conditions,
                          const pdt_adapters *adapters, bool up, const float *x, float *y) {
  for (pdt_dtype dtype = PDT_F32; dtype <= PDT_BF16; dtype++) {
    const pdt_cuda_weights *w = NULL;
    int32_t n = 0;
    for (int32_t i = 0; i < conditions->n_runs; i++) {
      const pdt_cuda_run *r = &conditions->runs[i];
      const pdt_adapter *adapter = &adapters->by_stream[conditions->streams[r->first]];
      const pdt_cuda_weights *own = pdt_cuda_weights_of(up ? &adapter->up : &adapter->down);
      if (own->dtype != dtype) continue;
      w = own;
      conditions->chosen[n] = *r;
      conditions->chosen[n++].weights = own->data;
    }
    if (n > 0) pdt_cuda_multiply_runs(c, w, conditions->chosen, n, x, y);
  }
}

/* The biases of rows from `first` on, as many as there is room for. Returns how many. */
static int32_t list_biases(const pdt_conditions *conditions, const pdt_adapters *adapters, bool up,
                           int32_t first, pdt_cuda_biases *bias) {
  int32_t n = conditions->n - first < PDT_CUDA_BIASES ? conditions->n - first : PDT_CUDA_BIASES;
  for (int32_t r = 0; r < n; r++) {
    const pdt_adapter *adapter = &adapters->by_stream[conditions->streams[first + r]];
    bias->of[r] = up ? adapter->up_bias.at : adapter->down_bias.at;
  }
  return n;
}

void pdt_cuda_adapt(pdt_device *dev, const pdt_conditions *conditions, const pdt_adapters *adapters,
                    pdt_array normed, pdt_array scratch, pdt_array h) {
  pdt_cuda *c = pdt_cuda_of(dev);
  int32_t n = conditions->n, d = adapters->width, a = adapters->dim;
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  float *hidden = scratch.at, *delta = scratch.at + (int64_t)n * a;
  multiply_runs(c, conditions, adapters, false, normed.at, hidden);
  for (int32_t r = 0; r < n; r += PDT_CUDA_BIASES) {
    pdt_cuda_biases bias = {0};
    int32_t some = list_biases(conditions, adapters, false, r, &bias);
    pdt_cuda_ok(c, pdt_launch_gelu(hidden + (int64_t)r * a, &bias, some, a, &c->queue), "adapters");
  }
  multiply_runs(c, conditions, adapters, true, hidden, delta);
  for (int32_t r = 0; r < n; r += PDT_CUDA_BIASES) {
    pdt_cuda_biases bias = {0};
    int32_t some = list_biases(conditions, adapters, true, r, &bias);
    pdt_cuda_ok(c,
                pdt_launch_add_gated(h.at + (int64_t)r * d, delta + (int64_t)r * d, &bias,
                                     adapters->gate, some, d, &c->queue),
                "adapters");
  }
}
