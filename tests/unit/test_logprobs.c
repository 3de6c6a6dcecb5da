/* How likely tokens are: the softmax as it is written down, whatever the logits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/sample.h"
#include "numbers.h"

enum { MOST = 400 };

/* By definition, in long doubles. */
static long double plain(const float *logits, int32_t n, int32_t i) {
  long double highest = logits[0], sum = 0;
  for (int32_t j = 0; j < n; j++) highest = logits[j] > highest ? logits[j] : highest;
  for (int32_t j = 0; j < n; j++) sum += expl((long double)logits[j] - highest);
  return (long double)logits[i] - highest - logl(sum);
}

/* A float has 24 bits; the sum leaves out what is below 2^-76 of its largest term. */
static void check_value(const float *logits, int32_t n, const pdt_logprob *p) {
  long double wanted = plain(logits, n, p->token);
  assert_true(fabsl((long double)p->value - wanted) <= 0x1p-24L * fabsl(wanted) + 1e-14L);
}

static void check(const float *logits, int32_t n, int32_t token, int32_t top) {
  pdt_logprob found[1 + PDT_MOST_LOGPROBS];
  pdt_logprobs(logits, n, token, top, found);
  assert_int_equal(found[0].token, token);
  for (int32_t i = 0; i <= top; i++) check_value(logits, n, &found[i]);
  for (int32_t i = 1; i <= top; i++) { /* i - 1 others are better, by logit or on a tie by id */
    int32_t better = 0, id = found[i].token;
    for (int32_t j = 0; j < n; j++)
      better += logits[j] > logits[id] || (logits[j] == logits[id] && j < id);
    assert_int_equal(better, i - 1);
  }
}

static void random_logits(void **state) {
  (void)state;
  numbers r = {17};
  for (int trial = 0; trial < 3000; trial++) {
    float logits[MOST];
    int32_t n = numbers_int(&r, 1, MOST), spread = numbers_int(&r, 0, 90);
    for (int32_t i = 0; i < n; i++) logits[i] = (float)numbers_int(&r, -spread, spread) / 3;
    int32_t most = n < PDT_MOST_LOGPROBS ? n : PDT_MOST_LOGPROBS;
    check(logits, n, numbers_int(&r, 0, n - 1), numbers_int(&r, 0, most));
  }
}

static void extremes(void **state) {
  (void)state;
  const float far[] = {-1e30F, 1e38F, -1e38F, 1e38F}, some[] = {-INFINITY, 0, -INFINITY};
  pdt_logprob found[3];
  check(far, 4, 1, 4);
  pdt_logprobs(some, 3, 1, 2, found);
  assert_true(found[0].value == 0 && found[1].token == 1 && found[1].value == 0);
  assert_true(found[2].token == 0 && found[2].value == -INFINITY);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_logits),
      cmocka_unit_test(extremes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
