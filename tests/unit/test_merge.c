/* Who owns which plan slot, and the order that follows from it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "numbers.h"
#include "protocol/merge.h"

enum { MOST = 8 };

#define NONE (-INFINITY)

/* best [K, slots]; expects owner [slots] and order [K]. */
static void expect(const float *best, int32_t K, const int32_t *plan_ids, int32_t slots,
                   const pdt_stream *owner, const pdt_stream *order) {
  pdt_stream_state streams[MOST] = {{0}};
  float copy[MOST * MOST];
  pdt_stream owner_found[MOST], order_found[MOST];
  for (int32_t i = 0; i < K * slots; i++) copy[i] = best[i];
  for (pdt_stream k = 0; k < K; k++) streams[k].best_coverage = copy + (ptrdiff_t)k * slots;
  pdt_merge(streams, K, plan_ids, slots, false, owner_found, order_found);
  for (int32_t i = 0; i < slots; i++) assert_int_equal(owner_found[i], owner[i]);
  for (pdt_stream k = 0; k < K; k++) assert_int_equal(order_found[k], order[k]);
  pdt_merge(streams, K, plan_ids, slots, true, owner_found, order_found);
  for (int32_t i = 0; i < slots; i++) assert_int_equal(owner_found[i], owner[i]);
  for (pdt_stream k = 0; k < K; k++) assert_int_equal(order_found[k], k);
}

static void known(void **state) {
  (void)state;
  const int32_t ids[] = {7, 0, 3, 4}, empty[] = {0, 0, 0, 0};
  const float best[] = {-1, 9, 0, -2, 1, 9, 0, NONE, -3, 9, 5, -2};
  /* slot 0: stream 1; 1: empty, whatever is said of it; 2: stream 2; 3: tie of 0 and 2, so 0 */
  expect(best, 3, ids, 4, (pdt_stream[]){1, -1, 2, 0}, (pdt_stream[]){1, 2, 0});
  expect(best, 3, empty, 4, (pdt_stream[]){-1, -1, -1, -1}, (pdt_stream[]){0, 1, 2});
  expect(best, 1, ids, 4, (pdt_stream[]){0, -1, 0, 0}, (pdt_stream[]){0});
}

static void nothing_committed(void **state) {
  (void)state;
  const int32_t ids[] = {1, 2};
  const float none[] = {NONE, NONE, NONE, NONE, NONE, NONE};
  const float one[] = {NONE, NONE, NONE, NONE, NONE, -1e30F};
  expect(none, 3, ids, 2, (pdt_stream[]){-1, -1}, (pdt_stream[]){0, 1, 2});
  expect(one, 3, ids, 2, (pdt_stream[]){-1, 2}, (pdt_stream[]){2, 0, 1});
}

static void owners_of_none_come_last(void **state) {
  (void)state;
  const int32_t ids[] = {1, 2, 3};
  const float best[] = {0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1};
  expect(best, 4, ids, 3, (pdt_stream[]){3, 3, 1}, (pdt_stream[]){3, 1, 0, 2});
}

/* The order by definition: sorted by (first owned slot, index). */
static void random_cases(void **state) {
  (void)state;
  numbers r = {51};
  for (int trial = 0; trial < 50000; trial++) {
    float best[MOST * MOST];
    int32_t ids[MOST], first[MOST], K = numbers_int(&r, 1, MOST), slots = numbers_int(&r, 1, MOST);
    pdt_stream owner[MOST], order[MOST];
    for (int32_t i = 0; i < K * slots; i++)
      best[i] = numbers_int(&r, 0, 4) ? (float)numbers_int(&r, -3, 3) : NONE;
    for (int32_t i = 0; i < slots; i++) ids[i] = numbers_int(&r, 0, 2);
    for (pdt_stream k = 0; k < K; k++) {
      first[k] = slots;
      order[k] = k;
    }
    for (int32_t i = slots - 1; i >= 0; i--) {
      owner[i] = -1;
      for (pdt_stream k = K - 1; k >= 0 && ids[i]; k--)
        if (best[k * slots + i] > NONE &&
            (owner[i] < 0 || best[k * slots + i] >= best[owner[i] * slots + i]))
          owner[i] = k;
      if (owner[i] >= 0) first[owner[i]] = i;
    }
    for (int32_t i = 1; i < K; i++) /* insertion keeps the index order of equals */
      for (int32_t j = i; j > 0 && first[order[j - 1]] > first[order[j]]; j--) {
        pdt_stream swap = order[j];
        order[j] = order[j - 1];
        order[j - 1] = swap;
      }
    expect(best, K, ids, slots, owner, order);
  }
}

