/* Requests that are put away come back as they were, in order and as often as wanted, whether they
 * waited in memory or in a file; memory does not grow with them; errors of the file come through.
 * And the sum of the largest of many amounts. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/largest.h"
#include "base/memory.h"
#include "request/message.h"
#include "request/spool.h"
#include "scratch.h"

static uint32_t draw(uint32_t *seed, uint32_t end) {
  *seed = *seed * 1664525U + 1013904223U;
  return (*seed >> 8) % end;
}

/* A request of up to three streams, and of so many prompt tokens. */
static pdt_request make(uint32_t *seed, int32_t n_prompt) {
  pdt_request r = {
      .session = draw(seed, 1000), .n_prompt = n_prompt, .line = (int32_t)draw(seed, 9)};
  int32_t K = 1 + (int32_t)draw(seed, 3);
  r.settings = (pdt_settings){.streams = K,
                              .reveal_delay = 1,
                              .window = 1 + (int32_t)draw(seed, 100),
                              .max_attempts = 4,
                              .max_rounds = 10,
                              .gamma = draw(seed, 100) / 100.0,
                              .seed = *seed,
                              .sampling = {0.5, 0, 1},
                              .limits = {.block_tokens = 8, .horizon = 8, .max_tokens = 64}};
  r.prompt = calloc((size_t)n_prompt, sizeof *r.prompt);
  r.prefix = calloc((size_t)K, sizeof *r.prefix);
  r.n_prefix = calloc((size_t)K, sizeof *r.n_prefix);
  assert_true(r.prompt && r.prefix && r.n_prefix);
  for (int32_t i = 0; i < n_prompt; i++) r.prompt[i] = (pdt_token)draw(seed, 100000);
  return r;
}

/* Lengths that fill pieces, end them and go beyond them: 400,000 tokens are more than a mebibyte.
 */
static int32_t prompt_of(uint32_t *seed, int32_t i) {
  return i % 50 == 17 ? 400000 : i % 50 == 31 ? 1 : 1 + (int32_t)draw(seed, 3000);
}

/* Takes requests `from` to `to` - 1 of those drawn by `seed`, and compares them with how they were
 * drawn. */
static void expect_all(pdt_request_spool *spool, uint32_t seed, int32_t n) {
  const char *bytes;
  size_t length;
  for (int32_t i = 0; i < n; i++) {
    pdt_request want = make(&seed, prompt_of(&seed, i)), got;
    pdt_buffer packed = {0}, again = {0};
    size_t at = 0;
    assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 1);
    assert_int_equal(pdt_request_pack(&packed, &want, "test", NULL), 0);
    assert_int_equal(length, packed.bytes);
    assert_memory_equal(bytes, packed.data, length);
    assert_int_equal(pdt_request_unpack(&got, bytes, length, &at, "test", NULL, NULL), 0);
    assert_int_equal(at, length);
    assert_int_equal(pdt_request_pack(&again, &got, "test", NULL), 0);
    assert_int_equal(again.bytes, length);
    assert_memory_equal(again.data, packed.data, length);
    pdt_request_free(&got);
    pdt_request_free(&want);
    pdt_buffer_free(&packed);
    pdt_buffer_free(&again);
  }
  assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 0);
  assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 0);
}

/* Puts n requests and takes them twice; in between, some were taken before the last were put. */
static void run(const char *folder, int32_t n, uint32_t first) {
  pdt_request_spool *spool;
  pdt_buffer all = {0};
  const char *bytes;
  size_t length;
  uint32_t seed = first;
  assert_int_equal(pdt_request_spool_new(&spool, folder, NULL), 0);
  assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 0);
  for (int32_t i = 0; i < n; i++) {
    pdt_request r = make(&seed, prompt_of(&seed, i));
    assert_int_equal(pdt_request_spool_put(spool, &r, "test", NULL), 0);
    assert_int_equal(pdt_request_pack(&all, &r, "test", NULL), 0);
    pdt_request_free(&r);
    if (i % 3 == 2) assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 1);
  }
  assert_int_equal(pdt_request_spool_count(spool), n);
  assert_true(pdt_request_spool_fingerprint(spool) == XXH3_64bits(all.data, all.bytes));
  for (int i = 0; i < 2; i++) {
    pdt_request_spool_rewind(spool);
    expect_all(spool, first, n);
  }
  pdt_buffer_free(&all);
  pdt_request_spool_free(spool);
}

/* A request that is wrong keeps its place, in memory and in the file, and tells in the fingerprint.
 */
