/* Products of few rows. A block of 8 warps takes some groups of 32 outputs and a part of the inner
 * dimension; each warp streams the weights of one group and slice past the rows of x, which wait in
 * shared memory. The slices of a block meet there too; those of several blocks meet in global
 * memory, where the last block to arrive adds them up in order. */
#include "kernels/cuda/products.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/instructions.cuh"

namespace {

enum { WARPS = 8, LANES = 32, THREADS = WARPS * LANES };
enum { COPY_STEPS = 4, COPY_STAGES = 3 }; /* of one warp's ring for the bulk copy engine */
enum { ROW_PAD = 16 };                    /* floats between rows of x: they start 16 banks apart */
enum { CHUNK_STEPS = 4 };                 /* x comes in multiples of this many steps */
enum {
  X_BYTES = 48 << 10
}; /* of shared memory for x, if it can be had in one chunk;
      else two chunks of this */

struct arguments {
  const uint4 *weights;
  int out, in, steps;
  const float *x;
  long long x_stride;
  int rows;
  float *y;
  long long y_stride;
  int splits, chunk_steps, stages;
  bool aligned; /* x can be read 16 bytes at a time */
  float *partial;
  unsigned *arrived;
};

/* Two floats as two bf16 numbers each: nearest, and nearest to what is left. */
__device__ inline void split_pair(float a, float b, unsigned *high, unsigned *low) {
  __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
  __nv_bfloat162 l = __floats2bfloat162_rn(a - __low2float(h), b - __high2float(h));
  *high = *reinterpret_cast<unsigned *>(&h);
  *low = *reinterpret_cast<unsigned *>(&l);
}

/* Sums of a warp: 32 outputs by 8 * TILES rows, as the tensor cores hold them. */
template <int TILES> struct fragments {
  enum { STEP = 16 };
  float sums[TILES][2][4] = {};

  /* Output and row of sum i of this thread. */
  static __device__ void place(int i, int lane, int *output, int *row) {
    *output = i / 4 % 2 * 16 + i % 4 / 2 * 8 + lane / 4;
    *row = i / 8 * 8 + lane % 4 * 2 + i % 2;
  }

  static __device__ void read_x(const float *x, int stride, int tile, int lane, unsigned high[2],
                                unsigned low[2]) {
    float4 v = *reinterpret_cast<const float4 *>(x + (tile * 8 + lane / 4) * stride + lane % 4 * 4);
    split_pair(v.x, v.y, &high[0], &low[0]);
    split_pair(v.z, v.w, &high[1], &low[1]);
  }
};

template <int TILES> struct products_bf16 : fragments<TILES> {
  __device__ void step(uint4 first, uint4 second, const float *x, int stride, int lane) {
    unsigned a[2][4] = {{first.x, first.y, first.z, first.w},
                        {second.x, second.y, second.z, second.w}};
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      unsigned high[2], low[2];
      this->read_x(x, stride, n, lane, high, low);
      mma_m16n8k16_bf16(this->sums[n][0], a[0], high);
      mma_m16n8k16_bf16(this->sums[n][1], a[1], high);
      mma_m16n8k16_bf16(this->sums[n][0], a[0], low);
      mma_m16n8k16_bf16(this->sums[n][1], a[1], low);
    }
  }
};

