/* The ids of a sampled softmax: all that occur are always there, others by the seed and the step
 * alone, and what they add up to is what all others do, on the average. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/vocabulary.h"

enum { SIZE = 500, SAMPLED = 60, OCCURRING = 5 };
static const pdt_token first[] = {7, 3, 3, 99}, second[] = {7, 499, 0};
static const pdt_train_stream streams[] = {{.stream = 0, .n_tokens = 4, .tokens = first},
                                           {.stream = 1, .n_tokens = 3, .tokens = second}};
static const pdt_train_entry entry = {.n_streams = 2, .streams = streams};
static const pdt_train_entry *const entries[] = {&entry};

static void draw(pdt_train_vocabulary *v, uint64_t seed, int64_t step, pdt_nn_subset *s,
                 pdt_arena *arena) {
  pdt_error err = {0};
  pdt_arena_reset(arena);
  if (pdt_train_vocabulary_draw(v, seed, step, s, arena, &err)) fail_msg("%s", err.message);
}

static void open_vocabulary(pdt_train_vocabulary *v, int32_t sampled) {
  pdt_error err = {0};
  if (pdt_train_vocabulary_new(v, SIZE, sampled, entries, 1, &err)) fail_msg("%s", err.message);
  assert_int_equal(v->n_occurring, OCCURRING);
}

static void what_occurs_is_there(void **state) {
  (void)state;
  pdt_train_vocabulary v;
  pdt_arena arena = {0};
  pdt_nn_subset s;
  open_vocabulary(&v, SAMPLED);
  for (int64_t step = 0; step < 20; step++) {
    bool seen[SIZE] = {false};
    draw(&v, 1, step, &s, &arena);
    assert_int_equal(s.n, OCCURRING + SAMPLED);
    for (int32_t i = 0; i < s.n; i++) {
      assert_false(seen[s.ids[i]]); /* none twice */
      seen[s.ids[i]] = true;
      assert_int_equal(s.place[s.ids[i]], i);
      double stands = i < OCCURRING ? 1 : (double)(SIZE - OCCURRING) / SAMPLED;
      assert_true(fabs(exp((double)s.shift[i]) - stands) < 1e-5 * stands);
    }
    for (int i = 0; i < 4; i++) assert_true(seen[first[i]]);
    for (int i = 0; i < 3; i++) assert_true(seen[second[i]]);
    for (int32_t id = 0; id < SIZE; id++) assert_int_equal(s.place[id] >= 0, seen[id]);
  }
  pdt_train_vocabulary_free(&v);
  pdt_arena_free(&arena);
}

/* A run that goes on at a step has the ids that it would have had. */
static void seed_and_step_decide(void **state) {
  (void)state;
  pdt_train_vocabulary v, w;
  pdt_arena arena = {0}, other = {0};
  pdt_nn_subset s, t;
  open_vocabulary(&v, SAMPLED);
  open_vocabulary(&w, SAMPLED);
  for (int64_t step = 0; step < 5; step++) draw(&v, 9, step, &s, &arena);
  draw(&w, 9, 4, &t, &other);
  assert_memory_equal(s.ids, t.ids, (size_t)s.n * sizeof *s.ids);
  draw(&w, 10, 4, &t, &other);
  assert_true(memcmp(s.ids, t.ids, (size_t)s.n * sizeof *s.ids) != 0);
  pdt_train_vocabulary_free(&v);
  pdt_train_vocabulary_free(&w);
  pdt_arena_free(&arena);
  pdt_arena_free(&other);
}

/* The sum of a softmax over the sample is that over all within four deviations of its mean: others
 * are drawn without repetition, so that the deviation of one draw is that of a sample's mean. */
static void sums_are_right_on_the_average(void **state) {
  (void)state;
  enum { DRAWS = 4000 };
  pdt_train_vocabulary v;
  pdt_arena arena = {0};
  pdt_nn_subset s;
  double weight[SIZE], all = 0, mean = 0, square = 0;
  for (int i = 0; i < SIZE; i++) {
    weight[i] = exp(2 * sin(i * 1.7));
    all += weight[i];
  }
  open_vocabulary(&v, SAMPLED);
  for (int64_t step = 0; step < DRAWS; step++) {
    double sum = 0;
    draw(&v, 2, step, &s, &arena);
    for (int32_t i = 0; i < s.n; i++) sum += weight[s.ids[i]] * exp((double)s.shift[i]);
    mean += sum / DRAWS;
    square += sum * sum / DRAWS;
  }
  assert_true(fabs(mean - all) < 4 * sqrt((square - mean * mean) / DRAWS));
  pdt_train_vocabulary_free(&v);
  pdt_arena_free(&arena);
}

/* With room for all others the softmax is the whole one. */
static void more_than_there_are(void **state) {
  (void)state;
  pdt_train_vocabulary v;
  pdt_arena arena = {0};
  pdt_nn_subset s;
  open_vocabulary(&v, 10 * SIZE);
  draw(&v, 1, 0, &s, &arena);
  assert_int_equal(s.n, SIZE);
  for (int32_t i = 0; i < SIZE; i++) assert_true(s.shift[i] == 0);
  pdt_train_vocabulary_free(&v);
  pdt_arena_free(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_occurs_is_there), cmocka_unit_test(seed_and_step_decide),
      cmocka_unit_test(sums_are_right_on_the_average), cmocka_unit_test(more_than_there_are)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
