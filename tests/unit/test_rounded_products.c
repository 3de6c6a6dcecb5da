/* Products of a CPU's device that rounds rows to bf16, on every set of instructions that is here:
 *   - with weights of BF16 it gives the bits that a device which does not gives of rounded rows,
 * and no others; with weights of other types those of rows as they are;
 *   - a row's bits depend on no other row;
 *   - it is named, and can be taken back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/kernels.h"

enum { TRIALS = 30, THREADS = 2 };

static int32_t between(uint64_t *seed, int32_t least, int32_t most) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return least + (int32_t)((*seed >> 33) % (uint64_t)(most - least + 1));
}

static void *room(int64_t n, size_t size) {
  void *p;
  assert_int_equal(pdt_new(&p, n, size, "test data", NULL), 0);
  return p;
}

static float *random_floats(uint64_t *seed, int64_t n) {
  float *x = room(n, sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = (float)between(seed, -1000000, 1000000) * 1e-6f;
  return x;
}

/* A product of one trial on a device of its own. */
typedef struct trial {
  pdt_device dev;
  pdt_matrix m;
  float *x, *y; /* [rows, stride], [rows, out] */
  int32_t rows;
  int64_t stride;
} trial;

static trial open_trial(pdt_cpu_isa isa, uint64_t *seed, pdt_dtype dtype, int32_t rows) {
  static const int32_t leaves[] = {1, 3, 32, 64};
  trial t = {.rows = rows};
  int32_t out = between(seed, 1, 150), in = between(seed, 1, 300);
  int32_t leaf = between(seed, 0, 2) == 0 ? in : leaves[between(seed, 0, 3)];
  float *w = random_floats(seed, (int64_t)out * in);
  void *packed = room((int64_t)out * in, sizeof *w);
  pdt_from_float(dtype, w, (int64_t)out * in, packed);
  assert_int_equal(pdt_cpu_device_new(&t.dev, isa, THREADS, NULL), 0);
  pdt_cpu_round_rows(&t.dev, true);
  assert_int_equal(t.dev.ops->matrix_new(&t.dev, &t.m, out, in, dtype, leaf, NULL), 0);
  t.dev.ops->matrix_pack(&t.dev, &t.m, 0, out, packed, in);
  t.stride = in + between(seed, 0, 5);
  t.x = random_floats(seed, rows * t.stride);
  t.y = room((int64_t)rows * out, sizeof *t.y);
  free(w), free(packed);
  return t;
}

static void close_trial(trial *t) {
  t->dev.ops->matrix_free(&t->dev, &t->m);
  t->dev.ops->close(&t->dev);
  free(t->x), free(t->y);
}

static float *multiply(trial *t, bool bulk) {
  const pdt_kernels *k = t->dev.ops;
  (bulk ? k->matmul_bulk : k->matmul)(&t->dev, &t->m, (pdt_array){t->x}, t->stride, t->rows,
                                      (pdt_array){t->y});
  return t->y;
}

/* The same from rows as they are. */
static float *multiply_plainly(trial *t) {
  pdt_cpu_round_rows(&t->dev, false);
  multiply(t, false);
  pdt_cpu_round_rows(&t->dev, true);
  return t->y;
}

static float *copy_of(const float *x, int64_t n) {
  float *copy = room(n, sizeof *copy);
  memcpy(copy, x, (size_t)n * sizeof *x);
  return copy;
}

static void round_floats(float *x, int64_t n) {
  uint16_t *rounded = room(n, sizeof *rounded);
  pdt_from_float(PDT_BF16, x, n, rounded);
  pdt_to_float(PDT_BF16, rounded, n, x);
  free(rounded);
}

/* Row after row, and in batches of some size. */
static void in_batches(trial *t, uint64_t *seed, const float *want) {
  for (int32_t row = 0, n; row < t->rows; row += n) {
    int32_t left = t->rows - row;
    n = between(seed, 1, left < 40 ? left : 40);
    t->dev.ops->matmul(&t->dev, &t->m, (pdt_array){t->x + row * t->stride}, t->stride, n,
                       (pdt_array){t->y + (int64_t)row * t->m.out});
  }
  assert_memory_equal(t->y, want, (size_t)t->rows * (size_t)t->m.out * sizeof *want);
}

static void try_set(pdt_cpu_isa isa, uint64_t seed) {
  static const int32_t rows[] = {1, 2, 8, 15, 16, 17, 33, 128, 129, 300};
  pdt_dtype dtype = (pdt_dtype)(seed % 3);
  trial t = open_trial(isa, &seed, dtype, rows[between(&seed, 0, 9)]);
  int64_t n = (int64_t)t.rows * t.m.out;
  float *y = copy_of(multiply(&t, false), n);
  assert_memory_equal(y, multiply(&t, true), (size_t)n * sizeof *y);
  in_batches(&t, &seed, y);
  bool whole = memcmp(y, multiply_plainly(&t), (size_t)n * sizeof *y) == 0;
  assert_true(dtype == PDT_BF16 ? !whole || n < 20 : whole);
  if (dtype == PDT_BF16) round_floats(t.x, t.rows * t.stride);
  assert_memory_equal(y, multiply_plainly(&t), (size_t)n * sizeof *y);
  free(y);
  close_trial(&t);
}

static void products_are_of_rounded_rows(void **state) {
  (void)state;
  for (int isa = PDT_CPU_PORTABLE; isa < PDT_CPU_ISAS; isa++)
    for (uint64_t seed = 0; seed < TRIALS && pdt_cpu_has((pdt_cpu_isa)isa); seed++)
      try_set((pdt_cpu_isa)isa, seed);
}

/* What is not finite stays so, in its row alone; what is larger than all bf16 numbers becomes so.
 */
static void no_number_is_lost(void **state) {
  (void)state;
  for (int isa = PDT_CPU_PORTABLE; isa < PDT_CPU_ISAS; isa++) {
    uint64_t seed = 5;
    if (!pdt_cpu_has((pdt_cpu_isa)isa)) continue;
    trial t = open_trial((pdt_cpu_isa)isa, &seed, PDT_BF16, 4);
    t.x[0] = NAN;
    t.x[t.stride] = -INFINITY;
    t.x[2 * t.stride] = 0x1.fffffep127f;
    multiply(&t, false);
    for (int32_t i = 0; i < 4 * t.m.out; i++) {
      if (i < t.m.out) assert_true(isnan(t.y[i]));
      assert_int_equal(!!isfinite(t.y[i]), i >= 3 * t.m.out);
    }
    close_trial(&t);
  }
}

static void devices_say_so(void **state) {
  (void)state;
  pdt_device dev;
  assert_int_equal(pdt_cpu_device_new(&dev, PDT_CPU_PORTABLE, 1, NULL), 0);
  assert_string_equal(dev.name, "portable");
  assert_int_equal(dev.rounds, 0);
  pdt_cpu_round_rows(&dev, true);
  assert_string_equal(dev.name, "portable bf16");
  assert_int_equal(dev.rounds, 1u << PDT_BF16);
  pdt_cpu_round_rows(&dev, false);
  assert_string_equal(dev.name, "portable");
  assert_int_equal(dev.rounds, 0);
  dev.ops->close(&dev);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(products_are_of_rounded_rows),
                                     cmocka_unit_test(no_number_is_lost),
                                     cmocka_unit_test(devices_say_so)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
