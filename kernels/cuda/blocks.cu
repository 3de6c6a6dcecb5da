/* The heads that close a block, between their products; and what a planner reads. */
#include <math.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum { THREADS = 256 };

/* Block (state, block to close). */
__global__ void block_states(const pdt_cuda_block *blocks, int32_t width, float *all, float *last) {
  grid_release();
  grid_wait();
  const pdt_cuda_block b = blocks[blockIdx.y];
  int u = blockIdx.x;
  if (u >= b.n_states) return;
  int64_t at = (int64_t)u * width;
  for (int i = threadIdx.x; i < width; i += THREADS) {
    if (all) all[(int64_t)(b.first + u) * width + i] = b.pooled[at + i];
    if (u == b.n_states - 1) last[(int64_t)blockIdx.y * width + i] = b.states[at + i];
  }
}

/* weights[0 .. n) = exp(weights - largest); returns their sum to all threads. */
__device__ float weigh(float *weights, int n, float *room) {
  float largest = -INFINITY, sum = 0;
  __syncthreads();
  for (int i = 0; i < n; i++) largest = fmaxf(largest, weights[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += THREADS) {
    weights[i] = expf(weights[i] - largest);
    sum += weights[i];
  }
  return block_sum(sum, room);
}

/* Block (block to close, pool head). */
__global__ void pool(const pdt_cuda_block *blocks, int32_t n, int32_t pool_heads,
                     int32_t pool_copies, int32_t width, const float *scores, float *mixed) {
  DYNAMIC_SHARED(float, weights);
  SHARED_ARRAY(float, room, 32);
  grid_release();
  grid_wait();
  const pdt_cuda_block b = blocks[blockIdx.x];
  int j = blockIdx.y;
  float root = 1 / sqrtf((float)width);
  for (int u = threadIdx.x; u < b.n_states; u += THREADS)
    weights[u] = scores[(int64_t)(b.first + u) * pool_heads + j] * root;
  float sum = weigh(weights, b.n_states, room);
  const float *from = j < pool_heads - pool_copies ? b.pooled : b.embedded;
  float *to = mixed + ((int64_t)j * n + blockIdx.x) * width;
  for (int i = threadIdx.x; i < width; i += THREADS) {
    float value = 0;
    for (int u = 0; u < b.n_states; u++)
      value = fmaf(weights[u], from[(int64_t)u * width + i], value);
    to[i] = value / sum;
  }
}

__device__ inline float gelu_of(float x) {
  return x / 2 * erfcf(-x * 0.70710678118654752f);
}

__device__ inline float sigmoid_of(float x) {
  return 1 / (1 + expf(-x));
}

__global__ void plain_gelu(float *x, int64_t n) {
  grid_release();
  grid_wait();
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n;
       i += (int64_t)gridDim.x * THREADS)
    x[i] = gelu_of(x[i]);
}

/* The dot product of two vectors, by a warp. */
__device__ float warp_dot(const float *a, const float *b, int n) {
  float sum = 0;
  for (int i = threadIdx.x % 32; i < n; i += 32) sum = fmaf(a[i], b[i], sum);
  return warp_sum(sum);
}

/* A block a block to close, a warp a slot. */
__global__ void cover(const pdt_cuda_block *blocks, const int32_t *ids, int32_t slots, int32_t dim,
                      const float *projected, float bias, float *coverage, float *covered) {
  grid_release();
  grid_wait();
  const float *items = blocks[blockIdx.x].plan_items, *own = projected + (int64_t)blockIdx.x * dim;
  float root = 1 / sqrtf((float)dim);
  for (int i = threadIdx.x / 32; i < slots; i += THREADS / 32) {
    float logit = warp_dot(items + (int64_t)i * dim, own, dim) * root + bias;
    int64_t at = (int64_t)blockIdx.x * slots + i;
    bool used = ids[at] != 0;
    if (threadIdx.x % 32 == 0) {
      coverage[at] = used ? logit : 0;
      covered[at] = used ? sigmoid_of(logit) : 0;
    }
  }
}

__global__ void agree(const pdt_cuda_block *blocks, int32_t n, int32_t dim, const float *parts,
                      const float *bias, const float *out, float out_bias, float *readiness) {
  DYNAMIC_SHARED(float, weights);
  SHARED_ARRAY(float, room, 32);
  grid_release();
  grid_wait();
  const pdt_cuda_block b = blocks[blockIdx.x];
  int64_t part = (int64_t)n * dim;
  const float *own = parts + (int64_t)blockIdx.x * dim;
  float root = 1 / sqrtf((float)dim);
  for (int i = threadIdx.x / 32; i < b.n_notes; i += THREADS / 32) {
    float score = warp_dot(own + 4 * part, b.agree_keys + (int64_t)i * dim, dim) * root;
    if (threadIdx.x % 32 == 0) weights[i] = score;
  }
  float sum = weigh(weights, b.n_notes, room), logit = 0;
  for (int o = threadIdx.x; o < dim; o += THREADS) {
    float attended = 0, x = bias[o];
    for (int i = 0; i < b.n_notes; i++)
      attended = fmaf(weights[i], b.agree_values[(int64_t)i * dim + o], attended);
    for (int p = 0; p < 4; p++) x += own[p * part + o];
    if (b.n_notes > 0) x += attended / sum;
    logit = fmaf(out[o], gelu_of(x), logit);
  }
  logit = block_sum(logit, room) + out_bias;
  if (threadIdx.x == 0) readiness[blockIdx.x] = isfinite(logit) ? sigmoid_of(logit) : NAN;
}

