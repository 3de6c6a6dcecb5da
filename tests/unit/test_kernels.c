/* Every operation of every backend against the reference, on random shapes: one table of backends,
 * one of operations, a test for each pair. And what backends promise beside it: a row's bits depend
 * on no other row. A backend that is not here is skipped by name. Data are seeded.
 *
 * Outputs stand between guards that must stay as they are; what must not be read is NaN, which no
 * comparison lets pass. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "kernels/kernels.h"

enum { GUARD = 64, TRIALS = 25 };
static const float KEPT = 77; /* what guards hold */

/* ---- the table of backends ---- */

static int open_portable(pdt_device *dev, pdt_error *err) {
  return pdt_cpu_device_new(dev, PDT_CPU_PORTABLE, 1, err);
}

static int open_avx2(pdt_device *dev, pdt_error *err) {
  return pdt_cpu_device_new(dev, PDT_CPU_AVX2, 1, err);
}

static int open_avx512(pdt_device *dev, pdt_error *err) {
  return pdt_cpu_device_new(dev, PDT_CPU_AVX512, 1, err);
}

static int open_threads(pdt_device *dev, pdt_error *err) {
  return pdt_cpu_device_new(dev, pdt_cpu_best_isa(), 3, err);
}

static int open_cuda(pdt_device *dev, pdt_error *err) {
  return pdt_cuda_device_new(dev, 0, err);
}

typedef struct backend {
  const char *name;
  int (*open)(pdt_device *dev, pdt_error *err); /* fails, with the reason, where it is not here */
  double rounding; /* of what is multiplied with weights of half precision, relative to 1 */
  void (*round_rows)(pdt_device *dev, bool rounds); /* as pdt_cuda_round_rows; NULL: never does */
} backend;

static const backend backends[] = {{"portable", open_portable, 0, NULL},
                                   {"avx2", open_avx2, 0, NULL},
                                   {"avx512", open_avx512, 0, NULL},
                                   {"three threads", open_threads, 0, NULL},
                                   {"cuda", open_cuda, 0x1p-17, pdt_cuda_round_rows}};

/* ---- data ---- */

/* One trial: the backend, the reference, and where its random numbers are. */
typedef struct trial {
  pdt_device dev, ref;
  double rounding; /* the backend's, and */
  void (*round_rows)(pdt_device *dev, bool rounds);
  uint64_t seed;
  int round; /* of a test that takes one case after another */
} trial;

static uint32_t next(trial *t) {
  t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(t->seed >> 33);
}

static int32_t between(trial *t, int32_t low, int32_t high) {
  return low + (int32_t)(next(t) % (uint32_t)(high - low + 1));
}

/* n floats in [-scale, scale], to be freed. */
static float *random_floats(trial *t, int64_t n, float scale) {
  float *x;
  assert_int_equal(PDT_NEW(&x, n, "test data", NULL), 0);
  for (int64_t i = 0; i < n; i++) x[i] = ((float)next(t) / 0x1p30f - 1.0f) * scale;
  return x;
}

static float *floats_of(int64_t n, float value) {
  float *x;
  assert_int_equal(PDT_NEW(&x, n, "test data", NULL), 0);
  for (int64_t i = 0; i < n; i++) x[i] = value;
  return x;
}

/* An array with guards on both sides; freed by drop. */
static pdt_array put(pdt_device *dev, const float *host, int64_t n) {
  pdt_array a;
  pdt_error err;
  if (dev->ops->alloc(dev, n + 2 * GUARD, "test data", &a, &err)) fail_msg("%s", err.message);
  float *guards = floats_of(GUARD, KEPT);
  dev->ops->upload(dev, a, guards, GUARD);
  dev->ops->upload(dev, pdt_array_at(a, GUARD), host, n);
  dev->ops->upload(dev, pdt_array_at(a, GUARD + n), guards, GUARD);
  free(guards);
  return pdt_array_at(a, GUARD);
}

static pdt_array put_zeros(pdt_device *dev, int64_t n) {
  float *zeros = floats_of(n, 0);
  pdt_array a = put(dev, zeros, n);
  free(zeros);
  return a;
}

/* The array's n floats, to be freed; its guards are as they were. */
static float *get(pdt_device *dev, pdt_array a, int64_t n) {
  float *all = floats_of(n + 2 * GUARD, 0), *x = floats_of(n, 0);
  pdt_error err;
  dev->ops->download(dev, all, pdt_array_at(a, -GUARD), n + 2 * GUARD);
  if (dev->ops->sync(dev, &err)) fail_msg("%s", err.message);
  for (int i = 0; i < GUARD; i++) {
    assert_true(all[i] == KEPT);
    assert_true(all[GUARD + n + i] == KEPT);
  }
  memcpy(x, all + GUARD, (size_t)n * sizeof *x);
  free(all);
  return x;
}

static void drop(pdt_device *dev, pdt_array a) {
  dev->ops->release(dev, pdt_array_at(a, -GUARD));
}

/* The same floats on the backend and on the reference. */
typedef struct both {
  pdt_array dev, ref;
  int64_t n;
} both;

static both put_both(trial *t, float *host, int64_t n) {
  both b = {put(&t->dev, host, n), put(&t->ref, host, n), n};
  free(host);
  return b;
}

static both random_both(trial *t, int64_t n, float scale) {
  return put_both(t, random_floats(t, n, scale), n);
}

static both both_of(trial *t, int64_t n, float value) {
  return put_both(t, floats_of(n, value), n);
}

static void drop_both(trial *t, both b) {
  drop(&t->dev, b.dev);
  drop(&t->ref, b.ref);
}

/* |a - b| <= tolerance, and NaN fails. */
static void assert_close(const float *a, const float *b, int64_t n, double tolerance) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)a[i] - (double)b[i]) <= tolerance))
      fail_msg("element %lld: %.9g, the reference has %.9g", (long long)i, (double)a[i],
               (double)b[i]);
}

/* The backend's floats are the reference's within the tolerance. */
static void compare(trial *t, both b, double tolerance) {
  float *got = get(&t->dev, b.dev, b.n), *want = get(&t->ref, b.ref, b.n);
  assert_close(got, want, b.n, tolerance);
  free(got), free(want);
}

/* n floats of the backend at a have the bits of n others at b. */
static void same_bits(trial *t, pdt_array a, pdt_array b, int64_t n) {
  float *x = floats_of(n, 0), *y = floats_of(n, 0);
  t->dev.ops->download(&t->dev, x, a, n);
  t->dev.ops->download(&t->dev, y, b, n);
  assert_memory_equal(x, y, (size_t)n * sizeof *x);
  free(x), free(y);
}

/* A matrix on both. */
typedef struct matrices {
  pdt_matrix dev, ref;
} matrices;

static pdt_matrix pack(pdt_device *dev, int32_t out, int32_t in, pdt_dtype dtype, int32_t leaf,
                       const char *src, int32_t cut) {
  pdt_matrix m;
  pdt_error err;
  if (dev->ops->matrix_new(dev, &m, out, in, dtype, leaf, &err)) fail_msg("%s", err.message);
  dev->ops->matrix_pack(dev, &m, 0, cut, src, in); /* in two pieces, as tensors come */
  dev->ops->matrix_pack(dev, &m, cut, out - cut,
                        src + (int64_t)cut * in * (int64_t)pdt_dtype_bytes(dtype), in);
  return m;
}

/* n elements of a type at an odd address inside *owner, which is to be freed. */
static char *random_elements(trial *t, pdt_dtype dtype, int64_t n, char **owner) {
  float *x = random_floats(t, n, 1);
  assert_int_equal(PDT_NEW(owner, n * 4 + 1, "test data", NULL), 0);
  pdt_from_float(dtype, x, n, *owner);
  memmove(*owner + 1, *owner, (size_t)n * pdt_dtype_bytes(dtype));
  free(x);
  return *owner + 1;
}

static matrices random_matrices(trial *t, int32_t out, int32_t in) {
  static const int32_t leaves[] = {1, 3, 8, 17, 32, 64};
  pdt_dtype dtype = (pdt_dtype)between(t, 0, 2);
  int32_t leaf = between(t, 0, 2) == 0 ? in : leaves[between(t, 0, 5)], cut = between(t, 0, out);
  char *owner, *src = random_elements(t, dtype, (int64_t)out * in, &owner);
  matrices m = {pack(&t->dev, out, in, dtype, leaf, src, cut),
                pack(&t->ref, out, in, dtype, leaf, src, cut)};
  free(owner);
  return m;
}

static void drop_matrices(trial *t, matrices *m) {
  t->dev.ops->matrix_free(&t->dev, &m->dev);
  t->ref.ops->matrix_free(&t->ref, &m->ref);
}

/* ---- memory ---- */

static void memory(trial *t) {
  pdt_device *dev = &t->dev;
  pdt_array none = {0}, a;
  int64_t n = between(t, 0, 300);
  assert_int_equal(dev->ops->alloc(dev, n, "test", &a, NULL), 0);
  assert_non_null(a.at);
  assert_int_equal((uintptr_t)a.at % 64, 0);
  float *x = floats_of(n, 1);
  dev->ops->download(dev, x, a, n);
  for (int64_t i = 0; i < n; i++) assert_true(x[i] == 0);
  free(x);
  dev->ops->release(dev, a);
  dev->ops->release(dev, none);
  assert_true(dev->ops->available(dev, 2) > 0);
  assert_null(pdt_array_at(none, 5).at);
}

/* The backend's floats are these, to the bit. Frees them. */
static void expect(trial *t, pdt_array a, float *want, int64_t n) {
  float *got = get(&t->dev, a, n);
  assert_memory_equal(got, want, (size_t)n * sizeof *got);
  free(got), free(want);
}

/* Compared with loops of our own: the reference's memory is the CPU's. */
static void copying(trial *t) {
  pdt_device *dev = &t->dev;
  int32_t rows = between(t, 0, 70), width = between(t, 1, 90);
  int64_t from = width + between(t, 0, 9), to = width + between(t, 0, 9);
  float *x = random_floats(t, rows * from, 1), *y = floats_of(rows * to, 5);
  pdt_array src = put(dev, x, rows * from), dst = put(dev, y, rows * to);
  dev->ops->copy_rows(dev, dst, to, src, from, rows, width);
  for (int64_t r = 0; r < rows; r++)
    for (int32_t i = 0; i < width; i++) y[r * to + i] = x[r * from + i];
  expect(t, dst, y, rows * to);
  expect(t, src, x, rows * from);
  drop(dev, src), drop(dev, dst);
}

