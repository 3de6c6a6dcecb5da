/* Memory of weights: aligned, zeroed, apart from each other, and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/slabs.h"

enum { MATRICES = 200, LARGEST = 40 << 20 };

/* Sizes from one line to more than a slab. */
static pdt_bytes size_of(int i) {
  return i % 41 == 40 ? LARGEST - i * 64 : (pdt_bytes)(1 + i * i % 97) * 1009;
}

static bool all_are(const unsigned char *at, pdt_bytes n, unsigned char value) {
  for (pdt_bytes i = 0; i < n; i++)
    if (at[i] != value) return false;
  return true;
}

static void matrices_do_not_meet(void **state) {
  (void)state;
  pdt_cpu_slab *slabs = NULL;
  unsigned char *at[MATRICES];
  for (int i = 0; i < MATRICES; i++) {
    at[i] = pdt_cpu_slab_take(&slabs, size_of(i));
    assert_non_null(at[i]);
    assert_int_equal((uintptr_t)at[i] % PDT_ALIGN_BYTES, 0);
    assert_true(all_are(at[i], size_of(i), 0));
    memset(at[i], 1 + i, (size_t)size_of(i));
  }
  for (int i = 0; i < MATRICES; i++)
    assert_true(all_are(at[i], size_of(i), (unsigned char)(1 + i)));
  /* In an order of their own; what is left keeps what it holds. */
  for (int i = 0; i < MATRICES; i++) {
    int gone = i * 77 % MATRICES, next = (i + 1) * 77 % MATRICES;
    pdt_cpu_slab_give(&slabs, at[gone]);
    if (i + 1 < MATRICES) assert_true(all_are(at[next], size_of(next), (unsigned char)(1 + next)));
  }
  assert_null(slabs); /* nothing is kept */
}

static void memory_comes_back_zeroed(void **state) {
  (void)state;
  pdt_cpu_slab *slabs = NULL;
  for (int i = 0; i < 100; i++) {
    unsigned char *at = pdt_cpu_slab_take(&slabs, 12345);
    assert_true(all_are(at, 12345, 0));
    memset(at, 0xff, 12345);
    pdt_cpu_slab_give(&slabs, at);
  }
  pdt_cpu_slab_give(&slabs, NULL);
  assert_null(slabs);
}

static void what_cannot_be_is_refused(void **state) {
  (void)state;
  pdt_cpu_slab *slabs = NULL;
  assert_null(pdt_cpu_slab_take(&slabs, INT64_MAX / 64 * 64));
  assert_null(pdt_cpu_slab_take(&slabs, INT64_C(1) << 60));
  assert_non_null(pdt_cpu_slab_take(&slabs, 64));
  pdt_cpu_slab_free(&slabs);
  assert_null(slabs);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(matrices_do_not_meet),
                                     cmocka_unit_test(memory_comes_back_zeroed),
                                     cmocka_unit_test(what_cannot_be_is_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
