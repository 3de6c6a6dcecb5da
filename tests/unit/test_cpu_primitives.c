/* What the CPU backend is made of, against plain versions: accuracy, every half-precision number,
 * and the promise that a result's bits depend on the shapes of the weights alone, however many
 * threads or ranks share the work. Data are seeded; every instruction set this machine runs is
 * tried. The operations of the table are test_kernels.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"

/* ---- plain versions, in double and in the simplest order ---- */

/* y[o] = row o of w, elements of any type at any alignment, times x. */
static void plain_matvec(pdt_dtype dtype, const void *w, int64_t src_stride_elems, int32_t out,
                         int32_t in, const float *x, float *y) {
  int64_t size = (int64_t)pdt_dtype_bytes(dtype);
  for (int32_t o = 0; o < out; o++) {
    double sum = 0;
    for (int32_t i = 0; i < in; i++) {
      float value;
      pdt_to_float(dtype, (const char *)w + (o * src_stride_elems + i) * size, 1, &value);
      sum += (double)value * (double)x[i];
    }
    y[o] = (float)sum;
  }
}

static void plain_rms_norm(const float *x, const float *weight, float eps, int32_t width,
                           float *y) {
  double sum = 0;
  for (int32_t i = 0; i < width; i++) sum += (double)x[i] * (double)x[i];
  double scale = 1 / sqrt(sum / width + (double)eps);
  for (int32_t i = 0; i < width; i++)
    y[i] = (float)((double)x[i] * scale * (weight ? (double)weight[i] : 1));
}

static void plain_silu_mul(const float *gate, const float *up, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++)
    y[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i]);
}

static void plain_gelu(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] / 2 * erfc(-(double)x[i] / sqrt(2)));
}

static void plain_rope(float *x, const float *cosine, const float *sine, int32_t head_dim) {
  int32_t half = head_dim / 2;
  for (int32_t j = 0; j < half; j++) {
    double a = (double)x[j], b = (double)x[half + j];
    x[j] = (float)(a * (double)cosine[j] - b * (double)sine[j]);
    x[half + j] = (float)(b * (double)cosine[j] + a * (double)sine[j]);
  }
}

static void plain_softmax(float *x, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
  for (int64_t i = 0; i < n; i++) x[i] = (float)(exp((double)x[i] - top) / sum);
}

/* Feature d of the key and of the value at position i of a view. */
static void cached(const pdt_kv_view *kv, int32_t i, int32_t d, double *key, double *value) {
  const pdt_kv_span *span = &kv->spans[0];
  if (i >= span->tokens) {
    i -= span->tokens;
    span = &kv->spans[1];
  }
  i += span->skip;
  const float *page = kv->base + span->pages[i / PDT_PAGE_TOKENS] * kv->page_elems;
  int32_t slot = i % PDT_PAGE_TOKENS;
  *key = (double)page[(int64_t)d * PDT_PAGE_TOKENS + slot];
  *value = (double)page[(int64_t)(PDT_PAGE_TOKENS + slot) * kv->head_dim + d];
}

static void plain_attention(const pdt_kv_view *kv, const float *q, int32_t n_heads, float *out,
                            float *scratch) {
  int32_t tokens = kv->spans[0].tokens + kv->spans[1].tokens, dim = kv->head_dim;
  for (int32_t h = 0; h < n_heads; h++) {
    double key, value;
    for (int32_t i = 0; i < tokens; i++) {
      double dot = 0;
      for (int32_t d = 0; d < dim; d++) {
        cached(kv, i, d, &key, &value);
        dot += (double)q[(int64_t)h * dim + d] * key;
      }
      scratch[i] = (float)(dot / sqrt(dim));
    }
    plain_softmax(scratch, tokens);
    for (int32_t d = 0; d < dim; d++) {
      double sum = 0;
      for (int32_t i = 0; i < tokens; i++) {
        cached(kv, i, d, &key, &value);
        sum += (double)scratch[i] * value;
      }
      out[(int64_t)h * dim + d] = (float)sum;
    }
  }
}

/* ---- data ---- */

static pdt_device device; /* whose matrices all instruction sets read */

static uint32_t next(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*seed >> 33);
}

static int32_t between(uint64_t *seed, int32_t low, int32_t high) {
  return low + (int32_t)(next(seed) % (uint32_t)(high - low + 1));
}

/* n floats in [-scale, scale], to be freed. */
static float *random_floats(uint64_t *seed, int64_t n, float scale) {
  float *x;
  assert_int_equal(PDT_NEW(&x, n, "test data", NULL), 0);
  for (int64_t i = 0; i < n; i++) x[i] = ((float)next(seed) / 0x1p30f - 1.0f) * scale;
  return x;
}

static float *new_floats(int64_t n) {
  float *x;
  assert_int_equal(PDT_NEW(&x, n, "test data", NULL), 0);
  return x;
}

/* n elements of a type at an odd address inside *owner, which is to be freed. */
static void *random_elements(uint64_t *seed, pdt_dtype dtype, int64_t n, char **owner) {
  float *x = random_floats(seed, n, 1);
  assert_int_equal(PDT_NEW(owner, n * 4 + 1, "test data", NULL), 0);
  pdt_from_float(dtype, x, n, *owner);
  memmove(*owner + 1, *owner, (size_t)n * pdt_dtype_bytes(dtype));
  free(x);
  return *owner + 1;
}

#ifdef PDT_AMX_ON_HOST
/* Products by tiles in plain C (amx_on_host/), under the sanitizers; the rest is of no interest. */
void pdt_cpu_amx_on_host_matmul_bf16(const pdt_matrix *w, const float *x, int64_t x_stride,
                                     int32_t rows, float *y, int64_t y_stride, int threads);