/* Marks of tokens, a warp a token: marks [n]. */
__global__ void plan_marks(pdt_cuda_places places, const float *read, int32_t n, double *marks) {
  grid_release();
  grid_wait();
  int r = (int)(blockIdx.x * (THREADS / 32) + threadIdx.x / 32);
  if (r >= n) return;
  const float *own = read + (int64_t)r * places.width;
  double square = 0, dot = 0;
  for (int j = threadIdx.x % 32; j < places.width; j += 32) {
    square += (double)own[j] * own[j];
    dot += (double)places.mark[j] * own[j];
  }
  square = warp_sum(square);
  dot = warp_sum(dot);
  double mark = places.mark_bias + dot / sqrt(square / places.width + 1e-6) + 0.5;
  if (threadIdx.x % 32 == 0) marks[r] = fmin(1.0, fmax(0.0, mark));
}

/* From marks to where they end, in order, by one thread. */
__global__ void plan_line(int32_t n, double *line) {
  grid_release();
  grid_wait();
  for (int r = 0; r < n; r++) line[r + 1] += line[r];
}

/* What a slot weighs the read of a token by that takes up [begin, end) of the line of marks. */
__device__ double order_weight(const pdt_cuda_places &places, int slot, double begin, double end) {
  double weight = 0;
  if (!(begin < places.orders)) return weight;
  for (int r = (int)begin; r < places.orders && r < end; r++)
    weight += (double)places.order_weights[(int64_t)slot * places.orders + r] *
              (fmin(end, r + 1.0) - fmax(begin, (double)r));
  return weight;
}

/* A thread an element of sums. */
__global__ void plan_read(pdt_cuda_places places, const float *states, const float *read, int32_t n,
                          int32_t first, const double *line, double *sums) {
  grid_release();
  grid_wait();
  int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (at >= (int64_t)(1 + places.slots) * places.width) return;
  int slot = (int)(at / places.width) - 1, j = (int)(at % places.width);
  double sum = sums[at];
  for (int r = 0; r < n; r++) {
    int64_t from = (int64_t)r * places.width + j;
    if (slot < 0)
      sum += states[from];
    else if (first + r < places.places)
      sum += (double)places.weights[(int64_t)slot * places.places + first + r] * states[from];
    if (slot >= 0 && places.orders > 0 && line[r] < line[r + 1])
      sum += order_weight(places, slot, line[r], line[r + 1]) * read[from];
  }
  sums[at] = sum;
}

} // namespace

cudaError_t pdt_launch_block_states(const pdt_cuda_block *blocks, int32_t n, int32_t most_states,
                                    int32_t width, float *all, float *last, pdt_cuda_queue *queue) {
  return launch_ahead(block_states, dim3(most_states, n), dim3(THREADS), 0, queue, blocks, width,
                      all, last);
}

cudaError_t pdt_launch_pool(const pdt_cuda_block *blocks, int32_t n, int32_t most_states,
                            int32_t pool_heads, int32_t pool_copies, int32_t width,
                            const float *scores, float *mixed, pdt_cuda_queue *queue) {
  return launch_ahead(pool, dim3(n, pool_heads), dim3(THREADS), (size_t)most_states * sizeof(float),
                      queue, blocks, n, pool_heads, pool_copies, width, scores, mixed);
}

cudaError_t pdt_launch_plain_gelu(float *x, int64_t n, pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(plain_gelu, dim3((unsigned)((n + THREADS - 1) / THREADS)), dim3(THREADS), 0,
                      queue, x, n);
}

cudaError_t pdt_launch_cover(const pdt_cuda_block *blocks, const int32_t *ids, int32_t n,
                             int32_t slots, int32_t dim, const float *projected, float bias,
                             float *coverage, float *covered, pdt_cuda_queue *queue) {
  return launch_ahead(cover, dim3(n), dim3(THREADS), 0, queue, blocks, ids, slots, dim, projected,
                      bias, coverage, covered);
}

cudaError_t pdt_launch_agree(const pdt_cuda_block *blocks, int32_t n, int32_t most_notes,
                             int32_t dim, const float *parts, const float *bias, const float *out,
                             float out_bias, float *readiness, pdt_cuda_queue *queue) {
  return launch_ahead(agree, dim3(n), dim3(THREADS), (size_t)(most_notes + 1) * sizeof(float),
                      queue, blocks, n, dim, parts, bias, out, out_bias, readiness);
}

cudaError_t pdt_launch_plan_line(const pdt_cuda_places *places, const float *read, int32_t n,
                                 double *line, pdt_cuda_queue *queue) {
  enum { ROWS = THREADS / 32 };
  if (n < 1) return cudaSuccess;
  cudaError_t code = launch_ahead(plan_marks, dim3((unsigned)((n + ROWS - 1) / ROWS)),
                                  dim3(THREADS), 0, queue, *places, read, n, line + 1);
  return code ? code : launch_ahead(plan_line, dim3(1), dim3(1), 0, queue, n, line);
}

cudaError_t pdt_launch_plan_read(const pdt_cuda_places *places, const float *states,
                                 const float *read, int32_t n, int32_t first, const double *line,
                                 double *sums, pdt_cuda_queue *queue) {
  int64_t elems = (int64_t)(1 + places->slots) * places->width;
  if (n < 1) return cudaSuccess;
  return launch_ahead(plan_read, dim3((unsigned)((elems + THREADS - 1) / THREADS)), dim3(THREADS),
                      0, queue, *places, states, read, n, first, line, sums);
}
