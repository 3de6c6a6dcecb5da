/* Matrix products of few rows, shape by shape, against the read bandwidth. Weights are made on the
 * card by a formula, so that the host can work out what any output has to be. */
#include "kernels/cuda/products.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "gpu.h"

namespace {

struct shape {
  const char *model, *name;
  int out, in;
};

const shape shapes[] = {
    {"8B", "qkv", 6144, 4096},          {"8B", "attention out", 4096, 4096},
    {"8B", "k or v", 1024, 4096},       {"8B", "gate and up", 28672, 4096},
    {"8B", "down", 4096, 14336},        {"8B", "head", 128256, 4096},
    {"1B", "qkv", 3072, 2048},          {"1B", "attention out", 2048, 2048},
    {"1B", "gate and up", 16384, 2048}, {"1B", "down", 2048, 8192},
    {"1B", "head", 128256, 2048},
};

enum { MOST_ROWS = 64, SAMPLES = 48 };
const uint64_t WEIGHT_SEED = 11, X_SEED = 12;

__host__ __device__ uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

__host__ __device__ float weight(pdt_dtype dtype, int64_t place) {
  float v =
      0.03125f *
      ((float)(mix((uint64_t)place * 0x9e3779b97f4a7c15u + WEIGHT_SEED) >> 40) / 8388608.0f - 1);
  if (dtype == PDT_BF16) return __bfloat162float(__float2bfloat16(v));
  if (dtype == PDT_F16) return __half2float(__float2half(v));
  return v;
}

__global__ void make_weights(void *data, pdt_dtype dtype, int32_t steps, int32_t out, int32_t in) {
  int64_t n = (int64_t)out * in, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    int64_t at = pdt_cuda_place(dtype, steps, (int32_t)(i / in), (int32_t)(i % in));
    float v = weight(dtype, i);
    if (dtype == PDT_BF16)
      ((__nv_bfloat16 *)data)[at] = __float2bfloat16(v);
    else if (dtype == PDT_F16)
      ((__half *)data)[at] = __float2half(v);
    else
      ((float *)data)[at] = v;
  }
}

struct setting {
  gpu_bench *b;
  pdt_cuda_weights w;
  int copies; /* of the weights, one behind the other: together more than the second cache holds */
  unsigned char *data;
  float *x, *y;
  pdt_cuda_room room;
  std::vector<float> host_x;
};

void product(setting *s, int rows, int copy, cudaStream_t stream) {
  pdt_cuda_weights w = s->w;
  w.data = s->data + (int64_t)copy * pdt_cuda_weights_bytes(&w);
  CHECK(pdt_cuda_product(&w, s->x, w.in, rows, s->y, w.out, &s->room, stream));
}

/* Largest distance from the sums in double of sampled outputs, in units of the root of the sum of
 * the squared products; infinite when a number is none, or when a row's bits depend on the rows
 * beside it. */
double error_of(setting *s, int rows) {
  std::vector<float> y((size_t)rows * s->w.out), alone(s->w.out);
  CHECK(cudaMemsetAsync(s->y, 0xff, 4 * y.size(), s->b->stream));
  product(s, rows, 0, s->b->stream);
  CHECK(cudaMemcpyAsync(y.data(), s->y, 4 * y.size(), cudaMemcpyDeviceToHost, s->b->stream));
  CHECK(cudaStreamSynchronize(s->b->stream));
  for (float v : y)
    if (!std::isfinite(v)) return INFINITY;
  double worst = 0;
  for (int k = 0; k < SAMPLES; k++) {
    int o = (int)(mix(k + 77) % (uint64_t)s->w.out), r = (int)(mix(k + 99) % (uint64_t)rows);
    if (k == 0) o = s->w.out - 1, r = rows - 1;
    double sum = 0, squares = 0;
    for (int i = 0; i < s->w.in; i++) {
      double p = (double)weight(s->w.dtype, (int64_t)o * s->w.in + i) *
                 (double)s->host_x[(size_t)r * s->w.in + i];
      sum += p;
      squares += p * p;
    }
    worst = std::max(worst, fabs(y[(size_t)r * s->w.out + o] - sum) / sqrt(squares));
  }
  pdt_cuda_weights w = s->w;
  w.data = s->data;
  CHECK(pdt_cuda_product(&w, s->x + (int64_t)(rows - 1) * w.in, w.in, 1, s->y, w.out, &s->room,
                         s->b->stream));
  CHECK(
      cudaMemcpyAsync(alone.data(), s->y, 4 * alone.size(), cudaMemcpyDeviceToHost, s->b->stream));
  CHECK(cudaStreamSynchronize(s->b->stream));
  if (memcmp(alone.data(), y.data() + (size_t)(rows - 1) * w.out, 4 * alone.size()) != 0)
    return INFINITY;
  return worst;
}

double seconds_of(setting *s, int rows) {
  int inside = std::max(4, std::min(24, s->copies));
  return gpu_time(s->b, inside, s->b->quick ? 3 : 5,
                  [&](int i) { product(s, rows, i % s->copies, s->b->stream); });
}

/* Rounding to a sum of two bf16 numbers leaves 2^-17 of x, evenly spread; sums in float of some
 * thousand products add about as much. In f32 the sums alone. */
const double TOLERANCE = 3e-5;