void pdt_cpu_amx_on_host_matmul_bf16_rows(const pdt_matrix *w, const float *x, int64_t x_stride,
                                          int32_t rows, float *y, int64_t y_stride, int threads);

static void matmul_on_host(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                           float *y, int64_t y_stride, int threads) {
  (w->dtype == PDT_BF16 ? pdt_cpu_amx_on_host_matmul_bf16
                        : pdt_cpu_primitives_of(PDT_CPU_PORTABLE)->matmul)(w, x, x_stride, rows, y,
                                                                           y_stride, threads);
}

static void for_each_isa(void (*test)(const pdt_cpu_primitives *)) {
  pdt_cpu_primitives k = *pdt_cpu_primitives_of(PDT_CPU_PORTABLE);
  k.name = "amx";
  k.matmul = matmul_on_host;
  k.matmul_bf16_rows = pdt_cpu_amx_on_host_matmul_bf16_rows;
  test(&k);
}

/* Tiles in plain C are slow. */
enum { MATMUL_TRIALS = 24, MATMUL_ROWS = 20, SPLIT_TRIALS = 60 };
#else
enum { MATMUL_TRIALS = 60, MATMUL_ROWS = 40, SPLIT_TRIALS = 150 };

static void for_each_isa(void (*test)(const pdt_cpu_primitives *)) {
  for (int isa = PDT_CPU_PORTABLE; isa < PDT_CPU_ISAS; isa++) {
    const pdt_cpu_primitives *k = pdt_cpu_primitives_of((pdt_cpu_isa)isa);
    if (k) test(k);
  }
}
#endif

/* What of an input of at most 1 a product with such weights may leave out: AMX's two bf16 parts
 * hold 17 bits of it. The rest is at most half of the last, times `in` weights of at most 1. */
static double left_out(const pdt_cpu_primitives *k, const pdt_matrix *m) {
  return strcmp(k->name, "amx") == 0 && m->dtype == PDT_BF16 ? 0x1p-18 * m->in : 0;
}

/* |a - b| <= tolerance * scale, and NaN fails. */
static void assert_close(const float *a, const float *b, int64_t n, double tolerance,
                         double scale) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * scale))
      fail_msg("element %lld: %.9g, expected %.9g", (long long)i, (double)a[i], (double)b[i]);
}

typedef struct shape {
  int32_t out, in, leaf;
  pdt_dtype dtype;
} shape;

static shape random_shape(uint64_t *seed) {
  static const int32_t leaves[] = {1, 3, 8, 17, 32, 64};
  shape s = {.out = between(seed, 1, 200), .in = between(seed, 1, 260)};
  s.dtype = (pdt_dtype)between(seed, 0, 2);
  s.leaf = between(seed, 0, 2) == 0 ? s.in : leaves[between(seed, 0, 5)];
  return s;
}

static pdt_matrix random_matrix(uint64_t *seed, const shape *s, char **owner, void **src) {
  pdt_matrix m;
  assert_int_equal(device.ops->matrix_new(&device, &m, s->out, s->in, s->dtype, s->leaf, NULL), 0);
  *src = random_elements(seed, s->dtype, (int64_t)s->out * s->in, owner);
  /* In two pieces, as weights of separate tensors come. */
  int32_t cut = between(seed, 0, s->out);
  device.ops->matrix_pack(&device, &m, 0, cut, *src, s->in);
  device.ops->matrix_pack(&device, &m, cut, s->out - cut,
                          (char *)*src + (int64_t)cut * s->in * (int64_t)pdt_dtype_bytes(s->dtype),
                          s->in);
  return m;
}

static void matrix_packs_and_unpacks(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int trial = 0; trial < 60; trial++) {
    shape s = random_shape(&seed);
    char *owner;
    void *src;
    pdt_matrix m = random_matrix(&seed, &s, &owner, &src);
    float row[260], want[260];
    for (int32_t o = 0; o < s.out; o++) {
      device.ops->gather_rows(&device, &m, &o, 1, (pdt_array){row});
      pdt_to_float(s.dtype, (char *)src + (int64_t)o * s.in * (int64_t)pdt_dtype_bytes(s.dtype),
                   s.in, want);
      assert_memory_equal(row, want, (size_t)s.in * sizeof *row);
    }
    pdt_bytes panel = pdt_cpu_panel_bytes(s.in, s.dtype);
    assert_int_equal(panel % 64, 0);
    assert_true(panel >= s.in * 16 * (pdt_bytes)pdt_dtype_bytes(s.dtype));
    assert_int_equal((uintptr_t)m.data % 64, 0);
    assert_int_equal(m.bytes, (s.out + 15) / 16 * panel);
    device.ops->matrix_free(&device, &m);
    free(owner);
  }
  pdt_matrix m;
  pdt_error err;
  assert_int_equal(device.ops->matrix_new(&device, &m, 0, 4, PDT_F32, 4, &err), -1);
  assert_int_equal(device.ops->matrix_new(&device, &m, INT32_MAX, INT32_MAX, PDT_F32, 4, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_MEMORY);
}

/* All rows together, with several threads, against the plain version; then every row alone, and in
 * batches of other sizes, bit for bit. */
