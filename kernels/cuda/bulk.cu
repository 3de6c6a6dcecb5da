/* What products of many rows are made from: weights and rows in plain row-major order, padded with
 * zeros to whole steps of the packed weights. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pairs.cuh"

namespace {

enum {
  THREADS = 256,
  STEPS = 16,           /* of a group of outputs that a block unpacks */
  WORDS = STEPS * 2,    /* of 16 bytes that they are of one output */
  ROW_WORDS = WORDS + 2 /* between outputs in shared memory: four begin in banks of their own */
};

/* Puts word `lane` of half `half` of a step, as pdt_cuda_place has it, in its place among 32
 * outputs. */
__device__ inline void place_word(const uint4 v, int half, int lane, int step, bool wide,
                                  uint4 *tile) {
  if (wide) { /* four inputs of one output */
    tile[lane * ROW_WORDS + step * 2 + half] = v;
    return;
  }
  int output = half * 16 + lane / 4; /* four inputs of this one, and of that 8 further */
  uint2 *to = reinterpret_cast<uint2 *>(tile + output * ROW_WORDS) + step * 4 + lane % 4;
  to[0] = make_uint2(v.x, v.z);
  to[8 * ROW_WORDS * 2] = make_uint2(v.y, v.w);
}

/* Eight half-precision numbers as the sums of two bf16 numbers each, exactly. */
__device__ inline void split_halves(const uint4 v, uint4 *high, uint4 *low) {
  const unsigned words[4] = {v.x, v.y, v.z, v.w};
  unsigned h[4], l[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&words[i]));
    split_pair(f.x, f.y, &h[i], &l[i]);
  }
  *high = make_uint4(h[0], h[1], h[2], h[3]);
  *low = make_uint4(l[0], l[1], l[2], l[3]);
}

struct packed {
  const uint4 *data;
  int groups, steps, first_group;
  int wide; /* are they floats? */
};

/* A block takes STEPS steps of a group of 32 outputs: reads them as they lie, and writes them
 * output by output, 512 bytes of each. low: where the second numbers of F16 weights go. */
__global__ void __launch_bounds__(THREADS) unpack(const packed w, uint4 *high, uint4 *low) {
  SHARED_ARRAY(uint4, tile, PDT_CUDA_GROUP * ROW_WORDS);
  grid_release();
  grid_wait();
  int group = w.first_group + blockIdx.y, beside = group / PDT_CUDA_ACROSS * PDT_CUDA_ACROSS;
  int across = min((int)PDT_CUDA_ACROSS, w.groups - beside), begin = blockIdx.x * STEPS;
  int n = min((int)STEPS, w.steps - begin);
  const uint4 *from =
      w.data + ((int64_t)beside * w.steps + (int64_t)begin * across + (group - beside)) * 64;
#pragma unroll
  for (int j = 0; j < STEPS * 64 / THREADS; j++) {
    int i = threadIdx.x + j * THREADS, step = i / 64;
    if (step < n)
      place_word(load_once(from + (int64_t)step * across * 64 + i % 64), i / 32 % 2, i % 32, step,
                 w.wide, tile);
  }
  __syncthreads();
  int64_t output_words = (int64_t)w.steps * 2, at = blockIdx.y * 32 * output_words + begin * 2;
#pragma unroll
  for (int j = 0; j < PDT_CUDA_GROUP * WORDS / THREADS; j++) {
    int i = threadIdx.x + j * THREADS, output = i / WORDS, word = i % WORDS;
    if (word >= n * 2) continue;
    uint4 v = tile[output * ROW_WORDS + word];
    if (low) split_halves(v, &v, low + at + output * output_words + word);
    high[at + output * output_words + word] = v;
  }
}

/* Four columns of a row a thread. */
struct spreading {
  const float *x;
  int64_t stride, quads; /* quads: of all padded rows */
  int32_t in, row_quads;
  int64_t aligned; /* can x be read 16 bytes at a time? */
};

__device__ inline float4 quad_of(const spreading &s, int64_t i) {
  int32_t column = (int32_t)(i % s.row_quads) * 4;
  const float *from = s.x + i / s.row_quads * s.stride + column;
  if (s.aligned && column + 4 <= s.in) return *reinterpret_cast<const float4 *>(from);
  float v[4];
  for (int j = 0; j < 4; j++) v[j] = column + j < s.in ? from[j] : 0;
  return make_float4(v[0], v[1], v[2], v[3]);
}

__global__ void __launch_bounds__(THREADS) spread(const spreading s, float4 *to) {
  grid_release();
  grid_wait();
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < s.quads) to[i] = quad_of(s, i);
}

/* low: NULL: x is rounded. */
__global__ void __launch_bounds__(THREADS) spread_bf16(const spreading s, uint2 *high, uint2 *low) {
  grid_release();
  grid_wait();
  int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= s.quads) return;
  float4 v = quad_of(s, i);
  uint2 h, l;
  split_pair(v.x, v.y, &h.x, &l.x);
  split_pair(v.z, v.w, &h.y, &l.y);
  high[i] = h;
  if (low) low[i] = l;
}

} // namespace

cudaError_t pdt_launch_unpack(const pdt_cuda_weights *w, int32_t first_group, int32_t n_groups,
                              void *high, void *low, pdt_cuda_queue *queue) {
  if (n_groups < 1) return cudaSuccess;
  const packed p = {static_cast<const uint4 *>(w->data), pdt_cuda_groups(w), pdt_cuda_steps(w),
                    first_group, w->dtype == PDT_F32};
  dim3 grid((unsigned)(p.steps + STEPS - 1) / STEPS, (unsigned)n_groups);
  return launch_ahead(unpack, grid, dim3(THREADS), 0, queue, p, static_cast<uint4 *>(high),
                      static_cast<uint4 *>(low));
}

cudaError_t pdt_launch_spread(pdt_dtype dtype, const float *x, int64_t x_stride, int32_t rows,
                              int32_t in, void *high, void *low, pdt_cuda_queue *queue) {
  if (rows < 1) return cudaSuccess;
  spreading s = {};
  s.x = x;
  s.stride = x_stride;
  s.in = in;
  s.row_quads = pdt_cuda_padded(dtype, in) / 4;
  s.quads = (int64_t)rows * s.row_quads;
  s.aligned = reinterpret_cast<uintptr_t>(x) % 16 == 0 && x_stride % 4 == 0;
  dim3 grid((unsigned)((s.quads + THREADS - 1) / THREADS));
  if (dtype == PDT_F32)
    return launch_ahead(spread, grid, dim3(THREADS), 0, queue, s, static_cast<float4 *>(high));
  return launch_ahead(spread_bf16, grid, dim3(THREADS), 0, queue, s, static_cast<uint2 *>(high),
                      static_cast<uint2 *>(low));
}
