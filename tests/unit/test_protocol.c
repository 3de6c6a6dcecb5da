/* Random numbers and sampling: Random123's known answers, the oracle's numbers and choices, and a
 * plain sampler that sorts everything. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/sample.h"
#include "base/weight.h"
#include "numbers.h"
#include "oracle_cases.h"
#include "protocol/philox.h"

enum { MOST = 64 }; /* logits of a case */

/* philox4x32, 10 rounds, of the file kat_vectors that comes with Random123. */
static void philox_known_answers(void **state) {
  (void)state;
  static const uint32_t known[][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
       0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
       0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    uint32_t out[4];
    pdt_philox4x32(known[i], known[i] + 4, out);
    for (int j = 0; j < 4; j++) assert_int_equal(out[j], known[i][6 + j]);
  }
}

static void uniform_words_and_range(void **state) {
  (void)state;
  /* Every argument is a word of its own: changing one changes the number. */
  double u = pdt_uniform(1, 2, 3, 4, 5);
  assert_true(u == pdt_uniform(1, 2, 3, 4, 5));
  assert_true(u != pdt_uniform(2, 2, 3, 4, 5) && u != pdt_uniform(1 | 1ULL << 32, 2, 3, 4, 5));
  assert_true(u != pdt_uniform(1, 3, 3, 4, 5) && u != pdt_uniform(1, 2, 4, 4, 5));
  assert_true(u != pdt_uniform(1, 2, 3, 5, 5) && u != pdt_uniform(1, 2, 3, 4, 6));
  /* 65,536 numbers have mean 1/2 within 5 of their standard deviations, sqrt(1/12/65536). */
  double sum = 0;
  for (uint32_t i = 0; i < 65536; i++) {
    double x = pdt_uniform(7, i, 0, 0, 0);
    assert_true(x > 0 && x < 1);
    sum += x;
  }
  assert_true(fabs(sum / 65536 - 0.5) < 5 * sqrt(1.0 / 12 / 65536));
}

static void uniform_as_the_oracle(void **state) {
  (void)state;
  FILE *cases = oracle_open("uniform", 3000, 11);
  if (!cases) skip();
  int n = 0;
  for (json_t *c; (c = oracle_next(cases)); json_decref(c), n++) {
    uint64_t seed = strtoull(oracle_string(c, "seed"), NULL, 16);
    double u =
        pdt_uniform(seed, (uint32_t)oracle_int(c, "position"), (pdt_stream)oracle_int(c, "stream"),
                    (int32_t)oracle_int(c, "attempt"), (uint64_t)oracle_int(c, "session"));
    assert_true(u == oracle_real(c, "u"));
  }
  oracle_close(cases);
  assert_int_equal(n, 3000);
}

static void argmax_edges(void **state) {
  (void)state;
  const float ties[] = {1, 3, 3, 2}, low[] = {-INFINITY, -INFINITY}, one[] = {-5};
  const float first[] = {NAN, 1}, last[] = {1, NAN}, negative[] = {-2, -1, -1};
  assert_int_equal(pdt_argmax(ties, 4), 1);
  assert_int_equal(pdt_argmax(low, 2), 0);
  assert_int_equal(pdt_argmax(one, 1), 0);
  assert_int_equal(pdt_argmax(negative, 3), 1);
  assert_int_equal(pdt_argmax(first, 2), -1);
  assert_int_equal(pdt_argmax(last, 2), -1);
}

/* Weights are exp to the last digits of a double, and whole numbers in its order. */
static void weights_are_exponentials(void **state) {
  (void)state;
  pdt_weight last = (pdt_weight)1 << PDT_WEIGHT_BITS;
  assert_true(pdt_weight_of(3, 3, 0.1) == last);
  for (int i = 1; i < 100000; i++) {
    float logit = -(float)i / 1024;
    pdt_weight weight = pdt_weight_of(logit, 0, 1);
    double right = ldexp(exp((double)logit), PDT_WEIGHT_BITS);
    assert_true(fabs((double)weight - right) <= right * 0x1p-51 + 1);
    assert_true(weight <= last);
    last = weight;
  }
  assert_true(last == 0);
  assert_true(pdt_weight_of(-INFINITY, 0, 1) == 0);
  assert_true(pdt_weight_part(12, 0.75) == 9 && pdt_weight_part(12, 1) == 12);
  assert_true(pdt_weight_part((pdt_weight)5 << 90, 0.2) <= (pdt_weight)1 << 90);
  assert_true(pdt_weight_goal_of_list(12, 0.75) == 8 && pdt_weight_goal_of_list(12, 1e-9) == 0);
  assert_true(pdt_weight_goal_of_draw(12, 0.75) == 9 && pdt_weight_goal_of_draw(12, 1) == 11);
}