static void matmul_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 2;
  for (int trial = 0; trial < MATMUL_TRIALS; trial++) {
    shape s = random_shape(&seed);
    char *owner;
    void *src;
    pdt_matrix m = random_matrix(&seed, &s, &owner, &src);
    int32_t rows = between(&seed, 1, MATMUL_ROWS);
    int64_t x_stride = s.in + between(&seed, 0, 5), y_stride = s.out + between(&seed, 0, 5);
    float *x = random_floats(&seed, rows * x_stride, 1);
    float *y = new_floats(rows * y_stride), *want = new_floats(rows * y_stride);
    for (int64_t i = 0; i < rows * y_stride; i++) y[i] = want[i] = 77; /* gaps stay as they are */
    k->matmul(&m, x, x_stride, rows, y, y_stride, 1);
    for (int32_t r = 0; r < rows; r++)
      plain_matvec(s.dtype, src, s.in, s.out, s.in, x + r * x_stride, want + r * y_stride);
    /* Rounding of `in` additions of numbers of at most 1. */
    assert_close(y, want, rows * y_stride, 1e-7 * s.in * (1 + sqrt(s.in)) + left_out(k, &m), 1);
    for (int threads = 1; threads <= 3; threads++)
      for (int32_t batch = 1; batch <= rows; batch++) {
        memset(want, 0, (size_t)(rows * y_stride) * sizeof *want);
        for (int32_t r = 0; r < rows; r += batch)
          k->matmul(&m, x + r * x_stride, x_stride, rows - r < batch ? rows - r : batch,
                    want + r * y_stride, y_stride, threads);
        for (int32_t r = 0; r < rows; r++)
          assert_memory_equal(want + r * y_stride, y + r * y_stride, (size_t)s.out * sizeof *y);
      }
    free(x), free(y), free(want), free(owner);
    device.ops->matrix_free(&device, &m);
  }
}

static void matmul_rows_are_independent(void **state) {
  (void)state;
  for_each_isa(matmul_on);
}

/* Rows that are bf16 numbers: what matmul gives, in batches of all sizes; and, leaving nothing of
 * them out, what the plain version gives. */
static void bf16_rows_of(const pdt_cpu_primitives *k, uint64_t *seed, const shape *s,
                         int32_t rows) {
  char *owner;
  void *src;
  pdt_matrix m = random_matrix(seed, s, &owner, &src);
  int64_t x_stride = s->in + between(seed, 0, 5), y_stride = s->out + between(seed, 0, 5);
  float *x = random_floats(seed, rows * x_stride, 1);
  float *y = new_floats(rows * y_stride), *want = new_floats(rows * y_stride);
  for (int64_t i = 0; i < rows * y_stride; i++) y[i] = want[i] = 77;
  k->round_bf16(x, rows * x_stride, x);
  for (int32_t r = 0; r < rows; r++)
    plain_matvec(s->dtype, src, s->in, s->out, s->in, x + r * x_stride, want + r * y_stride);
  k->matmul_bf16_rows(&m, x, x_stride, rows, y, y_stride, 1);
  assert_close(y, want, rows * y_stride, 1e-7 * s->in * (1 + sqrt(s->in)), 1);
  k->matmul(&m, x, x_stride, rows, want, y_stride, 1);
  assert_memory_equal(y, want, (size_t)(rows * y_stride) * sizeof *y);
  for (int32_t batch = 1; batch <= rows; batch += 1 + batch / 2) {
    for (int32_t r = 0; r < rows; r++)
      memset(want + r * y_stride, 0, (size_t)s->out * sizeof *want);
    for (int32_t r = 0; r < rows; r += batch)
      k->matmul_bf16_rows(&m, x + r * x_stride, x_stride, rows - r < batch ? rows - r : batch,
                          want + r * y_stride, y_stride, 1 + batch % 3);
    assert_memory_equal(y, want, (size_t)(rows * y_stride) * sizeof *y);
  }
  free(x), free(y), free(want), free(owner);
  device.ops->matrix_free(&device, &m);
}

static void bf16_rows_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 12;
  for (int trial = 0; trial < MATMUL_TRIALS / 2; trial++) {
    shape s = random_shape(&seed);
    s.dtype = PDT_BF16;
    bf16_rows_of(k, &seed, &s, between(&seed, 1, 2 * MATMUL_ROWS));
  }
  shape deep = {.out = 100, .in = 1700, .leaf = 64, .dtype = PDT_BF16};
  bf16_rows_of(k, &seed, &deep, MATMUL_ROWS); /* few of its panels stay in the cache */
}

static void bf16_rows_are_multiplied(void **state) {
  (void)state;
  for_each_isa(bf16_rows_on);
}

/* Large enough that a team of threads really starts, and that panels are taken in chunks; also
 * panels that are too long to wait in the cache. */
static void large_on(const pdt_cpu_primitives *k, const shape *s, int32_t rows) {
  uint64_t seed = 3;
  char *owner;
  void *src;
  pdt_matrix m = random_matrix(&seed, s, &owner, &src);
  int64_t n = (int64_t)rows * s->out;
  float *x = random_floats(&seed, (int64_t)rows * s->in, 1), *y = new_floats(n), *z = new_floats(n);
  k->matmul(&m, x, s->in, rows, y, s->out, 1);
  for (int64_t r = 0; r < rows; r++)
    plain_matvec(s->dtype, src, s->in, s->out, s->in, x + r * s->in, z + r * s->out);
  assert_close(y, z, n, 1e-7 * s->in * (1 + sqrt(s->in)) + left_out(k, &m), 1);
  for (int threads = 2; threads <= 9; threads++) {
    memset(z, 0, (size_t)n * sizeof *z);
    k->matmul(&m, x, s->in, rows, z, s->out, threads);
    assert_memory_equal(y, z, (size_t)n * sizeof *y);
  }
  k->matvec_unpacked(s->dtype, src, s->in, s->out, s->in, x, y, 1);
  k->matvec_unpacked(s->dtype, src, s->in, s->out, s->in, x, z, 3);
  assert_memory_equal(y, z, (size_t)s->out * sizeof *y);
  free(x), free(y), free(z), free(owner);
  device.ops->matrix_free(&device, &m);
}

