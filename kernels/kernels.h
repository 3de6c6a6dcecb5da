/* Compute kernels behind one table of functions. A backend fills a pdt_kernels; the runtime picks
 * one at start-up and calls nothing else. The CPU backend (cpu/) has one source compiled for
 * several instruction sets.
 *
 * What every backend promises on the CPU: each output element is accumulated in an order that
 * depends on the shapes of the weights alone, never on how many rows are in the batch, which rows
 * stand beside it, how many threads work, or how the cache is cut into pages. So the same row gives
 * the same bits in every layout.
 *
 * Shapes are row-major; [rows, width] with a stride in elements where one is named. */
#ifndef PDT_KERNELS_H
#define PDT_KERNELS_H

#include "base/dtype.h"
#include "base/error.h"
#include "base/types.h"
#include "kernels/sum_tree.h"

/* Output features are packed in panels of this many, one vector lane each. */
enum { PDT_PANEL = 16 };
/* Positions of one page of the key/value cache. */
enum { PDT_PAGE_TOKENS = 16 };

/* A weight matrix [out, in] in its file's precision, packed for the kernels. With p = o / PANEL and
 * lane = o % PANEL, element (o, i) stands in panel p at
 *   F32, F16: i * PANEL + lane            (one vector of outputs an input)
 *   BF16: (i / 2) * 2*PANEL + 2*lane + i%2  (two inputs side by side, so that one load and a shift
 *                                          or a mask widen them); an odd `in` is padded with zeros.
 * Rows past `out` in the last panel are zero. */
typedef struct pdt_matrix {
  int32_t out, in;
  pdt_dtype dtype;
  pdt_bytes panel_bytes; /* one panel, a multiple of 64 */
  void *data;            /* ceil(out / PANEL) panels, 64-byte aligned, owned */
  pdt_sum_tree tree;     /* order of accumulation over `in`, owned */
} pdt_matrix;

/* Room for a matrix [out, in], all zero. leaf_width: features of one leaf of the sum over `in`
 * (see sum_tree.h); >= in for a plain sum from first to last. out, in >= 1. Errors: MEMORY. */
int pdt_matrix_new(pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype, int32_t leaf_width,
                   pdt_error *err);
void pdt_matrix_free(pdt_matrix *m);

/* Copies n_rows rows of a row-major source into rows first_out.. of m: row j, feature i comes from
 * element j * src_stride + i of src, i < in. src holds m's dtype at any alignment. */
void pdt_matrix_pack(pdt_matrix *m, int32_t first_out, int32_t n_rows, const void *src,
                     int64_t src_stride_elems);

/* Row o of m widened to float[in]: an embedding looked up in a packed head. */
void pdt_matrix_row(const pdt_matrix *m, int32_t o, float *dst);

/* Bytes of weights that one product reads. */
pdt_bytes pdt_matrix_bytes(const pdt_matrix *m);

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

typedef struct pdt_kernels {
  const char *name; /* "avx512", "avx2", "portable" */

  /* y[r, o] = sum_i w[o, i] x[r, i] in the order of w->tree. x [rows, in], y [rows, out], strides
   * in elements. Shared among `threads` OpenMP threads. rows >= 0. y must not overlap x. */
  void (*matmul)(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows, float *y,
                 int64_t y_stride, int threads);

  /* y[o] = sum_i w[o, i] x[i] for a row-major matrix as it stands in a file (dtype, any alignment,
   * src_stride_elems a row): planner and plan embedding, read once a session. Threaded. */
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
} pdt_kernels;

/* Instruction sets from least to most: the order is that of speed. */
typedef enum pdt_cpu_isa { PDT_CPU_PORTABLE, PDT_CPU_AVX2, PDT_CPU_AVX512 } pdt_cpu_isa;

/* The best instruction set that this machine runs and this build holds. */
pdt_cpu_isa pdt_cpu_best_isa(void);

/* The table for an instruction set; NULL when this build or machine has it not. Static storage. */
const pdt_kernels *pdt_cpu_kernels(pdt_cpu_isa isa);

/* "portable", "avx2", "avx512" to an instruction set; false when unknown. */
bool pdt_cpu_isa_parse(const char *name, pdt_cpu_isa *out);

#endif
