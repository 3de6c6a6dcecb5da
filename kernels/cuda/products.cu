/* Products of few rows. A block takes 256 outputs, 32 a warp, and a slice of the inner dimension:
 * one warp more brings weights and x into a ring in shared memory, as far ahead as there is room,
 * and begins before the kernel ahead has ended. The blocks of one group of outputs, a slice each,
 * are a cluster, whose sums meet in shared memory; where there are no clusters they meet in global
 * memory, and the last block to arrive adds them up. Both add the slices from first to last. */
#include "kernels/cuda/products.h"

#include <cuda_fp16.h>

#include <type_traits>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/prepared.cuh"

namespace {

enum { WARPS = PDT_CUDA_ACROSS, LANES = 32, THREADS = (WARPS + 1) * LANES };
enum { WIDTH = WARPS * PDT_CUDA_GROUP, STRIDE = WIDTH + 4 /* between rows of a block's sums */ };

struct arguments {
  const unsigned char *weights, *x;
  float *y;
  long long y_stride;
  float *partial;
  unsigned *arrived;
  int out, steps, rows;
  int splits, ahead;
  int clusters; /* are the blocks of a group of outputs one? */
};
static_assert(std::has_unique_object_representations_v<arguments>, "compared byte by byte");

/* Sums of a warp: 32 outputs by 8 * EIGHTS rows, as the tensor cores hold them. */
template <int EIGHTS> struct fragments {
  enum {
    X_WORDS = 32, /* of 16 bytes, of eight rows and a step */
    BLOCKS = 2    /* that share a processor */
  };
  float sums[EIGHTS][2][4] = {};

  /* Output and row of sum i of this thread. */
  static __device__ void place(int i, int lane, int *output, int *row) {
    *output = i / 4 % 2 * 16 + i % 4 / 2 * 8 + lane / 4;
    *row = i / 8 * 8 + lane % 4 * 2 + i % 2;
  }
};

template <int EIGHTS> struct products_bf16 : fragments<EIGHTS> {
  __device__ void step(uint4 first, uint4 second, const uint4 *x, int lane) {
    unsigned a[2][4] = {{first.x, first.y, first.z, first.w},
                        {second.x, second.y, second.z, second.w}};
#pragma unroll
    for (int n = 0; n < EIGHTS; n++) {
      uint4 v = x[n * 32 + lane];
      unsigned high[2] = {v.x, v.y}, low[2] = {v.z, v.w};
      mma_m16n8k16_bf16(this->sums[n][0], a[0], high);
      mma_m16n8k16_bf16(this->sums[n][1], a[1], high);
      mma_m16n8k16_bf16(this->sums[n][0], a[0], low);
      mma_m16n8k16_bf16(this->sums[n][1], a[1], low);
    }
  }
};

/* A half-precision weight is the sum of two bf16 numbers, exactly. */
template <int EIGHTS> struct products_f16 : fragments<EIGHTS> {
  enum { BLOCKS = EIGHTS <= 4 ? 2 : 1 };
  static __device__ void widen(const uint4 v, unsigned high[4], unsigned low[4]) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&words[i]));
      split_pair(f.x, f.y, &high[i], &low[i]);
    }
  }

  __device__ void step(uint4 first, uint4 second, const uint4 *x, int lane) {
    unsigned a_high[2][4], a_low[2][4];
    widen(first, a_high[0], a_low[0]);
    widen(second, a_high[1], a_low[1]);
#pragma unroll
    for (int n = 0; n < EIGHTS; n++) {
      uint4 v = x[n * 32 + lane];
      unsigned high[2] = {v.x, v.y}, low[2] = {v.z, v.w};
#pragma unroll
      for (int half = 0; half < 2; half++) {
        mma_m16n8k16_bf16(this->sums[n][half], a_high[half], high);
        mma_m16n8k16_bf16(this->sums[n][half], a_high[half], low);
        mma_m16n8k16_bf16(this->sums[n][half], a_low[half], high);
      }
    }
  }
};

/* One output a thread, summed in float from first to last. */
template <int EIGHTS> struct products_f32 {
  enum { X_WORDS = 16, BLOCKS = EIGHTS <= 2 ? 2 : 1 };
  float sums[EIGHTS * 8] = {};

  static __device__ void place(int i, int lane, int *output, int *row) {
    *output = lane;
    *row = i;
  }

  __device__ void step(uint4 first, uint4 second, const uint4 *x, int lane) {
    const uint4 w[2] = {first, second};
    (void)lane;
#pragma unroll
    for (int quad = 0; quad < 2; quad++)
#pragma unroll
      for (int r = 0; r < EIGHTS * 8; r++) {
        uint4 v = x[r * 2 + quad];
        float sum = sums[r];
        sum = fmaf(__uint_as_float(w[quad].x), __uint_as_float(v.x), sum);
        sum = fmaf(__uint_as_float(w[quad].y), __uint_as_float(v.y), sum);
        sum = fmaf(__uint_as_float(w[quad].z), __uint_as_float(v.z), sum);
        sums[r] = fmaf(__uint_as_float(w[quad].w), __uint_as_float(v.w), sum);
      }
  }
};