static void threads_on(const pdt_cpu_primitives *k) {
  for (int dtype = 0; dtype < 3; dtype++) {
    shape wide = {.out = 1003, .in = 333, .leaf = 64, .dtype = (pdt_dtype)dtype};
    shape deep = {.out = 210, .in = 9001, .leaf = 64, .dtype = (pdt_dtype)dtype};
    large_on(k, &wide, 37);
    large_on(k, &deep, 1);
    large_on(k, &deep, 3);
  }
}

static void matmul_threads_leave_no_trace(void **state) {
  (void)state;
  for_each_isa(threads_on);
}

/* Columns split over T ranks by leaves; the ranks' sums added up by pdt_sum_shares. */
static void split_product(const pdt_cpu_primitives *k, uint64_t *seed, const shape *s, int32_t T) {
  char *owner;
  void *src;
  pdt_matrix whole = random_matrix(seed, s, &owner, &src);
  enum { ROWS = 3 };
  float *x = random_floats(seed, (int64_t)ROWS * s->in, 1), *y = new_floats(ROWS * s->out);
  float *parts = new_floats((int64_t)T * ROWS * s->out), *out = new_floats(ROWS * s->out);
  pdt_array given[16];
  k->matmul(&whole, x, s->in, ROWS, y, s->out, 1);
  for (int32_t t = 0; t < T; t++) {
    pdt_range share = pdt_share(whole.tree.leaves, T, t);
    given[t] = (pdt_array){0};
    if (share.begin == share.end) continue;
    int32_t begin = share.begin * s->leaf, end = whole.tree.leaf_end[share.end - 1];
    pdt_matrix part;
    assert_int_equal(
        device.ops->matrix_new(&device, &part, s->out, end - begin, s->dtype, s->leaf, NULL), 0);
    device.ops->matrix_pack(&device, &part, 0, s->out,
                            (char *)src + begin * (int64_t)pdt_dtype_bytes(s->dtype), s->in);
    float *partial = parts + (int64_t)t * ROWS * s->out;
    k->matmul(&part, x + begin, s->in, ROWS, partial, s->out, 2);
    given[t] = (pdt_array){partial};
    device.ops->matrix_free(&device, &part);
  }
  pdt_sum_shares(given, T, (int64_t)ROWS * s->out, (pdt_array){out});
  assert_memory_equal(out, y, (size_t)(ROWS * s->out) * sizeof *y);
  free(x), free(y), free(parts), free(out), free(owner);
  device.ops->matrix_free(&device, &whole);
}

static void split_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 4;
  for (int trial = 0; trial < SPLIT_TRIALS; trial++) {
    shape s = random_shape(&seed);
    if (trial % 3 == 0) s.leaf = 64; /* fewer leaves than ranks, often */
    for (int32_t T = 1; T <= 16; T *= 2) split_product(k, &seed, &s, T);
  }
}

static void matmul_split_over_ranks(void **state) {
  (void)state;
  for_each_isa(split_on);
}

static void matvec_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 5;
  for (int trial = 0; trial < 100; trial++) {
    shape s = random_shape(&seed);
    int64_t stride = s.in + between(&seed, 0, 3);
    char *owner;
    void *src = random_elements(&seed, s.dtype, s.out * stride, &owner);
    float *x = random_floats(&seed, s.in, 1), *y = new_floats(s.out), *want = new_floats(s.out);
    k->matvec_unpacked(s.dtype, src, stride, s.out, s.in, x, y, 2);
    plain_matvec(s.dtype, src, stride, s.out, s.in, x, want);
    assert_close(y, want, s.out, 1e-7 * s.in, 1 + sqrt(s.in));
    free(x), free(y), free(want), free(owner);
  }
}

static void matvec_unpacked_is_right(void **state) {
  (void)state;
  for_each_isa(matvec_on);
}

static void vectors_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 6;
  for (int32_t n = 1; n <= 130; n++) {
    float *x = random_floats(&seed, n, 20), *w = random_floats(&seed, n, 1);
    float *y = new_floats(n), *want = new_floats(n);
    /* A few roundings of numbers of the size named last. */
    k->rms_norm(x, n % 2 ? w : NULL, 1e-5f, n, y);
    plain_rms_norm(x, n % 2 ? w : NULL, 1e-5f, n, want);
    assert_close(y, want, n, 1e-6, 20);
    k->silu_mul(x, w, n, y);
    plain_silu_mul(x, w, n, want);
    assert_close(y, want, n, 3e-7, 20);
    memcpy(y, x, (size_t)n * sizeof *x);
    memcpy(want, x, (size_t)n * sizeof *x);
    k->softmax(y, n);
    plain_softmax(want, n);
    assert_close(y, want, n, 2e-6, 1);
    memcpy(y, x, (size_t)n * sizeof *x);
    memcpy(want, x, (size_t)n * sizeof *x);
    k->rope(y, w, x, n);
    plain_rope(want, w, x, n);
    assert_close(y, want, n, 3e-7, 400);
    memcpy(y, x, (size_t)n * sizeof *x);
    memcpy(want, x, (size_t)n * sizeof *x);
    k->gelu(y, n);
    plain_gelu(want, n);
    assert_close(y, want, n, 3e-7, 20);
    free(x), free(w), free(y), free(want);
  }
}

