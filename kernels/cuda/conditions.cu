/* Attention to notes, and what follows the products of adapters. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum { PAGE_TOKENS = 16, THREADS = 128, WARPS = THREADS / 32 };
/* Notes that a warp of note_attention has loads in flight for. */
enum { AT_A_TIME = 4 };

/* The key, or with `value` the value, of a head at a place of pages that are in order. */
__device__ inline int64_t place_of(const pdt_cuda_pages &pages, int note, int head, bool value) {
  return note / PAGE_TOKENS * pages.page_elems + head * pages.head_elems +
         (int64_t)(value * PAGE_TOKENS + note % PAGE_TOKENS) * pages.head_dim;
}

__global__ void store_notes(const pdt_cuda_pages pages, const float *keys, const float *values) {
  grid_release();
  grid_wait();
  int note = blockIdx.x, head = blockIdx.y, hd = pages.head_dim;
  int64_t from = ((int64_t)note * pages.heads + head) * hd;
  for (int j = threadIdx.x; j < hd; j += blockDim.x) {
    pages.base[place_of(pages, note, head, false) + j] = keys[from + j];
    pages.base[place_of(pages, note, head, true) + j] = values[from + j];
  }
}

/* One warp: the scores of AT_A_TIME notes from `first` on, of those that there are. */
__device__ inline void score_notes(const pdt_cuda_pages &pages, const float *notes, int n, int head,
                                   const float *query, int first, float root, float *scores) {
  const float *keys[AT_A_TIME];
  float dots[AT_A_TIME] = {};
#pragma unroll
  for (int u = 0; u < AT_A_TIME; u++)
    keys[u] = notes + place_of(pages, min(first + u, n - 1), head, false);
  for (int j = threadIdx.x % 32; j < pages.head_dim; j += 32) {
    float q = query[j];
#pragma unroll
    for (int u = 0; u < AT_A_TIME; u++) dots[u] = fmaf(q, keys[u][j], dots[u]);
  }
#pragma unroll
  for (int u = 0; u < AT_A_TIME; u++) {
    float dot = warp_sum(dots[u]);
    if (threadIdx.x % 32 == 0 && first + u < n) scores[first + u] = dot * root;
  }
}

/* Block (row, head). Scores in shared memory, a warp some notes; weights; then a thread an element.
 */
__global__ void __launch_bounds__(THREADS)
    note_attention(const pdt_cuda_condition *rows, const pdt_cuda_pages pages, int64_t layer_at,
                   const float *query, float *out) {
  DYNAMIC_SHARED(float, scores);
  SHARED_ARRAY(float, room, 32);
  grid_release();
  grid_wait();
  const pdt_cuda_condition row = rows[blockIdx.x];
  int head = blockIdx.y, hd = pages.head_dim;
  if (row.n_notes < 1) return;
  const float *notes = row.notes + layer_at;
  query += ((int64_t)blockIdx.x * pages.heads + head) * hd;
  out += ((int64_t)blockIdx.x * pages.heads + head) * hd;
  float root = 1 / sqrtf((float)hd), largest = -INFINITY, sum = 0;
  for (int first = threadIdx.x / 32 * AT_A_TIME; first < row.n_notes; first += WARPS * AT_A_TIME)
    score_notes(pages, notes, row.n_notes, head, query, first, root, scores);
  __syncthreads();
  for (int i = 0; i < row.n_notes; i++) largest = fmaxf(largest, scores[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < row.n_notes; i += THREADS) {
    scores[i] = expf(scores[i] - largest);
    sum += scores[i];
  }
  sum = block_sum(sum, room);
  for (int j = threadIdx.x; j < hd; j += THREADS) {
    float value = 0;
#pragma unroll 16
    for (int i = 0; i < row.n_notes; i++)
      value = fmaf(scores[i], notes[place_of(pages, i, head, true) + j], value);
    out[j] = value / sum;
  }
}

__global__ void add_noted(const pdt_cuda_condition *rows, int64_t n, float *h, const float *delta,
                          float gate, int32_t width) {
  grid_release();
  grid_wait();
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += (int64_t)gridDim.x * blockDim.x)
    if (rows[i / width].n_notes > 0) h[i] = fmaf(gate, delta[i], h[i]);
}

__device__ inline float gelu_of(float x) {
  return x / 2 * erfcf(-x * 0.70710678118654752f);
}

/* x = gelu(x + bias), or with `to`: to += gate * (x + bias). */
__global__ void after_product(float *to, float *x, const pdt_cuda_biases bias, float gate,
                              int64_t n, int32_t width) {
  grid_release();
  grid_wait();
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += (int64_t)gridDim.x * blockDim.x) {
    float sum = x[i] + bias.of[i / width][i % width];
    if (to)
      to[i] = fmaf(gate, sum, to[i]);
    else
      x[i] = gelu_of(sum);
  }
}

dim3 blocks_for(int64_t n) {
  int64_t blocks = (n + THREADS - 1) / THREADS;
  return dim3((unsigned)(blocks < 65536 ? blocks : 65536));
}

} // namespace

cudaError_t pdt_launch_store_notes(const pdt_cuda_pages *pages, const float *keys,
                                   const float *values, int32_t n, pdt_cuda_queue *queue) {
  if (n < 1 || pages->heads < 1) return cudaSuccess;
  return launch_ahead(store_notes, dim3(n, pages->heads), dim3(THREADS), 0, queue, *pages, keys,
                      values);
}

cudaError_t pdt_launch_note_attention(const pdt_cuda_condition *rows, int32_t n, int32_t most_notes,
                                      const pdt_cuda_pages *pages, int64_t layer_at,
                                      const float *query, float *out, pdt_cuda_queue *queue) {
  if (n < 1 || pages->heads < 1 || most_notes < 1) return cudaSuccess;
  return launch_ahead(note_attention, dim3(n, pages->heads), dim3(THREADS),
                      (size_t)((most_notes + 31) / 32 * 32) * sizeof(float), queue, rows, *pages,
                      layer_at, query, out);
}

cudaError_t pdt_launch_add_noted(const pdt_cuda_condition *rows, int32_t n, float *h,
                                 const float *delta, float gate, int32_t width,
                                 pdt_cuda_queue *queue) {
  int64_t elems = (int64_t)n * width;
  if (elems < 1) return cudaSuccess;
  return launch_ahead(add_noted, blocks_for(elems), dim3(THREADS), 0, queue, rows, elems, h, delta,
                      gate, width);
}

cudaError_t pdt_launch_gelu(float *x, const pdt_cuda_biases *bias, int32_t rows, int32_t width,
                            pdt_cuda_queue *queue) {
  int64_t n = (int64_t)rows * width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(after_product, blocks_for(n), dim3(THREADS), 0, queue, (float *)nullptr, x,
                      *bias, 0.0f, n, width);
}

cudaError_t pdt_launch_add_gated(float *to, float *x, const pdt_cuda_biases *bias, float gate,
                                 int32_t rows, int32_t width, pdt_cuda_queue *queue) {
  int64_t n = (int64_t)rows * width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(after_product, blocks_for(n), dim3(THREADS), 0, queue, to, x, *bias, gate, n,
                      width);
}