void measure(setting *s, const shape *sh, int rows) {
  double error = error_of(s, rows), seconds = seconds_of(s, rows);
  double bytes = (double)pdt_cuda_weights_bytes(&s->w), rate = bytes / seconds;
  double share = s->b->read_bandwidth > 0 ? rate / s->b->read_bandwidth : 0;
  bool right = error <= TOLERANCE;
  if (!right) s->b->wrong++;
  const pdt_cuda_cut *cut = &s->w.cut;
  const char *dtype = pdt_dtype_name(s->w.dtype);
  fprintf(s->b->out,
          "{\"part\": \"products\", \"model\": \"%s\", \"shape\": \"%s\", \"out\": %d, \"in\": %d, "
          "\"dtype\": \"%s\", \"rows\": %d, \"warps_across\": %d, \"splits\": %d, \"bulk\": %d, "
          "\"us\": %.3f, \"GB/s\": %.1f, \"of_read\": %.4f, \"error\": %.3g, \"correct\": %s}\n",
          sh->model, sh->name, sh->out, sh->in, dtype, rows, cut->warps_across, cut->splits,
          cut->bulk, seconds * 1e6, rate / 1e9, share, error < 1e30 ? error : 1e30,
          right ? "true" : "false");
  printf("%-3s %-14s %7d %6d %-5s %4d  %d x %d%s %9.2f %8.1f %7.3f %9.2g %s\n", sh->model, sh->name,
         sh->out, sh->in, dtype, rows, cut->warps_across, cut->splits,
         cut->bulk ? " bulk" : "     ", seconds * 1e6, rate / 1e9, share, error,
         right ? "yes" : "NO");
}

void set_up(setting *s, gpu_bench *b, const shape *sh, pdt_dtype dtype) {
  *s = {};
  s->b = b;
  s->w.out = sh->out;
  s->w.in = sh->in;
  s->w.dtype = dtype;
  pdt_bytes bytes = pdt_cuda_weights_bytes(&s->w);
  s->copies = (int)std::max<int64_t>(1, ((int64_t)400 << 20) / bytes);
  CHECK(cudaMalloc(&s->data, s->copies * bytes));
  CHECK(cudaMemsetAsync(s->data, 0, s->copies * bytes, b->stream));
  for (int c = 0; c < s->copies; c++)
    make_weights<<<1024, 256, 0, b->stream>>>(s->data + c * bytes, dtype, pdt_cuda_steps(&s->w),
                                              sh->out, sh->in);
  CHECK(cudaGetLastError());
  s->host_x.resize((size_t)MOST_ROWS * sh->in);
  for (size_t i = 0; i < s->host_x.size(); i++) s->host_x[i] = (float)gpu_number(X_SEED, i);
  CHECK(cudaMalloc(&s->x, 4 * s->host_x.size()));
  CHECK(cudaMalloc(&s->y, 4 * (size_t)MOST_ROWS * sh->out));
  CHECK(cudaMemcpyAsync(s->x, s->host_x.data(), 4 * s->host_x.size(), cudaMemcpyHostToDevice,
                        b->stream));
  s->room.elems = (int64_t)16 * MOST_ROWS * sh->out;
  CHECK(cudaMalloc(&s->room.partial, 4 * s->room.elems));
  CHECK(cudaMalloc(&s->room.arrived, 4 * (size_t)pdt_cuda_groups(&s->w)));
  CHECK(cudaMemsetAsync(s->room.arrived, 0, 4 * (size_t)pdt_cuda_groups(&s->w), b->stream));
  CHECK(cudaStreamSynchronize(b->stream));
}

void tear_down(setting *s) {
  void *all[] = {s->data, s->x, s->y, s->room.partial, s->room.arrived};
  for (void *p : all) CHECK(cudaFree(p));
}

void every_cut(setting *s, const shape *sh) {
  static const int rows[] = {1, 8, 64};
  for (int r : rows)
    for (int bulk = 0; bulk < 2; bulk++)
      for (int across = 1; across <= 8; across *= 2)
        for (int splits = 1; splits <= 8; splits *= 2) {
          int64_t blocks = (int64_t)(sh->out + 32 * across - 1) / (32 * across) * splits;
          if (blocks < 48 || (splits > 1 && blocks > 1600)) continue;
          s->w.cut = {across, splits, bulk};
          measure(s, sh, r);
        }
}

} // namespace

void measure_products(gpu_bench *b, bool cuts) {
  printf("# %-1s %-14s %7s %6s %-5s %4s  %-10s %9s %8s %7s %9s %s\n", "of", "product", "out", "in",
         "type", "rows", "cut", "us", "GB/s", "of read", "error", "right");
  for (const shape &sh : shapes) {
    if (b->quick && strcmp(sh.model, "8B")) continue;
    for (int t = 0; t < 3; t++) {
      pdt_dtype dtype = t == 0 ? PDT_BF16 : t == 1 ? PDT_F16 : PDT_F32;
      if (t > 0 && (cuts || b->quick || sh.out > 30000)) continue;
      setting s;
      set_up(&s, b, &sh, dtype);
      s.w.cut = pdt_cuda_choose_cut(sh.out, sh.in, dtype);
      if (cuts)
        every_cut(&s, &sh);
      else
        for (int rows : {1, 4, 8, 16, 32, 64})
          if (t == 0 || rows == 1 || rows == 8 || rows == 64) measure(&s, &sh, rows);
      tear_down(&s);
    }
  }
}
