/* Element by element, row by row; weights in and out of their packed form. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prepared.cuh"
#include "kernels/cuda/products.h"
#include "kernels/cuda/sums.cuh"

namespace {

enum { THREADS = 256, LINE = 32 /* floats */, MOST_GRID_ROWS = 65535 };
enum { GATHERED = 4 * THREADS /* elements that a block of gather reads of a row */ };
enum { MOST_NORM_THREADS = 1024, HELD = 2 /* quads of a row that a thread keeps */ };

/* Can it be read 16 bytes at a time? */
bool whole(const float *p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

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

/* x + gate * more; a gate of 1 gives the sum as it is. */
__device__ inline float4 add_quad(float4 x, float4 more, float gate) {
  return make_float4(fmaf(gate, more.x, x.x), fmaf(gate, more.y, x.y), fmaf(gate, more.z, x.z),
                     fmaf(gate, more.w, x.w));
}

__device__ inline float add_squares(float4 v, float sum) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

__device__ inline float4 scale_quad(float4 v, float scale, float4 weight) {
  return make_float4(v.x * scale * weight.x, v.y * scale * weight.y, v.z * scale * weight.z,
                     v.w * scale * weight.w);
}

/* A quad of this block's row goes to y, and to its place among prepared rows. */
template <bool WHOLE>
__device__ inline void give_quad(float *y, const pdt_cuda_prepared &prepared, int quad, int width,
                                 float4 v) {
  store_quad<WHOLE>(y, quad, width, v);
  if (prepared.at) put_quad(prepared, blockIdx.x, quad, v);
}

/* One row of a norm, of which a thread keeps HELD quads: every blockDim.x-th from its own on. */
template <bool WHOLE> struct norm_row {
  const pdt_cuda_norm &n;
  const pdt_cuda_prepared &prepared;
  float *x;
  const float *added; /* nullptr: nothing */
  float4 held[HELD], weights[HELD];

  __device__ norm_row(const pdt_cuda_norm &norm, const pdt_cuda_prepared &to, bool adds)
      : n(norm), prepared(to), x(norm.x + (int64_t)blockIdx.x * norm.width),
        added(adds ? norm.added + (int64_t)blockIdx.x * norm.width : nullptr) {}

  __device__ int quad(int j) const {
    return threadIdx.x + j * blockDim.x;
  }

  __device__ bool has(int quad) const {
    return 4 * quad < n.width;
  }

  __device__ float4 weight(int quad) const {
    return n.weight ? load_quad<WHOLE>(n.weight, quad, n.width) : float4{1, 1, 1, 1};
  }

  /* All that is kept is asked for before any of it is used; then x is what it will be. */
  __device__ void load() {
    float4 more[HELD] = {};
#pragma unroll
    for (int j = 0; j < HELD; j++) {
      held[j] = has(quad(j)) ? load_quad<WHOLE>(x, quad(j), n.width) : float4{};
      if (added && has(quad(j))) more[j] = load_quad<WHOLE>(added, quad(j), n.width);
      if (has(quad(j))) weights[j] = weight(quad(j));
    }
    if (!added) return;
#pragma unroll
    for (int j = 0; j < HELD; j++) {
      held[j] = add_quad(held[j], more[j], n.gate);
      if (has(quad(j))) store_quad<WHOLE>(x, quad(j), n.width, held[j]);
    }
  }

  /* This thread's squares. */
  __device__ float squares() const {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < HELD; j++) sum = add_squares(held[j], sum);
    for (int q = quad(HELD); has(q); q += blockDim.x) {
      float4 v = load_quad<WHOLE>(x, q, n.width);
      if (added) {
        v = add_quad(v, load_quad<WHOLE>(added, q, n.width), n.gate);
        store_quad<WHOLE>(x, q, n.width, v);
      }
      sum = add_squares(v, sum);
    }
    return sum;
  }

  /* To y, and to its place among prepared rows. */
  __device__ void give(int quad, float4 v) const {
    store_quad<WHOLE>(n.y + (int64_t)blockIdx.x * n.width, quad, n.width, v);
    if (prepared.at) put_quad(prepared, blockIdx.x, quad, v);
  }

  __device__ void give_all(float scale) const {
#pragma unroll
    for (int j = 0; j < HELD; j++)
      if (has(quad(j))) give(quad(j), scale_quad(held[j], scale, weights[j]));
    for (int q = quad(HELD); has(q); q += blockDim.x)
      give(q, scale_quad(load_quad<WHOLE>(x, q, n.width), scale, weight(q)));
    if (!prepared.at) return;
    for (int q = (n.width + 3) / 4 + quad(0); q < prepared_quads(prepared, n.width);
         q += blockDim.x)
      put_quad(prepared, blockIdx.x, q, float4{});
  }
};

