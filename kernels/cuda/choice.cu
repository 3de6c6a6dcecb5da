/* Choice of tokens from logits. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"

namespace {

enum { THREADS = 256, PART = 4096 /* logits that one block looks at */ };

/* Of two bests the larger; on ties the lower id; what is no number wins. */
__device__ inline pdt_cuda_best better(pdt_cuda_best a, pdt_cuda_best b) {
  if (a.id < 0 || b.id < 0) return {0, -1};
  if (b.logit > a.logit || (b.logit == a.logit && b.id < a.id)) return b;
  return a;
}

/* The best of all threads, to thread 0. */
__device__ pdt_cuda_best best_of_block(pdt_cuda_best mine) {
  SHARED_ARRAY(pdt_cuda_best, of_warp, THREADS / 32);
  for (int o = 16; o; o >>= 1) {
    pdt_cuda_best other = {__shfl_xor_sync(~0u, mine.logit, o), __shfl_xor_sync(~0u, mine.id, o)};
    mine = better(mine, other);
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < THREADS / 32; w++) mine = better(mine, of_warp[w]);
  return mine;
}

/* Block (part, row). Threads without a logit of their own take the part's first. */
__global__ void __launch_bounds__(THREADS)
    best_of_parts(const float *logits, int32_t width, const int32_t *rows, pdt_cuda_best *room) {
  grid_release();
  grid_wait();
  const float *row = logits + (int64_t)(rows ? rows[blockIdx.y] : blockIdx.y) * width;
  int begin = blockIdx.x * PART, end = min(begin + PART, width);
  pdt_cuda_best best = {row[begin], isnan(row[begin]) ? -1 : begin};
  for (int i = begin + threadIdx.x; i < end; i += THREADS)
    best = better(best, {row[i], isnan(row[i]) ? -1 : i});
  best = best_of_block(best);
  if (threadIdx.x == 0) room[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = best;
}

__global__ void __launch_bounds__(THREADS)
    best_of_rows(const pdt_cuda_best *room, int32_t parts, int32_t first_id, pdt_cuda_best *out) {
  grid_release();
  grid_wait();
  room += (int64_t)blockIdx.x * parts;
  pdt_cuda_best best = room[0];
  for (int i = threadIdx.x; i < parts; i += THREADS) best = better(best, room[i]);
  best = best_of_block(best);
  if (threadIdx.x == 0) out[blockIdx.x] = {best.logit, best.id < 0 ? -1 : first_id + best.id};
}

} // namespace

int32_t pdt_cuda_argmax_parts(int32_t width) {
  return (width + PART - 1) / PART;
}

cudaError_t pdt_launch_argmax(const float *logits, int32_t width, const int32_t *rows, int32_t n,
                              int32_t first_id, pdt_cuda_best *room, pdt_cuda_best *best,
                              pdt_cuda_queue *queue) {
  int32_t parts = pdt_cuda_argmax_parts(width);
  cudaError_t code = launch_ahead(best_of_parts, dim3(parts, n), dim3(THREADS), 0, queue, logits,
                                  width, rows, room);
  if (code != cudaSuccess) return code;
  return launch_ahead(best_of_rows, dim3(n), dim3(THREADS), 0, queue, room, parts, first_id, best);
}