static void gelu_on(const pdt_cpu_primitives *k) {
  for (float v = -12; v < 12; v += 0.0137f) {
    float got = v, want = v;
    k->gelu(&got, 1);
    plain_gelu(&want, 1);
    /* erfcf's few ulp, and those its argument's rounding turns into: relative, far tail included */
    assert_close(&got, &want, 1, 2e-5, fabs((double)want));
    if (v > -1) assert_close(&got, &want, 1, 4e-7, fabs((double)want));
  }
}

/* silu relative to its size, which shows exp on both sides of zero. */
static void silu_on(const pdt_cpu_primitives *k) {
  const float one = 1;
  for (float v = -87; v < 87; v += 0.00731f) {
    float got, want;
    k->silu_mul(&v, &one, 1, &got);
    plain_silu_mul(&v, &one, 1, &want);
    assert_close(&got, &want, 1, 4 * 0x1p-24, fabs((double)want)); /* exp, sum, quotient, want */
  }
}

static void vectors_are_right(void **state) {
  (void)state;
  for_each_isa(vectors_on);
  for_each_isa(gelu_on);
  for_each_isa(silu_on);
}

/* exp of a number below zero, seen through softmax of two numbers: e / (1 + e). */
static void exp_on(const pdt_cpu_primitives *k) {
  for (double x = -103; x <= 0; x += 0.00173) {
    float pair[2] = {0, (float)x};
    k->softmax(pair, 2);
    double e = exp((double)(float)x), want = e / (1 + e);
    /* exp within 1 ulp, one rounding of the sum, one of the quotient; below the least normal float,
     * spacing is absolute. */
    double tolerance = want * 3 * 0x1p-24 + 0x1p-149;
    if (!(fabs((double)pair[1] - want) <= tolerance))
      fail_msg("%s: exp(%.9g) gives %.9g, expected %.9g", k->name, x, (double)pair[1], want);
  }
  float far[3] = {0, -1000, -INFINITY};
  k->softmax(far, 3);
  assert_true(far[0] == 1 && far[1] == 0 && far[2] == 0);
}

static void exponential_is_accurate(void **state) {
  (void)state;
  for_each_isa(exp_on);
}

typedef struct cache {
  float *base;
  int64_t page_elems, floats;
  int32_t head_dim;
} cache;

enum { CACHE_PAGES = 40 };

/* Lays out positions 0 .. tokens-1 as a span of `cut` and one of the rest, over shuffled pages; all
 * that no position fills is NaN, so that a read past the end shows. */
static pdt_kv_view lay_out(cache *c, uint64_t *seed, const float *keys, const float *values,
                           int32_t tokens, int32_t cut, int32_t *pages) {
  for (int64_t i = 0; i < c->floats; i++) c->base[i] = NAN;
  for (int32_t p = 0; p < CACHE_PAGES; p++) pages[p] = p;
  for (int32_t p = CACHE_PAGES - 1; p > 0; p--) {
    int32_t q = between(seed, 0, p), t = pages[p];
    pages[p] = pages[q];
    pages[q] = t;
  }
  int32_t first_pages = (cut + 15) / 16;
  for (int32_t i = 0; i < tokens; i++) {
    int32_t at = i < cut ? i : first_pages * 16 + (i - cut);
    float *page = c->base + pages[at / 16] * c->page_elems;
    for (int32_t d = 0; d < c->head_dim; d++) {
      page[d * 16 + at % 16] = keys[(int64_t)i * c->head_dim + d];
      page[(16 + at % 16) * c->head_dim + d] = values[(int64_t)i * c->head_dim + d];
    }
  }
  return (pdt_kv_view){.base = c->base,
                       .page_elems = c->page_elems,
                       .head_dim = c->head_dim,
                       .spans = {{pages, cut, 0}, {pages + first_pages, tokens - cut, 0}}};
}

/* The view's positions from `first` on, as a window reads them; what lies before is made NaN, so
 * that a read of it shows. */
static pdt_kv_view slide(cache *c, pdt_kv_view kv, int32_t first) {
  for (int s = 0; s < 2; s++) {
    pdt_kv_span *span = &kv.spans[s];
    int32_t drop = first < span->tokens ? first : span->tokens;
    for (int32_t i = 0; i < drop; i++) {
      float *page = c->base + span->pages[i / 16] * c->page_elems;
      for (int32_t d = 0; d < c->head_dim; d++)
        page[d * 16 + i % 16] = page[(16 + i % 16) * c->head_dim + d] = NAN;
    }
    first -= drop;
    span->tokens -= drop;
    span->pages += drop / 16;
    span->skip = span->tokens ? drop % 16 : 0;
  }
  return kv;
}