/* The ring: stages of some steps of the weights of every warp, and of x. Two blocks share a
 * processor. */
template <class Sums, int EIGHTS> struct ring {
  enum {
    STEPS = 2,
    STAGES = EIGHTS <= 2   ? 6
             : EIGHTS == 4 ? 5
                           : 4,
    X_STEP_BYTES = EIGHTS * Sums::X_WORDS * 16,
    STAGE_BYTES = STEPS * (WARPS * 1024 + X_STEP_BYTES),
    BYTES = STAGES * STAGE_BYTES,
    SHARED_BYTES = BYTES + 2 * STAGES * 8
  };
  unsigned char *at;
  uint64_t *full, *empty; /* [STAGES] */

  __device__ explicit ring(unsigned char *shared) {
    at = shared;
    full = reinterpret_cast<uint64_t *>(shared + BYTES);
    empty = full + STAGES;
  }

  __device__ unsigned char *weights(int stage) const {
    return at + stage * STAGE_BYTES;
  }

  __device__ unsigned char *x(int stage) const {
    return at + stage * STAGE_BYTES + STEPS * WARPS * 1024;
  }
};

/* What a block works on: groups first_group .. first_group + groups - 1, steps begin .. end-1. */
struct share {
  int first_group, groups, begin, end;
};

__device__ share share_of(const arguments &p) {
  share s;
  int all = (p.out + PDT_CUDA_GROUP - 1) / PDT_CUDA_GROUP;
  s.first_group = blockIdx.x * WARPS;
  s.groups = min(WARPS, all - s.first_group);
  s.begin = (int)((long long)p.steps * blockIdx.y / p.splits);
  s.end = (int)((long long)p.steps * (blockIdx.y + 1) / p.splits);
  return s;
}

template <class Ring> __device__ int steps_of(const share &s, int batch) {
  return min((int)Ring::STEPS, s.end - s.begin - batch * Ring::STEPS);
}

/* This block's weights from a step on. */
__device__ const unsigned char *weights_at(const arguments &p, const share &s, int step) {
  return p.weights + ((long long)s.first_group * p.steps + (long long)step * s.groups) * 1024;
}

template <class Ring>
__device__ void bring_weights(const arguments &p, const Ring &r, const share &s, int batch) {
  int stage = batch % Ring::STAGES, steps = steps_of<Ring>(s, batch);
  copies_announce(&r.full[stage], steps * (s.groups * 1024 + Ring::X_STEP_BYTES));
  copy_block(r.weights(stage), weights_at(p, s, s.begin + batch * Ring::STEPS),
             steps * s.groups * 1024, &r.full[stage]);
}

template <class Ring>
__device__ void bring_x(const arguments &p, const Ring &r, const share &s, int batch) {
  int stage = batch % Ring::STAGES, steps = steps_of<Ring>(s, batch);
  copy_block(r.x(stage), p.x + (long long)(s.begin + batch * Ring::STEPS) * Ring::X_STEP_BYTES,
             steps * Ring::X_STEP_BYTES, &r.full[stage]);
  copies_end(&r.full[stage]);
}

/* The warp that fills the ring. Kernels behind this one may begin when all that it reads has been
 * asked for: what they bring ahead of their turn then keeps memory busy while this one's last
 * weights arrive and its sums meet, which it would not if it had come before. */
template <class Ring>
__device__ void bring(const arguments &p, const Ring &r, const share &s, int batches) {
  int first = min(batches, (int)Ring::STAGES);
  for (int b = 0; b < first; b++) bring_weights(p, r, s, b);
  int far = min(p.ahead, s.end - s.begin - first * Ring::STEPS);
  if (far > 0 && threadIdx.x % LANES == 0)
    prefetch_block(weights_at(p, s, s.begin + first * Ring::STEPS), far * s.groups * 1024);
  grid_wait();
  for (int b = 0; b < first; b++) bring_x(p, r, s, b);
  for (int b = first; b < batches; b++) {
    barrier_wait(&r.empty[b % Ring::STAGES], (b / Ring::STAGES - 1) % 2);
    bring_weights(p, r, s, b);
    bring_x(p, r, s, b);
  }
  grid_release();
}