static pdt_token sample(const float *logits, int32_t n, double temperature, int32_t top_k,
                        double top_p, double u) {
  pdt_candidate scratch[MOST];
  const pdt_sampling how = {temperature, top_k, top_p};
  return pdt_sample(logits, n, &how, u, scratch);
}

static void sample_refuses_what_is_no_number(void **state) {
  (void)state;
  const float nan_last[] = {0, 1, NAN}, none[] = {-INFINITY, -INFINITY}, infinite[] = {0, INFINITY};
  for (double t = 0; t <= 1; t++) {
    assert_int_equal(sample(nan_last, 3, t, 0, 1, 0.5), -1);
    assert_int_equal(sample(none, 2, t, 0, 1, 0.5), -1);
    assert_int_equal(sample(infinite, 2, t, 0, 1, 0.5), -1);
    assert_int_equal(sample(none, 1, t, 1, 0.5, 0.5), -1);
  }
}

static void sample_known(void **state) {
  (void)state;
  const float ln[] = {0, (float)M_LN2, (float)(2 * M_LN2)}; /* weights 1, 2, 4: ids 2, 1, 0 */
  assert_int_equal(sample(ln, 3, 0, 0, 1, 0.99), 2);
  assert_int_equal(sample(ln, 3, 1, 0, 1, 0.57), 2); /* 4/7 = 0.5714.. */
  assert_int_equal(sample(ln, 3, 1, 0, 1, 0.58), 1);
  assert_int_equal(sample(ln, 3, 1, 0, 1, 0.85), 1); /* 6/7 = 0.8571.. */
  assert_int_equal(sample(ln, 3, 1, 0, 1, 0.86), 0);
  assert_int_equal(sample(ln, 3, 1, 2, 1, 0.66), 2); /* of two: 4/6 */
  assert_int_equal(sample(ln, 3, 1, 2, 1, 0.67), 1);
  assert_int_equal(sample(ln, 3, 1, 1, 1, 1 - 1e-16), 2);
  assert_int_equal(sample(ln, 3, 1, 0, 0.57, 0.99), 2); /* the first alone reaches it */
  assert_int_equal(sample(ln, 3, 1, 0, 0.58, 0.99), 1); /* the second is needed */
  assert_int_equal(sample(ln, 3, 1, 0, 0.86, 0.99), 0); /* the third is */
  /* top-p counts what top-k left: of 4/6 and 2/6 the first reaches 0.6. */
  assert_int_equal(sample(ln, 3, 1, 2, 0.66, 0.99), 2);
  assert_int_equal(sample(ln, 3, 1, 2, 0.67, 0.99), 1);
  assert_int_equal(sample(ln, 3, 0.5, 0, 1, 0.76), 2); /* weights 1, 4, 16: 16/21 = 0.7619.. */
  assert_int_equal(sample(ln, 3, 0.5, 0, 1, 0.77), 1);
}

static void sample_ties_and_extremes(void **state) {
  (void)state;
  const float even[] = {2, 2, 2, 2}; /* ids ascending, a quarter each */
  for (int i = 0; i < 4; i++) assert_int_equal(sample(even, 4, 1, 0, 1, 0.25 * i + 0.1), i);
  assert_int_equal(sample(even, 4, 1, 2, 1, 0.9), 1);
  assert_int_equal(sample(even, 4, 1, 0, 0.3, 0.9), 1);
  /* A temperature at which logits / temperature overflows leaves the largest, whatever u. */
  const float wide[] = {3e38F, -3e38F, 3e38F, 1};
  const double tiny[] = {1e-6, 1e-300, 5e-324};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(sample(wide, 4, tiny[i], 0, 1, 0.4), 0);
    assert_int_equal(sample(wide, 4, tiny[i], 0, 1, 0.6), 2);
    assert_int_equal(sample(wide, 4, tiny[i], 3, 0.9, 0.99), 2);
  }
  /* What has no probability is never drawn, not even by the last of all u. */
  const float masked[] = {-INFINITY, 0.1F, -INFINITY, 0.2F, 0.3F, -INFINITY};
  const double most = 1 - 0x1p-53;
  for (double u = 0.9; u <= 1; u += (most - u) > 1e-3 ? 1e-3 : 1)
    assert_int_equal(sample(masked, 6, 1, 0, 1, u), 1);
  assert_int_equal(sample(masked, 6, 1, 0, 1, 1.0), 1);
  assert_int_equal(sample(masked, 6, 1, 5, 1, 1.0), 1);
}

/* The definition with everything sorted, by insertion. Its probabilities are normalized, so that it
 * rounds otherwise than what it checks: *margin is how far the nearest bound was. */