static void attention_case(const pdt_cpu_primitives *k, uint64_t *seed, int32_t head_dim,
                           int32_t heads, int32_t tokens) {
  cache c = {.page_elems = 32 * head_dim + 48, .head_dim = head_dim};
  c.floats = CACHE_PAGES * c.page_elems;
  c.base = new_floats(c.floats);
  float *keys = random_floats(seed, (int64_t)tokens * head_dim, 1);
  float *values = random_floats(seed, (int64_t)tokens * head_dim, 1);
  float *q = random_floats(seed, (int64_t)heads * head_dim, 3);
  float *out = new_floats((int64_t)heads * head_dim),
        *other = new_floats((int64_t)heads * head_dim);
  float *scratch = new_floats((int64_t)heads * (tokens + 32));
  int32_t pages[CACHE_PAGES];
  pdt_kv_view kv = lay_out(&c, seed, keys, values, tokens, 0, pages);
  k->attention(&kv, q, heads, out, scratch);
  plain_attention(&kv, q, heads, other, scratch);
  /* Scores of up to ~3 sqrt(head_dim), rounded over head_dim additions; values of at most 1. */
  assert_close(out, other, (int64_t)heads * head_dim, 1e-6, 1 + sqrt(head_dim));
  for (int trial = 0; trial < 6; trial++) {
    int32_t cut = trial == 0 ? tokens : between(seed, 0, tokens);
    kv = lay_out(&c, seed, keys, values, tokens, cut, pages);
    k->attention(&kv, q, heads, other, scratch);
    assert_memory_equal(out, other, (size_t)(heads * head_dim) * sizeof *out);
    int32_t h = between(seed, 0, heads - 1); /* one head alone */
    k->attention(&kv, q + (int64_t)h * head_dim, 1, other, scratch);
    assert_memory_equal(out + (int64_t)h * head_dim, other, (size_t)head_dim * sizeof *out);
  }
  values[head_dim - 1] = NAN;
  kv = lay_out(&c, seed, keys, values, tokens, tokens / 2, pages);
  k->attention(&kv, q, heads, out, scratch);
  assert_true(isnan(out[head_dim - 1]));
  keys[0] = NAN;
  kv = lay_out(&c, seed, keys, values, tokens, tokens / 2, pages);
  k->attention(&kv, q, heads, out, scratch);
  for (int32_t d = 0; d < heads * head_dim; d++) assert_true(isnan(out[d]));
  free(c.base), free(keys), free(values), free(q), free(out), free(other), free(scratch);
}

/* A window gives the bits of a sequence that has its positions and no others, wherever pages and
 * spans are cut, within the room that the view says. */
static void window_case(const pdt_cpu_primitives *k, uint64_t *seed, int32_t head_dim,
                        int32_t heads, int32_t tokens) {
  cache c = {.page_elems = 32 * head_dim + 48, .head_dim = head_dim};
  c.floats = CACHE_PAGES * c.page_elems;
  c.base = new_floats(c.floats);
  float *keys = random_floats(seed, (int64_t)tokens * head_dim, 1);
  float *values = random_floats(seed, (int64_t)tokens * head_dim, 1);
  float *q = random_floats(seed, (int64_t)heads * head_dim, 3);
  int64_t n = (int64_t)heads * head_dim;
  float *out = new_floats(n), *other = new_floats(n);
  float *whole = new_floats((int64_t)heads * (tokens + 32));
  int32_t pages[CACHE_PAGES];
  for (int trial = 0; trial < 8; trial++) {
    int32_t first = trial == 0 ? tokens - 1 : between(seed, 0, tokens - 1);
    int64_t at = (int64_t)first * head_dim;
    pdt_kv_view kv = lay_out(&c, seed, keys + at, values + at, tokens - first, 0, pages);
    k->attention(&kv, q, heads, out, whole);
    int32_t cut = trial == 1 ? first : between(seed, 0, tokens);
    kv = lay_out(&c, seed, keys, values, tokens, cut, pages);
    kv = slide(&c, kv, first);
    int64_t places = 0;
    for (int s = 0; s < 2; s++) places += (kv.spans[s].skip + kv.spans[s].tokens + 15) / 16 * 16;
    float *scratch =
        new_floats(heads * places); /* what is written past it is found by sanitizers */
    k->attention(&kv, q, heads, other, scratch);
    assert_memory_equal(out, other, (size_t)n * sizeof *out);
    free(scratch);
    plain_attention(&kv, q, heads, out, whole);
    assert_close(other, out, n, 1e-6, 1 + sqrt(head_dim));
  }
  free(c.base), free(keys), free(values), free(q), free(out), free(other), free(whole);
}

static void windows_on(const pdt_cpu_primitives *k) {
  static const int32_t dims[] = {2, 6, 16, 22, 64, 134};
  uint64_t seed = 11;
  for (int d = 0; d < 6; d++)
    for (int32_t heads = 1; heads <= 9; heads++)
      window_case(k, &seed, dims[d], heads, between(&seed, 1, 300));
  for (int32_t tokens = 1; tokens <= 70; tokens++) window_case(k, &seed, 8, 2, tokens);
}

static void windows_are_right(void **state) {
  (void)state;
  for_each_isa(windows_on);
}

static void attention_on(const pdt_cpu_primitives *k) {
  static const int32_t dims[] = {2, 6, 8, 16, 22, 48, 64, 80, 128, 134};
  uint64_t seed = 7;
  for (int d = 0; d < 10; d++)
    for (int32_t heads = 1; heads <= 9; heads++)
      attention_case(k, &seed, dims[d], heads, between(&seed, 1, 300));
  for (int32_t tokens = 1; tokens <= 70; tokens++) attention_case(k, &seed, 8, 2, tokens);
}

static void attention_is_right(void **state) {
  (void)state;
  for_each_isa(attention_on);
}

static void not_a_number_on(const pdt_cpu_primitives *k) {
  for (int32_t n = 1; n <= 40; n++)
    for (int32_t at = 0; at < n; at++) {
      float x[40], one[40], y[40];
      for (int i = 0; i < 40; i++) x[i] = one[i] = 1;
      x[at] = NAN;
      k->rms_norm(x, NULL, 1e-5f, n, y);
      for (int32_t i = 0; i < n; i++) assert_true(isnan(y[i]));
      k->silu_mul(x, one, n, y);
      assert_true(isnan(y[at]));
      k->silu_mul(one, x, n, y);
      assert_true(isnan(y[at]));
      memcpy(y, x, sizeof y);
      k->gelu(y, n);
      assert_true(isnan(y[at]));
      memcpy(y, x, sizeof y);
      k->softmax(y, n);
      for (int32_t i = 0; i < n; i++) assert_true(isnan(y[i]));
    }
  float all[3] = {-INFINITY, -INFINITY, -INFINITY}, top[2] = {INFINITY, 0};
  k->softmax(all, 3);
  k->softmax(top, 2);
  assert_true(isnan(all[0]) && isnan(top[0]));
}