template <class Ring, class Sums>
__device__ void multiply(const Ring &r, const share &s, int batches, int warp, int lane,
                         Sums *sums) {
  for (int b = 0; b < batches; b++) {
    int stage = b % Ring::STAGES, steps = steps_of<Ring>(s, b);
    barrier_wait(&r.full[stage], b / Ring::STAGES % 2);
    const uint4 *w = reinterpret_cast<const uint4 *>(r.weights(stage)) + warp * 64 + lane;
    const uint4 *x = reinterpret_cast<const uint4 *>(r.x(stage));
    if (warp < s.groups) {
#pragma unroll
      for (int j = 0; j < Ring::STEPS; j++)
        if (j < steps)
          sums->step(w[j * s.groups * 64], w[j * s.groups * 64 + 32],
                     x + j * (Ring::X_STEP_BYTES / 16), lane);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(&r.empty[stage]);
  }
}

/* Hands each sum of a warp to store(row, output within the block, sum). */
template <int N, class Sums, class Store>
__device__ void each_sum(const Sums &sums, int warp, int lane, const Store &store) {
  const float *values = reinterpret_cast<const float *>(&sums.sums);
#pragma unroll
  for (int i = 0; i < N; i++) {
    int output, row;
    Sums::place(i, lane, &output, &row);
    store(row, warp * PDT_CUDA_GROUP + output, values[i]);
  }
}

/* The last block of a group of outputs to arrive adds up what all of them left, in order. */
__device__ void add_left(const arguments &p, int first) {
  SHARED_ARRAY(unsigned, last, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = atomicAdd(&p.arrived[blockIdx.x], 1u) == (unsigned)p.splits - 1;
  __syncthreads();
  if (!last[0]) return;
  __threadfence();
  for (int i = threadIdx.x; i < p.rows * WIDTH; i += THREADS) {
    int row = i / WIDTH, o = first + i % WIDTH;
    if (o >= p.out) continue;
    float sum = __ldcg(&p.partial[(long long)row * p.out + o]);
    for (int s = 1; s < p.splits; s++)
      sum += __ldcg(&p.partial[((long long)s * p.rows + row) * p.out + o]);
    p.y[row * p.y_stride + o] = sum;
  }
  if (threadIdx.x == 0) p.arrived[blockIdx.x] = 0;
}

/* Each block of a cluster adds up a part of the outputs: what all of them have in shared memory,
 * read from all of them at once. */
__device__ void add_cluster(const arguments &p, int first, const float *own) {
  enum { MOST = 8 };
  int pairs = WIDTH / 2 / p.splits;
  cluster_sync();
  for (int i = threadIdx.x; i < p.rows * pairs; i += THREADS) {
    int row = i / pairs, output = (blockIdx.y * pairs + i % pairs) * 2;
    float2 parts[MOST];
#pragma unroll
    for (int s = 0; s < MOST; s++)
      if (s < p.splits) parts[s] = cluster_read_pair(own + row * STRIDE + output, s);
    float2 sum = parts[0];
#pragma unroll
    for (int s = 1; s < MOST; s++)
      if (s < p.splits) sum = make_float2(sum.x + parts[s].x, sum.y + parts[s].y);
    float *to = p.y + row * p.y_stride + first + output;
    if (first + output < p.out) to[0] = sum.x;
    if (first + output + 1 < p.out) to[1] = sum.y;
  }
  cluster_sync(); /* the others have read this block's */
}

template <class Sums, int EIGHTS> __device__ void compute(const arguments &p) {
  typedef ring<Sums, EIGHTS> Ring;
  DYNAMIC_SHARED(unsigned char, shared);
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, first = blockIdx.x * WIDTH;
  Ring r(shared);
  const share s = share_of(p);
  int batches = (s.end - s.begin + Ring::STEPS - 1) / Ring::STEPS;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Ring::STAGES; i++) {
      barrier_init(&r.full[i], copy_arrivals());
      barrier_init(&r.empty[i], WARPS);
    }
    barrier_fence();
  }
  __syncthreads();
  Sums sums;
  if (warp == WARPS)
    bring(p, r, s, batches);
  else
    multiply(r, s, batches, warp, lane, &sums);

  if (p.splits == 1 || !p.clusters) {
    if (warp < WARPS)
      each_sum<EIGHTS * 8>(sums, warp, lane, [&](int row, int output, float sum) {
        if (row >= p.rows || first + output >= p.out) return;
        if (p.splits == 1)
          p.y[row * p.y_stride + first + output] = sum;
        else
          p.partial[((long long)blockIdx.y * p.rows + row) * p.out + first + output] = sum;
      });
    if (p.splits > 1) add_left(p, first);
    return;
  }
  float *own = reinterpret_cast<float *>(shared);
  __syncthreads(); /* the ring has been read */
  if (warp < WARPS)
    each_sum<EIGHTS * 8>(sums, warp, lane, [&](int row, int output, float sum) {
      if (row < p.rows) own[row * STRIDE + output] = sum;
    });
  add_cluster(p, first, own);
}

