/* How likely tokens are, as pdt_logprobs (base/sample.h) has it: the best logits of each row, and
 * the sum of all weights, which are whole numbers, so that parts of a row make it in any order.
 * The logarithm is the host's. Compiled without contraction (weight.h). */
#include "base/weight.h"
#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/keys.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum {
  THREADS = 256,
  PART = 4096, /* logits that one block looks at */
  HALF = PDT_WEIGHT_BITS / 2
};
static_assert(PDT_WEIGHT_BITS % 2 == 0 && HALF + 13 < 64, "the weights of a part in two numbers");

/* A candidate as a number: the better, the larger; of equal logits the lower id. None is 0. */
typedef unsigned long long place;

__device__ inline place place_of(float logit, int id) {
  return (place)key_of(logit) << 32 | ~(unsigned)id;
}

__device__ inline pdt_cuda_best candidate_of(place p) {
  return {logit_of((unsigned)(p >> 32)), (int32_t) ~(unsigned)p};
}

/* The best of n candidates that are worse than `last`, to all threads. room: shared [THREADS / 32].
 */
template <class At> __device__ place next_best(At at, int n, place last, place *room) {
  place best = 0;
  for (int i = threadIdx.x; i < n; i += THREADS) {
    place p = at(i);
    if (p < last && p > best) best = p;
  }
  for (int o = 16; o; o >>= 1) {
    place other = __shfl_xor_sync(~0u, best, o);
    if (other > best) best = other;
  }
  __syncthreads(); /* the room may hold earlier ones */
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = best;
  __syncthreads();
  for (int w = 0; w < THREADS / 32; w++)
    if (room[w] > best) best = room[w];
  return best;
}

/* Block (part, row): the `few` best of the part, in their order: room [rows, parts, few]. */
__global__ void __launch_bounds__(THREADS)
    likeliest_of_parts(const float *logits, int32_t width, int32_t few, place *room) {
  SHARED_ARRAY(place, of_warp, THREADS / 32);
  grid_release();
  grid_wait();
  int begin = blockIdx.x * PART, n = min(PART, width - begin);
  const float *part = logits + (int64_t)blockIdx.y * width + begin;
  place last = ~(place)0;
  room += ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * few;
  for (int k = 0; k < few; k++) {
    last = next_best([=](int i) { return place_of(part[i], begin + i); }, n, last, of_warp);
    if (threadIdx.x == 0) room[k] = last;
  }
}

/* Block (row): the best of its parts', the best one's logit for those that weigh the row, and its
 * token's logit. */
__global__ void __launch_bounds__(THREADS)
    likeliest_of_rows(const float *logits, int32_t width, int32_t few, int32_t n, const place *room,
                      float *highest, const pdt_cuda_likely told) {
  SHARED_ARRAY(place, of_warp, THREADS / 32);
  grid_release();
  grid_wait();
  const int row = blockIdx.x;
  place last = ~(place)0;
  room += (int64_t)row * n;
  for (int k = 0; k < few; k++) {
    last = next_best([=](int i) { return room[i]; }, n, last, of_warp);
    if (threadIdx.x != 0) continue;
    told.best[(int64_t)row * few + k] = candidate_of(last);
    if (k == 0) highest[row] = logit_of((unsigned)(last >> 32));
  }
  if (threadIdx.x == 0) told.own[row] = logits[(int64_t)row * width + told.tokens[row]];
}

/* Block (part, row): the sum of the part's weights. */
__global__ void __launch_bounds__(THREADS)
    weigh_parts(const float *logits, int32_t width, const float *highest,
                const pdt_cuda_likely told) {
  SHARED_ARRAY(unsigned long long, room, 32);
  grid_release();
  grid_wait();
  int begin = blockIdx.x * PART, end = min(begin + PART, width);
  const float *row = logits + (int64_t)blockIdx.y * width, best = highest[blockIdx.y];
  unsigned long long high = 0, low = 0;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    pdt_weight weight = pdt_weight_of(row[i], best, 1);
    high += (unsigned long long)(weight >> HALF);
    low += (unsigned long long)weight & ((1ull << HALF) - 1);
  }
  high = block_sum(high, room);
  low = block_sum(low, room);
  if (threadIdx.x == 0) told.sums[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = {high, low};
}

} // namespace

int32_t pdt_cuda_likely_parts(int32_t width) {
  return (width + PART - 1) / PART;
}

int64_t pdt_cuda_likely_bytes(int32_t width, int32_t n, int32_t few) {
  return n * ((int64_t)pdt_cuda_likely_parts(width) * few * (int64_t)sizeof(place) +
              (int64_t)sizeof(float));
}

cudaError_t pdt_launch_logprobs(const float *logits, int32_t width, int32_t n, int32_t few,
                                void *room, const pdt_cuda_likely *told, pdt_cuda_queue *queue) {
  int32_t parts = pdt_cuda_likely_parts(width);
  place *best = static_cast<place *>(room);
  float *highest = reinterpret_cast<float *>(best + (int64_t)n * parts * few);
  cudaError_t code = launch_ahead(likeliest_of_parts, dim3(parts, n), dim3(THREADS), 0, queue,
                                  logits, width, few, best);
  if (code != cudaSuccess) return code;
  code = launch_ahead(likeliest_of_rows, dim3(n), dim3(THREADS), 0, queue, logits, width, few,
                      parts * few, best, highest, *told);
  if (code != cudaSuccess) return code;
  return launch_ahead(weigh_parts, dim3(parts, n), dim3(THREADS), 0, queue, logits, width, highest,
                      *told);
}
