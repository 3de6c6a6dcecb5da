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

__global__ void make_weights(void *data, pdt_dtype dtype, int32_t out, int32_t in) {
  int64_t n = (int64_t)out * in, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    int64_t at = pdt_cuda_place(dtype, out, in, (int32_t)(i / in), (int32_t)(i % in));
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
  void *prepared; /* x, for the weights' type */
  pdt_cuda_room room;
  std::vector<float> host_x;
};

void prepare(setting *s, const float *x, int rows) {
  CHECK(pdt_cuda_prepare(s->w.dtype, x, s->w.in, rows, s->w.in, s->prepared, &s->b->queue));
}

void product(setting *s, int rows, int copy) {
  pdt_cuda_weights w = s->w;
  w.data = s->data + (int64_t)copy * pdt_cuda_weights_bytes(&w);
  CHECK(pdt_cuda_product(&w, s->prepared, rows, s->y, w.out, &s->room, &s->b->queue));
}

/* Largest distance from the sums in double of sampled outputs, in units of the root of the sum of
 * the squared products; infinite when a number is none, or when a row's bits depend on the rows
 * beside it. */
double error_of(setting *s, int rows) {
  std::vector<float> y((size_t)rows * s->w.out), alone(s->w.out);
  CHECK(cudaMemsetAsync(s->y, 0xff, 4 * y.size(), s->b->stream));
  prepare(s, s->x, rows);
  product(s, rows, 0);
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
  prepare(s, s->x + (int64_t)(rows - 1) * s->w.in, 1);
  product(s, 1, 0);
  CHECK(
      cudaMemcpyAsync(alone.data(), s->y, 4 * alone.size(), cudaMemcpyDeviceToHost, s->b->stream));
  CHECK(cudaStreamSynchronize(s->b->stream));
  if (memcmp(alone.data(), y.data() + (size_t)(rows - 1) * s->w.out, 4 * alone.size()) != 0)
    return INFINITY;
  return worst;
}

/* Seconds of one product, with x to be prepared or prepared before. */
double seconds_of(setting *s, int rows, bool with_prepare) {
  int inside = std::max(4, std::min(24, s->copies));
  prepare(s, s->x, rows);
  return gpu_time(s->b, inside, s->b->quick ? 3 : 5, [&](int i) {
    if (with_prepare) prepare(s, s->x, rows);
    product(s, rows, i % s->copies);
  });
}

/* Most error of a sum of products without pattern, in the units of error_of: five standard
 * deviations, which none of some thousand samples passes by chance. The sum of the first k products
 * is about sqrt(k) of a product. u: 2^-24, half the distance of floats at 1.
 *
 * F32: every one of `length` additions rounds to nearest, evenly between -u and u of the sum so
 * far: a deviation of u sqrt(length / 6), over one slice. BF16 and F16: x as the sum of two bf16
 * numbers is off by 2^-17, evenly spread: 2^-17 / sqrt(3). Tensor cores cut off what passes the
 * last place, u of the sum so far on average and always towards zero, at two additions for 16
 * inputs: these add up, to u length / 12. */
double tolerance(const setting *s) {
  enum { DEVIATIONS = 5 };
  const double u = ldexp(1, -24), length = (double)s->w.in / s->w.cut.splits;
  if (s->w.dtype == PDT_F32) return DEVIATIONS * u * sqrt(length / 6);
  return DEVIATIONS * (ldexp(1, -17) / sqrt(3) + u * length / 12);
}

