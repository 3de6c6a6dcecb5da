/* Element by element, row by row; weights in and out of their packed form. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum { THREADS = 256, NORM_THREADS = 512, HELD = 16 /* values of a row that a thread keeps */ };

int blocks_for(int64_t n, int threads) {
  int64_t blocks = (n + threads - 1) / threads;
  return (int)(blocks < 65536 ? blocks : 65536);
}

__device__ inline int64_t first_item() {
  return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline int64_t item_step() {
  return (int64_t)gridDim.x * blockDim.x;
}

__global__ void copy(float *dst, int64_t dst_stride, const int32_t *to, const float *src,
                     int64_t src_stride, const int32_t *from, int64_t n, int32_t width) {
  grid_release();
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step()) {
    int64_t r = i / width, column = i % width;
    int64_t target = to ? to[r] : r, source = from ? from[r] : r;
    dst[target * dst_stride + column] = src[source * src_stride + column];
  }
}

/* One block a row. A thread's elements are NORM_THREADS apart; the sum of squares is made of theirs
 * in a fixed tree. */
__global__ void __launch_bounds__(NORM_THREADS)
    norm(float *x, const float *added, const float *weight, float eps, int32_t width, float *y) {
  SHARED_ARRAY(float, room, 32);
  grid_release();
  grid_wait();
  x += (int64_t)blockIdx.x * width;
  y += (int64_t)blockIdx.x * width;
  if (added) added += (int64_t)blockIdx.x * width;
  float held[HELD], squares = 0;
#pragma unroll
  for (int j = 0; j < HELD; j++) {
    int i = threadIdx.x + j * NORM_THREADS;
    if (i >= width) break;
    held[j] = added ? x[i] + added[i] : x[i];
    if (added) x[i] = held[j];
    squares = fmaf(held[j], held[j], squares);
  }
  for (int i = threadIdx.x + HELD * NORM_THREADS; i < width; i += NORM_THREADS) {
    float v = added ? x[i] + added[i] : x[i];
    if (added) x[i] = v;
    squares = fmaf(v, v, squares);
  }
  float scale = 1 / sqrtf(block_sum(squares, room) / (float)width + eps);
#pragma unroll
  for (int j = 0; j < HELD; j++) {
    int i = threadIdx.x + j * NORM_THREADS;
    if (i >= width) break;
    y[i] = held[j] * scale * (weight ? weight[i] : 1);
  }
  for (int i = threadIdx.x + HELD * NORM_THREADS; i < width; i += NORM_THREADS)
    y[i] = x[i] * scale * (weight ? weight[i] : 1);
}

__global__ void add(float *y, const float *x, int64_t x_stride, const float *bias, float scale,
                    int64_t n, int64_t width) {
  grid_release();
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step()) {
    int64_t r = i / width, column = i % width;
    float sum = y[i];
    if (x) sum = fmaf(scale, x[r * x_stride + column], sum);
    y[i] = bias ? sum + bias[column] : sum;
  }
}

__global__ void sum_shares(const pdt_cuda_parts parts, int64_t n, float *out) {
  grid_release();
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step()) {
    float sums[PDT_CUDA_SUM_DEPTH];
    bool some[PDT_CUDA_SUM_DEPTH]; /* has any rank below a share? */
    int top = 0;
    for (int t = 0; t < parts.n; t++) {
      some[top] = parts.part[t] != nullptr;
      sums[top] = some[top] ? parts.part[t][i] : 0;
      for (int m = parts.merges[t]; m > 0; m--, top--) {
        if (some[top]) sums[top - 1] = some[top - 1] ? sums[top - 1] + sums[top] : sums[top];
        some[top - 1] = some[top - 1] || some[top];
      }
      top++;
    }
    out[i] = sums[0];
  }
}

__global__ void swiglu(float *gate_up, int64_t n, int32_t width) {
  grid_release();
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step()) {
    float *gate = gate_up + i / width * 2 * width + i % width;
    float z = *gate;
    *gate = z / (1 + expf(-z)) * gate[width];
  }
}

template <class T>
__global__ void pack(const pdt_cuda_weights w, int32_t first_out, int64_t n, const T *src) {
  /* No grid_release: products read weights before they wait. */
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step())
    ((T *)w.data)[pdt_cuda_place(w.dtype, w.out, w.in, first_out + (int32_t)(i / w.in),
                                 (int32_t)(i % w.in))] = src[i];
}

