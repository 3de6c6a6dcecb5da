/* What the CPU backend is made of: functions on one row, one head or one product, written once and
 * compiled for each instruction set (isa/). The operations of kernels.h are loops over them. All
 * memory is this process's own. */
#ifndef PDT_KERNELS_CPU_PRIMITIVES_H
#define PDT_KERNELS_CPU_PRIMITIVES_H

#include "kernels/kernels.h"

/* Bytes of one panel of a packed matrix, a multiple of 64. With p = o / PANEL and lane = o % PANEL,
 * element (o, i) stands in panel p at
 *   F32, F16: i * PANEL + lane            (one vector of outputs an input)
 *   BF16: (i / 2) * 2*PANEL + 2*lane + i%2  (two inputs side by side, so that one load and a shift
 *                                          or a mask widen them); an odd `in` is padded with zeros.
 * Rows past `out` in the last panel are zero. data: ceil(out / PANEL) panels, 64-byte aligned. */
pdt_bytes pdt_cpu_panel_bytes(int32_t in, pdt_dtype dtype);

/* A run of one sequence's cache: `tokens` positions from place `skip` of the first page on, in
 * pages[0..ceil((skip+tokens)/PAGE_TOKENS)). skip < PAGE_TOKENS, 0 without tokens. */
typedef struct pdt_kv_span {
  const int32_t *pages;
  int32_t tokens, skip;
} pdt_kv_span;

/* Where one (layer, kv head) of one sequence lies. Page p starts at base + p * page_elems; there,
 * keys are [head_dim, PAGE_TOKENS] (positions side by side) and values follow as
 * [PAGE_TOKENS, head_dim]. base already points at this layer's and head's place in page 0. */
typedef struct pdt_kv_view {
  const float *base;
  int64_t page_elems;
  int32_t head_dim;
  /* The prompt's shared pages, then the sequence's own; either may be empty. A window's view begins
   * with the page that it reaches back to: only the first span with tokens may skip some. */
  pdt_kv_span spans[2];
} pdt_kv_view;

typedef struct pdt_cpu_primitives {
  const char *name; /* of pdt_cpu_isa_name */

  /* y[r, o] = sum_i w[o, i] x[r, i] in the order of w->tree. x [rows, in], y [rows, out], strides
   * in elements. Shared among `threads` OpenMP threads. rows >= 0. y must not overlap x. */
  void (*matmul)(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows, float *y,
                 int64_t y_stride, int threads);

  /* The same of rows that are bf16 numbers, with weights of BF16: what matmul gives of finite
   * weights, and in less time where a set has something for it. */
  void (*matmul_bf16_rows)(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                           float *y, int64_t y_stride, int threads);

  /* y = the bf16 numbers nearest to x, ties to even: beyond the largest infinity; NaN stays NaN. n
   * floats; y may be x. */
  void (*round_bf16)(const float *x, int64_t n, float *y);

  /* y[o] = sum_i w[o, i] x[i] for a row-major matrix as it stands in a file (dtype, any alignment,
   * src_stride_elems a row): 16 lanes by index. Threaded. */
  void (*matvec_unpacked)(pdt_dtype dtype, const void *w, int64_t src_stride_elems, int32_t out,
                          int32_t in, const float *x, float *y, int threads);

  /* y = x / sqrt(mean(x^2) + eps), times weight[width] unless NULL. One row; y may be x. */
  void (*rms_norm)(const float *x, const float *weight, float eps, int32_t width, float *y);

  /* y[i] = silu(gate[i]) * up[i], silu(z) = z / (1 + exp(-z)). y may be gate. */
  void (*silu_mul)(const float *gate, const float *up, int64_t n, float *y);

  /* x[i] = gelu(x[i]) = x/2 (1 + erf(x / sqrt 2)), the exact one, to float accuracy. */
  void (*gelu)(float *x, int64_t n);

  /* Rotates one head x[head_dim] by the angles whose cosine and sine are given [head_dim/2]
   * (rotate-half: element j pairs with j + head_dim/2). */
  void (*rope)(float *x, const float *cosine, const float *sine, int32_t head_dim);

  /* x = softmax(x) over n, in place; the largest is subtracted first. n >= 1. */
  void (*softmax)(float *x, int64_t n);

  /* out[h] = softmax(q[h] . K / sqrt(head_dim)) V for n_heads query heads that share one kv head,
   * over all positions of the view (at least one). q, out [n_heads, head_dim]. scratch: room for
   * n_heads * (skip and tokens of both spans, rounded up to PAGE_TOKENS each) floats. One thread.
   */
  void (*attention)(const pdt_kv_view *kv, const float *q, int32_t n_heads, float *out,
                    float *scratch);
} pdt_cpu_primitives;

/* The table for an instruction set; NULL when this build or machine has it not. Static storage. */
const pdt_cpu_primitives *pdt_cpu_primitives_of(pdt_cpu_isa isa);

#endif