void measure(setting *s, const shape *sh, int rows) {
  double error = error_of(s, rows), seconds = seconds_of(s, rows, false);
  double whole = seconds_of(s, rows, true);
  double bytes = (double)pdt_cuda_weights_bytes(&s->w), rate = bytes / seconds;
  double share = s->b->read_bandwidth > 0 ? rate / s->b->read_bandwidth : 0;
  bool right = error <= tolerance(s);
  if (!right) s->b->wrong++;
  const pdt_cuda_cut *cut = &s->w.cut;
  const char *dtype = pdt_dtype_name(s->w.dtype);
  fprintf(s->b->out,
          "{\"part\": \"products\", \"model\": \"%s\", \"shape\": \"%s\", \"out\": %d, \"in\": %d, "
          "\"dtype\": \"%s\", \"rows\": %d, \"splits\": %d, \"us\": %.3f, "
          "\"us_with_prepare\": %.3f, \"GB/s\": %.1f, \"of_read\": %.4f, \"error\": %.3g, "
          "\"correct\": %s}\n",
          sh->model, sh->name, sh->out, sh->in, dtype, rows, cut->splits, seconds * 1e6,
          whole * 1e6, rate / 1e9, share, error < 1e30 ? error : 1e30, right ? "true" : "false");
  printf("%-3s %-14s %7d %6d %-5s %4d %6d %9.2f %9.2f %8.1f %7.3f %9.2g %s\n", sh->model, sh->name,
         sh->out, sh->in, dtype, rows, cut->splits, seconds * 1e6, whole * 1e6, rate / 1e9, share,
         error, right ? "yes" : "NO");
}

/* Room for products of up to `out` outputs. */
pdt_cuda_room new_room(gpu_bench *b, int out) {
  cudaDeviceProp p;
  pdt_cuda_room room = {};
  size_t blocks = ((size_t)out + 255) / 256;
  CHECK(cudaGetDeviceProperties(&p, 0));
  room.clusters = p.major >= 9;
  CHECK(cudaMalloc(&room.partial, (size_t)4 * 8 * MOST_ROWS * out));
  CHECK(cudaMalloc(&room.arrived, 4 * blocks));
  CHECK(cudaMemsetAsync(room.arrived, 0, 4 * blocks, b->stream));
  return room;
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
    make_weights<<<1024, 256, 0, b->stream>>>(s->data + c * bytes, dtype, sh->out, sh->in);
  CHECK(cudaGetLastError());
  s->host_x.resize((size_t)MOST_ROWS * sh->in);
  for (size_t i = 0; i < s->host_x.size(); i++) s->host_x[i] = (float)gpu_number(X_SEED, i);
  CHECK(cudaMalloc(&s->x, 4 * s->host_x.size()));
  CHECK(cudaMalloc(&s->y, 4 * (size_t)MOST_ROWS * sh->out));
  CHECK(cudaMemcpyAsync(s->x, s->host_x.data(), 4 * s->host_x.size(), cudaMemcpyHostToDevice,
                        b->stream));
  s->room = new_room(b, sh->out);
  CHECK(cudaMalloc(&s->prepared, (size_t)pdt_cuda_prepared_bytes(dtype, sh->in, MOST_ROWS)));
  CHECK(cudaStreamSynchronize(b->stream));
}

void tear_down(setting *s) {
  void *all[] = {s->data, s->x, s->y, s->prepared, s->room.partial, s->room.arrived};
  for (void *p : all) CHECK(cudaFree(p));
}

/* Every number of splits. */
void every_cut(setting *s, const shape *sh) {
  for (int rows : {1, 8, 64})
    for (int splits = 1; splits <= 8; splits *= 2) {
      int64_t blocks = (int64_t)(sh->out + 255) / 256 * splits;
      if (blocks < 16 || (splits > 1 && blocks > 1000)) continue;
      s->w.cut.splits = splits;
      measure(s, sh, rows);
    }
}

/* All products of a step one behind the other, each on what the one before it gave: what is left of
 * the read bandwidth when nothing stands between them but bringing x into order. */
struct chain {
  gpu_bench *b;
  std::vector<pdt_cuda_weights> w;
  double bytes;
  float *x, *y;
  void *prepared;
  pdt_cuda_room room;
};