template <class Sums, int EIGHTS>
__global__ void __launch_bounds__(THREADS, Sums::BLOCKS) product(const arguments p) {
  compute<Sums, EIGHTS>(p);
}

/* Runs of up to eight rows, each with weights of its own: a run is a place of the grid. */
struct run_list {
  pdt_cuda_run at[PDT_CUDA_RUNS];
};

template <class Sums>
__global__ void __launch_bounds__(THREADS, Sums::BLOCKS)
    product_of_runs(const arguments all, const run_list runs) {
  const pdt_cuda_run run = runs.at[blockIdx.z];
  arguments p = all;
  p.weights = static_cast<const unsigned char *>(run.weights);
  p.x += (long long)blockIdx.z * p.steps * Sums::X_WORDS * 16;
  p.rows = run.rows;
  p.y += run.first * p.y_stride;
  p.partial += (long long)blockIdx.z * p.splits * PDT_CUDA_RUN_ROWS * p.out;
  p.arrived += blockIdx.z * gridDim.x;
  compute<Sums, 1>(p);
}

template <template <int> class Sums, int EIGHTS>
cudaError_t start(const arguments &p, bool clusters, pdt_cuda_queue *queue) {
  dim3 grid((p.out + WIDTH - 1) / WIDTH, p.splits);
  return launch_clusters(product<Sums<EIGHTS>, EIGHTS>, grid, dim3(THREADS),
                         dim3(1, clusters ? p.splits : 1), ring<Sums<EIGHTS>, EIGHTS>::SHARED_BYTES,
                         queue, p);
}

template <template <int> class Sums>
cudaError_t choose(const arguments &p, bool clusters, pdt_cuda_queue *queue) {
  if (p.rows <= 8) return start<Sums, 1>(p, clusters, queue);
  if (p.rows <= 16) return start<Sums, 2>(p, clusters, queue);
  if (p.rows <= 32) return start<Sums, 4>(p, clusters, queue);
  return start<Sums, 8>(p, clusters, queue);
}

template <template <int> class Sums>
cudaError_t start_runs(const arguments &p, bool clusters, const run_list &runs, int n,
                       pdt_cuda_queue *queue) {
  dim3 grid((p.out + WIDTH - 1) / WIDTH, p.splits, n);
  return launch_clusters(product_of_runs<Sums<1>>, grid, dim3(THREADS),
                         dim3(1, clusters ? p.splits : 1), ring<Sums<1>, 1>::SHARED_BYTES, queue, p,
                         runs);
}

enum { PREPARE_THREADS = 256 };

struct rows_of_x {
  const float *x;
  long long stride, n; /* n: of the prepared numbers in fours */
  pdt_cuda_prepared to;
  int rows, in;
  long long aligned; /* can x be read 16 bytes at a time? */
};
static_assert(std::has_unique_object_representations_v<rows_of_x>, "compared byte by byte");

/* A thread four inputs of a row; what passes the edges is zero. */
__device__ void prepare_quad(const rows_of_x &r, uint4 *to) {
  long long i = (long long)blockIdx.x * PREPARE_THREADS + threadIdx.x;
  int step_quads = r.to.quads, step_rows = r.to.eights * 8;
  if (i >= r.n) return;
  int row = (int)(i / step_quads % step_rows);
  int quad = (int)(i / (step_quads * step_rows)) * step_quads + (int)(i % step_quads);
  float4 v = {};
  const float *from = r.x + row * r.stride;
  if (row < r.rows)
    v = r.aligned && 4 * quad + 4 <= r.in ? load_quad<true>(from, quad, r.in)
                                          : load_quad<false>(from, quad, r.in);
  to[i] = prepared_quad(r.to, v);
}

__global__ void prepare(const rows_of_x r) {
  grid_release();
  grid_wait();
  prepare_quad(r, static_cast<uint4 *>(r.to.at));
}

__global__ void prepare_runs(const rows_of_x all, const run_list runs) {
  rows_of_x r = all;
  grid_release();
  grid_wait();
  r.x += runs.at[blockIdx.y].first * r.stride;
  r.rows = runs.at[blockIdx.y].rows;
  prepare_quad(r, static_cast<uint4 *>(r.to.at) + blockIdx.y * r.n);
}

