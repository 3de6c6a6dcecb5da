/* Products of quantized weights on the CPU, for every type and every set of instructions that is
 * here, on random shapes:
 *   - rows that are read are what the blocks mean;
 *   - with full rows a product has the bits of the same product with F32 weights;
 *   - with quantized rows it is, within rounding, what its definition says in double, and as near
 * to the reference, whose rows are not quantized, as the rounding of the rows allows;
 *   - a row's bits depend on no other row, and are the same on all sets that fuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"

enum { TRIALS = 12, MOST_ROWS = 300, THREADS = 2 };

/* ---- the table of sets ---- */

extern const pdt_cpu_quantized pdt_cpu_portable_quantized;
#if defined(__x86_64__)
extern const pdt_cpu_quantized pdt_cpu_avx2_quantized, pdt_cpu_avxvnni_quantized;
extern const pdt_cpu_quantized pdt_cpu_avx512_quantized, pdt_cpu_avx512vnni_quantized;
#endif

typedef struct set {
  const pdt_cpu_quantized *table;
  pdt_cpu_isa isa;
  bool here, fuses;
} set;

enum { MOST_SETS = 5 };

static int all_sets(set *sets) {
  int n = 0;
  sets[n++] = (set){&pdt_cpu_portable_quantized, PDT_CPU_PORTABLE, true, false};
#if defined(__x86_64__)
  bool avx2 = pdt_cpu_has(PDT_CPU_AVX2), avx512 = pdt_cpu_has(PDT_CPU_AVX512);
  sets[n++] = (set){&pdt_cpu_avx2_quantized, PDT_CPU_AVX2, avx2, true};
  sets[n++] = (set){&pdt_cpu_avxvnni_quantized, PDT_CPU_AVX2,
                    avx2 && pdt_cpu_quantized_of(PDT_CPU_AVX2) == &pdt_cpu_avxvnni_quantized, true};
  sets[n++] = (set){&pdt_cpu_avx512_quantized, PDT_CPU_AVX512, avx512, true};
  sets[n++] =
      (set){&pdt_cpu_avx512vnni_quantized, PDT_CPU_AVX512,
            avx512 && pdt_cpu_quantized_of(PDT_CPU_AVX512) == &pdt_cpu_avx512vnni_quantized, true};
#endif
  return n;
}

static void open_set(const set *s, pdt_device *dev) {
  pdt_error err;
  if (pdt_cpu_device_new(dev, s->isa, THREADS, &err)) fail_msg("%s", err.message);
  ((pdt_cpu *)dev->state)->quantized = s->table;
}

/* ---- data ---- */

static uint64_t random_bits(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return *seed >> 33;
}

static int32_t between(uint64_t *seed, int32_t least, int32_t most) {
  return least + (int32_t)(random_bits(seed) % (uint64_t)(most - least + 1));
}

static void *room(int64_t n, size_t size) {
  void *p;
  pdt_error err;
  if (pdt_new(&p, n > 0 ? n : 1, size, "test data", &err)) fail_msg("%s", err.message);
  return p;
}

/* Blocks of random bytes, with numbers in half precision where those stand. */
static unsigned char *random_blocks(uint64_t *seed, pdt_dtype t, int64_t n_elems) {
  pdt_dtype_block block = pdt_dtype_block_of(t);
  pdt_bytes bytes = pdt_dtype_row_bytes(t, n_elems);
  unsigned char *all = room(bytes, 1);
  for (pdt_bytes i = 0; i < bytes; i++) all[i] = (unsigned char)random_bits(seed);
  for (unsigned char *at = all; at < all + bytes; at += block.bytes) {
    float d = ((float)between(seed, -1000, 1000)) * 1e-5f;
    uint16_t half = pdt_half_of_float(d), min = pdt_half_of_float(d * 0.3f);
    memcpy(at + (t == PDT_Q6_K ? 208 : 0), &half, 2);
    if (pdt_quantized_form_of(t).low) memcpy(at + 2, &min, 2);
  }
  return all;
}

static void random_row(uint64_t *seed, float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)between(seed, -100000, 100000) * 1e-5f;
  x[between(seed, 0, (int32_t)n - 1)] *= 20; /* as activations have them */
  int64_t zeros = between(seed, 0, (int32_t)n / PDT_PIECE - 1) * PDT_PIECE;
  if (between(seed, 0, 3) == 0) memset(x + zeros, 0, PDT_PIECE * sizeof *x);
}