static void matmul_nan_on(const pdt_cpu_primitives *k) {
  uint64_t seed = 8;
  for (int trial = 0; trial < 40; trial++) {
    shape s = random_shape(&seed);
    char *owner;
    void *src;
    pdt_matrix m = random_matrix(&seed, &s, &owner, &src);
    float *x = random_floats(&seed, 5 * (int64_t)s.in, 1), *y = new_floats(5 * (int64_t)s.out);
    x[2 * s.in + between(&seed, 0, s.in - 1)] = NAN;
    k->matmul(&m, x, s.in, 5, y, s.out, 1);
    for (int32_t r = 0; r < 5; r++)
      for (int32_t o = 0; o < s.out; o++)
        assert_int_equal(!!isnan(y[r * s.out + o]), r == 2); /* there, and nowhere else */
    free(x), free(y), free(owner);
    device.ops->matrix_free(&device, &m);
  }
}

static void nan_is_never_lost(void **state) {
  (void)state;
  for_each_isa(not_a_number_on);
  for_each_isa(matmul_nan_on);
}

/* Is got what a weight times 1 is to give? AMX takes subnormal bf16 for 0, and its sums of low
 * parts hold 0 times infinity. */
static bool is_weight(const pdt_cpu_primitives *k, pdt_dtype dtype, float want, float got) {
  bool tiles = strcmp(k->name, "amx") == 0 && dtype == PDT_BF16;
  if (isnan(want)) return isnan(got);
  if (tiles && isinf(want)) return !isfinite(got);
  return got == (tiles && fabsf(want) < 0x1p-126f ? 0 : want);
}

/* Every half-precision number, widened by a product with 1 from each kind of storage. */
static void halves_on(const pdt_cpu_primitives *k) {
  static uint16_t bits[65536]; /* large for a stack */
  const float one = 1;
  float *y = new_floats(65536), *want = new_floats(65536);
  for (int i = 0; i < 65536; i++) bits[i] = (uint16_t)i;
  for (int d = PDT_F16; d <= PDT_BF16; d++) {
    pdt_matrix m;
    assert_int_equal(device.ops->matrix_new(&device, &m, 65536, 1, (pdt_dtype)d, 1, NULL), 0);
    device.ops->matrix_pack(&device, &m, 0, 65536, bits, 1);
    k->matmul(&m, &one, 1, 1, y, 65536, 1);
    pdt_to_float((pdt_dtype)d, bits, 65536, want);
    for (int i = 0; i < 65536; i++) assert_true(is_weight(k, (pdt_dtype)d, want[i], y[i]));
    device.ops->matrix_free(&device, &m);
  }
  free(y), free(want);
}

static void half_precision_is_widened_exactly(void **state) {
  (void)state;
  for_each_isa(halves_on);
}

/* Rounds one number, in a place that is the number of those before it, so that tails are met. */
static float rounded_at(const pdt_cpu_primitives *k, float x, int place) {
  float all[40] = {0};
  all[place] = x;
  k->round_bf16(all, place + 1, all);
  return all[place];
}

/* Borders of all kinds, and what is no number. */
static void rounding_on(const pdt_cpu_primitives *k) {
  static const uint32_t lower[] = {0,      1,      0x7fff, 0x8000, 0x8001,
                                   0xffff, 0x4000, 0xc000, 0x7ffe, 0x8002};
  for (uint32_t upper = 0; upper < 65536; upper += upper % 128 < 4 ? 1 : 5)
    for (int i = 0; i < 10; i++) {
      uint32_t bits = upper << 16 | lower[i], got;
      uint16_t half;
      float x, y;
      memcpy(&x, &bits, sizeof x);
      y = rounded_at(k, x, (int)(upper + (uint32_t)i) % 40);
      pdt_from_float(PDT_BF16, &x, 1, &half);
      memcpy(&got, &y, sizeof got);
      assert_true(isnan(x) ? isnan(y) && (got & 0xffff) == 0 : got == (uint32_t)half << 16);
    }
  assert_true(rounded_at(k, INFINITY, 3) == INFINITY);
  assert_true(rounded_at(k, 0x1.fefffep127f, 0) == -rounded_at(k, -0x1.fep127f, 1));
  assert_true(rounded_at(k, 0x1.ffp127f, 17) == INFINITY); /* no bf16 number is so large */
  assert_true(rounded_at(k, 1 + 0x1p-8f, 5) == 1 && rounded_at(k, 1 + 0x3p-8f, 5) == 1 + 0x1p-6f);
}

static void rounding_is_to_nearest_even(void **state) {
  (void)state;
  for_each_isa(rounding_on);
}