static void moving(trial *t) {
  pdt_device *dev = &t->dev;
  int32_t rows = between(t, 1, 70), width = between(t, 1, 90), n = between(t, 0, rows);
  int32_t lists[2][70];
  float *x = random_floats(t, (int64_t)rows * width, 1), *y = floats_of((int64_t)rows * width, 5);
  pdt_array src = put(dev, x, (int64_t)rows * width), dst = put(dev, y, (int64_t)rows * width);
  for (int32_t i = 0; i < n; i++) {
    lists[0][i] = rows - 1 - i; /* each once */
    lists[1][i] = between(t, 0, rows - 1);
  }
  const int32_t *target = between(t, 0, 1) ? lists[0] : NULL;
  const int32_t *source = between(t, 0, 1) ? lists[1] : NULL;
  dev->ops->move_rows(dev, dst, target, src, source, n, width);
  for (int64_t i = 0; i < n; i++)
    for (int32_t j = 0; j < width; j++)
      y[(target ? target[i] : i) * (int64_t)width + j] =
          x[(source ? source[i] : i) * (int64_t)width + j];
  expect(t, dst, y, (int64_t)rows * width);
  expect(t, src, x, (int64_t)rows * width);
  drop(dev, src), drop(dev, dst);
}

/* ---- products ---- */

static void matmul(trial *t) {
  int32_t out = between(t, 1, 200), in = between(t, 1, 260), rows = between(t, 0, 70);
  int64_t stride = in + between(t, 0, 5);
  pdt_device *dev = &t->dev;
  matrices m = random_matrices(t, out, in);
  both x = random_both(t, rows * stride, 1), y = both_of(t, (int64_t)rows * out, 5);
  dev->ops->matmul(dev, &m.dev, x.dev, stride, rows, y.dev);
  t->ref.ops->matmul(&t->ref, &m.ref, x.ref, stride, rows, y.ref);
  /* Rounding of `in` additions of numbers of at most 1. */
  compare(t, y, 1e-7 * in * (1 + sqrt(in)) + in * t->rounding);
  assert_true(m.dev.bytes >= (int64_t)out * in * (int64_t)pdt_dtype_bytes(m.dev.dtype));
  both z = both_of(t, (int64_t)rows * out, 5);
  for (int32_t r = 0, batch; r < rows; r += batch) { /* the same rows in other batches */
    int32_t left = rows - r;
    batch = between(t, 1, left < 9 ? left : 9);
    dev->ops->matmul(dev, &m.dev, pdt_array_at(x.dev, r * stride), stride, batch,
                     pdt_array_at(z.dev, (int64_t)r * out));
  }
  same_bits(t, y.dev, z.dev, y.n);
  drop_both(t, x), drop_both(t, y), drop_both(t, z);
  drop_matrices(t, &m);
}

/* n floats of the backend, rounded to bf16 there. */
static void round_floats(trial *t, pdt_array a, int64_t n) {
  float *x = floats_of(n, 0);
  uint16_t *rounded;
  assert_int_equal(PDT_NEW(&rounded, n, "test data", NULL), 0);
  t->dev.ops->download(&t->dev, x, a, n);
  pdt_from_float(PDT_BF16, x, n, rounded);
  pdt_to_float(PDT_BF16, rounded, n, x);
  t->dev.ops->upload(&t->dev, a, x, n);
  free(x), free(rounded);
}

/* A backend that rounds rows gives what rounded rows give otherwise: y, and z for its room, of
 * products of x with m. Rows of F32 weights stay as they are. */
static void rounded_rows(trial *t, const pdt_matrix *m, both x, int64_t stride, int32_t rows,
                         pdt_array y, pdt_array z) {
  pdt_device *dev = &t->dev;
  t->round_rows(dev, true);
  dev->ops->matmul_bulk(dev, m, x.dev, stride, rows, y);
  t->round_rows(dev, false);
  if (m->dtype != PDT_F32) round_floats(t, x.dev, x.n);
  dev->ops->matmul_bulk(dev, m, x.dev, stride, rows, z);
  same_bits(t, y, z, (int64_t)rows * m->out);
}

/* Many rows at once, in one batch or cut anyhow: right, and the same bits. */
static void bulk_of(trial *t, int32_t out, int32_t in, int32_t rows) {
  int64_t stride = in + between(t, 0, 5);
  pdt_device *dev = &t->dev;
  matrices m = random_matrices(t, out, in);
  both x = random_both(t, rows * stride, 1), y = both_of(t, (int64_t)rows * out, 5);
  both z = both_of(t, y.n, 5);
  dev->ops->matmul_bulk(dev, &m.dev, x.dev, stride, 0, y.dev);
  dev->ops->matmul_bulk(dev, &m.dev, x.dev, stride, rows, y.dev);
  t->ref.ops->matmul_bulk(&t->ref, &m.ref, x.ref, stride, rows, y.ref);
  compare(t, y, 1e-7 * in * (1 + sqrt(in)) + in * t->rounding);
  for (int32_t r = 0, batch; r < rows; r += batch) {
    int32_t left = rows - r, most = between(t, 0, 1) ? 9 : 200;
    batch = between(t, 1, left < most ? left : most);
    dev->ops->matmul_bulk(dev, &m.dev, pdt_array_at(x.dev, r * stride), stride, batch,
                          pdt_array_at(z.dev, (int64_t)r * out));
  }
  same_bits(t, y.dev, z.dev, y.n);
  if (t->round_rows) rounded_rows(t, &m.dev, x, stride, rows, y.dev, z.dev);
  drop_both(t, x), drop_both(t, y), drop_both(t, z);
  drop_matrices(t, &m);
}

static void matmul_bulk(trial *t) {
  static const int32_t even[] = {32, 64, 96, 128, 224, 256}; /* results may stand as they are */
  bool any = between(t, 0, 2) > 0;
  int32_t out = any ? between(t, 1, 300) : even[between(t, 0, 5)];
  bulk_of(t, out, between(t, 1, 300), between(t, 1, 300));
}

/* Matrices and batches that are larger than what is multiplied at a time. */
static void large_bulk(trial *t) {
  bulk_of(t, (1 << 15) + 64, 9, 3);
  bulk_of(t, (1 << 15) + 40, 17, 3);
  bulk_of(t, 40, 33, 2055);
}

/* Rows of the backend that products read before and after an operation writes them. */
typedef struct watched {
  matrices m;
  pdt_array x, y[2];
  int32_t rows, width;
} watched;

/* What comes next is the operation. */
static watched watch(trial *t, pdt_array x, int32_t rows, int32_t width) {
  int32_t out = between(t, 1, 40);
  watched w = {random_matrices(t, out, width), x, {{0}}, rows, width};
  for (int i = 0; i < 2; i++) w.y[i] = put_zeros(&t->dev, (int64_t)rows * out);
  t->dev.ops->matmul(&t->dev, &w.m.dev, x, width, rows, w.y[0]);
  return w;
}

/* The product right behind the operation is that of what the operation left, as another array has
 * it. */
static void see(trial *t, watched *w) {
  const pdt_kernels *k = t->dev.ops;
  int64_t n = (int64_t)w->rows * w->width;
  pdt_array copy = put_zeros(&t->dev, n);
  k->matmul(&t->dev, &w->m.dev, w->x, w->width, w->rows, w->y[0]);
  k->copy_rows(&t->dev, copy, w->width, w->x, w->width, w->rows, w->width);
  k->matmul(&t->dev, &w->m.dev, copy, w->width, w->rows, w->y[1]);
  same_bits(t, w->y[0], w->y[1], (int64_t)w->rows * w->m.dev.out);
  drop(&t->dev, w->y[0]), drop(&t->dev, w->y[1]), drop(&t->dev, copy);
  drop_matrices(t, &w->m);
}

static void gather(trial *t) {
  int32_t out = between(t, 1, 200), in = between(t, 1, 260), n = between(t, 0, 70), ids[70];
  matrices m = random_matrices(t, out, in);
  both y = both_of(t, (int64_t)n * in, 5);
  for (int32_t i = 0; i < n; i++) ids[i] = between(t, 0, out - 1);
  t->dev.ops->gather_rows(&t->dev, &m.dev, ids, n, y.dev);
  t->ref.ops->gather_rows(&t->ref, &m.ref, ids, n, y.ref);
  compare(t, y, 0); /* widening is exact */
  drop_both(t, y);
  drop_matrices(t, &m);
}