/* A half-precision weight is the sum of two bf16 numbers, exactly. */
template <int TILES> struct products_f16 : fragments<TILES> {
  static __device__ void widen(const uint4 v, unsigned high[4], unsigned low[4]) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&words[i]));
      split_pair(f.x, f.y, &high[i], &low[i]);
    }
  }

  __device__ void step(uint4 first, uint4 second, const float *x, int stride, int lane) {
    unsigned a_high[2][4], a_low[2][4];
    widen(first, a_high[0], a_low[0]);
    widen(second, a_high[1], a_low[1]);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      unsigned high[2], low[2];
      this->read_x(x, stride, n, lane, high, low);
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
template <int TILES> struct products_f32 {
  enum { STEP = 8 };
  float sums[TILES * 8] = {};

  static __device__ void place(int i, int lane, int *output, int *row) {
    *output = lane;
    *row = i;
  }

  __device__ void quad(uint4 w, const float *x, int stride) {
    float a = __uint_as_float(w.x), b = __uint_as_float(w.y), c = __uint_as_float(w.z),
          d = __uint_as_float(w.w);
#pragma unroll
    for (int r = 0; r < TILES * 8; r++) {
      float4 v = *reinterpret_cast<const float4 *>(x + r * stride);
      sums[r] = fmaf(d, v.w, fmaf(c, v.z, fmaf(b, v.y, fmaf(a, v.x, sums[r]))));
    }
  }

  __device__ void step(uint4 first, uint4 second, const float *x, int stride, int lane) {
    (void)lane;
    quad(first, x, stride);
    quad(second, x + 4, stride);
  }
};

/* Weights of a warp's steps begin .. end-1, loaded some steps ahead into registers. */
template <int DEPTH> struct loader {
  const uint4 *at; /* this thread's of step 0 */
  int end;
  uint4 ring[DEPTH][2];

  __device__ void load(int slot, int step) {
    ring[slot][0] = load_once(at + step * 64);
    ring[slot][1] = load_once(at + step * 64 + 32);
  }

  __device__ void start(const uint4 *weights, int begin, int stop, unsigned char *, int lane) {
    at = weights + lane;
    end = stop;
#pragma unroll
    for (int j = 0; j < DEPTH; j++)
      if (begin + j < end) load(j, begin + j);
  }

  /* slot: (step - begin) % DEPTH, known when compiled. */
  __device__ void take(int slot, int step, uint4 *first, uint4 *second) {
    *first = ring[slot][0];
    *second = ring[slot][1];
    if (step + DEPTH < end) load(slot, step + DEPTH);
  }
};

/* The same through the bulk copy engine, by way of shared memory. */
struct copier {
  const uint4 *weights;
  unsigned char *ring; /* COPY_STAGES * COPY_STEPS KiB, and a barrier a stage behind it */
  int begin, end, lane;
  enum { BYTES = COPY_STAGES * COPY_STEPS * 1024 + 128 };

  __device__ uint64_t *barrier(int stage) {
    return reinterpret_cast<uint64_t *>(ring + COPY_STAGES * COPY_STEPS * 1024) + stage;
  }

  __device__ void load(int batch) {
    int step = begin + batch * COPY_STEPS, stage = batch % COPY_STAGES;
    int n = end - step < COPY_STEPS ? end - step : COPY_STEPS;
    if (n > 0 && lane == 0)
      copy_block(ring + stage * COPY_STEPS * 1024, weights + step * 64, n * 1024, barrier(stage));
  }

  __device__ void start(const uint4 *from, int first, int stop, unsigned char *shared, int thread) {
    weights = from;
    ring = shared;
    begin = first;
    end = stop;
    lane = thread;
    if (lane == 0) {
      for (int s = 0; s < COPY_STAGES; s++) barrier_init(barrier(s));
      barrier_fence();
    }
    __syncwarp();
    for (int b = 0; b < COPY_STAGES; b++) load(b);
  }

  __device__ void take(int, int step, uint4 *first, uint4 *second) {
    int done = step - begin, batch = done / COPY_STEPS, stage = batch % COPY_STAGES;
    if (done % COPY_STEPS == 0) {
      /* The steps before are in registers by now: their room is free. */
      __syncwarp();
      if (batch > 0) load(batch - 1 + COPY_STAGES);
      barrier_wait(barrier(stage), batch / COPY_STAGES % 2);
    }
    const uint4 *at = reinterpret_cast<const uint4 *>(ring) +
                      (stage * COPY_STEPS + done % COPY_STEPS) * 64 + lane;
    *first = at[0];
    *second = at[32];
  }
};

/* Brings the columns of x of one chunk: for each of the block's slices, rows of chunk_steps. */
template <int STEP, int BEHIND>
__device__ void load_x(const arguments &p, float *to, int stride, int rows_room, int chunk) {
  int quads = p.chunk_steps * STEP / 4, n_slices = p.splits * BEHIND;
  for (int i = threadIdx.x; i < BEHIND * p.rows * quads; i += THREADS) {
    int quad = i % quads, row = i / quads % p.rows, behind = i / (quads * p.rows);
    long long slice = (long long)blockIdx.y * BEHIND + behind;
    int begin = (int)(slice * p.steps / n_slices);
    int column = (begin + chunk * p.chunk_steps) * STEP + quad * 4;
    int left = p.in - column;
    float *target = to + (behind * rows_room + row) * stride + quad * 4;
    const float *source = p.x + row * p.x_stride + column;
    if (p.aligned && left > 0) {
      copy_ahead(target, source, left < 4 ? left * 4 : 16);
    } else {
      for (int j = 0; j < 4; j++) target[j] = j < left ? source[j] : 0;
    }
  }
}

/* Adds the sums of a block's slices, in order, and hands them to `store(row, output, sum)`. */
template <int ACROSS, class Sums, class Store>
__device__ void meet(const Sums &sums, int n_sums, float *room, int rows_room, int rows,
                     const Store &store) {
  enum { BEHIND = WARPS / ACROSS, WIDTH = ACROSS * PDT_CUDA_GROUP, STRIDE = WIDTH + 4 };
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  int across = warp % ACROSS, behind = warp / ACROSS;
  const float *values = reinterpret_cast<const float *>(&sums.sums);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n_sums; i++) {
    int output, row;
    Sums::place(i, lane, &output, &row);
    room[(behind * rows_room + row) * STRIDE + across * PDT_CUDA_GROUP + output] = values[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows * WIDTH; i += THREADS) {
    int row = i / WIDTH, output = i % WIDTH;
    float sum = room[row * STRIDE + output];
#pragma unroll
    for (int b = 1; b < BEHIND; b++) sum += room[(b * rows_room + row) * STRIDE + output];
    store(row, output, sum);
  }
}

/* The last block of a group to arrive adds up what all blocks of the group left, in order. */
__device__ void add_splits(const arguments &p, int first, int width) {
  SHARED_ARRAY(unsigned, last, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = atomicAdd(&p.arrived[blockIdx.x], 1u) == (unsigned)p.splits - 1;
  __syncthreads();
  if (!last[0]) return;
  __threadfence();
  for (int i = threadIdx.x; i < p.rows * width; i += THREADS) {
    int row = i / width, o = first + i % width;
    if (o >= p.out) continue;
    float sum = __ldcg(&p.partial[(long long)row * p.out + o]);
    for (int s = 1; s < p.splits; s++)
      sum += __ldcg(&p.partial[((long long)s * p.rows + row) * p.out + o]);
    p.y[row * p.y_stride + o] = sum;
  }
  if (threadIdx.x == 0) p.arrived[blockIdx.x] = 0;
}

template <class Sums, class Stream, int TILES, int ACROSS, int DEPTH>
__global__ void __launch_bounds__(THREADS, TILES <= 2 ? 2 : 1) product(const arguments p) {
  enum { BEHIND = WARPS / ACROSS, STEP = Sums::STEP, ROOM = TILES * 8 };
  DYNAMIC_SHARED(unsigned char, shared);
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  int across = warp % ACROSS, behind = warp / ACROSS;
  int group = blockIdx.x * ACROSS + across;
  long long slice = (long long)blockIdx.y * BEHIND + behind;
  int begin = (int)(slice * p.steps / (p.splits * BEHIND));
  int end = (int)((slice + 1) * p.steps / (p.splits * BEHIND));
  int longest = (p.steps + p.splits * BEHIND - 1) / (p.splits * BEHIND);
  if (group * PDT_CUDA_GROUP >= p.out) end = begin;

  int stride = p.chunk_steps * STEP + ROW_PAD, stage_elems = BEHIND * ROOM * stride;
  float *x = reinterpret_cast<float *>(shared);
  Stream stream;
  grid_release();
  stream.start(p.weights + (long long)group * p.steps * 64, begin, end,
               shared + p.stages * stage_elems * 4 + warp * copier::BYTES, lane);
  grid_wait();
  load_x<STEP, BEHIND>(p, x, stride, ROOM, 0);

  Sums sums;
  for (int chunk = 0; chunk * p.chunk_steps < longest; chunk++) {
    copies_wait();
    __syncthreads();
    if ((chunk + 1) * p.chunk_steps < longest)
      load_x<STEP, BEHIND>(p, x + (chunk + 1) % 2 * stage_elems, stride, ROOM, chunk + 1);
    const float *own = x + chunk % 2 * stage_elems + behind * ROOM * stride;
    for (int t = 0; t < p.chunk_steps; t += DEPTH) {
#pragma unroll
      for (int j = 0; j < DEPTH; j++) {
        int step = begin + chunk * p.chunk_steps + t + j;
        if (step >= end) break;
        uint4 first, second;
        stream.take(j, step, &first, &second);
        sums.step(first, second, own + (t + j) * STEP, stride, lane);
      }
    }
  }

  int first = blockIdx.x * ACROSS * PDT_CUDA_GROUP;
  meet<ACROSS>(sums, TILES * 8, x, ROOM, p.rows, [&](int row, int output, float sum) {
    if (first + output >= p.out) return;
    if (p.splits == 1)
      p.y[row * p.y_stride + first + output] = sum;
    else
      p.partial[((long long)blockIdx.y * p.rows + row) * p.out + first + output] = sum;
  });
  if (p.splits > 1) add_splits(p, first, ACROSS * PDT_CUDA_GROUP);
}

/* How much of x a block holds at a time: all of its slices if they fit, else two chunks in turn. */
size_t lay_out(arguments *p, int step, int rows_room, int across) {
  int behind = WARPS / across, n_slices = p->splits * behind;
  int longest = (p->steps + n_slices - 1) / n_slices;
  int whole = (longest + CHUNK_STEPS - 1) / CHUNK_STEPS * CHUNK_STEPS;
  int row_bytes = behind * rows_room * 4; /* of one column */
  int fit = (X_BYTES / row_bytes - ROW_PAD) / step / CHUNK_STEPS * CHUNK_STEPS;
  if (fit < CHUNK_STEPS) fit = CHUNK_STEPS;
  p->chunk_steps = whole < fit ? whole : fit;
  p->stages = p->chunk_steps < longest ? 2 : 1;
  return (size_t)row_bytes * (p->chunk_steps * step + ROW_PAD) * p->stages;
}

template <template <int> class Sums, int TILES, int ACROSS>
cudaError_t start(arguments *p, bool bulk, cudaStream_t stream) {
  enum { DEPTH = CHUNK_STEPS };
  size_t x_bytes = lay_out(p, Sums<TILES>::STEP, TILES * 8, ACROSS);
  size_t meet_bytes = (WARPS / ACROSS) * TILES * 8 * (ACROSS * PDT_CUDA_GROUP + 4) * 4;
  dim3 grid((p->out + ACROSS * PDT_CUDA_GROUP - 1) / (ACROSS * PDT_CUDA_GROUP), p->splits);
  if (bulk) {
    size_t bytes = x_bytes + WARPS * copier::BYTES;
    return launch_ahead(product<Sums<TILES>, copier, TILES, ACROSS, DEPTH>, grid, dim3(THREADS),
                        bytes > meet_bytes ? bytes : meet_bytes, stream, *p);
  }
  return launch_ahead(product<Sums<TILES>, loader<DEPTH>, TILES, ACROSS, DEPTH>, grid,
                      dim3(THREADS), x_bytes > meet_bytes ? x_bytes : meet_bytes, stream, *p);
}

/* Slices behind one another hold their columns of x side by side: the more of them, the fewer rows
 * at a time. */
int rows_at_a_time(int across) {
  return across >= 4 ? PDT_CUDA_ROWS : 16 * across;
}

template <template <int> class Sums, int ACROSS>
cudaError_t choose_tiles(arguments *p, bool bulk, cudaStream_t stream) {
  if (p->rows <= 8) return start<Sums, 1, ACROSS>(p, bulk, stream);
  if (p->rows <= 16) return start<Sums, 2, ACROSS>(p, bulk, stream);
  if constexpr (ACROSS >= 2)
    if (p->rows <= 32) return start<Sums, 4, ACROSS>(p, bulk, stream);
  if constexpr (ACROSS >= 4) return start<Sums, 8, ACROSS>(p, bulk, stream);
  return cudaErrorInvalidValue;
}

template <template <int> class Sums>
cudaError_t choose_cut(arguments *p, const pdt_cuda_cut *cut, cudaStream_t stream) {
  switch (cut->warps_across) {
  case 1:
    return choose_tiles<Sums, 1>(p, cut->bulk, stream);
  case 2:
    return choose_tiles<Sums, 2>(p, cut->bulk, stream);
  case 4:
    return choose_tiles<Sums, 4>(p, cut->bulk, stream);
  case 8:
    return choose_tiles<Sums, 8>(p, cut->bulk, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t choose_type(arguments *p, const pdt_cuda_weights *w, cudaStream_t stream) {
  switch (w->dtype) {
  case PDT_F32:
    return choose_cut<products_f32>(p, &w->cut, stream);
  case PDT_F16:
    return choose_cut<products_f16>(p, &w->cut, stream);
  case PDT_BF16:
    return choose_cut<products_bf16>(p, &w->cut, stream);
  }
  return cudaErrorInvalidValue;
}

} // namespace

pdt_cuda_cut pdt_cuda_choose_cut(int32_t out, int32_t in, pdt_dtype dtype) {
  enum { ACROSS = 4, BLOCKS = 250, SHORTEST = 8 };
  int32_t groups = (out + PDT_CUDA_GROUP - 1) / PDT_CUDA_GROUP;
  int32_t steps = (in + pdt_cuda_step(dtype) - 1) / pdt_cuda_step(dtype);
  pdt_cuda_cut cut = {ACROSS, 1, 0};
  while (cut.splits < 8 && (groups + ACROSS - 1) / ACROSS * cut.splits < BLOCKS &&
         steps / (2 * cut.splits * (WARPS / ACROSS)) >= SHORTEST)
    cut.splits *= 2;
  return cut;
}

cudaError_t pdt_cuda_product(const pdt_cuda_weights *w, const float *x, int64_t x_stride,
                             int32_t rows, float *y, int64_t y_stride, const pdt_cuda_room *room,
                             cudaStream_t stream) {
  arguments p = {};
  p.weights = static_cast<const uint4 *>(w->data);
  p.out = w->out;
  p.in = w->in;
  p.steps = pdt_cuda_steps(w);
  p.x_stride = x_stride;
  p.y_stride = y_stride;
  p.splits = w->cut.splits;
  p.aligned = reinterpret_cast<uintptr_t>(x) % 16 == 0 && x_stride % 4 == 0;
  p.partial = room->partial;
  p.arrived = room->arrived;
  int most = rows_at_a_time(w->cut.warps_across);
  for (int32_t done = 0; done < rows; done += most) {
    p.x = x + done * x_stride;
    p.y = y + done * y_stride;
    p.rows = rows - done < most ? rows - done : most;
    cudaError_t code = choose_type(&p, w, stream);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}
