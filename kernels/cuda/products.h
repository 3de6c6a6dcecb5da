/* Matrix products of few rows on a GPU, made to run at the speed at which weights arrive from its
 * memory. */
#ifndef PDT_KERNELS_CUDA_PRODUCTS_H
#define PDT_KERNELS_CUDA_PRODUCTS_H

#include "kernels/cuda/queue.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "base/dtype.h"

/* How a product is cut over the GPU. It belongs to the weights and not to the batch: each output is
 * summed in `splits` slices of the inner dimension, in their order, whatever rows stand beside it.
 */
typedef struct pdt_cuda_cut {
  int splits; /* 1, 2, 4 or 8 */
} pdt_cuda_cut;

/* Outputs of one group of packed weights, groups that stand together, and the most rows of x that
 * one product takes. */
enum { PDT_CUDA_GROUP = 32, PDT_CUDA_ACROSS = 8, PDT_CUDA_ROWS = 64 };

/* Weights [out, in] in device memory, laid out as blocks of threads read them. 32 outputs are a
 * group, of which a step of 16 inputs (8 in F32) is 1 KiB: two times 16 bytes for each thread of a
 * warp. Eight groups, or what is left of them at the end, stand together, step by step. What passes
 * the edges is zero. */
typedef struct pdt_cuda_weights {
  const void *data; /* pdt_cuda_weights_bytes, 128-byte aligned */
  int32_t out, in;
  pdt_dtype dtype;
  pdt_cuda_cut cut;
} pdt_cuda_weights;

static inline int32_t pdt_cuda_step(pdt_dtype dtype) {
  return dtype == PDT_F32 ? 8 : 16;
}

static inline int32_t pdt_cuda_steps(const pdt_cuda_weights *w) {
  int32_t step = pdt_cuda_step(w->dtype);
  return w->in / step + (w->in % step != 0);
}

static inline int32_t pdt_cuda_groups(const pdt_cuda_weights *w) {
  return w->out / PDT_CUDA_GROUP + (w->out % PDT_CUDA_GROUP != 0);
}

static inline pdt_bytes pdt_cuda_weights_bytes(const pdt_cuda_weights *w) {
  return (pdt_bytes)pdt_cuda_groups(w) * pdt_cuda_steps(w) * 1024;
}

/* Where element (o, i) of weights [out, in] stands, in elements. */
#ifdef __CUDACC__
__host__ __device__
#endif
    static inline int64_t
    pdt_cuda_place(pdt_dtype dtype, int32_t out, int32_t in, int32_t o, int32_t i) {
  int32_t step = dtype == PDT_F32 ? 8 : 16, steps = in / step + (in % step != 0);
  int32_t groups = out / PDT_CUDA_GROUP + (out % PDT_CUDA_GROUP != 0), group = o / PDT_CUDA_GROUP;
  int32_t first = group / PDT_CUDA_ACROSS * PDT_CUDA_ACROSS, r = o % PDT_CUDA_GROUP;
  int32_t across = groups - first < PDT_CUDA_ACROSS ? groups - first : PDT_CUDA_ACROSS;
  /* Steps of one group, counted in the order in which they stand. */
  int64_t at = (int64_t)first * steps + (int64_t)(i / step) * across + (group - first);
  if (dtype == PDT_F32) return ((at * 2 + i % 8 / 4) * 32 + r) * 4 + i % 4;
  /* A thread holds two rows, 8 apart, of four neighbouring inputs: the fragment of the tensor
   * cores' m16n8k16 but for the order of the inputs, which x follows. */
  int32_t thread = r % 8 * 4 + i % 16 / 4, word = i % 4 / 2 * 2 + r % 16 / 8;
  return ((at * 2 + r / 16) * 32 + thread) * 8 + word * 2 + i % 2;
}

/* The cut for weights [out, in]. Pure. */
pdt_cuda_cut pdt_cuda_choose_cut(int32_t out, int32_t in, pdt_dtype dtype);