static void matrix_errors(trial *t) {
  pdt_device *dev = &t->dev;
  pdt_matrix m;
  pdt_error err;
  assert_int_equal(dev->ops->matrix_new(dev, &m, 0, 4, PDT_F32, 4, &err), -1);
  assert_null(m.data);
  assert_int_equal(dev->ops->matrix_new(dev, &m, INT32_MAX, INT32_MAX, PDT_F32, 4, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_MEMORY);
  dev->ops->matrix_free(dev, &m);
  pdt_rows rows = {0};
  dev->ops->rows_free(dev, &rows);
}

static pdt_rows write_rows(pdt_device *dev, int64_t n, int32_t width, pdt_dtype dtype,
                           const char *src) {
  pdt_rows rows;
  assert_int_equal(dev->ops->rows_new(dev, &rows, n, width, dtype, NULL), 0);
  int64_t cut = n / 3, bytes = width * (int64_t)pdt_dtype_bytes(dtype);
  dev->ops->rows_write(dev, &rows, 0, cut, src);
  dev->ops->rows_write(dev, &rows, cut, n - cut, src + cut * bytes);
  return rows;
}

static void rows_in_file_order(trial *t) {
  int32_t n = between(t, 0, 90), width = between(t, 1, 200), first = between(t, 0, n);
  pdt_dtype dtype = (pdt_dtype)between(t, 0, 2);
  char *owner, *src = random_elements(t, dtype, (int64_t)n * width, &owner);
  pdt_rows dev = write_rows(&t->dev, n, width, dtype, src);
  pdt_rows ref = write_rows(&t->ref, n, width, dtype, src);
  both x = random_both(t, width, 1), y = both_of(t, n - first, 5);
  t->dev.ops->rows_product(&t->dev, &dev, first, n - first, x.dev, y.dev);
  t->ref.ops->rows_product(&t->ref, &ref, first, n - first, x.ref, y.ref);
  compare(t, y, 1e-7 * width * (1 + sqrt(width)));
  for (int32_t r = 0; r < n; r += 7) {
    float got[200], want[200];
    t->dev.ops->rows_read(&t->dev, &dev, r, got);
    pdt_to_float(dtype, src + (int64_t)r * width * (int64_t)pdt_dtype_bytes(dtype), width, want);
    assert_memory_equal(got, want, (size_t)width * sizeof *got);
  }
  drop_both(t, x), drop_both(t, y);
  t->dev.ops->rows_free(&t->dev, &dev);
  t->ref.ops->rows_free(&t->ref, &ref);
  free(owner);
}

/* ---- rows and elements ---- */

static void norm(trial *t) {
  int32_t rows = between(t, 0, 70), width = between(t, 1, 200);
  pdt_device *dev = &t->dev;
  both x = random_both(t, (int64_t)rows * width, 20), w = random_both(t, width, 1);
  both y = both_of(t, x.n, 5), z = both_of(t, x.n, 5);
  pdt_array none = {0};
  bool weighed = between(t, 0, 1);
  dev->ops->norm_rows(dev, x.dev, weighed ? w.dev : none, 1e-5f, rows, width, y.dev);
  t->ref.ops->norm_rows(&t->ref, x.ref, weighed ? w.ref : none, 1e-5f, rows, width, y.ref);
  compare(t, y, 1e-6 * 20); /* a few roundings of numbers of that size */
  for (int32_t r = 0; r < rows; r++)
    dev->ops->norm_rows(dev, pdt_array_at(x.dev, (int64_t)r * width), weighed ? w.dev : none, 1e-5f,
                        1, width, pdt_array_at(z.dev, (int64_t)r * width));
  same_bits(t, y.dev, z.dev, y.n);
  dev->ops->norm_rows(dev, x.dev, weighed ? w.dev : none, 1e-5f, rows, width, x.dev); /* in place */
  same_bits(t, y.dev, x.dev, y.n);
  drop_both(t, x), drop_both(t, w), drop_both(t, y), drop_both(t, z);
}

static void additions(trial *t) {
  int32_t rows = between(t, 0, 70), width = between(t, 1, 200);
  both x = random_both(t, (int64_t)rows * width, 1), y = random_both(t, x.n, 1);
  both bias = random_both(t, width, 1);
  t->dev.ops->add_bias(&t->dev, x.dev, rows, width, bias.dev);
  t->ref.ops->add_bias(&t->ref, x.ref, rows, width, bias.ref);
  compare(t, x, 0); /* one addition is what it is */
  t->dev.ops->add(&t->dev, x.dev, y.dev, x.n);
  t->ref.ops->add(&t->ref, x.ref, y.ref, x.n);
  compare(t, x, 0);
  drop_both(t, x), drop_both(t, y), drop_both(t, bias);
}

static void shares(trial *t) {
  int32_t T = between(t, 1, 9), n = between(t, 0, 400);
  both x[9], out = both_of(t, n, 5);
  pdt_array dev[9], ref[9];
  float *want = floats_of(n, 0);
  for (int32_t i = 0; i < T; i++) {
    bool none = between(t, 0, 3) == 0;
    x[i] = random_both(t, n, 1);
    dev[i] = none ? (pdt_array){0} : x[i].dev;
    ref[i] = none ? (pdt_array){0} : x[i].ref;
  }
  t->dev.ops->sum_shares(&t->dev, dev, T, n, out.dev);
  t->ref.ops->sum_shares(&t->ref, ref, T, n, out.ref);
  compare(t, out, T * T * 0x1p-24); /* T additions of numbers up to T */
  for (int32_t i = 0; i < T; i++) { /* into one of the parts: the same bits, and the tree's */
    float *host = get(&t->dev, x[i].dev, n);
    pdt_array parts[9];
    for (int32_t j = 0; j < T; j++) parts[j] = dev[j];
    if (dev[i].at) {
      t->dev.ops->sum_shares(&t->dev, parts, T, n, dev[i]);
      same_bits(t, dev[i], out.dev, n);
      t->dev.ops->upload(&t->dev, dev[i], host, n);
    }
    free(host);
  }
  for (int32_t i = 0; i < T; i++) drop_both(t, x[i]);
  drop_both(t, out);
  free(want);
}

/* A part that is none is left out, and not added as zero: -0 stays -0. */
static void absent_shares(trial *t) {
  both x = both_of(t, 3, -0.0f), out = both_of(t, 3, 5);
  const pdt_array parts[3] = {{0}, x.dev, {0}};
  t->dev.ops->sum_shares(&t->dev, parts, 3, 3, out.dev);
  same_bits(t, out.dev, x.dev, 3);
  drop_both(t, x), drop_both(t, out);
}

static void swiglu(trial *t) {
  int32_t rows = between(t, 0, 70), width = between(t, 1, 200);
  pdt_device *dev = &t->dev;
  both x = random_both(t, (int64_t)rows * 2 * width, 20), y = both_of(t, (int64_t)rows * width, 5);
  both alone = both_of(t, x.n, 5), z = both_of(t, y.n, 5);
  dev->ops->copy_rows(dev, alone.dev, 2 * width, x.dev, 2 * width, rows, 2 * width);
  dev->ops->swiglu(dev, x.dev, rows, width);
  t->ref.ops->swiglu(&t->ref, x.ref, rows, width);
  dev->ops->copy_rows(dev, y.dev, width, x.dev, 2 * width, rows, width);
  t->ref.ops->copy_rows(&t->ref, y.ref, width, x.ref, 2 * width, rows, width);
  compare(t, y, 5 * 0x1p-24 * 400); /* exp, sum, quotient, product of numbers up to 400 */
  for (int32_t r = 0; r < rows; r++)
    dev->ops->swiglu(dev, pdt_array_at(alone.dev, (int64_t)r * 2 * width), 1, width);
  dev->ops->copy_rows(dev, z.dev, width, alone.dev, 2 * width, rows, width);
  same_bits(t, y.dev, z.dev, y.n);
  drop_both(t, x), drop_both(t, y), drop_both(t, alone), drop_both(t, z);
}

/* ---- sequences ---- */

enum { LAYERS = 2, STREAMS = 5, MOST_PAGES = 160, MOST_ROWS = 300, LIST = 24, MANY = 64 };

/* A model's attention over streams that follow one prompt. */
typedef struct flow {
  pdt_kv_shape shape;
  pdt_attention a[2][LAYERS]; /* the backend's, the reference's */
  both norms[LAYERS][2], data;
  pdt_array alone; /* a cache of the backend in which rows come one by one */
  pdt_batch *batch[2];
  int32_t prompt, written[STREAMS]; /* positions */
  int32_t prompt_pages[LIST], pages[STREAMS][LIST];
  int32_t many[MANY];              /* a page each of more streams */
  int32_t shown[STREAMS][2][LIST]; /* the same, of prompt and stream, as rows get them */
  bool hides;                      /* pages that windows have left behind are not among them */
  int32_t nowhere;                 /* a page of NaN that nothing is stored in */
  int32_t width, out_width;        /* of a row of qkv, of the result */
} flow;

/* Shapes that a rank of a group may have: any run of the query heads of its kv heads. */
static void choose_shape(trial *t, flow *f, int32_t hd, int32_t kv, int32_t per_kv) {
  int32_t first = between(t, 0, per_kv - 1);
  int32_t least = (kv - 1) * per_kv - first + 1;
  int32_t n = between(t, least > 1 ? least : 1, kv * per_kv - first);
  f->shape = (pdt_kv_shape){LAYERS, kv, hd};
  f->width = (n + 2 * kv) * hd;
  f->out_width = n * hd;
  for (int l = 0; l < LAYERS; l++) {
    bool normed = between(t, 0, 1);
    pdt_attention a = {.n_heads = n, .per_kv = per_kv, .first = first, .eps = 1e-5f};
    a.window = between(t, 0, 2) ? between(t, 1, 60) : 0;
    for (int d = 0; d < 2; d++) {
      f->norms[l][d] = random_both(t, hd, 1);
      f->a[d][l] = a;
    }
    f->a[0][l].q_norm.at = normed ? f->norms[l][0].dev.at : NULL;
    f->a[0][l].k_norm.at = normed ? f->norms[l][1].dev.at : NULL;
    f->a[1][l].q_norm.at = normed ? f->norms[l][0].ref.at : NULL;
    f->a[1][l].k_norm.at = normed ? f->norms[l][1].ref.at : NULL;
  }
}

/* Deals shuffled pages to the prompt and the streams. */
static void deal_pages(trial *t, flow *f) {
  int32_t deck[MOST_PAGES], at = 0;
  for (int32_t p = 0; p < MOST_PAGES; p++) deck[p] = p;
  for (int32_t p = MOST_PAGES - 1; p > 0; p--) {
    int32_t q = between(t, 0, p), page = deck[p];
    deck[p] = deck[q];
    deck[q] = page;
  }
  for (int i = 0; i < LIST; i++) f->prompt_pages[i] = deck[at++];
  for (int s = 0; s < STREAMS; s++)
    for (int i = 0; i < LIST; i++) f->pages[s][i] = deck[at++];
  f->nowhere = deck[at];
  /* Streams of one page each take the place of those of several. */
  for (int s = 0; s < MANY; s++) f->many[s] = f->pages[s / LIST][s % LIST];
}

static void open_flow(trial *t, flow *f, int32_t head_dim, int32_t kv, int32_t per_kv,
                      int32_t prompt) {
  double inv_freq[256];
  *f = (flow){.prompt = prompt, .hides = between(t, 0, 1)};
  choose_shape(t, f, head_dim, kv, per_kv);
  deal_pages(t, f);
  for (int j = 0; j < head_dim / 2; j++) inv_freq[j] = pow(1e4, -2.0 * j / head_dim);
  const pdt_rotary rotary = {inv_freq, between(t, 0, 1) ? 1 : 1.25};
  const pdt_room most = {.heads = per_kv, .positions = 2 * LIST * PDT_PAGE_TOKENS};
  pdt_device *devices[2] = {&t->dev, &t->ref};
  for (int d = 0; d < 2; d++) {
    pdt_device *dev = devices[d];
    assert_int_equal(dev->ops->reserve(dev, &most, NULL), 0);
    assert_int_equal(dev->ops->batch_new(dev, MOST_ROWS, most.positions, f->shape.head_dim, &rotary,
                                         &f->batch[d], NULL),
                     0);
  }
  int64_t n = MOST_PAGES * pdt_kv_page_elems(&f->shape);
  float *nothing = floats_of(n, NAN);
  f->alone = put(&t->dev, nothing, n);
  f->data = put_both(t, nothing, n);
}

static void close_flow(trial *t, flow *f) {
  t->dev.ops->batch_free(&t->dev, f->batch[0]);
  t->ref.ops->batch_free(&t->ref, f->batch[1]);
  t->dev.ops->batch_free(&t->dev, NULL);
  for (int l = 0; l < LAYERS; l++) drop_both(t, f->norms[l][0]), drop_both(t, f->norms[l][1]);
  drop_both(t, f->data);
  drop(&t->dev, f->alone);
}

/* One layer of a batch of n rows. */
static void run_layer(pdt_device *dev, pdt_batch *batch, const flow *f, pdt_array data, int layer,
                      bool reference, pdt_array qkv, pdt_array out) {
  const pdt_kv_pool pool = {f->shape, data};
  const pdt_attention *a = &f->a[reference][layer];
  dev->ops->rotate_and_store(dev, batch, &pool, layer, a, qkv);
  dev->ops->attention(dev, batch, &pool, layer, a, qkv, out);
}

/* A layer of the batch that is set, for n rows of qkv, between products with what it writes. */
static void watch_layer(trial *t, flow *f, int layer, const float *host, int32_t n) {
  pdt_device *dev = &t->dev;
  const pdt_kv_pool pool = {f->shape, f->data.dev};
  const pdt_attention *a = &f->a[0][layer];
  pdt_array qkv = put(dev, host, (int64_t)n * f->width);
  pdt_array out = put_zeros(dev, (int64_t)n * f->out_width);
  watched w = watch(t, qkv, n, f->width);
  dev->ops->rotate_and_store(dev, f->batch[0], &pool, layer, a, qkv);
  see(t, &w);
  w = watch(t, out, n, f->out_width);
  dev->ops->attention(dev, f->batch[0], &pool, layer, a, qkv, out);
  see(t, &w);
  drop(dev, qkv), drop(dev, out);
}

/* Normed and rotated heads are numbers of some 1.25 sqrt(head_dim) at most, so a score is one
 * of 1.6 sqrt(head_dim); the results are sums of values of at most 1, whose weights, relative to
 * them, are twice as far off as the scores. */
static double attention_tolerance(const trial *t, const flow *f) {
  double root = sqrt(f->shape.head_dim);
  return 4e-6 * (1 + root) + t->rounding * (1 + 3.2 * root);
}

/* Runs rows [n] through both layers, on both sides and one by one, and compares. */
static void run_batch(trial *t, flow *f, const pdt_row_place *rows, int32_t n) {
  pdt_device *dev = &t->dev;
  for (int l = 0; l < LAYERS; l++) {
    float *host = random_floats(t, (int64_t)n * f->width, 1);
    pdt_array single = put(dev, host, (int64_t)n * f->width);
    dev->ops->batch_set(dev, f->batch[0], rows, n);
    watch_layer(t, f, l, host, n);
    both qkv = put_both(t, host, (int64_t)n * f->width);
    both out = both_of(t, (int64_t)n * f->out_width, 5), alone = both_of(t, out.n, 5);
    t->ref.ops->batch_set(&t->ref, f->batch[1], rows, n);
    run_layer(dev, f->batch[0], f, f->data.dev, l, false, qkv.dev, out.dev);
    run_layer(&t->ref, f->batch[1], f, f->data.ref, l, true, qkv.ref, out.ref);
    compare(t, qkv, 2e-6 * (1 + sqrt(f->shape.head_dim)));
    compare(t, out, attention_tolerance(t, f));
    for (int32_t r = 0; r < n; r++) {
      dev->ops->batch_set(dev, f->batch[0], &rows[r], 1);
      run_layer(dev, f->batch[0], f, f->alone, l, false,
                pdt_array_at(single, (int64_t)r * f->width),
                pdt_array_at(alone.dev, (int64_t)r * f->out_width));
    }
    same_bits(t, out.dev, alone.dev, out.n);
    same_bits(t, qkv.dev, single, qkv.n);
    drop_both(t, qkv), drop_both(t, out), drop_both(t, alone), drop(dev, single);
  }
}

/* The most positions that any layer sees; 0: all. */
static int32_t widest_window(const flow *f) {
  int32_t a = f->a[0][0].window, b = f->a[0][1].window;
  return a == 0 || b == 0 ? 0 : a > b ? a : b;
}

/* A list of pages whose positions count from `offset`, for rows from `position` on: pages that no
 * layer sees any more are hidden. */
static void show(const flow *f, int32_t position, int32_t offset, const int32_t *pages,
                 int32_t *shown) {
  int32_t window = widest_window(f);
  for (int i = 0; i < LIST; i++) {
    int32_t end = offset + (i + 1) * PDT_PAGE_TOKENS;
    bool gone = f->hides && window > 0 && end <= position + 1 - window;
    shown[i] = gone ? f->nowhere : pages[i];
  }
}

/* Rows of stream s that go on by up to `more` positions; how many. */
static int32_t extend(flow *f, int s, int32_t more, pdt_row_place *rows) {
  int32_t position = f->prompt + f->written[s], n = 0;
  show(f, position, 0, f->prompt_pages, f->shown[s][0]);
  show(f, position, f->prompt, f->pages[s], f->shown[s][1]);
  for (; n < more && f->written[s] < LIST * PDT_PAGE_TOKENS; n++, f->written[s]++)
    rows[n] = (pdt_row_place){f->prompt + f->written[s], f->prompt,
                              f->hides ? f->shown[s][0] : f->prompt_pages, f->shown[s][1]};
  return n;
}

/* The prompt, then batches in which streams go on by some positions each. */
static void sequences(trial *t) {
  flow f;
  pdt_row_place rows[MOST_ROWS];
  open_flow(t, &f, 2 * between(t, 1, 35), between(t, 1, 3), between(t, 1, 4),
            between(t, 0, 3) ? between(t, 1, 70) : 0);
  for (int32_t i = 0; i < f.prompt; i++)
    rows[i] = (pdt_row_place){.position = i, .pages = f.prompt_pages};
  run_batch(t, &f, rows, f.prompt);
  for (int batch = 0; batch < 6; batch++) {
    int32_t n = 0;
    for (int s = 0; s < STREAMS; s++)
      n += extend(&f, s, between(t, 0, between(t, 0, 1) ? 2 : 14), rows + n);
    run_batch(t, &f, rows, n);
  }
  run_batch(t, &f, rows, 0);
  close_flow(t, &f);
}

/* The backend's results of rows [n], one layer, through pages of data; qkv: host. Freed by drop. */
static pdt_array results_of(trial *t, const flow *f, pdt_array data, const pdt_row_place *rows,
                            int32_t n, const float *qkv) {
  pdt_array x = put(&t->dev, qkv, (int64_t)n * f->width);
  float *guards = floats_of((int64_t)n * f->out_width, 5);
  pdt_array out = put(&t->dev, guards, (int64_t)n * f->out_width);
  t->dev.ops->batch_set(&t->dev, f->batch[0], rows, n);
  run_layer(&t->dev, f->batch[0], f, data, 0, false, x, out);
  free(guards);
  drop(&t->dev, x);
  return out;
}

/* Rows [n] have the same bits in other company: some of them alone, and all of them cut in two, as
 * others see the list of their pages. */
static void compare_company(trial *t, const flow *f, const pdt_row_place *rows,
                            const pdt_row_place *elsewhere, int32_t n, const float *qkv,
                            pdt_array out) {
  int32_t cut = between(t, 0, n);
  for (int part = 0; part < 2; part++) {
    int32_t first = part ? cut : 0, some = part ? n - cut : cut;
    pdt_array again = results_of(t, f, f->alone, elsewhere + first, some, qkv + first * f->width);
    same_bits(t, pdt_array_at(out, first * f->out_width), again, some * f->out_width);
    drop(&t->dev, again);
  }
  for (int i = 0; i < 5; i++) {
    int32_t r = i == 0 ? n - 1 : between(t, 0, n - 1);
    pdt_array again = results_of(t, f, f->data.dev, &rows[r], 1, qkv + r * f->width);
    same_bits(t, pdt_array_at(out, r * f->out_width), again, f->out_width);
    drop(&t->dev, again);
  }
}

/* Keys and values that are no numbers spoil no row that does not see them. */
static void spoil_last(trial *t, const flow *f, const pdt_row_place *rows, int32_t n,
                       const float *qkv, pdt_array out) {
  float *spoilt = floats_of((int64_t)n * f->width, 0);
  memcpy(spoilt, qkv, (size_t)n * (size_t)f->width * sizeof *qkv);
  for (int32_t i = 0; i < f->width; i++) spoilt[(n - 1) * f->width + i] = i % 3 ? NAN : INFINITY;
  pdt_array again = results_of(t, f, f->alone, rows, n, spoilt);
  same_bits(t, out, again, (int64_t)(n - 1) * f->out_width);
  float *last = get(&t->dev, again, (int64_t)n * f->out_width);
  for (int32_t i = 0; i < f->out_width; i++) assert_true(isnan(last[(n - 1) * f->out_width + i]));
  free(last), free(spoilt);
  drop(&t->dev, again);
}

/* Rows [n], which lie elsewhere in the backend's other cache. */
static void many_at_once(trial *t, flow *f, const pdt_row_place *rows,
                         const pdt_row_place *elsewhere, int32_t n, bool spoils) {
  float *host = random_floats(t, (int64_t)n * f->width, 1);
  pdt_array out = results_of(t, f, f->data.dev, rows, n, host);
  both x = {out, put(&t->ref, host, (int64_t)n * f->width), (int64_t)n * f->out_width};
  float *guards = floats_of(x.n, 5);
  both result = {out, put(&t->ref, guards, x.n), x.n};
  t->ref.ops->batch_set(&t->ref, f->batch[1], rows, n);
  run_layer(&t->ref, f->batch[1], f, f->data.ref, 0, true, x.ref, result.ref);
  compare(t, result, attention_tolerance(t, f));
  compare_company(t, f, rows, elsewhere, n, host, out);
  if (spoils) spoil_last(t, f, elsewhere, n, host, out);
  drop(&t->ref, x.ref);
  drop_both(t, result);
  free(host), free(guards);
}

/* A long prompt, and many streams behind it. */
static void many_rows(trial *t) {
  static const int32_t shapes[][2] = {/* head_dim, query heads of the kv head */
                                      {64, 2}, {22, 17}, {80, 1},  {128, 2},
                                      {96, 1}, {100, 3}, {256, 1}, {512, 2}};
  flow f;
  pdt_row_place rows[MOST_ROWS], elsewhere[MOST_ROWS];
  const int32_t *shape = shapes[t->round++ % 8];
  int32_t backwards[LIST], small = shape[0] * shape[1] <= 256;
  int32_t prompt = small ? between(t, 257, MOST_ROWS) : between(t, 130, 150);
  open_flow(t, &f, shape[0], 1, shape[1], prompt);
  for (int i = 0; i < LIST; i++) backwards[i] = f.prompt_pages[LIST - 1 - i];
  for (int32_t i = 0; i < prompt; i++) {
    rows[i] = (pdt_row_place){.position = i, .pages = f.prompt_pages};
    elsewhere[i] = (pdt_row_place){.position = i, .pages = backwards};
  }
  many_at_once(t, &f, rows, elsewhere, prompt, false);
  for (int s = 0; s < MANY; s++) {
    rows[s] = (pdt_row_place){prompt, prompt, f.prompt_pages, &f.many[s]};
    elsewhere[s] = (pdt_row_place){prompt, prompt, backwards, &f.many[MANY - 1 - s]};
  }
  many_at_once(t, &f, rows, elsewhere, MANY, false);
  for (int i = 0; i < 16; i++) {
    rows[i] = (pdt_row_place){prompt + i, prompt, f.prompt_pages, &f.many[0]};
    elsewhere[i] = (pdt_row_place){prompt + i, prompt, backwards, &f.many[0]};
  }
  many_at_once(t, &f, rows, elsewhere, 16, true);
  close_flow(t, &f);
}

/* ---- conditioning ---- */

enum { WINDOWS = 4, MOST_NOTES = 70, SIGHT_ROWS = 70 };

/* Windows of some sessions, and the rows that see them. */
typedef struct sight {
  pdt_kv_shape shape;
  both windows[WINDOWS];
  int32_t notes[WINDOWS], n; /* in each window; rows */
  int32_t window[SIGHT_ROWS];
  pdt_stream stream[SIGHT_ROWS];
  pdt_conditions *dev, *ref, *alone;
} sight;

static int64_t window_elems(const pdt_kv_shape *shape, int32_t notes) {
  return (notes + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS * pdt_kv_page_elems(shape);
}

/* Fills the windows of all layers; what stands behind their notes stays NaN. */
static void fill_windows(trial *t, sight *s) {
  int64_t width = (int64_t)s->shape.heads * s->shape.head_dim;
  for (int w = 0; w < WINDOWS; w++) {
    int32_t n = s->notes[w] = between(t, 0, 3) ? between(t, 1, MOST_NOTES) : 0;
    s->windows[w] = both_of(t, window_elems(&s->shape, n), NAN);
    const pdt_kv_pool dev = {s->shape, s->windows[w].dev}, ref = {s->shape, s->windows[w].ref};
    for (int32_t l = 0; l < s->shape.layers; l++) {
      both keys = random_both(t, n * width, 1), values = random_both(t, n * width, 1);
      t->dev.ops->store_notes(&t->dev, &dev, l, keys.dev, values.dev, n);
      t->ref.ops->store_notes(&t->ref, &ref, l, keys.ref, values.ref, n);
      drop_both(t, keys), drop_both(t, values);
    }
  }
}

static pdt_row_condition condition(const sight *s, int32_t r, bool reference) {
  const both *w = &s->windows[s->window[r]];
  return (pdt_row_condition){reference ? w->ref : w->dev, s->notes[s->window[r]], s->stream[r]};
}

static void open_sight(trial *t, sight *s, int32_t streams) {
  const pdt_room most = {.notes = MOST_NOTES};
  pdt_row_condition dev[SIGHT_ROWS], ref[SIGHT_ROWS];
  *s = (sight){.shape = {between(t, 1, 3), between(t, 1, 4), between(t, 1, 40)}};
  s->n = between(t, 0, SIGHT_ROWS);
  assert_int_equal(t->dev.ops->reserve(&t->dev, &most, NULL), 0);
  fill_windows(t, s);
  for (int32_t r = 0; r < s->n; r++) {
    s->window[r] = between(t, 0, WINDOWS - 1);
    s->stream[r] = r > 0 && between(t, 0, 2) ? s->stream[r - 1] : between(t, 0, streams - 1);
    dev[r] = condition(s, r, false);
    ref[r] = condition(s, r, true);
  }
  assert_int_equal(t->dev.ops->conditions_new(&t->dev, SIGHT_ROWS, &s->dev, NULL), 0);
  assert_int_equal(t->dev.ops->conditions_new(&t->dev, 1, &s->alone, NULL), 0);
  assert_int_equal(t->ref.ops->conditions_new(&t->ref, SIGHT_ROWS, &s->ref, NULL), 0);
  t->dev.ops->conditions_set(&t->dev, s->dev, dev, s->n);
  t->ref.ops->conditions_set(&t->ref, s->ref, ref, s->n);
}

/* Sets `alone` to row r. */
static void look_alone(trial *t, sight *s, int32_t r) {
  pdt_row_condition row = condition(s, r, false);
  t->dev.ops->conditions_set(&t->dev, s->alone, &row, 1);
}

static void close_sight(trial *t, sight *s) {
  for (int w = 0; w < WINDOWS; w++) drop_both(t, s->windows[w]);
  t->dev.ops->conditions_free(&t->dev, s->dev);
  t->dev.ops->conditions_free(&t->dev, s->alone);
  t->dev.ops->conditions_free(&t->dev, NULL);
  t->ref.ops->conditions_free(&t->ref, s->ref);
}

static void notes(trial *t) {
  sight s;
  pdt_device *dev = &t->dev;
  open_sight(t, &s, 3);
  int32_t width = s.shape.heads * s.shape.head_dim, l = between(t, 0, s.shape.layers - 1);
  both q = random_both(t, (int64_t)s.n * width, 3), out = random_both(t, q.n, 1);
  both alone = both_of(t, q.n, 5), h = random_both(t, q.n, 1);
  dev->ops->copy_rows(dev, alone.dev, width, out.dev, width, s.n, width);
  dev->ops->note_attention(dev, s.dev, &s.shape, l, q.dev, out.dev);
  t->ref.ops->note_attention(&t->ref, s.ref, &s.shape, l, q.ref, out.ref);
  /* Scores of up to 3 sqrt(head_dim), rounded over head_dim additions; rows without notes are as
   * they were. */
  compare(t, out, 2e-6 * (1 + sqrt(s.shape.head_dim)));
  for (int32_t r = 0; r < s.n; r++) {
    int64_t at = (int64_t)r * width;
    look_alone(t, &s, r);
    dev->ops->note_attention(dev, s.alone, &s.shape, l, pdt_array_at(q.dev, at),
                             pdt_array_at(alone.dev, at));
  }
  same_bits(t, out.dev, alone.dev, out.n);
  dev->ops->add_noted(dev, s.dev, h.dev, q.dev, 0.37f, width);
  t->ref.ops->add_noted(&t->ref, s.ref, h.ref, q.ref, 0.37f, width);
  compare(t, h, 5 * 0x1p-24); /* a product of 1.1 is rounded, and on both sides a sum of 2.1 */
  watched w = watch(t, q.dev, s.n, width);
  dev->ops->note_attention(dev, s.dev, &s.shape, l, h.dev, q.dev);
  see(t, &w);
  drop_both(t, q), drop_both(t, out), drop_both(t, alone), drop_both(t, h);
  close_sight(t, &s);
}

enum { ADAPTERS = 3 };

/* Adapters of one layer on both sides; the last stream lives elsewhere. */
typedef struct adapting {
  pdt_adapters dev, ref;
  pdt_adapter by_stream[2][ADAPTERS + 1];
  matrices down[ADAPTERS], up[ADAPTERS];
  both down_bias[ADAPTERS], up_bias[ADAPTERS];
} adapting;

static void open_adapters(trial *t, adapting *a, int32_t d, int32_t dim) {
  *a = (adapting){.dev = {a->by_stream[0], ADAPTERS + 1, 0.41f, d, dim},
                  .ref = {a->by_stream[1], ADAPTERS + 1, 0.41f, d, dim}};
  for (int k = 0; k < ADAPTERS; k++) {
    a->down[k] = random_matrices(t, dim, d);
    a->up[k] = random_matrices(t, d, dim);
    a->down_bias[k] = random_both(t, dim, 1);
    a->up_bias[k] = random_both(t, d, 1);
    a->by_stream[0][k] =
        (pdt_adapter){a->down[k].dev, a->up[k].dev, a->down_bias[k].dev, a->up_bias[k].dev};
    a->by_stream[1][k] =
        (pdt_adapter){a->down[k].ref, a->up[k].ref, a->down_bias[k].ref, a->up_bias[k].ref};
  }
}

static void close_adapters(trial *t, adapting *a) {
  for (int k = 0; k < ADAPTERS; k++) {
    drop_matrices(t, &a->down[k]), drop_matrices(t, &a->up[k]);
    drop_both(t, a->down_bias[k]), drop_both(t, a->up_bias[k]);
  }
}

static void adapters(trial *t) {
  sight s;
  adapting a;
  pdt_device *dev = &t->dev;
  int32_t d = between(t, 1, 90), dim = between(t, 1, 40);
  open_sight(t, &s, ADAPTERS);
  open_adapters(t, &a, d, dim);
  both x = random_both(t, (int64_t)s.n * d, 1), h = random_both(t, x.n, 1);
  both room = both_of(t, (int64_t)s.n * (d + dim), 5), alone = both_of(t, x.n, 5);
  dev->ops->copy_rows(dev, alone.dev, d, h.dev, d, s.n, d);
  dev->ops->adapt(dev, s.dev, &a.dev, x.dev, room.dev, h.dev);
  t->ref.ops->adapt(&t->ref, s.ref, &a.ref, x.ref, room.ref, h.ref);
  /* The first product's rounding goes through the second. */
  compare(t, h, (2e-7 * d * (1 + sqrt(d)) + 2 * d * t->rounding) * dim);
  for (int32_t r = 0; r < s.n; r++) {
    look_alone(t, &s, r);
    dev->ops->adapt(dev, s.alone, &a.dev, pdt_array_at(x.dev, (int64_t)r * d), room.dev,
                    pdt_array_at(alone.dev, (int64_t)r * d));
  }
  same_bits(t, h.dev, alone.dev, h.n);
  watched w = watch(t, h.dev, s.n, d);
  dev->ops->adapt(dev, s.dev, &a.dev, x.dev, room.dev, h.dev);
  see(t, &w);
  free(get(dev, room.dev, room.n)); /* its guards stand */
  drop_both(t, x), drop_both(t, h), drop_both(t, room), drop_both(t, alone);
  close_adapters(t, &a);
  close_sight(t, &s);
}

/* ---- operations one behind the other ---- */

enum { CHAINS = 3, CHAIN_ARRAYS = 3, CHAIN_OPERATIONS = 24, CHAIN_MATRICES = 3 };

/* Arrays of rows [rows, width], with room for twice the width, and what works on them. */
typedef struct chain {
  int32_t rows, width;
  matrices m[CHAIN_MATRICES]; /* [width, width] */
  both bias, aside;           /* aside: a row, and room for another */
  pdt_conditions *conditions;
  pdt_array at[CHAIN_ARRAYS];
  int32_t last; /* which of them was written last */
} chain;

static void upload_random(trial *t, pdt_array a, int64_t n) {
  float *host = random_floats(t, n, 1);
  t->dev.ops->upload(&t->dev, a, host, n);
  free(host);
}

/* A product, or an operation whose result products often read. */
static void some_product(trial *t, chain *c, int32_t target, int32_t source) {
  pdt_array to = c->at[target], from = c->at[source];
  const pdt_kernels *k = t->dev.ops;
  const pdt_matrix *m = &c->m[between(t, 0, CHAIN_MATRICES - 1)].dev;
  int32_t n = between(t, 0, 3) ? c->rows : between(t, 1, c->rows);
  int32_t stride = between(t, 0, 1) ? c->width : 2 * c->width;
  pdt_array none = {0};
  int what = between(t, 0, 5);
  if (what == 0)
    k->norm_rows(&t->dev, from, between(t, 0, 1) ? c->bias.dev : none, 1e-5f, n, c->width, to);
  else if (what == 1)
    k->norm_rows(&t->dev, from, none, 1e-5f, n, c->width, from);
  else if (what == 2)
    k->swiglu(&t->dev, from, n, c->width);
  else if (what == 3)
    k->add(&t->dev, from, to, (int64_t)n * c->width);
  else
    k->matmul(&t->dev, m, from, stride, n, to);
  c->last = what == 0 ? target : source; /* of a product: x, which the next may read again */
}

/* Any other operation that writes rows. */
static void some_change(trial *t, const chain *c, pdt_array *to, pdt_array from) {
  const pdt_kernels *k = t->dev.ops;
  int64_t n = (int64_t)c->rows * c->width;
  const pdt_array parts[2] = {from, {0}};
  const int32_t row = between(t, 0, c->rows - 1), id = between(t, 0, c->width - 1);
  switch (between(t, 0, 7)) {
  case 0:
    upload_random(t, *to, n);
    break;
  case 1:
    k->copy_rows(&t->dev, *to, c->width, from, c->width, c->rows, c->width);
    break;
  case 2:
    k->move_rows(&t->dev, *to, &row, from, NULL, 1, c->width);
    break;
  case 3:
    k->add_bias(&t->dev, *to, c->rows, c->width, c->bias.dev);
    break;
  case 4:
    k->sum_shares(&t->dev, parts, 2, n, *to);
    break;
  case 5:
    k->gather_rows(&t->dev, &c->m[0].dev, &id, 1, *to);
    break;
  case 6:
    k->add_noted(&t->dev, c->conditions, *to, from, 0.37f, c->width);
    break;
  default: /* another array, often at the same address */
    drop(&t->dev, *to);
    *to = put_zeros(&t->dev, 2 * n);
  }
}

/* Nothing that went before is of use to the operation that follows. */
static void break_chain(trial *t, const chain *c) {
  assert_int_equal(t->dev.ops->sync(&t->dev, NULL), 0);
  t->dev.ops->matmul(&t->dev, &c->m[0].dev, c->aside.dev, c->width, 1,
                     pdt_array_at(c->aside.dev, c->width));
}

/* Runs operations, one behind the other or each for itself; the arrays' floats, to be freed. */
static float *run_chain(trial *t, chain *c, bool broken) {
  int64_t n = (int64_t)2 * c->rows * c->width;
  float *all = floats_of(CHAIN_ARRAYS * n, 0);
  c->last = 0;
  for (int i = 0; i < CHAIN_ARRAYS; i++) {
    c->at[i] = put_zeros(&t->dev, n);
    upload_random(t, c->at[i], n);
  }
  for (int i = 0; i < CHAIN_OPERATIONS; i++) {
    int32_t from = between(t, 0, 2) ? c->last : between(t, 0, CHAIN_ARRAYS - 1);
    int32_t to = (from + between(t, 1, CHAIN_ARRAYS - 1)) % CHAIN_ARRAYS;
    if (between(t, 0, 4))
      some_product(t, c, to, from);
    else
      some_change(t, c, &c->at[from], c->at[to]);
    if (broken) break_chain(t, c);
  }
  for (int i = 0; i < CHAIN_ARRAYS; i++) {
    float *got = get(&t->dev, c->at[i], n);
    memcpy(all + i * n, got, (size_t)n * sizeof *got);
    free(got);
    drop(&t->dev, c->at[i]);
  }
  return all;
}

/* What is done together, or kept for the operation that follows, gives the bits that operations
 * give one by one. */
static void run_chains(trial *t, int32_t most_rows) {
  chain c = {.rows = between(t, 1, most_rows), .width = between(t, 1, 50)};
  pdt_row_condition conditions[MOST_ROWS];
  for (int32_t r = 0; r < c.rows; r++)
    conditions[r] = (pdt_row_condition){.n_notes = between(t, 0, 1)};
  for (int i = 0; i < CHAIN_MATRICES; i++) c.m[i] = random_matrices(t, c.width, c.width);
  c.bias = random_both(t, c.width, 1);
  c.aside = random_both(t, 2 * (int64_t)c.width, 1);
  assert_int_equal(t->dev.ops->conditions_new(&t->dev, MOST_ROWS, &c.conditions, NULL), 0);
  t->dev.ops->conditions_set(&t->dev, c.conditions, conditions, c.rows);
  uint64_t seed = t->seed;
  float *together = run_chain(t, &c, false);
  t->seed = seed;
  float *one_by_one = run_chain(t, &c, true);
  size_t floats = (size_t)CHAIN_ARRAYS * 2 * (size_t)c.rows * (size_t)c.width;
  assert_memory_equal(together, one_by_one, floats * sizeof *together);
  free(together), free(one_by_one);
  t->dev.ops->conditions_free(&t->dev, c.conditions);
  for (int i = 0; i < CHAIN_MATRICES; i++) drop_matrices(t, &c.m[i]);
  drop_both(t, c.bias), drop_both(t, c.aside);
}

static void chains(trial *t) {
  for (int i = 0; i < CHAINS; i++) run_chains(t, i > 0 ? 9 : MOST_ROWS);
}

/* ---- blocks and plans ---- */

enum { BLOCKS = 6, MOST_STEPS = 20, MOST_SLOTS = 9, MOST_DIM = 60, POOLS = 3, HEAD_MATRICES = 11 };

/* Heads and blocks on both sides. */
typedef struct closing {
  pdt_block_heads heads[2];
  matrices all[HEAD_MATRICES], pool[POOLS];
  pdt_matrix pool_value[2][POOLS];
  both vectors[4], states[BLOCKS], pooled[BLOCKS], embedded[BLOCKS], keys[BLOCKS], values[BLOCKS],
      items[BLOCKS];
  int32_t ids[BLOCKS][MOST_SLOTS];
  pdt_block blocks[2][BLOCKS];
  float note[2][BLOCKS][MOST_DIM], coverage[2][BLOCKS][MOST_SLOTS], ready[2][BLOCKS];
} closing;

/* Puts the weights where the heads of one side have them. */
static void place_weights(closing *c, bool ref) {
  pdt_block_heads *h = &c->heads[ref];
  pdt_matrix *at[HEAD_MATRICES] = {&h->pool_query,  &h->speculation,     &h->hidden,
                                   &h->hidden_out,  &h->coverage_block,  &h->agree_hidden,
                                   &h->agree_pool,  &h->agree_note,      &h->agree_coverage,
                                   &h->agree_query, &h->agree_note_query};
  pdt_array *vectors[4] = {&h->speculation_bias, &h->hidden_bias, &h->agree_bias, &h->agree_out};
  for (int i = 0; i < HEAD_MATRICES; i++) *at[i] = ref ? c->all[i].ref : c->all[i].dev;
  for (int i = 0; i < 4; i++) *vectors[i] = ref ? c->vectors[i].ref : c->vectors[i].dev;
  for (int i = 0; i < h->pool_heads; i++)
    c->pool_value[ref][i] = ref ? c->pool[i].ref : c->pool[i].dev;
  h->pool_value = c->pool_value[ref];
}

static void open_heads(trial *t, closing *c) {
  pdt_block_heads h = {.width = between(t, 1, MOST_DIM),
                       .notes_dim = between(t, 1, MOST_DIM),
                       .slots = between(t, 1, MOST_SLOTS),
                       .coverage_dim = between(t, 1, MOST_DIM),
                       .agree_dim = between(t, 1, MOST_DIM),
                       .pool_heads = between(t, 0, POOLS),
                       .pool_dim = between(t, 1, 20),
                       .hidden_dim = between(t, 0, 1) ? between(t, 1, 40) : 0,
                       .note_query = between(t, 0, 1),
                       .coverage_bias = 0.3f,
                       .agree_out_bias = -0.2f};
  h.pool_copies = between(t, 0, h.pool_heads);
  int32_t p = h.pool_heads > 0 ? h.pool_heads * h.pool_dim : h.width;
  const int32_t shapes[HEAD_MATRICES][2] = {{h.pool_heads, h.width},   {h.notes_dim, p},
                                            {h.hidden_dim, p},         {h.notes_dim, h.hidden_dim},
                                            {h.coverage_dim, p},       {h.agree_dim, h.width},
                                            {h.agree_dim, p},          {h.agree_dim, h.notes_dim},
                                            {h.agree_dim, h.slots},    {h.agree_dim, h.width},
                                            {h.agree_dim, h.notes_dim}};
  for (int i = 0; i < HEAD_MATRICES; i++)
    if (shapes[i][0] > 0 && shapes[i][1] > 0)
      c->all[i] = random_matrices(t, shapes[i][0], shapes[i][1]);
  for (int i = 0; i < h.pool_heads; i++) c->pool[i] = random_matrices(t, h.pool_dim, h.width);
  const int32_t widths[4] = {h.notes_dim, h.hidden_dim, h.agree_dim, h.agree_dim};
  for (int i = 0; i < 4; i++) c->vectors[i] = random_both(t, widths[i], 0.2f);
  for (int d = 0; d < 2; d++) {
    c->heads[d] = h;
    place_weights(c, d);
  }
}

static void open_blocks(trial *t, closing *c) {
  const pdt_block_heads *h = c->heads;
  for (int b = 0; b < BLOCKS; b++) {
    int32_t n = between(t, 1, MOST_STEPS), seen = between(t, 0, 2) ? between(t, 1, 40) : 0;
    c->states[b] = random_both(t, (int64_t)n * h->width, 1);
    bool apart = h->pool_heads > 0 && between(t, 0, 1);
    if (apart) c->pooled[b] = random_both(t, (int64_t)n * h->width, 1);
    if (h->pool_copies > 0) c->embedded[b] = random_both(t, (int64_t)n * h->width, 1);
    c->keys[b] = random_both(t, (int64_t)seen * h->agree_dim, 1);
    c->values[b] = random_both(t, (int64_t)seen * h->agree_dim, 1);
    c->items[b] = random_both(t, (int64_t)h->slots * h->coverage_dim, 1);
    for (int32_t i = 0; i < h->slots; i++) c->ids[b][i] = between(t, 0, 2);
    for (int d = 0; d < 2; d++)
      c->blocks[d][b] = (pdt_block){.states = d ? c->states[b].ref : c->states[b].dev,
                                    .pooled = d ? c->pooled[b].ref : c->pooled[b].dev,
                                    .embedded = d ? c->embedded[b].ref : c->embedded[b].dev,
                                    .n_states = n,
                                    .n_notes = seen,
                                    .agree_keys = d ? c->keys[b].ref : c->keys[b].dev,
                                    .agree_values = d ? c->values[b].ref : c->values[b].dev,
                                    .plan_ids = c->ids[b],
                                    .plan_items = d ? c->items[b].ref : c->items[b].dev,
                                    .note = c->note[d][b],
                                    .coverage = c->coverage[d][b],
                                    .readiness = &c->ready[d][b]};
  }
}

static void drop_blocks(trial *t, closing *c) {
  for (int b = 0; b < BLOCKS; b++) {
    drop_both(t, c->states[b]), drop_both(t, c->keys[b]);
    if (c->pooled[b].dev.at) drop_both(t, c->pooled[b]);
    if (c->embedded[b].dev.at) drop_both(t, c->embedded[b]);
    drop_both(t, c->values[b]), drop_both(t, c->items[b]);
  }
  for (int i = 0; i < HEAD_MATRICES; i++) drop_matrices(t, &c->all[i]);
  for (int i = 0; i < POOLS; i++) drop_matrices(t, &c->pool[i]);
  for (int i = 0; i < 4; i++) drop_both(t, c->vectors[i]);
}

/* What is copied is read: heads that copy tell another thing than heads that do not, and the same
 * bits where what they copy is what these mix. */
static void copies(trial *t, closing *c) {
  float ready[BLOCKS], plain[BLOCKS];
  pdt_block_heads without = c->heads[0];
  pdt_block same[BLOCKS];
  without.pool_copies = 0;
  memcpy(ready, c->ready[0], sizeof ready);
  memcpy(same, c->blocks[0], sizeof same);
  for (int b = 0; b < BLOCKS; b++)
    same[b].embedded = same[b].pooled.at ? same[b].pooled : same[b].states;
  t->dev.ops->close_blocks(&t->dev, &without, c->blocks[0], BLOCKS);
  memcpy(plain, c->ready[0], sizeof plain);
  assert_true((memcmp(plain, ready, sizeof plain) != 0) == (c->heads[0].pool_copies > 0));
  t->dev.ops->close_blocks(&t->dev, &c->heads[0], same, BLOCKS);
  assert_memory_equal(plain, c->ready[0], sizeof plain);
  t->dev.ops->close_blocks(&t->dev, &c->heads[0], c->blocks[0], BLOCKS);
  assert_memory_equal(ready, c->ready[0], sizeof ready);
}

/* A block whose states hold a NaN is told by its readiness, and disturbs no other. */
static void spoil(trial *t, closing *c) {
  const float nan = NAN;
  float ready[BLOCKS];
  memcpy(ready, c->ready[0], sizeof ready);
  t->dev.ops->upload(&t->dev, pdt_array_at(c->states[2].dev, c->states[2].n - 1), &nan, 1);
  t->dev.ops->close_blocks(&t->dev, &c->heads[0], c->blocks[0], BLOCKS);
  for (int b = 0; b < BLOCKS; b++)
    assert_true(b == 2 ? isnan(c->ready[0][b]) : c->ready[0][b] == ready[b]);
}

static void blocks(trial *t) {
  closing c = {0};
  pdt_device *dev = &t->dev;
  open_heads(t, &c);
  open_blocks(t, &c);
  const pdt_room most = {
      .blocks = BLOCKS, .block_tokens = MOST_STEPS, .block_notes = 40, .block_heads = &c.heads[0]};
  assert_int_equal(dev->ops->reserve(dev, &most, NULL), 0);
  dev->ops->close_blocks(dev, &c.heads[0], c.blocks[0], BLOCKS);
  t->ref.ops->close_blocks(&t->ref, &c.heads[1], c.blocks[1], BLOCKS);
  const pdt_block_heads *h = c.heads;
  for (int b = 0; b < BLOCKS; b++) {
    /* Sums of some 60 products after one another; a norm and a sigmoid keep the error's size, and
     * coverage is a sum of dc products of sums of p. */
    assert_close(c.note[0][b], c.note[1][b], h->notes_dim, 1e-4);
    assert_close(c.coverage[0][b], c.coverage[1][b], h->slots, 1e-4);
    assert_close(&c.ready[0][b], &c.ready[1][b], 1, 1e-4);
    for (int32_t i = 0; i < h->slots; i++)
      if (c.ids[b][i] == 0) assert_true(c.coverage[0][b][i] == 0);
    float note[MOST_DIM], coverage[MOST_SLOTS], ready = c.ready[0][b];
    memcpy(note, c.note[0][b], sizeof note);
    memcpy(coverage, c.coverage[0][b], sizeof coverage);
    dev->ops->close_blocks(dev, &c.heads[0], &c.blocks[0][b], 1); /* by itself */
    assert_memory_equal(note, c.note[0][b], sizeof note);
    assert_memory_equal(coverage, c.coverage[0][b], sizeof coverage);
    assert_memory_equal(&ready, &c.ready[0][b], sizeof ready);
  }
  copies(t, &c);
  spoil(t, &c);
  drop_blocks(t, &c);
}

/* What a planner reads, with places, with orders, with both or with neither, in two calls. Marks
 * are sums of a device's own order; without them a product of two floats is exact in double, and
 * sums are made in one order: the same bits. */
static void plan_read(trial *t) {
  int32_t d = between(t, 1, 90), S = between(t, 1, 9), P = between(t, 0, 3) ? between(t, 1, 50) : 0;
  int32_t R = between(t, 0, 2) ? between(t, 1, 12) : 0;
  int32_t n = between(t, 0, 40), first = between(t, 0, 20), rows = P > 0 || R > 0 ? 1 + S : 1;
  double got[10 * 90 + 1], want[10 * 90 + 1];
  both states = random_both(t, (int64_t)n * d, 1), weights = random_both(t, (int64_t)S * P, 1);
  both read = random_both(t, (int64_t)n * d, 2), orders = random_both(t, (int64_t)S * R, 1);
  both mark = random_both(t, d, 1.5f / sqrtf((float)d));
  pdt_plan_places dev = {d, S, P, R, {0}, {0}, {0}, 0.125f}, ref = dev;
  if (P > 0) dev.weights = weights.dev, ref.weights = weights.ref;
  if (R > 0) dev.mark = mark.dev, ref.mark = mark.ref;
  if (R > 0) dev.orders = orders.dev, ref.orders = orders.ref;
  int32_t sums = rows * d + (R > 0), cut = between(t, 0, n);
  for (int32_t i = 0; i < sums; i++) got[i] = want[i] = i * 0.125;
  if (R > 0) got[rows * d] = want[rows * d] = 0.75; /* marks so far */
  int64_t at = (int64_t)cut * d;
  t->dev.ops->plan_read(&t->dev, &dev, states.dev, read.dev, cut, first, got);
  t->dev.ops->plan_read(&t->dev, &dev, pdt_array_at(states.dev, at), pdt_array_at(read.dev, at),
                        n - cut, first + cut, got);
  t->ref.ops->plan_read(&t->ref, &ref, states.ref, read.ref, n, first, want);
  if (R == 0) assert_memory_equal(got, want, (size_t)sums * sizeof *got);
  for (int32_t i = 0; i < sums; i++)
    if (fabs(got[i] - want[i]) > 1e-9 * (1 + fabs(want[i])))
      fail_msg("sum %d of %d: %.17g, expected %.17g", i, sums, got[i], want[i]);
  drop_both(t, states), drop_both(t, weights), drop_both(t, read), drop_both(t, orders);
  drop_both(t, mark);
}

/* ---- choice ---- */

/* Logits of which some are equal, one row has a NaN, and one nothing finite. */
static both random_logits(trial *t, int32_t rows, int32_t width) {
  float *x = random_floats(t, (int64_t)rows * width, 8);
  for (int64_t i = 0; i < (int64_t)rows * width; i++)
    if (between(t, 0, 3) == 0) x[i] = rintf(x[i]);
  if (rows > 2) x[2 * (int64_t)width + between(t, 0, width - 1)] = NAN;
  for (int32_t i = 0; i < width && rows > 4; i++) x[4 * (int64_t)width + i] = -INFINITY;
  return put_both(t, x, (int64_t)rows * width);
}

static void choice(trial *t) {
  int32_t rows = between(t, 1, 70), width = between(t, 1, 700), n = between(t, 0, rows), list[70];
  both logits = random_logits(t, rows, width);
  const pdt_room most = {.sampled_rows = rows, .sampled_width = width};
  pdt_row_draw draws[70];
  pdt_candidate got[70], want[70];
  pdt_token tokens[70], right[70];
  for (int32_t i = 0; i < n; i++) {
    list[i] = between(t, 0, rows - 1);
    draws[i] = (pdt_row_draw){{between(t, 0, 3) * 0.45, between(t, 0, 1) ? between(t, 1, 30) : 0,
                               between(t, 0, 1) ? 0.8 : 1},
                              (between(t, 0, 999) + 0.5) / 1000};
  }
  const int32_t *listed = between(t, 0, 1) ? list : NULL;
  assert_int_equal(t->dev.ops->reserve(&t->dev, &most, NULL), 0);
  t->dev.ops->argmax_rows(&t->dev, logits.dev, width, listed, n, 1000, got);
  t->ref.ops->argmax_rows(&t->ref, logits.ref, width, listed, n, 1000, want);
  t->dev.ops->sample_rows(&t->dev, logits.dev, width, listed, n, draws, tokens);
  t->ref.ops->sample_rows(&t->ref, logits.ref, width, listed, n, draws, right);
  for (int32_t i = 0; i < n; i++) {
    assert_int_equal(got[i].id, want[i].id);
    assert_true(got[i].logit == want[i].logit);
    assert_int_equal(tokens[i], right[i]);
    int32_t row = listed ? listed[i] : i;
    if (row == 2) assert_true(got[i].id == -1 && got[i].logit == 0 && tokens[i] == -1);
    if (row == 4) assert_true(tokens[i] == -1);
  }
  drop_both(t, logits);
}

/* Rows that draws could fall over. */
typedef enum row_kind {
  ALL_EQUAL,
  MASKED,
  ONE_LEFT,
  ONE_INFINITE,
  ONE_ABOVE,
  STEEP,
  ZEROS,
  SPREAD
} row_kind;

static float logit_of(trial *t, row_kind kind, int32_t i, int32_t width) {
  switch (kind) {
  case ALL_EQUAL:
    return -3.5F;
  case MASKED:
    return i % 3 ? -INFINITY : (float)between(t, -40, 40) / 8;
  case ONE_LEFT:
    return i == width / 2 ? -1e30F : -INFINITY;
  case ONE_INFINITE:
    return i == width - 1 ? INFINITY : 0;
  case ONE_ABOVE: /* by so much that the rest fills a weight's lower half alone */
    return i == width / 3 ? 0 : -28 - (float)i * 0.01F;
  case STEEP:
    return -(float)i * 1e-4F; /* neighbours differ in the last bits */
  case ZEROS:
    return i % 2 ? 0.0F : -0.0F;
  case SPREAD:
    return ((float)next(t) / 0x1p30f - 1.0f) * 30;
  }
  return 0;
}

typedef struct draw_case {
  row_kind kind;
  int32_t width;
  pdt_sampling how;
} draw_case;

static const draw_case draw_cases[] = {
    {ALL_EQUAL, 1, {1, 0, 1}},        {ALL_EQUAL, 5000, {1, 0, 1}},
    {ALL_EQUAL, 4096, {1, 7, 1}},     {ALL_EQUAL, 4097, {0.3, 4096, 0.5}},
    {ALL_EQUAL, 9000, {2, 0, 0.25}},  {MASKED, 700, {1, 0, 0.9}},
    {MASKED, 700, {0.7, 600, 1}},     {MASKED, 8200, {0.7, 5000, 0.99}},
    {ONE_LEFT, 300, {1, 0, 1}},       {ONE_LEFT, 300, {1, 20, 0.5}},
    {ONE_INFINITE, 300, {1, 0, 1}},   {ONE_INFINITE, 300, {0, 0, 1}},
    {ONE_ABOVE, 6000, {1, 0, 1}},     {ONE_ABOVE, 6000, {9, 0, 0.9}},
    {STEEP, 6000, {1, 0, 1}},         {STEEP, 6000, {1e-5, 50, 0.9}},
    {STEEP, 6000, {1e-300, 0, 1}},    {ZEROS, 260, {1, 0, 1}},
    {ZEROS, 260, {1, 3, 1}},          {ZEROS, 260, {0, 0, 1}},
    {SPREAD, 3000, {1, 3000, 1}},     {SPREAD, 3000, {1, 3001, 0.5}},
    {SPREAD, 3000, {1, 1, 1}},        {SPREAD, 3000, {1, 2999, 1e-12}},
    {SPREAD, 3000, {1e3, 0, 1e-300}}, {SPREAD, 262144, {1, 0, 1}},
    {SPREAD, 262144, {8, 1000, 0.95}}};

static void draw_edges(trial *t) {
  static const double u[] = {1e-300, 0.1, 0.5, 0.5 + 0x1p-53, 0.9, 1 - 0x1p-53, 1};
  enum { N = sizeof u / sizeof *u };
  for (size_t i = 0; i < sizeof draw_cases / sizeof *draw_cases; i++) {
    const draw_case *c = &draw_cases[i];
    const pdt_room most = {.sampled_rows = N, .sampled_width = c->width};
    int32_t same[N] = {0};
    pdt_row_draw draws[N];
    pdt_token got[N], want[N];
    float *x = floats_of(c->width, 0);
    for (int32_t j = 0; j < c->width; j++) x[j] = logit_of(t, c->kind, j, c->width);
    both logits = put_both(t, x, c->width);
    for (int j = 0; j < N; j++) draws[j] = (pdt_row_draw){c->how, u[j]};
    assert_int_equal(t->dev.ops->reserve(&t->dev, &most, NULL), 0);
    t->dev.ops->sample_rows(&t->dev, logits.dev, c->width, same, N, draws, got);
    t->ref.ops->sample_rows(&t->ref, logits.ref, c->width, same, N, draws, want);
    for (int j = 0; j < N; j++)
      if (got[j] != want[j])
        fail_msg("case %zu, u %g: token %d, expected %d", i, u[j], got[j], want[j]);
    drop_both(t, logits);
  }
}

/* How likely tokens of some rows are: the very bits, as sums are of whole numbers. */
static void compare_logprobs(trial *t, both logits, int32_t n, int32_t width, int32_t top) {
  enum { ROWS = 20 };
  pdt_logprob got[ROWS * (1 + PDT_MOST_LOGPROBS)], want[ROWS * (1 + PDT_MOST_LOGPROBS)];
  pdt_token tokens[ROWS];
  assert_true(n <= ROWS);
  for (int32_t i = 0; i < n; i++) tokens[i] = between(t, 0, width - 1);
  for (size_t i = 0; i < sizeof got / sizeof *got; i++) got[i] = want[i] = (pdt_logprob){-7, KEPT};
  t->dev.ops->logprobs_rows(&t->dev, logits.dev, width, n, tokens, top, got);
  t->ref.ops->logprobs_rows(&t->ref, logits.ref, width, n, tokens, top, want);
  for (int32_t i = 0; i < (int32_t)(sizeof got / sizeof *got); i++)
    if (got[i].token != want[i].token || got[i].value != want[i].value)
      fail_msg("row %d, number %d of %d of %d logits: token %d, %.9g; expected %d, %.9g",
               i / (1 + top), i % (1 + top), top, width, got[i].token, (double)got[i].value,
               want[i].token, (double)want[i].value);
}

static void logprobs(trial *t) {
  int32_t n = between(t, 0, 20), width = between(t, 1, between(t, 0, 3) ? 700 : 13000);
  float *x = random_floats(t, (int64_t)n * width, 8);
  for (int64_t i = 0; i < (int64_t)n * width; i++) /* some equal ones */
    if (between(t, 0, 3) == 0) x[i] = rintf(x[i]);
  both logits = put_both(t, x, (int64_t)n * width);
  int32_t most = width < PDT_MOST_LOGPROBS ? width : PDT_MOST_LOGPROBS;
  compare_logprobs(t, logits, n, width, between(t, 0, most));
  compare_logprobs(t, logits, n, width, most);
  drop_both(t, logits);
}

/* Of the rows that draws could fall over, those that have finite logits only or no positive
 * infinity. */
static void logprob_edges(trial *t) {
  for (size_t i = 0; i < sizeof draw_cases / sizeof *draw_cases; i++) {
    const draw_case *c = &draw_cases[i];
    int32_t most = c->width < PDT_MOST_LOGPROBS ? c->width : PDT_MOST_LOGPROBS;
    float *x = floats_of(c->width, 0);
    for (int32_t j = 0; j < c->width; j++) x[j] = logit_of(t, c->kind, j, c->width);
    both logits = put_both(t, x, c->width);
    for (int32_t top = 0; top <= most && c->kind != ONE_INFINITE; top += 5)
      compare_logprobs(t, logits, 1, c->width, top);
    drop_both(t, logits);
  }
}

enum { STEP_ROWS = 20, STEPS = 4 };

/* One step of rows on both devices: their tokens go to places i * STEPS + step. */
static void choose_step(trial *t, pdt_chosen *dev, pdt_chosen *ref, both logits, int32_t width,
                        int32_t n, int32_t step) {
  pdt_row_draw draws[STEP_ROWS];
  int32_t to[STEP_ROWS];
  for (int32_t i = 0; i < n; i++) {
    to[i] = i * STEPS + step;
    draws[i] = (pdt_row_draw){{between(t, 0, 1) * 0.8, 0, between(t, 0, 1) ? 0.7 : 1},
                              (between(t, 0, 999) + 0.5) / 1000};
  }
  t->dev.ops->choose_rows(&t->dev, logits.dev, width, n, draws, to, dev);
  t->ref.ops->choose_rows(&t->ref, logits.ref, width, n, draws, to, ref);
}

/* The tokens of a step are those of the reference, and so are the rows of a matrix that they name.
 */
static void read_step(trial *t, pdt_chosen *dev, pdt_chosen *ref, const matrices *m, int32_t n,
                      int32_t step, bool but_last) {
  int32_t from[STEP_ROWS];
  pdt_token got[STEP_ROWS], want[STEP_ROWS];
  both y = both_of(t, (int64_t)n * m->dev.in, 5);
  for (int32_t i = 0; i < n; i++) from[i] = (n - 1 - i) * STEPS + step;
  t->dev.ops->gather_chosen(&t->dev, &m->dev, dev, from, n, y.dev);
  t->ref.ops->gather_chosen(&t->ref, &m->ref, ref, from, n, y.ref);
  t->dev.ops->chosen_read(&t->dev, dev, from, n, but_last, got);
  t->ref.ops->chosen_read(&t->ref, ref, from, n, but_last, want);
  for (int32_t i = 0; i < n; i++) assert_int_equal(got[i], want[i]);
  compare(t, y, 0);
  drop_both(t, y);
}

/* Steps are read one behind, as a run that is ahead reads them; row 2 never has a token. */
static void chosen_tokens(trial *t) {
  int32_t width = between(t, 1, 300), n = between(t, 0, STEP_ROWS);
  const pdt_room most = {.sampled_rows = n, .sampled_width = width};
  matrices m = random_matrices(t, width, between(t, 1, 100));
  pdt_chosen *dev, *ref;
  assert_int_equal(t->dev.ops->reserve(&t->dev, &most, NULL), 0);
  assert_int_equal(t->dev.ops->chosen_new(&t->dev, n * STEPS, &dev, NULL), 0);
  assert_int_equal(t->ref.ops->chosen_new(&t->ref, n * STEPS, &ref, NULL), 0);
  for (int32_t step = 0; step < STEPS; step++) {
    both logits = random_logits(t, n, width);
    choose_step(t, dev, ref, logits, width, n, step);
    if (step > 0) read_step(t, dev, ref, &m, n, step - 1, true);
    drop_both(t, logits);
  }
  read_step(t, dev, ref, &m, n, STEPS - 1, false);
  t->dev.ops->chosen_free(&t->dev, dev);
  t->dev.ops->chosen_free(&t->dev, NULL);
  t->ref.ops->chosen_free(&t->ref, ref);
  drop_matrices(t, &m);
}

/* ---- the table of operations ---- */

typedef struct operation {
  const char *name;
  void (*test)(trial *t);
  int trials;
} operation;

static const operation operations[] = {{"memory", memory, TRIALS},
                                       {"copy_rows", copying, TRIALS},
                                       {"move_rows", moving, TRIALS},
                                       {"matmul", matmul, 2 * TRIALS},
                                       {"matmul_bulk", matmul_bulk, 2 * TRIALS},
                                       {"matmul_bulk, large", large_bulk, 1},
                                       {"gather_rows", gather, TRIALS},
                                       {"matrix_new", matrix_errors, 1},
                                       {"rows", rows_in_file_order, TRIALS},
                                       {"norm_rows", norm, TRIALS},
                                       {"add_bias, add", additions, TRIALS},
                                       {"sum_shares", shares, TRIALS},
                                       {"sum_shares of none", absent_shares, 1},
                                       {"swiglu", swiglu, TRIALS},
                                       {"rotate_and_store, attention", sequences, TRIALS},
                                       {"attention of many rows", many_rows, 8},
                                       {"notes", notes, TRIALS},
                                       {"adapt", adapters, TRIALS},
                                       {"one behind the other", chains, 2 * TRIALS},
                                       {"close_blocks", blocks, TRIALS},
                                       {"plan_read", plan_read, TRIALS},
                                       {"argmax_rows, sample_rows", choice, 2 * TRIALS},
                                       {"sample_rows at the edges", draw_edges, 1},
                                       {"logprobs_rows", logprobs, TRIALS},
                                       {"logprobs_rows at the edges", logprob_edges, 1},
                                       {"chosen tokens", chosen_tokens, TRIALS}};

enum {
  N_BACKENDS = sizeof backends / sizeof *backends,
  N_OPERATIONS = sizeof operations / sizeof *operations
};

typedef struct pairing {
  const backend *backend;
  const operation *operation;
  bool needed; /* not to be skipped */
  int trials;
  char name[96];
} pairing;

static void run_pairing(void **state) {
  const pairing *p = *state;
  trial t = {.rounding = p->backend->rounding, .round_rows = p->backend->round_rows, .seed = 1};
  pdt_error err = {0};
  if (p->backend->open(&t.dev, &err)) {
    if (p->needed) fail_msg("%s", err.message);
    print_message("%s: %s\n", p->name, err.message);
    skip();
  }
  assert_int_equal(pdt_reference_device_new(&t.ref, NULL), 0);
  for (int i = 0; i < p->trials; i++) p->operation->test(&t);
  if (t.dev.ops->sync(&t.dev, &err) || t.ref.ops->sync(&t.ref, &err)) fail_msg("%s", err.message);
  t.dev.ops->close(&t.dev);
  t.ref.ops->close(&t.ref);
}

/* test_kernels [BACKEND [TRIALS]]: that one alone, which must be here, and at most so many trials
 * of an operation. */
int main(int argc, char **argv) {
  static pairing pairings[N_BACKENDS * N_OPERATIONS];
  static struct CMUnitTest tests[N_BACKENDS * N_OPERATIONS];
  size_t n = 0;
  for (int i = 0; i < N_BACKENDS * N_OPERATIONS; i++) {
    pairing *p = &pairings[i];
    p->backend = &backends[i / N_OPERATIONS];
    p->operation = &operations[i % N_OPERATIONS];
    if (argc > 1 && strcmp(argv[1], p->backend->name) != 0) continue;
    snprintf(p->name, sizeof p->name, "%s: %s", p->backend->name, p->operation->name);
    p->needed = argc > 1;
    p->trials =
        argc > 2 && atoi(argv[2]) < p->operation->trials ? atoi(argv[2]) : p->operation->trials;
    tests[n++] = (struct CMUnitTest){.name = p->name, .test_func = run_pairing, .initial_state = p};
  }
  if (n == 0) {
    fprintf(stderr, "usage: test_kernels [portable|avx2|avx512|\"three threads\"|cuda [TRIALS]]\n");
    return 2;
  }
  return _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
}
