/* Rotary embedding, keys and values into their pages, and the sums of attention's pieces. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum { PAGE_TOKENS = 16, WARPS = 4 };
/* Of the merging kernel: threads, and elements of a head for each. */
enum { MERGE_THREADS = 128, MERGE_ELEMENTS = PDT_CUDA_MOST_HEAD / MERGE_THREADS };

__global__ void rope_angles(const int32_t *position, int32_t n, const double *inv_freq,
                            int32_t half, double scale, float *rope) {
  grid_release();
  grid_wait();
  int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n * half) return;
  int32_t r = i / half, j = i % half;
  double angle = position[r] * inv_freq[j];
  rope[(int64_t)r * 2 * half + j] = (float)(cos(angle) * scale);
  rope[(int64_t)r * 2 * half + half + j] = (float)(sin(angle) * scale);
}

/* One warp for every head of every row: queries, then keys, then values. */
__global__ void rotate_and_store(const pdt_cuda_rows rows, const pdt_cuda_pages pages,
                                 const pdt_cuda_heads heads, float *qkv) {
  grid_release();
  grid_wait();
  int lane = threadIdx.x % 32, all = heads.n_heads + 2 * pages.heads;
  int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (item >= rows.n * all) return;
  int r = (int)(item / all), h = (int)(item % all), hd = pages.head_dim, half = hd / 2;
  bool key = h >= heads.n_heads, value = h >= heads.n_heads + pages.heads;
  float *x = qkv + item * hd;
  float *stored = nullptr;
  if (key) {
    int kv = (h - heads.n_heads) % pages.heads;
    stored = pages.base + rows.page[r] * pages.page_elems + kv * pages.head_elems +
             (int64_t)(value * PAGE_TOKENS + rows.lane[r]) * hd;
  }
  if (value) {
    for (int j = lane; j < hd; j += 32) stored[j] = x[j];
    return;
  }
  const float *weight = key ? heads.k_norm : heads.q_norm, *rope = rows.rope + (int64_t)r * hd;
  float scale = 1;
  if (weight) {
    float squares = 0;
    for (int j = lane; j < hd; j += 32) squares = fmaf(x[j], x[j], squares);
    scale = 1 / sqrtf(warp_sum(squares) / (float)hd + heads.eps);
  }
  for (int j = lane; j < half; j += 32) {
    float a = x[j], b = x[half + j], c = rope[j], s = rope[half + j];
    if (weight) {
      a *= scale * weight[j];
      b *= scale * weight[half + j];
    }
    float u = fmaf(a, c, -b * s), v = fmaf(b, c, a * s);
    x[j] = u;
    x[half + j] = v;
    if (key) {
      stored[j] = u;
      stored[half + j] = v;
    }
  }
}

/* Block (row, query head): the results of its pieces, added up from the first on as by a block of
 * attention that goes over them: each weighs beside the largest exponent up to it. A row whose
 * result is final has none. */
__global__ void __launch_bounds__(MERGE_THREADS, 8)
    merge_pieces(const pdt_cuda_attention a, int n_heads, int hd, float *out) {
  SHARED_ARRAY(float, largest, MERGE_THREADS);
  SHARED_ARRAY(float, sums, MERGE_THREADS);
  SHARED_ARRAY(float2, weights, MERGE_THREADS); /* of what came before a piece, of the piece's */
  grid_release();
  grid_wait();
  int row = a.first_row + blockIdx.x, head = blockIdx.y, thread = threadIdx.x;
  int begin = a.places[2 * row], n = a.places[2 * row + 1] - begin, stride = 2 + hd;
  if (n == 0) return;
  const float *parts = a.room + ((int64_t)begin * n_heads + head) * stride;
  int64_t next = (int64_t)n_heads * stride; /* place */
  float top = -INFINITY, sum = 0, value[MERGE_ELEMENTS] = {};
  for (int first = 0; first < n; first += MERGE_THREADS) {
    int some = min(MERGE_THREADS, n - first);
    const float *from = parts + first * next;
    __syncthreads();
    if (thread < some)
      largest[thread] = from[thread * next], sums[thread] = from[thread * next + 1];
    __syncthreads();
    float before = top;
    for (int i = 0; i < some; i++) {
      if (i < thread) before = fmaxf(before, largest[i]);
      top = fmaxf(top, largest[i]);
    }
    if (thread < some) {
      float own = largest[thread], both = fmaxf(before, own);
      weights[thread] = make_float2(weight_beside(before, both), weight_beside(own, both));
    }
    __syncthreads();
    for (int i = 0; i < some; i++) sum = fmaf(sums[i], weights[i].y, sum * weights[i].x);
#pragma unroll
    for (int e = 0; e < MERGE_ELEMENTS; e++) {
      int j = thread + e * MERGE_THREADS;
      if (j >= hd) break;
#pragma unroll 8
      for (int i = 0; i < some; i++)
        value[e] = fmaf(from[i * next + 2 + j], weights[i].y, value[e] * weights[i].x);
    }
  }
#pragma unroll
  for (int e = 0; e < MERGE_ELEMENTS; e++) {
    int j = thread + e * MERGE_THREADS;
    if (j < hd) out[((int64_t)row * n_heads + head) * hd + j] = value[e] / sum;
  }
}

} // namespace

cudaError_t pdt_launch_rope(const int32_t *position, int32_t n, const double *inv_freq,
                            int32_t half, double scale, float *rope, pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(rope_angles, dim3((n * half + 127) / 128), dim3(128), 0, queue, position, n,
                      inv_freq, half, scale, rope);
}

cudaError_t pdt_launch_rotate_and_store(const pdt_cuda_rows *rows, const pdt_cuda_pages *pages,
                                        const pdt_cuda_heads *heads, float *qkv,
                                        pdt_cuda_queue *queue) {
  int64_t items = rows->n * (heads->n_heads + 2 * pages->heads);
  if (items < 1) return cudaSuccess;
  return launch_ahead(rotate_and_store, dim3((unsigned)((items + WARPS - 1) / WARPS)),
                      dim3(32 * WARPS), 0, queue, *rows, *pages, *heads, qkv);
}

cudaError_t pdt_launch_attention(const pdt_cuda_attention *a, const pdt_cuda_rows *rows,
                                 const pdt_cuda_pages *pages, const pdt_cuda_heads *heads,
                                 const float *qkv, float *out, pdt_cuda_queue *queue) {
  cudaError_t code = pdt_launch_attend(a, rows, pages, heads, qkv, out, queue);
  if (code != cudaSuccess || !a->room || a->n_rows < 1) return code;
  return launch_ahead(merge_pieces, dim3(a->n_rows, heads->n_heads), dim3(MERGE_THREADS), 0, queue,
                      *a, heads->n_heads, pages->head_dim, out);
}