typedef struct trial {
  pdt_dtype dtype;
  int32_t out, in, rows, leaf;
  int64_t stride;
  unsigned char *blocks; /* [out, in] */
  float *w, *x;          /* widened [out, in]; [rows, stride], NaN between */
} trial;

static trial new_trial(pdt_dtype t, uint64_t seed) {
  static const int32_t leaves[] = {32, 64, 96, 128, 256},
                       rows[] = {0, 1, 2, 3, 5, 8, 9, 16, 33, 70};
  int32_t block = pdt_dtype_block_of(t).elems;
  trial r = {.dtype = t, .out = between(&seed, 1, 200)};
  r.in = block * between(&seed, 1, block == 256 ? 3 : 17);
  r.rows = rows[between(&seed, 0, 9)];
  if (between(&seed, 0, 15) == 0) r.rows = MOST_ROWS;
  r.leaf = between(&seed, 0, 2) == 0 ? r.in : leaves[between(&seed, 0, 4)];
  r.stride = r.in + between(&seed, 0, 9);
  r.blocks = random_blocks(&seed, t, (int64_t)r.out * r.in);
  r.w = room((int64_t)r.out * r.in, sizeof *r.w);
  pdt_to_float(t, r.blocks, (int64_t)r.out * r.in, r.w);
  r.x = room(r.rows * r.stride, sizeof *r.x);
  for (int64_t i = 0; i < r.rows * r.stride; i++) r.x[i] = NAN;
  for (int32_t i = 0; i < r.rows; i++) random_row(&seed, r.x + i * r.stride, r.in);
  return r;
}

static void drop_trial(trial *r) {
  free(r->blocks), free(r->w), free(r->x);
}

static pdt_matrix matrix_of(pdt_device *dev, const trial *r, pdt_dtype t, const void *src) {
  pdt_matrix m;
  pdt_error err;
  if (dev->ops->matrix_new(dev, &m, r->out, r->in, t, r->leaf, &err)) fail_msg("%s", err.message);
  int32_t cut = r->out / 3; /* in two pieces, as tensors come */
  dev->ops->matrix_pack(dev, &m, 0, cut, src, r->in);
  dev->ops->matrix_pack(dev, &m, cut, r->out - cut,
                        (const char *)src + pdt_dtype_row_bytes(t, (int64_t)cut * r->in), r->in);
  return m;
}

static float *product(pdt_device *dev, const pdt_matrix *m, const trial *r) {
  float *y = room((int64_t)r->rows * r->out, sizeof *y);
  dev->ops->matmul(dev, m, (pdt_array){r->x}, r->stride, r->rows, (pdt_array){y});
  return y;
}

/* ---- what is expected ---- */

static void rows_read(pdt_device *dev, const pdt_matrix *m, const trial *r) {
  int32_t *ids = room(r->out, sizeof *ids);
  float *y = room((int64_t)r->out * r->in, sizeof *y);
  for (int32_t i = 0; i < r->out; i++) ids[i] = r->out - 1 - i;
  dev->ops->gather_rows(dev, m, ids, r->out, (pdt_array){y});
  for (int32_t i = 0; i < r->out; i++)
    assert_memory_equal(y + (int64_t)i * r->in, r->w + (int64_t)ids[i] * r->in,
                        (size_t)r->in * sizeof *y);
  free(ids), free(y);
}

static void full_rows(pdt_device *dev, const pdt_matrix *m, const trial *r) {
  pdt_matrix floats = matrix_of(dev, r, PDT_F32, r->w);
  dev->full_rows = true;
  float *y = product(dev, m, r), *want = product(dev, &floats, r);
  dev->full_rows = false;
  assert_memory_equal(y, want, (size_t)r->rows * (size_t)r->out * sizeof *y);
  dev->ops->matrix_free(dev, &floats);
  free(y), free(want);
}

/* What a row becomes, by the definition; the largest magnitude of every piece. */
static void quantize_plainly(const float *x, int32_t in, double *rounded, double *largest) {
  for (int32_t p = 0; p < in / PDT_PIECE; p++) {
    float most = 0;
    for (int i = 0; i < PDT_PIECE; i++) most = fmaxf(most, fabsf(x[p * PDT_PIECE + i]));
    float scale = most / 127, inverse = most > 0 ? 127 / most : 0;
    for (int i = 0; i < PDT_PIECE; i++) {
      float code = rintf(x[p * PDT_PIECE + i] * inverse);
      rounded[p * PDT_PIECE + i] = (double)scale * (double)code;
    }
    largest[p] = (double)most;
  }
}