static pdt_token plain_sample(const float *logits, int32_t n, const pdt_sampling *how, double u,
                              double *margin) {
  int32_t order[MOST], kept = how->top_k > 0 && how->top_k < n ? how->top_k : n;
  double p[MOST], total = 0, sum = 0;
  for (int32_t i = 0; i < n; i++) {
    int32_t at = i;
    for (; at > 0 && logits[order[at - 1]] < logits[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  for (int32_t i = 0; i < kept; i++)
    total += p[i] = exp(((double)logits[order[i]] - (double)logits[order[0]]) / how->temperature);
  for (int32_t i = 0; i < kept; i++) p[i] /= total;
  *margin = 1;
  for (int32_t i = 0; i < kept && how->top_p < 1; i++) {
    *margin = fmin(*margin, fabs((sum += p[i]) - how->top_p));
    if (sum >= how->top_p) kept = i + 1;
  }
  total = how->top_p < 1 ? sum : 1;
  sum = 0;
  int32_t chosen = -1;
  for (int32_t i = 0; i < kept; i++) {
    *margin = fmin(*margin, fabs((sum += p[i]) - u * total));
    if (chosen < 0 && sum > u * total) chosen = i;
  }
  return order[chosen < 0 ? kept - 1 : chosen];
}

static void sample_as_the_plain_one(void **state) {
  (void)state;
  numbers r = {5};
  int compared = 0;
  for (int trial = 0; trial < 200000; trial++) {
    float logits[MOST];
    int32_t n = numbers_int(&r, 1, trial % 2 ? MOST : 6);
    double scale = trial % 3 ? 8 : 2;
    for (int32_t i = 0; i < n; i++) {
      logits[i] = (float)(scale * (numbers_real(&r) - 0.5));
      if (trial % 5 == 0) logits[i] = roundf(logits[i]);
      if (trial % 7 == 0 && i > 0 && numbers_int(&r, 0, 3) == 0) logits[i] = -INFINITY;
    }
    const pdt_sampling how = {0.05 + 2 * numbers_real(&r),
                              trial % 4 ? numbers_int(&r, 0, n + 2) : 0,
                              trial % 6 ? 1e-9 + numbers_real(&r) * (1 - 1e-9) : 1};
    double u = numbers_real(&r) + 1e-17, margin;
    pdt_token plain = plain_sample(logits, n, &how, u, &margin);
    if (margin < 1e-12) continue; /* 64 sums of doubles round by less: else either may be right */
    pdt_candidate scratch[MOST];
    assert_int_equal(pdt_sample(logits, n, &how, u, scratch), plain);
    compared++;
  }
  assert_true(compared > 199000);
}

static void sample_as_the_oracle(void **state) {
  (void)state;
  FILE *cases = oracle_open("sample", 10000, 12);
  if (!cases) skip();
  int n = 0;
  for (json_t *c; (c = oracle_next(cases)); json_decref(c), n++) {
    const json_t *list = json_object_get(c, "logits");
    float logits[MOST];
    int32_t size = (int32_t)json_array_size(list);
    assert_in_range(size, 1, MOST);
    for (int32_t i = 0; i < size; i++) {
      const json_t *x = json_array_get(list, (size_t)i);
      logits[i] = json_is_null(x) ? -INFINITY : (float)json_number_value(x);
    }
    assert_int_equal(sample(logits, size, oracle_real(c, "temperature"),
                            (int32_t)oracle_int(c, "top_k"), oracle_real(c, "top_p"),
                            oracle_real(c, "u")),
                     oracle_int(c, "token"));
  }
  oracle_close(cases);
  assert_int_equal(n, 10000);
}

/* Drawn often, tokens come as often as their probabilities say. */
static void sample_frequencies(void **state) {
  (void)state;
  enum { DRAWS = 100000 };
  const float logits[] = {0.5F, -1, 2, 0.5F};
  int count[4] = {0};
  double total = 0;
  for (uint32_t i = 0; i < DRAWS; i++)
    count[sample(logits, 4, 0.8, 0, 1, pdt_uniform(3, i, 1, 0, 9))]++;
  for (int i = 0; i < 4; i++) total += exp((double)logits[i] / 0.8);
  for (int i = 0; i < 4; i++) { /* five standard deviations of a binomial count */
    double p = exp((double)logits[i] / 0.8) / total;
    assert_true(fabs(count[i] - p * DRAWS) < 5 * sqrt(p * (1 - p) * DRAWS));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_known_answers),
      cmocka_unit_test(uniform_words_and_range),
      cmocka_unit_test(uniform_as_the_oracle),
      cmocka_unit_test(argmax_edges),
      cmocka_unit_test(weights_are_exponentials),
      cmocka_unit_test(sample_refuses_what_is_no_number),
      cmocka_unit_test(sample_known),
      cmocka_unit_test(sample_ties_and_extremes),
      cmocka_unit_test(sample_as_the_plain_one),
      cmocka_unit_test(sample_as_the_oracle),
      cmocka_unit_test(sample_frequencies),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
