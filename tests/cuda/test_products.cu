/* Products of few rows against sums in double, on random shapes, types and cuts: edges within a
 * group, within a step and within four inputs, x at any alignment. A row has the same bits alone.
 * Runs on a GPU, with clusters where it has them and without, and as fibers on the CPU under the
 * sanitizers (tests/cuda_on_host/).
 *
 *   test_products [CASES [SEED]] */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/products.h"

static void check(cudaError_t code, const char *what) {
  if (code == cudaSuccess) return;
  fprintf(stderr, "test_products: %s: %s\n", what, cudaGetErrorString(code));
  exit(3);
}
#define CHECK(call) check((call), #call)

static std::mt19937 random_bits;

static float uniform() {
  return (float)(random_bits() >> 8) / 8388608.0f - 1;
}

static int up_to(int most) {
  return 1 + (int)(random_bits() % (unsigned)most);
}

template <class T> static T *on_device(const std::vector<T> &host) {
  T *p;
  CHECK(cudaMalloc((void **)&p, host.size() * sizeof(T) + 1));
  CHECK(cudaMemcpyAsync(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, 0));
  return p;
}

struct product_case {
  pdt_cuda_weights w;
  std::vector<float> exact; /* [out, in], as rounded */
  int rows, shift;          /* shift: floats by which x misses its alignment */
  int64_t x_stride, y_stride;
};

static float round_to(pdt_dtype dtype, float v, void *bits) {
  if (dtype == PDT_F32) {
    memcpy(bits, &v, 4);
    return v;
  }
  if (dtype == PDT_F16) {
    __half h = __float2half(v);
    memcpy(bits, &h, 2);
    return __half2float(h);
  }
  __nv_bfloat16 h = __float2bfloat16(v);
  memcpy(bits, &h, 2);
  return __bfloat162float(h);
}

static product_case draw(int i) {
  product_case c = {};
  c.w.out = up_to(300);
  c.w.in = up_to(i % 3 == 0 ? 40 : 700);
  c.w.dtype = (pdt_dtype)(random_bits() % 3);
  c.w.cut.splits = 1 << random_bits() % 4;
  static const int most[] = {8, 16, 32, 64};
  c.rows = up_to(most[i % 4]);
  bool odd = random_bits() % 2;
  c.shift = odd ? up_to(4) - 1 : 0;
  c.x_stride = odd ? c.w.in + up_to(5) : (c.w.in + 3) / 4 * 4;
  c.y_stride = c.w.out + up_to(3) - 1;
  size_t element = pdt_dtype_bytes(c.w.dtype);
  std::vector<unsigned char> packed((size_t)pdt_cuda_weights_bytes(&c.w));
  c.exact.resize((size_t)c.w.out * c.w.in);
  for (int o = 0; o < c.w.out; o++)
    for (int k = 0; k < c.w.in; k++) {
      size_t at = (size_t)pdt_cuda_place(c.w.dtype, c.w.out, c.w.in, o, k) * element;
      c.exact[(size_t)o * c.w.in + k] = round_to(c.w.dtype, uniform(), &packed[at]);
    }
  c.w.data = on_device(packed);
  return c;
}

/* Largest distance from the sums in double, in units of the root of the summed squares. */
static double distance(const product_case &c, const std::vector<float> &x,
                       const std::vector<float> &y) {
  double worst = 0;
  for (int r = 0; r < c.rows; r++)
    for (int o = 0; o < c.w.out; o++) {
      double sum = 0, squares = 0;
      for (int k = 0; k < c.w.in; k++) {
        double p = (double)c.exact[(size_t)o * c.w.in + k] * (double)x[r * c.x_stride + k];
        sum += p;
        squares += p * p;
      }
      double away = fabs((double)y[r * c.y_stride + o] - sum) / sqrt(squares);
      if (!(away <= worst)) worst = away;
    }
  return worst;
}

static pdt_cuda_queue queue; /* the default stream */