static void failures(void **state) {
  scratch *s = *state;
  uint64_t fingerprints[2];
  for (int i = 0; i < 2; i++) {
    pdt_request_spool *spool;
    const char *bytes;
    size_t length;
    uint32_t seed = 7;
    pdt_request large = make(&seed, 300000), small = make(&seed, 3);
    assert_int_equal(pdt_request_spool_new(&spool, s->folder, NULL), 0);
    assert_int_equal(pdt_request_spool_put_failure(spool, 4, 9, i ? "it is" : "it was", NULL), 0);
    assert_int_equal(pdt_request_spool_put(spool, &large, "test", NULL), 0);
    assert_int_equal(pdt_request_spool_put(spool, &small, "test", NULL), 0);
    assert_int_equal(pdt_request_spool_count(spool), 3);
    fingerprints[i] = pdt_request_spool_fingerprint(spool);
    assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), PDT_SPOOL_FAILURE);
    Pdt__RequestFailure *f = pdt__request_failure__unpack(NULL, length, (const uint8_t *)bytes);
    assert_true(f->session == 4 && f->line == 9 && f->error.len == (i ? 5 : 6));
    pdt__request_failure__free_unpacked(f, NULL);
    assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 1);
    assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 1);
    assert_int_equal(pdt_request_spool_next(spool, &bytes, &length, NULL), 0);
    pdt_request_free(&large);
    pdt_request_free(&small);
    pdt_request_spool_free(spool);
  }
  assert_true(fingerprints[0] != fingerprints[1]);
}

static void come_back(void **state) {
  scratch *s = *state;
  run(s->folder, 0, 1);
  run(s->folder, 1, 2);
  run(s->folder, 5, 3);               /* all in memory */
  run(s->folder, 120, 4);             /* some mebibytes */
  run(scratch_path(s, "no"), 120, 5); /* no such folder */
}

/* A hundred mebibytes of requests, of which few are held. */
static void takes_no_memory(void **state) {
  scratch *s = *state;
  pdt_request_spool *spool;
  const char *bytes;
  size_t length;
  uint32_t seed = 1;
  pdt_request r = make(&seed, 20000);
  assert_int_equal(pdt_request_spool_new(&spool, s->folder, NULL), 0);
  int64_t all = 0, before = pdt_peak_resident_bytes();
  for (int32_t i = 0; i < 2000; i++)
    assert_int_equal(pdt_request_spool_put(spool, &r, "test", NULL), 0);
  while (pdt_request_spool_next(spool, &bytes, &length, NULL) == 1) all += (int64_t)length;
  int64_t grown = pdt_peak_resident_bytes() - before;
  assert_true(all > 100 << 20);
  if (grown > 8 << 20)
    fail_msg("%lld bytes of requests take %lld", (long long)all, (long long)grown);
  pdt_request_free(&r);
  pdt_request_spool_free(spool);
}

static void a_full_disk(void **state) {
  scratch *s = *state;
  pdt_request_spool *spool;
  pdt_error err = {0};
  struct rlimit old, small;
  uint32_t seed = 1;
  pdt_request r = make(&seed, 400000);
  assert_int_equal(pdt_request_spool_new(&spool, s->folder, NULL), 0);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = (struct rlimit){4096, old.rlim_max};
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  int rc = pdt_request_spool_put(spool, &r, "test", &err);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  assert_int_equal(rc, -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_non_null(strstr(err.message, s->folder));
  assert_non_null(strstr(err.message, "cannot keep requests that wait for their turn: File too"));
  pdt_request_free(&r);
  pdt_request_spool_free(spool);
}

static int descending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

static void the_largest(void **state) {
  (void)state;
  enum { MOST = 300 };
  int64_t amounts[MOST];
  uint32_t seed = 7;
  for (int32_t most = 1; most <= 40; most++) {
    pdt_largest l = {.most = most};
    uint32_t range = most % 3 == 0 ? 4 : 1000000; /* many that are equal */
    for (int32_t n = 0; n < MOST; n++) {
      int64_t want = 0;
      amounts[n] = draw(&seed, range);
      assert_int_equal(pdt_largest_add(&l, amounts[n], NULL), 0);
      qsort(amounts, (size_t)n + 1, sizeof *amounts, descending);
      for (int32_t i = 0; i <= n && i < most; i++) want += amounts[i];
      assert_int_equal(l.sum, want);
      assert_int_equal(l.n, n + 1 < most ? n + 1 : most);
    }
    pdt_largest_free(&l);
    assert_int_equal(l.sum, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(come_back),   cmocka_unit_test(takes_no_memory),
      cmocka_unit_test(failures),    cmocka_unit_test(takes_no_memory),
      cmocka_unit_test(a_full_disk), cmocka_unit_test(the_largest)};
  return cmocka_run_group_tests_name("spool", tests, scratch_setup, scratch_teardown);
}