/* Eights of rows that a product of so many works on. */
static inline int32_t pdt_cuda_eights(int32_t rows) {
  return rows <= 8 ? 1 : rows <= 16 ? 2 : rows <= 32 ? 4 : 8;
}

/* Rows of x as products with weights of a type read them: for each step the rows in eights, of F16
 * and BF16 weights as fragments of the tensor cores, each number as the sum of two of bf16. What
 * passes a row's end is zero; rows that fill the last eight may be anything. */
static inline pdt_bytes pdt_cuda_prepared_bytes(pdt_dtype dtype, int32_t in, int32_t rows) {
  int32_t step = pdt_cuda_step(dtype), eights = pdt_cuda_eights(rows);
  return (pdt_bytes)((in + step - 1) / step) * eights * 8 * step * 4;
}

/* Where rows go in that form, for kernels that write an x (prepared.cuh). */
typedef struct pdt_cuda_prepared {
  void *at;              /* device; NULL: nowhere */
  int32_t eights, quads; /* of all rows; fours of columns in a step: 4, or 2 for F32 */
} pdt_cuda_prepared;

static inline pdt_cuda_prepared pdt_cuda_prepared_at(void *at, pdt_dtype dtype, int32_t rows) {
  pdt_cuda_prepared p = {at, pdt_cuda_eights(rows), pdt_cuda_step(dtype) / 4};
  return p;
}

/* prepared = rows of x [rows, in], rows <= PDT_CUDA_ROWS, 128-byte aligned. */
cudaError_t pdt_cuda_prepare(pdt_dtype dtype, const float *x, int64_t x_stride, int32_t rows,
                             int32_t in, void *prepared, pdt_cuda_queue *queue);

/* How a device joins the slices of a product: in clusters of blocks, or through memory. */
typedef struct pdt_cuda_room {
  bool clusters;     /* compute capability 9.0 or later: the rest is not used */
  float *partial;    /* device: splits * rows * out of the largest product */
  unsigned *arrived; /* device: out / 256, rounded up; zero between products */
  int ahead;         /* steps of each slice that are asked for before x is there */
} pdt_cuda_room;

/* y[r, o] = sum_i w[o, i] x[r, i] for x prepared for w's type; rows <= PDT_CUDA_ROWS; y in device
 * memory, its stride in elements. Weights in F32 are multiplied in float; of F16 and BF16 with x as
 * the sum of two bf16 numbers, 2^-17 of x away from it, summed in float. Asynchronous on the
 * queue; prepared and room are used until the product is done. Returns what the launch says. */
cudaError_t pdt_cuda_product(const pdt_cuda_weights *w, const void *prepared, int32_t rows,
                             float *y, int64_t y_stride, const pdt_cuda_room *room,
                             pdt_cuda_queue *queue);

/* Rows first .. first + rows - 1 of x and of y, with weights of their own. */
enum { PDT_CUDA_RUNS = 64, PDT_CUDA_RUN_ROWS = 8 };
typedef struct pdt_cuda_run {
  const void *weights; /* packed like the others' */
  int32_t first, rows; /* rows <= PDT_CUDA_RUN_ROWS */
} pdt_cuda_run;

/* The products of n <= PDT_CUDA_RUNS runs at once, of weights of one shape, type and cut: w's,
 * whose data are not read. x is as it stands. prepared: device, n times the bytes of
 * PDT_CUDA_RUN_ROWS rows. room: partial n * splits * PDT_CUDA_RUN_ROWS * out, arrived n times as
 * many. runs: host. */
cudaError_t pdt_cuda_product_runs(const pdt_cuda_weights *w, const pdt_cuda_run *runs, int32_t n,
                                  const float *x, int64_t x_stride, void *prepared, float *y,
                                  int64_t y_stride, const pdt_cuda_room *room,
                                  pdt_cuda_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