rows_of_x describe(pdt_dtype dtype, const float *x, int64_t stride, int32_t rows, int32_t in,
                   void *prepared) {
  rows_of_x r = {};
  r.x = x;
  r.stride = stride;
  r.n = pdt_cuda_prepared_bytes(dtype, in, rows) / 16;
  r.to = pdt_cuda_prepared_at(prepared, dtype, rows);
  r.rows = rows;
  r.in = in;
  r.aligned = reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % 4 == 0;
  return r;
}

dim3 prepare_grid(const rows_of_x &r, int runs) {
  return dim3((unsigned)((r.n + PREPARE_THREADS - 1) / PREPARE_THREADS), runs);
}

arguments arguments_of(const pdt_cuda_weights *w, const void *prepared, float *y, int64_t y_stride,
                       const pdt_cuda_room *room) {
  arguments p = {};
  p.weights = static_cast<const unsigned char *>(w->data);
  p.x = static_cast<const unsigned char *>(prepared);
  p.out = w->out;
  p.steps = pdt_cuda_steps(w);
  p.y = y;
  p.y_stride = y_stride;
  p.splits = w->cut.splits;
  p.ahead = room->ahead;
  p.clusters = room->clusters;
  p.partial = room->partial;
  p.arrived = room->arrived;
  return p;
}

} // namespace

pdt_cuda_cut pdt_cuda_choose_cut(int32_t out, int32_t in, pdt_dtype dtype) {
  enum { BLOCKS = 128, MOST_SPLITS = 8, SHORTEST = 16 };
  int32_t blocks = out / WIDTH + (out % WIDTH != 0), step = pdt_cuda_step(dtype);
  int32_t steps = in / step + (in % step != 0);
  pdt_cuda_cut cut = {1};
  while (cut.splits < MOST_SPLITS && blocks * cut.splits < BLOCKS &&
         steps / (2 * cut.splits) >= SHORTEST)
    cut.splits *= 2;
  return cut;
}

cudaError_t pdt_cuda_prepare(pdt_dtype dtype, const float *x, int64_t x_stride, int32_t rows,
                             int32_t in, void *prepared, pdt_cuda_queue *queue) {
  if (rows < 1) return cudaSuccess;
  rows_of_x r = describe(dtype, x, x_stride, rows, in, prepared);
  return launch_ahead(prepare, prepare_grid(r, 1), dim3(PREPARE_THREADS), 0, queue, r);
}

cudaError_t pdt_cuda_product(const pdt_cuda_weights *w, const void *prepared, int32_t rows,
                             float *y, int64_t y_stride, const pdt_cuda_room *room,
                             pdt_cuda_queue *queue) {
  if (rows < 1) return cudaSuccess;
  if (rows > PDT_CUDA_ROWS) return cudaErrorInvalidValue;
  arguments p = arguments_of(w, prepared, y, y_stride, room);
  p.rows = rows;
  switch (w->dtype) {
  case PDT_F32:
    return choose<products_f32>(p, room->clusters, queue);
  case PDT_F16:
    return choose<products_f16>(p, room->clusters, queue);
  case PDT_BF16:
    return choose<products_bf16>(p, room->clusters, queue);
  default:
    break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t pdt_cuda_product_runs(const pdt_cuda_weights *w, const pdt_cuda_run *runs, int32_t n,
                                  const float *x, int64_t x_stride, void *prepared, float *y,
                                  int64_t y_stride, const pdt_cuda_room *room,
                                  pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  if (n > PDT_CUDA_RUNS) return cudaErrorInvalidValue;
  run_list list = {};
  for (int32_t i = 0; i < n; i++) list.at[i] = runs[i];
  rows_of_x r = describe(w->dtype, x, x_stride, PDT_CUDA_RUN_ROWS, w->in, prepared);
  cudaError_t code =
      launch_ahead(prepare_runs, prepare_grid(r, n), dim3(PREPARE_THREADS), 0, queue, r, list);
  if (code != cudaSuccess) return code;
  arguments p = arguments_of(w, prepared, y, y_stride, room);
  switch (w->dtype) {
  case PDT_F32:
    return start_runs<products_f32>(p, room->clusters, list, n, queue);
  case PDT_F16:
    return start_runs<products_f16>(p, room->clusters, list, n, queue);
  case PDT_BF16:
    return start_runs<products_bf16>(p, room->clusters, list, n, queue);
  default:
    break;
  }
  return cudaErrorInvalidValue;
}