__device__ inline float widen(pdt_dtype dtype, const void *p, int64_t at) {
  if (dtype == PDT_BF16) return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[at]);
  if (dtype == PDT_F16) return __half2float(static_cast<const __half *>(p)[at]);
  return static_cast<const float *>(p)[at];
}

__global__ void gather(const pdt_cuda_weights w, const int32_t *ids, const int32_t *from, int64_t n,
                       float *y) {
  grid_release();
  grid_wait();
  for (int64_t i = first_item(); i < n; i += item_step()) {
    int64_t row = i / w.in;
    int32_t id = max(ids[from ? from[row] : row], 0);
    y[i] = widen(w.dtype, w.data, pdt_cuda_place(w.dtype, w.out, w.in, id, (int32_t)(i % w.in)));
  }
}

/* One warp a row. */
__global__ void rows_product(const void *rows, pdt_dtype dtype, int32_t n, int32_t width,
                             const float *x, float *y) {
  grid_release();
  grid_wait();
  int64_t row = first_item() / 32;
  if (row >= n) return;
  float sum = 0;
  for (int32_t i = threadIdx.x % 32; i < width; i += 32)
    sum = fmaf(widen(dtype, rows, row * width + i), x[i], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) y[row] = sum;
}

} // namespace

cudaError_t pdt_launch_copy(float *dst, int64_t dst_stride, const int32_t *to, const float *src,
                            int64_t src_stride, const int32_t *from, int32_t rows, int32_t width,
                            pdt_cuda_queue *queue) {
  int64_t n = (int64_t)rows * width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(copy, dim3(blocks_for(n, THREADS)), dim3(THREADS), 0, queue, dst, dst_stride,
                      to, src, src_stride, from, n, width);
}

cudaError_t pdt_launch_norm(float *x, const float *added, const float *weight, float eps,
                            int32_t rows, int32_t width, float *y, pdt_cuda_queue *queue) {
  if (rows < 1) return cudaSuccess;
  return launch_ahead(norm, dim3(rows), dim3(NORM_THREADS), 0, queue, x, added, weight, eps, width,
                      y);
}

cudaError_t pdt_launch_add(float *y, const float *x, int64_t x_stride, const float *bias,
                           float scale, int32_t rows, int64_t width, pdt_cuda_queue *queue) {
  int64_t n = rows * width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(add, dim3(blocks_for(n, THREADS)), dim3(THREADS), 0, queue, y, x, x_stride,
                      bias, scale, n, width);
}

cudaError_t pdt_launch_sum_shares(const pdt_cuda_parts *parts, int64_t n, float *out,
                                  pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(sum_shares, dim3(blocks_for(n, THREADS)), dim3(THREADS), 0, queue, *parts, n,
                      out);
}

cudaError_t pdt_launch_swiglu(float *gate_up, int32_t rows, int32_t width, pdt_cuda_queue *queue) {
  int64_t n = (int64_t)rows * width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(swiglu, dim3(blocks_for(n, THREADS)), dim3(THREADS), 0, queue, gate_up, n,
                      width);
}

cudaError_t pdt_launch_pack(const pdt_cuda_weights *w, int32_t first_out, int32_t n_rows,
                            const void *src, pdt_cuda_queue *queue) {
  int64_t n = (int64_t)n_rows * w->in;
  if (n < 1) return cudaSuccess;
  dim3 grid(blocks_for(n, THREADS)), block(THREADS);
  if (w->dtype == PDT_F32)
    return launch_ahead(pack<uint32_t>, grid, block, 0, queue, *w, first_out, n,
                        static_cast<const uint32_t *>(src));
  return launch_ahead(pack<uint16_t>, grid, block, 0, queue, *w, first_out, n,
                      static_cast<const uint16_t *>(src));
}

cudaError_t pdt_launch_gather(const pdt_cuda_weights *w, const int32_t *ids, const int32_t *from,
                              int32_t n, float *y, pdt_cuda_queue *queue) {
  int64_t elems = (int64_t)n * w->in;
  if (elems < 1) return cudaSuccess;
  return launch_ahead(gather, dim3(blocks_for(elems, THREADS)), dim3(THREADS), 0, queue, *w, ids,
                      from, elems, y);
}

cudaError_t pdt_launch_rows_product(const void *rows, pdt_dtype dtype, int32_t n, int32_t width,
                                    const float *x, float *y, pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(rows_product, dim3((n + THREADS / 32 - 1) / (THREADS / 32)), dim3(THREADS), 0,
                      queue, rows, dtype, n, width, x, y);
}