/* y = the product of rows of x, prepared first. */
static void product(const product_case &c, const float *x, int rows, float *y,
                    const pdt_cuda_room &room, void *prepared) {
  CHECK(pdt_cuda_prepare(c.w.dtype, x, c.x_stride, rows, c.w.in, prepared, &queue));
  CHECK(pdt_cuda_product(&c.w, prepared, rows, y, c.y_stride, &room, &queue));
}

static bool run_case(int i, bool clusters) {
  product_case c = draw(i);
  /* Numbers between the rows of x must not be read: they are none. */
  std::vector<float> x((size_t)c.rows * c.x_stride, NAN), y((size_t)c.rows * c.y_stride, NAN);
  for (int r = 0; r < c.rows; r++)
    for (int k = 0; k < c.w.in; k++) x[r * c.x_stride + k] = uniform();
  std::vector<float> shifted(c.shift);
  shifted.insert(shifted.end(), x.begin(), x.end());
  float *device_x = on_device(shifted), *device_y = on_device(y);
  float *partial = on_device(std::vector<float>((size_t)c.w.cut.splits * c.w.out * c.rows, NAN));
  unsigned *arrived = on_device(std::vector<unsigned>(pdt_cuda_groups(&c.w)));
  void *prepared = on_device(
      std::vector<char>((size_t)pdt_cuda_prepared_bytes(c.w.dtype, c.w.in, c.rows), (char)0xff));
  pdt_cuda_room room = {clusters && i % 2 == 0, partial, arrived, i % 3 * 5};
  product(c, device_x + c.shift, c.rows, device_y, room, prepared);
  CHECK(cudaMemcpyAsync(y.data(), device_y, 4 * y.size(), cudaMemcpyDeviceToHost, 0));
  CHECK(cudaStreamSynchronize(0));
  double worst = distance(c, x, y);
  bool untouched = true;
  for (int r = 0; r < c.rows; r++)
    for (int64_t o = c.w.out; o < c.y_stride; o++)
      untouched = untouched && std::isnan(y[r * c.y_stride + o]);
  int row = (int)(random_bits() % (unsigned)c.rows);
  std::vector<float> alone(c.w.out);
  room.clusters = clusters;
  product(c, device_x + c.shift + row * c.x_stride, 1, device_y, room, prepared);
  CHECK(cudaMemcpyAsync(alone.data(), device_y, 4 * alone.size(), cudaMemcpyDeviceToHost, 0));
  CHECK(cudaStreamSynchronize(0));
  bool same = memcmp(alone.data(), &y[row * c.y_stride], 4 * alone.size()) == 0;
  void *all[] = {(void *)c.w.data, device_x, device_y, partial, arrived, prepared};
  for (void *p : all) CHECK(cudaFree(p));
  /* x as two bf16 numbers is 2^-17 away at most; a sum in float of 700 products about 1e-6. */
  bool right = worst <= 2e-5 && untouched && same;
  if (!right)
    printf("case %d: %d x %d, %s, %d rows, %d splits: %g away, same alone: %d\n", i, c.w.out,
           c.w.in, pdt_dtype_name(c.w.dtype), c.rows, c.w.cut.splits, worst, same);
  return right;
}

static bool gpu_has_clusters() {
#ifdef PDT_CUDA_ON_HOST
  return false;
#else
  cudaDeviceProp p;
  CHECK(cudaGetDeviceProperties(&p, 0));
  return p.major >= 9;
#endif
}

int main(int argc, char **argv) {
  int cases = argc > 1 ? atoi(argv[1]) : 40, wrong = 0;
  bool clusters = gpu_has_clusters();
  queue.ahead = clusters;
  random_bits.seed(argc > 2 ? (unsigned)atoi(argv[2]) : 1);
  for (int i = 0; i < cases; i++) {
#ifdef PDT_CUDA_ON_HOST
    cuda_on_host::seed = (unsigned long long)i;
#endif
    wrong += !run_case(i, clusters);
  }
  printf("products: %d cases, %d wrong\n", cases, wrong);
  return wrong != 0;
}