void run_chain(chain *c, int rows) {
  float *from = c->x, *to = c->y;
  int width = c->w[0].in;
  for (const pdt_cuda_weights &w : c->w) {
    CHECK(pdt_cuda_prepare(w.dtype, from, width, rows, w.in, c->prepared, &c->b->queue));
    CHECK(pdt_cuda_product(&w, c->prepared, rows, to, w.out, &c->room, &c->b->queue));
    width = w.out;
    std::swap(from, to);
  }
}

void add_link(chain *c, const shape &sh) {
  pdt_cuda_weights w = {nullptr, sh.out, sh.in, PDT_BF16, {1}};
  void *data;
  w.cut = pdt_cuda_choose_cut(sh.out, sh.in, PDT_BF16);
  CHECK(cudaMalloc(&data, pdt_cuda_weights_bytes(&w)));
  CHECK(cudaMemsetAsync(data, 0, pdt_cuda_weights_bytes(&w), c->b->stream));
  make_weights<<<1024, 256, 0, c->b->stream>>>(data, PDT_BF16, sh.out, sh.in);
  w.data = data;
  c->bytes += (double)pdt_cuda_weights_bytes(&w);
  c->w.push_back(w);
}

void time_chain(chain *c, const char *model, int rows, int ahead) {
  gpu_bench *b = c->b;
  c->room.ahead = ahead;
  double graph = gpu_time(b, 1, 5, [&](int) { run_chain(c, rows); });
  CHECK(cudaStreamSynchronize(b->stream));
  double start = gpu_now();
  for (int i = 0; i < 3; i++) run_chain(c, rows);
  CHECK(cudaStreamSynchronize(b->stream));
  double stream = (gpu_now() - start) / 3;
  double share = b->read_bandwidth > 0 ? c->bytes / graph / b->read_bandwidth : 0;
  fprintf(b->out,
          "{\"part\": \"chain\", \"model\": \"%s\", \"rows\": %d, \"ahead\": %d, "
          "\"graph_ms\": %.4f, \"stream_ms\": %.4f, \"of_read\": %.4f}\n",
          model, rows, ahead, graph * 1e3, stream * 1e3, share);
  printf("%-3s all products, %2d rows, %4d steps ahead: %8.3f ms in a graph (%.3f of read), "
         "%8.3f ms launched\n",
         model, rows, ahead, graph * 1e3, share, stream * 1e3);
}

void measure_chain(gpu_bench *b, const char *model, int layers) {
  chain c = {};
  c.b = b;
  for (int l = 0; l <= layers; l++)
    for (const shape &sh : shapes) {
      bool head = !strcmp(sh.name, "head");
      if (!strcmp(sh.model, model) && strcmp(sh.name, "k or v") && head == (l == layers))
        add_link(&c, sh);
    }
  size_t widest = (size_t)4 * MOST_ROWS * 128256;
  CHECK(cudaMalloc(&c.x, widest));
  CHECK(cudaMalloc(&c.y, widest));
  CHECK(cudaMalloc(&c.prepared, widest));
  gpu_fill(c.x, MOST_ROWS * 128256, X_SEED, 1, b->stream);
  c.room = new_room(b, 128256);
  for (int rows : {1, 8, 16, 32, 64})
    for (int ahead : {0, 8, 16, 32}) time_chain(&c, model, rows, ahead);
  for (const pdt_cuda_weights &w : c.w) CHECK(cudaFree((void *)w.data));
  void *all[] = {c.x, c.y, c.prepared, c.room.partial, c.room.arrived};
  for (void *p : all) CHECK(cudaFree(p));
}

} // namespace

void measure_products(gpu_bench *b, bool cuts) {
  printf("# %-1s %-14s %7s %6s %-5s %4s %6s %9s %9s %8s %7s %9s %s\n", "of", "product", "out", "in",
         "type", "rows", "splits", "us", "prepared", "GB/s", "of read", "error", "right");
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

void measure_chains(gpu_bench *b) {
  measure_chain(b, "8B", 32);
  measure_chain(b, "1B", 16);
}