/* One way in which streams that are not done may go on. */
static void go_on(numbers *r, const float *best, float *later, const pdt_stream_state *streams,
                  int32_t K, int32_t slots) {
  for (pdt_stream k = 0; k < K; k++)
    for (int32_t i = 0; i < slots; i++) {
      float *at = &later[k * slots + i];
      *at = best[k * slots + i];
      if (streams[k].done || numbers_int(r, 0, 1)) continue;
      float rises = (float)numbers_int(r, -4, 5);
      if (rises > *at) *at = rises;
    }
}

static void point_at(pdt_stream_state *streams, float *best, int32_t K, int32_t slots) {
  for (pdt_stream k = 0; k < K; k++) streams[k].best_coverage = best + (ptrdiff_t)k * slots;
}

/* What is said to be known holds however it goes on; and no more could be said: in one of many ways
 * to go on another stream comes next than in the first. */
static void known_early(void **state) {
  enum { TRIALS = 3000, FUTURES = 300, K_MOST = 4, SLOTS_MOST = 3 };
  (void)state;
  numbers r = {52};
  for (int trial = 0; trial < TRIALS; trial++) {
    float best[K_MOST * SLOTS_MOST], later[K_MOST * SLOTS_MOST];
    pdt_stream_state streams[K_MOST] = {{0}};
    int32_t ids[SLOTS_MOST], K = numbers_int(&r, 1, K_MOST), slots = numbers_int(&r, 1, SLOTS_MOST);
    pdt_stream owner[SLOTS_MOST], order[K_MOST], known[K_MOST], first = -1;
    bool differs = false, placed[K_MOST];
    for (int32_t i = 0; i < K * slots; i++)
      best[i] = numbers_int(&r, 0, 4) ? (float)numbers_int(&r, -3, 3) : NONE;
    for (int32_t i = 0; i < slots; i++) ids[i] = numbers_int(&r, 0, 2);
    for (pdt_stream k = 0; k < K; k++) streams[k].done = numbers_int(&r, 0, 2) > 0;
    point_at(streams, best, K, slots);
    int32_t n = pdt_merge_known(streams, K, ids, slots, placed, known);
    point_at(streams, later, K, slots);
    for (int i = 0; i < FUTURES; i++) {
      go_on(&r, best, later, streams, K, slots);
      pdt_merge(streams, K, ids, slots, false, owner, order);
      for (int32_t j = 0; j < n; j++) assert_int_equal(known[j], order[j]);
      if (n == K) continue;
      if (first < 0) first = order[n];
      differs = differs || order[n] != first;
    }
    assert_true(n == K || differs);
  }
}

/* A journal may name very many slots: time is that of reading them, not of comparing them. */
static void many_slots(void **state) {
  (void)state;
  enum { SLOTS = 1 << 21 };
  pdt_stream_state streams[2] = {{0}};
  int32_t *ids = malloc(SLOTS * sizeof *ids);
  pdt_stream *owner = malloc(SLOTS * sizeof *owner), order[2];
  float *best = malloc(2 * SLOTS * sizeof *best);
  assert_true(ids && owner && best);
  for (int32_t i = 0; i < SLOTS; i++) {
    ids[i] = 1;
    best[i] = i < SLOTS / 2 ? 0 : 1; /* stream 1 owns the first half */
    best[SLOTS + i] = 0.5F;
  }
  for (pdt_stream k = 0; k < 2; k++) streams[k].best_coverage = best + (ptrdiff_t)k * SLOTS;
  pdt_merge(streams, 2, ids, SLOTS, false, owner, order);
  assert_true(owner[0] == 1 && owner[SLOTS / 2] == 0 && order[0] == 1 && order[1] == 0);
  free(ids);
  free(owner);
  free(best);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known),
      cmocka_unit_test(nothing_committed),
      cmocka_unit_test(owners_of_none_come_last),
      cmocka_unit_test(random_cases),
      cmocka_unit_test(known_early),
      cmocka_unit_test(many_slots),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
