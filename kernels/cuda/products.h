/* Matrix products of few rows on a GPU, made to run at the speed at which weights arrive from its
 * memory. */
#ifndef PDT_KERNELS_CUDA_PRODUCTS_H
#define PDT_KERNELS_CUDA_PRODUCTS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/dtype.h"

/* How a product is cut over the GPU. It belongs to the weights and not to the batch: each output is
 * summed in slices of the inner dimension, in their order, whatever rows stand beside it. */
typedef struct pdt_cuda_cut {
  int warps_across; /* 1, 2, 4 or 8 of a block's 8 warps stand side by side over outputs, 32 each;
                       the others are behind one another over the inner dimension */
  int splits;       /* blocks behind one another over the inner dimension, >= 1 */
  int bulk;         /* weights through the bulk copy engine (sm_90) instead of by each thread */
} pdt_cuda_cut;

/* Outputs of one group of packed weights, and the most rows of x that one launch takes. */
enum { PDT_CUDA_GROUP = 32, PDT_CUDA_ROWS = 64 };

/* Weights [out, in] in device memory, laid out as the threads of a warp read them: groups of 32
 * outputs, of which a step of 16 inputs (8 in F32) is 1 KiB, two times 16 bytes a thread. What
 * passes the edges is zero. */
typedef struct pdt_cuda_weights {
  int32_t out, in;
  pdt_dtype dtype;
  const void *data; /* pdt_cuda_weights_bytes, 128-byte aligned */
  pdt_cuda_cut cut;
} pdt_cuda_weights;

static inline int32_t pdt_cuda_step(pdt_dtype dtype) {
  return dtype == PDT_F32 ? 8 : 16;
}

static inline int32_t pdt_cuda_steps(const pdt_cuda_weights *w) {
  return (w->in + pdt_cuda_step(w->dtype) - 1) / pdt_cuda_step(w->dtype);
}

static inline int32_t pdt_cuda_groups(const pdt_cuda_weights *w) {
  return (w->out + PDT_CUDA_GROUP - 1) / PDT_CUDA_GROUP;
}

static inline pdt_bytes pdt_cuda_weights_bytes(const pdt_cuda_weights *w) {
  return (pdt_bytes)pdt_cuda_groups(w) * pdt_cuda_steps(w) * 1024;
}

/* Where element (o, i) stands, in elements. */
#ifdef __CUDACC__
__host__ __device__
#endif
    static inline int64_t
    pdt_cuda_place(pdt_dtype dtype, int32_t steps, int32_t o, int32_t i) {
  int64_t group = o / PDT_CUDA_GROUP;
  int32_t r = o % PDT_CUDA_GROUP;
  if (dtype == PDT_F32) {
    int64_t quad = (group * steps + i / 8) * 2 + i % 8 / 4;
    return (quad * 32 + r) * 4 + i % 4;
  }
  /* A thread holds two rows, 8 apart, of four neighbouring inputs: the fragment of the tensor
   * cores' m16n8k16 but for the order of the inputs, which x follows. */
  int64_t tile = (group * steps + i / 16) * 2 + r / 16;
  int32_t thread = r % 8 * 4 + i % 16 / 4;
  int32_t word = i % 4 / 2 * 2 + r % 16 / 8;
  return (tile * 32 + thread) * 8 + word * 2 + i % 2;
}

/* The cut for weights [out, in]. Pure. */
pdt_cuda_cut pdt_cuda_choose_cut(int32_t out, int32_t in, pdt_dtype dtype);

/* Where the sums of a product's splits meet. */
typedef struct pdt_cuda_room {
  float *partial;    /* device: elems of it */
  int64_t elems;     /* splits * min(rows, PDT_CUDA_ROWS) * out of the largest product */
  unsigned *arrived; /* device: groups of it, zero between products */
} pdt_cuda_room;

/* y[r, o] = sum_i w[o, i] x[r, i], rows >= 0; x, y in device memory, strides in elements. Weights
 * in F32 are multiplied in float; of F16 and BF16 with x as the sum of two bf16 numbers, 2^-17 of x
 * away from it, summed in float. Asynchronous on the stream; room is used until the product is
 * done. Returns what the launch says. */
cudaError_t pdt_cuda_product(const pdt_cuda_weights *w, const float *x, int64_t x_stride,
                             int32_t rows, float *y, int64_t y_stride, const pdt_cuda_room *room,
                             cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
