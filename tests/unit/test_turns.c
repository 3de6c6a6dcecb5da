/* Texts that grow at the same time come out whole and in order, whatever the interleaving; what is
 * in its turn is passed on at once; errors of the writer and of the waiting file come through. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "journal/turns.h"
#include "scratch.h"

static int append(void *context, const void *data, pdt_bytes bytes, pdt_error *err) {
  (void)err;
  return fwrite(data, 1, (size_t)bytes, context) == (size_t)bytes ? 0 : -1;
}

/* Piece `i` of a text: of many lengths, none among them, some longer than a copy's buffer. */
static size_t piece(int32_t text, int i, char *out) {
  size_t n = i % 7 == 3 ? 0 : i % 11 == 5 ? 150001 : (size_t)(text * 31 + i * 17) % 900;
  for (size_t k = 0; k < n; k++) out[k] = (char)('a' + (text * 7 + i + (int)k) % 26);
  return n;
}

/* Draws which text gets its next piece; every text has text % 5 * 3 of them. */
static void run(const char *folder, int32_t n, uint32_t seed) {
  static char buffer[150001];
  char *got = NULL, *want = NULL;
  size_t n_got, n_want;
  pdt_turns *t;
  FILE *out = open_memstream(&got, &n_got), *expected = open_memstream(&want, &n_want);
  assert_int_equal(pdt_turns_new(&t, n, folder, append, out, NULL), 0);
  int *done = calloc((size_t)n, sizeof *done);
  for (int32_t left = n; left > 0;) {
    seed = seed * 1664525U + 1013904223U;
    int32_t text = (int32_t)((seed >> 8) % (uint32_t)n);
    if (done[text] < 0) continue;
    if (done[text] == text % 5 * 3) {
      assert_int_equal(pdt_turns_end(t, text, NULL), 0);
      done[text] = -1;
      left--;
      int32_t next = 0;
      while (next < n && done[next] < 0) next++;
      assert_int_equal(pdt_turns_next(t), next);
      continue;
    }
    size_t bytes = piece(text, done[text]++, buffer);
    fflush(out);
    size_t before = n_got;
    assert_int_equal(pdt_turns_put(t, text, buffer, (pdt_bytes)bytes, NULL), 0);
    fflush(out);
    assert_int_equal(n_got - before, text == pdt_turns_next(t) ? bytes : 0);
  }
  for (int32_t text = 0; text < n; text++)
    for (int i = 0; i < text % 5 * 3; i++)
      (void)fwrite(buffer, 1, piece(text, i, buffer), expected);
  fclose(out);
  fclose(expected);
  assert_int_equal(n_got, n_want);
  assert_memory_equal(got, want, n_want);
  pdt_turns_free(t);
  free(done);
  free(got);
  free(want);
}

static void test_order(void **state) {
  scratch *s = *state;
  for (uint32_t seed = 0; seed < 20; seed++) run(s->folder, 1 + (int32_t)seed, seed);
  run(scratch_path(s, "no"), 12, 3); /* no such folder: they wait in memory */
}

static int refuse(void *context, const void *data, pdt_bytes bytes, pdt_error *err) {
  (void)context;
  (void)data;
  (void)bytes;
  return pdt_fail(err, PDT_ERROR_IO, "full");
}

static void test_errors(void **state) {
  scratch *s = *state;
  pdt_turns *t;
  pdt_error err = {0};
  struct rlimit old, small;
  static char much[8192];
  assert_int_equal(pdt_turns_new(&t, 3, s->folder, refuse, NULL, NULL), 0);
  assert_int_equal(pdt_turns_put(t, 0, "x", 1, &err), -1);
  assert_string_equal(err.message, "full");
  assert_int_equal(pdt_turns_put(t, 3, "x", 1, &err), -1);
  assert_non_null(strstr(err.message, "request 3: expected one that has not ended"));
  assert_int_equal(pdt_turns_put(t, 1, "x", 1, NULL), 0);
  assert_int_equal(pdt_turns_end(t, 1, NULL), 0);
  assert_int_equal(pdt_turns_put(t, 1, "x", 1, &err), -1);
  assert_int_equal(pdt_turns_end(t, 1, &err), -1);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = (struct rlimit){4096, old.rlim_max};
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  int rc = pdt_turns_put(t, 2, much, sizeof much, &err);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  assert_int_equal(rc, -1);
  assert_non_null(
      strstr(err.message, "cannot keep results that wait for their turn: File too large"));
  assert_int_equal(pdt_turns_end(t, 0, &err), -1); /* text 1 goes on, to nobody */
  assert_string_equal(err.message, "full");
  pdt_turns_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_errors)};
  return cmocka_run_group_tests_name("turns", tests, scratch_setup, scratch_teardown);
}