static void quantized_rows(const float *y, const trial *r) {
  double *rounded = room(r->in, sizeof *rounded), *largest = room(r->in / 32, sizeof *largest);
  for (int32_t row = 0; row < r->rows; row++) {
    const float *x = r->x + row * r->stride;
    quantize_plainly(x, r->in, rounded, largest);
    for (int32_t o = 0; o < r->out; o++) {
      const float *w = r->w + (int64_t)o * r->in;
      double found = (double)y[(int64_t)row * r->out + o];
      double defined = 0, exact = 0, size = 0, step = 0, size_of_parts = 0;
      for (int32_t i = 0; i < r->in; i++) {
        double wi = fabs((double)w[i]), x_most = largest[i / PDT_PIECE];
        defined += (double)w[i] * rounded[i];
        exact += (double)w[i] * (double)x[i];
        size += wi * fabs(rounded[i]);
        step += wi * x_most / 254; /* half a step of the row's codes */
        /* A product with `low` is the sum of two parts, each up to some 16 times as large. */
        size_of_parts += 0.08 * x_most;
      }
      /* Some operations that round for each piece, and sums of them. */
      double rounding = 0x1p-22 * sqrt(r->in) * (size + size_of_parts);
      if (!(fabs(found - defined) <= rounding))
        fail_msg("%s [%d, %d] row %d of %d, output %d: expected %g, found %g, within %g",
                 pdt_dtype_name(r->dtype), r->out, r->in, row, r->rows, o, defined, found,
                 rounding);
      assert_true(fabs(found - exact) <= step * 1.0001 + rounding);
    }
  }
  free(rounded), free(largest);
}

/* The same rows in other batches. */
static void other_batches(pdt_device *dev, const pdt_matrix *m, const trial *r, const float *y) {
  uint64_t seed = (uint64_t)r->in;
  float *z = room((int64_t)r->rows * r->out, sizeof *z);
  for (int32_t row = 0, batch; row < r->rows; row += batch) {
    int32_t left = r->rows - row;
    batch = between(&seed, 1, left < 17 ? left : 17);
    dev->ops->matmul_bulk(dev, m, (pdt_array){r->x + row * r->stride}, r->stride, batch,
                          (pdt_array){z + (int64_t)row * r->out});
  }
  assert_memory_equal(y, z, (size_t)r->rows * (size_t)r->out * sizeof *y);
  free(z);
}

static void try_type(pdt_dtype t, uint64_t seed) {
  set sets[MOST_SETS];
  int n = all_sets(sets);
  trial r = new_trial(t, seed);
  float *fused = NULL;
  for (int s = 0; s < n; s++) {
    if (!sets[s].here) continue;
    pdt_device dev;
    open_set(&sets[s], &dev);
    dev.full_rows = true; /* so that there is room for it */
    pdt_matrix m = matrix_of(&dev, &r, t, r.blocks);
    dev.full_rows = false;
    rows_read(&dev, &m, &r);
    full_rows(&dev, &m, &r);
    float *y = product(&dev, &m, &r);
    quantized_rows(y, &r);
    other_batches(&dev, &m, &r, y);
    if (fused && sets[s].fuses)
      assert_memory_equal(y, fused, (size_t)r.rows * (size_t)r.out * sizeof *y);
    if (sets[s].fuses && !fused)
      fused = y;
    else
      free(y);
    dev.ops->matrix_free(&dev, &m);
    dev.ops->close(&dev);
  }
  free(fused);
  drop_trial(&r);
}

static void test_types(void **state) {
  (void)state;
  for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q6_K32; t++)
    for (uint64_t i = 0; i < TRIALS; i++) try_type(t, 1000 * (uint64_t)t + i);
}