/* AVX2 and AVX-512 both fuse, in the same order: the same bits. */
static void same_bits_on_avx2_and_avx512(void **state) {
  (void)state;
  const pdt_cpu_primitives *a = pdt_cpu_primitives_of(PDT_CPU_AVX2),
                           *b = pdt_cpu_primitives_of(PDT_CPU_AVX512);
  if (!a || !b) skip();
  uint64_t seed = 9;
  for (int trial = 0; trial < SPLIT_TRIALS; trial++) {
    shape s = random_shape(&seed);
    char *owner;
    void *src;
    pdt_matrix m = random_matrix(&seed, &s, &owner, &src);
    int32_t rows = between(&seed, 1, 20);
    int64_t n = (int64_t)rows * s.out;
    float *x = random_floats(&seed, (int64_t)rows * s.in + n, 9), *y = new_floats(n),
          *z = new_floats(n);
    size_t bytes = (size_t)n * sizeof *y;
    a->matmul(&m, x, s.in, rows, y, s.out, 1);
    b->matmul(&m, x, s.in, rows, z, s.out, 1);
    assert_memory_equal(y, z, bytes);
    a->matvec_unpacked(s.dtype, src, s.in, s.out, s.in, x, y, 1);
    b->matvec_unpacked(s.dtype, src, s.in, s.out, s.in, x, z, 1);
    assert_memory_equal(y, z, (size_t)s.out * sizeof *y);
    a->rms_norm(x, NULL, 1e-5f, (int32_t)n, y), b->rms_norm(x, NULL, 1e-5f, (int32_t)n, z);
    assert_memory_equal(y, z, bytes);
    a->silu_mul(x, y, n, y), b->silu_mul(x, z, n, z);
    assert_memory_equal(y, z, bytes);
    a->gelu(y, n), b->gelu(z, n);
    a->rope(y, x, x + n / 2, (int32_t)(n / 2 * 2)), b->rope(z, x, x + n / 2, (int32_t)(n / 2 * 2));
    assert_memory_equal(y, z, bytes);
    a->softmax(y, n), b->softmax(z, n);
    assert_memory_equal(y, z, bytes);
    free(x), free(y), free(z), free(owner);
    device.ops->matrix_free(&device, &m);
  }
}

static void same_attention_on_avx2_and_avx512(void **state) {
  (void)state;
  const pdt_cpu_primitives *a = pdt_cpu_primitives_of(PDT_CPU_AVX2),
                           *b = pdt_cpu_primitives_of(PDT_CPU_AVX512);
  if (!a || !b) skip();
  uint64_t seed = 10;
  for (int trial = 0; trial < 40; trial++) {
    int32_t dim = 2 * between(&seed, 1, 70), tokens = between(&seed, 1, 300),
            heads = between(&seed, 1, 7);
    cache c = {.page_elems = 32 * dim, .head_dim = dim};
    c.floats = CACHE_PAGES * c.page_elems;
    c.base = new_floats(c.floats);
    float *keys = random_floats(&seed, (int64_t)tokens * dim, 1),
          *values = random_floats(&seed, (int64_t)tokens * dim, 1),
          *q = random_floats(&seed, (int64_t)heads * dim, 3),
          *scratch = new_floats((int64_t)heads * (tokens + 32));
    float y[7 * 140], z[7 * 140];
    int32_t pages[CACHE_PAGES];
    pdt_kv_view kv = lay_out(&c, &seed, keys, values, tokens, tokens / 3, pages);
    a->attention(&kv, q, heads, y, scratch);
    b->attention(&kv, q, heads, z, scratch);
    assert_memory_equal(y, z, (size_t)(heads * dim) * sizeof *y);
    free(c.base), free(keys), free(values), free(q), free(scratch);
  }
}

static void names_parse(void **state) {
  (void)state;
  pdt_cpu_isa isa = PDT_CPU_AVX512;
  assert_true(pdt_cpu_isa_parse("portable", &isa));
  assert_int_equal(isa, PDT_CPU_PORTABLE);
  assert_true(pdt_cpu_isa_parse("avx2", &isa));
  assert_int_equal(isa, PDT_CPU_AVX2);
  assert_true(pdt_cpu_isa_parse("avx512", &isa));
  assert_int_equal(isa, PDT_CPU_AVX512);
  assert_true(pdt_cpu_isa_parse("amx", &isa));
  assert_int_equal(isa, PDT_CPU_AMX);
  assert_false(pdt_cpu_isa_parse("AVX", &isa));
  assert_true(pdt_cpu_has(pdt_cpu_best_isa()) && pdt_cpu_has(PDT_CPU_PORTABLE));
  for (int i = PDT_CPU_PORTABLE; i < PDT_CPU_ISAS; i++) {
    const pdt_cpu_primitives *k = pdt_cpu_primitives_of((pdt_cpu_isa)i);
    assert_int_equal(k != NULL, pdt_cpu_has((pdt_cpu_isa)i));
    if (k) assert_string_equal(k->name, pdt_cpu_isa_name((pdt_cpu_isa)i));
  }
}

static int open_device(void **state) {
  (void)state;
  return pdt_cpu_device_new(&device, PDT_CPU_PORTABLE, 1, NULL);
}

static int close_device(void **state) {
  (void)state;
  device.ops->close(&device);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(matrix_packs_and_unpacks),
      cmocka_unit_test(matmul_rows_are_independent),
      cmocka_unit_test(bf16_rows_are_multiplied),
      cmocka_unit_test(matmul_threads_leave_no_trace),
      cmocka_unit_test(matmul_split_over_ranks),
      cmocka_unit_test(matvec_unpacked_is_right),
      cmocka_unit_test(vectors_are_right),
      cmocka_unit_test(exponential_is_accurate),
      cmocka_unit_test(attention_is_right),
      cmocka_unit_test(windows_are_right),
      cmocka_unit_test(nan_is_never_lost),
      cmocka_unit_test(half_precision_is_widened_exactly),
      cmocka_unit_test(rounding_is_to_nearest_even),
      cmocka_unit_test(same_bits_on_avx2_and_avx512),
      cmocka_unit_test(same_attention_on_avx2_and_avx512),
      cmocka_unit_test(names_parse),
  };
  return cmocka_run_group_tests(tests, open_device, close_device);
}