/* One block a row. The sum of squares is made in a fixed tree. */
template <bool WHOLE>
__global__ void __launch_bounds__(MOST_NORM_THREADS)
    norm(const pdt_cuda_norm n, const pdt_cuda_prepared prepared) {
  SHARED_ARRAY(float, room, MOST_NORM_THREADS / 32);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  grid_release();
  if (n.weight)
    for (int i = threadIdx.x * LINE; i < n.width; i += blockDim.x * LINE)
      prefetch_line(n.weight + i);
  /* Conditions come by a copy, which kernels behind it have waited for. */
  bool adds = n.added && (!n.noted || n.noted[blockIdx.x].n_notes > 0);
  grid_wait();
  norm_row<WHOLE> row(n, prepared, adds);
  row.load();
  float squares = warp_sum(row.squares());
  if (lane == 0) room[warp] = squares;
  __syncthreads();
  float sum = warp_sum(lane < warps ? room[lane] : 0);
  row.give_all(1 / sqrtf(sum / (float)n.width + n.eps));
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

__device__ inline float swiglu_of(float gate, float up) {
  return gate / (1 + expf(-gate)) * up;
}

/* Block (part, row), a thread a quad; with prepared rows what passes the end is zero. */
template <bool WHOLE>
__global__ void swiglu(float *gate_up, int32_t width, const pdt_cuda_prepared prepared) {
  int row = blockIdx.y, q = blockIdx.x * THREADS + threadIdx.x;
  float *gate = gate_up + (int64_t)row * 2 * width;
  grid_release();
  grid_wait();
  float4 v = {};
  if (4 * q < width) {
    float4 g = load_quad<WHOLE>(gate, q, width), u = load_quad<WHOLE>(gate + width, q, width);
    v = make_float4(swiglu_of(g.x, u.x), swiglu_of(g.y, u.y), swiglu_of(g.z, u.z),
                    swiglu_of(g.w, u.w));
    store_quad<WHOLE>(gate, q, width, v);
  }
  if (prepared.at && q < prepared_quads(prepared, width)) put_quad(prepared, row, q, v);
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

/* Block (part of a row, row). The lists may be the host's: a thread of the block reads them. */
__global__ void __launch_bounds__(THREADS)
    gather(const pdt_cuda_weights w, const int32_t *ids, const int32_t *from, int32_t n, float *y) {
  SHARED_ARRAY(int32_t, found, 1);
  grid_release();
  grid_wait();
  for (int32_t row = blockIdx.y; row < n; row += gridDim.y) {
    __syncthreads();
    if (threadIdx.x == 0) found[0] = max(ids[from ? from[row] : row], 0);
    __syncthreads();
    int32_t begin = blockIdx.x * GATHERED, end = min(begin + GATHERED, w.in);
#pragma unroll 4
    for (int32_t i = begin + threadIdx.x; i < end; i += THREADS)
      y[(int64_t)row * w.in + i] =
          widen(w.dtype, w.data, pdt_cuda_place(w.dtype, w.out, w.in, found[0], i));
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

cudaError_t pdt_launch_norm(const pdt_cuda_norm *n, const pdt_cuda_prepared *prepared,
                            pdt_cuda_queue *queue) {
  if (n->rows < 1) return cudaSuccess;
  bool all = n->width % 4 == 0 && whole(n->x) && whole(n->y) && whole(n->added) && whole(n->weight);
  int threads =
      n->width <= 4 * HELD * MOST_NORM_THREADS / 2 ? MOST_NORM_THREADS / 2 : MOST_NORM_THREADS;
  return launch_ahead(all ? norm<true> : norm<false>, dim3(n->rows), dim3(threads), 0, queue, *n,
                      *prepared);
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

cudaError_t pdt_launch_swiglu(float *gate_up, int32_t rows, int32_t width,
                              const pdt_cuda_prepared *prepared, pdt_cuda_queue *queue) {
  enum { STEP = 16 /* at least as many columns as a step of products has */ };
  if (rows < 1 || width < 1) return cudaSuccess;
  int quads = (width + STEP - 1) / STEP * (STEP / 4);
  bool all = width % 4 == 0 && whole(gate_up);
  for (int32_t done = 0; done < rows; done += MOST_GRID_ROWS) {
    int32_t some = rows - done < MOST_GRID_ROWS ? rows - done : MOST_GRID_ROWS;
    cudaError_t code = launch_ahead(all ? swiglu<true> : swiglu<false>,
                                    dim3((quads + THREADS - 1) / THREADS, some), dim3(THREADS), 0,
                                    queue, gate_up + (int64_t)done * 2 * width, width, *prepared);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
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
  if (n < 1 || w->in < 1) return cudaSuccess;
  dim3 grid((unsigned)((w->in - 1) / GATHERED + 1),
            (unsigned)(n < MOST_GRID_ROWS ? n : MOST_GRID_ROWS));
  return launch_ahead(gather, grid, dim3(THREADS), 0, queue, *w, ids, from, n, y);
}

cudaError_t pdt_launch_rows_product(const void *rows, pdt_dtype dtype, int32_t n, int32_t width,
                                    const float *x, float *y, pdt_cuda_queue *queue) {
  if (n < 1) return cudaSuccess;
  return launch_ahead(rows_product, dim3((n + THREADS / 32 - 1) / (THREADS / 32)), dim3(THREADS), 0,
                      queue, rows, dtype, n, width, x, y);
}
