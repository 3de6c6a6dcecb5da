/* Rotary embedding, keys and values into their pages, and the sums of attention's pieces. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared.cuh"
#include "kernels/cuda/sums.cuh"

namespace {

enum { PAGE_TOKENS = 16, WARPS = 4 };
/* Elements of a half of a head that a lane holds. */
enum { HALF = PDT_CUDA_MOST_HEAD / 64 };
/* Of the merging kernel: threads, and pairs of elements of a head for each. */
enum { MERGE_THREADS = 128, MERGE_PAIRS = PDT_CUDA_MOST_HEAD / MERGE_THREADS / 2 };

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

/* A head as the lanes of a warp hold it: elements lane, lane + 32 .. of its halves. */
struct head_halves {
  float first[HALF], second[HALF];

  __device__ void load(const float *from, int lane, int half) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      int j = lane + 32 * e;
      first[e] = j < half ? from[j] : 0;
      second[e] = j < half ? from[half + j] : 0;
    }
  }

  __device__ void store(float *to, int lane, int half) const {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      int j = lane + 32 * e;
      if (j < half) to[j] = first[e], to[half + j] = second[e];
    }
  }

  __device__ float squares() const {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < HALF; e++) sum = fmaf(second[e], second[e], fmaf(first[e], first[e], sum));
    return sum;
  }

  __device__ void scale(float by, const head_halves &weights) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      first[e] *= by * weights.first[e];
      second[e] *= by * weights.second[e];
    }
  }

  /* angles: cosines, then sines. */
  __device__ void rotate(const head_halves &angles) {
#pragma unroll
    for (int e = 0; e < HALF; e++) {
      float a = first[e], b = second[e], c = angles.first[e], s = angles.second[e];
      first[e] = fmaf(a, c, -b * s);
      second[e] = fmaf(b, c, a * s);
    }
  }
};

/* One warp for every head of every row: queries, then keys, then values. All that it reads is asked
 * for before any of it is used. */
__global__ void __launch_bounds__(32 * WARPS)
    rotate_and_store(const pdt_cuda_rows rows, const pdt_cuda_pages pages,
                     const pdt_cuda_heads heads, float *qkv) {
  grid_release();
  grid_wait();
  int lane = threadIdx.x % 32, all = heads.n_heads + 2 * pages.heads;
  int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  if (item >= rows.n * all) return;
  int r = (int)(item / all), h = (int)(item % all), hd = pages.head_dim, half = hd / 2;
  bool key = h >= heads.n_heads, value = h >= heads.n_heads + pages.heads;
  const float *weight = key ? heads.k_norm : heads.q_norm;
  head_halves x, angles, weights;
  x.load(qkv + item * hd, lane, half);
  if (!value) angles.load(rows.rope + (int64_t)r * hd, lane, half);
  if (!value && weight) weights.load(weight, lane, half);
  float *stored = nullptr;
  if (key) {
    int kv = (h - heads.n_heads) % pages.heads;
    stored = pages.base + rows.page[r] * pages.page_elems + kv * pages.head_elems +
             (int64_t)(value * PAGE_TOKENS + rows.lane[r]) * hd;
  }
  if (!value) {
    if (weight) x.scale(1 / sqrtf(warp_sum(x.squares()) / (float)hd + heads.eps), weights);
    x.rotate(angles);
    x.store(qkv + item * hd, lane, half);
  }
  if (key) x.store(stored, lane, half);
}

/* Two elements of the sums of some pieces, from the first on. */
__device__ float2 add_pieces(float2 value, const float *from, int64_t next, const float2 *weights,
                             int some) {
#pragma unroll 8
  for (int i = 0; i < some; i++) {
    float2 v = *reinterpret_cast<const float2 *>(from + i * next);
    value.x = fmaf(v.x, weights[i].y, value.x * weights[i].x);
    value.y = fmaf(v.y, weights[i].y, value.y * weights[i].x);
  }
  return value;
}

/* A head of a row, to where it stands and to prepared rows, whose last head fills up with zeros. */
__device__ void write_merged(const float2 *value, float sum, int row, int head, int n_heads, int hd,
                             float *out, const pdt_cuda_prepared &prepared) {
  const int width = n_heads * hd;
#pragma unroll
  for (int e = 0; e < MERGE_PAIRS; e++) {
    int j = 2 * (threadIdx.x + e * MERGE_THREADS), column = head * hd + j;
    if (j >= hd) break;
    float2 result = {value[e].x / sum, value[e].y / sum};
    out[(int64_t)row * width + column] = result.x;
    out[(int64_t)row * width + column + 1] = result.y;
    if (prepared.at) put_pair(prepared, row, column, result.x, result.y);
  }
  if (!prepared.at || head + 1 < n_heads) return;
  int whole = 4 * prepared_quads(prepared, width);
  for (int c = width + 2 * threadIdx.x; c < whole; c += 2 * MERGE_THREADS)
    put_pair(prepared, row, c, 0, 0);
}

/* Block (row, query head): the results of its pieces, added up from the first on as by a block of
 * attention that goes over them: each weighs beside the largest exponent up to it. A row whose
 * result is final has none. */
__global__ void __launch_bounds__(MERGE_THREADS, 8)
    merge_pieces(const pdt_cuda_attention a, int n_heads, int hd, float *out,
                 const pdt_cuda_prepared prepared) {
  SHARED_ARRAY(float, largest, MERGE_THREADS);
  SHARED_ARRAY(float, sums, MERGE_THREADS);
  SHARED_ARRAY(float2, weights, MERGE_THREADS); /* of what came before a piece, of the piece's */
  grid_release();
  const int row = a.first_row + blockIdx.x, head = blockIdx.y, thread = threadIdx.x;
  /* A batch comes by a copy, which kernels behind it have waited for. */
  const int begin = a.places[2 * row], n = a.places[2 * row + 1] - begin;
  grid_wait();
  if (n == 0) return;
  const int64_t next = (int64_t)n_heads * (2 + hd); /* place */
  const float *parts = a.room + begin * next + head * (2 + hd);
  float top = -INFINITY, sum = 0;
  float2 value[MERGE_PAIRS] = {};
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
    for (int e = 0; e < MERGE_PAIRS; e++) {
      int j = 2 * (thread + e * MERGE_THREADS);
      if (j < hd) value[e] = add_pieces(value[e], from + 2 + j, next, weights, some);
    }
  }
  write_merged(value, sum, row, head, n_heads, hd, out, prepared);
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

cudaError_t pdt_launch_merge(const pdt_cuda_attention *a, int32_t n_heads, int32_t head_dim,
                             float *out, const pdt_cuda_prepared *prepared, pdt_cuda_queue *queue) {
  if (!a->room || a->n_rows < 1) return cudaSuccess;
  return launch_ahead(merge_pieces, dim3(a->n_rows, n_heads), dim3(MERGE_THREADS), 0, queue, *a,
                      n_heads, head_dim, out, *prepared);
}