/* The largest whole numbers there are: nothing may saturate. */
static void test_extremes(void **state) {
  (void)state;
  set sets[MOST_SETS];
  int n = all_sets(sets);
  for (int s = 0; s < n; s++)
    for (pdt_dtype t = PDT_Q8_0; t <= PDT_Q5_1 && sets[s].here; t++)
      for (int sign = -1; sign <= 1; sign += 2) {
        pdt_device dev;
        trial r = {.dtype = t, .out = 16, .in = 32, .rows = 2, .leaf = 32, .stride = 32};
        pdt_bytes bytes = pdt_dtype_row_bytes(t, (int64_t)r.out * r.in);
        float x[64], w[16 * 32];
        r.blocks = room(bytes, 1);
        for (pdt_bytes i = 0; i < bytes; i++) /* the code of the largest magnitude everywhere */
          r.blocks[i] = t == PDT_Q8_0 ? 0x80 : t == PDT_Q4_0 || t == PDT_Q5_0 ? 0 : 0xff;
        for (int o = 0; o < 16; o++)
          memcpy(r.blocks + o * pdt_dtype_block_of(t).bytes, "\0\x3c\0\0",
                 t == PDT_Q4_1 || t == PDT_Q5_1 ? 4 : 2);
        for (int i = 0; i < 64; i++) x[i] = i < 32 ? (float)sign * 127 : 127;
        pdt_to_float(t, r.blocks, 16 * 32, w);
        r.w = w, r.x = x;
        open_set(&sets[s], &dev);
        pdt_matrix m = matrix_of(&dev, &r, t, r.blocks);
        float *y = product(&dev, &m, &r);
        for (int o = 0; o < 16; o++) {
          assert_true(y[o] == (float)sign * 127 * 32 * w[0]);
          assert_true(y[16 + o] == 127 * 32 * w[0]);
        }
        free(y), free(r.blocks);
        dev.ops->matrix_free(&dev, &m);
        dev.ops->close(&dev);
      }
}

/* A row that is not finite gives no finite number, and its neighbors are as without it; the
 * smallest numbers there are give 0. */
static void test_not_finite(void **state) {
  (void)state;
  set sets[MOST_SETS];
  int n = all_sets(sets);
  for (int s = 0; s < n; s++) {
    if (!sets[s].here) continue;
    pdt_device dev;
    open_set(&sets[s], &dev);
    trial r = new_trial(PDT_Q4_0, 7);
    free(r.x);
    r.rows = 4;
    r.stride = r.in;
    r.x = room((int64_t)r.rows * r.in, sizeof *r.x);
    for (int i = 0; i < 4 * r.in; i++) r.x[i] = i < 2 * r.in ? 1 : i < 3 * r.in ? 2 : 1e-40f;
    r.x[0] = NAN;
    r.x[r.in + 31] = -INFINITY;
    pdt_matrix m = matrix_of(&dev, &r, PDT_Q4_0, r.blocks);
    float *y = product(&dev, &m, &r), *alone = room(r.out, sizeof *alone);
    dev.ops->matmul(&dev, &m, (pdt_array){r.x + 2 * r.in}, r.in, 1, (pdt_array){alone});
    for (int o = 0; o < r.out; o++) {
      assert_false(isfinite(y[o]));
      assert_false(isfinite(y[r.out + o]));
      assert_true(y[2 * r.out + o] == alone[o]);
      assert_true(y[3 * r.out + o] == 0);
    }
    free(y), free(alone);
    drop_trial(&r);
    dev.ops->matrix_free(&dev, &m);
    dev.ops->close(&dev);
  }
}

static void test_refused(void **state) {
  (void)state;
  pdt_device dev;
  pdt_matrix m;
  pdt_error err;
  assert_int_equal(pdt_cpu_device_new(&dev, PDT_CPU_PORTABLE, 1, &err), 0);
  assert_int_equal(dev.ops->matrix_new(&dev, &m, 4, 33, PDT_Q8_0, 33, &err), -1);
  assert_non_null(strstr(err.message, "multiple of 32"));
  assert_int_equal(dev.ops->matrix_new(&dev, &m, 4, 96, PDT_Q8_0, 48, &err), -1);
  assert_int_equal(dev.ops->matrix_new(&dev, &m, 4, 128, PDT_Q4_K, 128, &err), -1);
  assert_null(m.data);
  dev.ops->close(&dev);
}

int main(void) {
  set sets[MOST_SETS];
  int n = all_sets(sets);
  for (int s = 0; s < n; s++)
    if (!sets[s].here) printf("%s is not here\n", sets[s].table->name);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_types), cmocka_unit_test(test_extremes),
                                     cmocka_unit_test(test_not_finite),
                                     cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
