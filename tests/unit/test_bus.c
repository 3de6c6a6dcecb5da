/* The notes bus: what a window shows and in what order, budget and delay, withdrawal, late vectors,
 * and a hash that tells replicas apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"
#include "protocol/bus.h"

enum { DIM = 3, MOST = 200 };

static void new_bus(pdt_bus *bus, int32_t delay, int32_t budget, int32_t capacity) {
  assert_int_equal(pdt_bus_new(bus, DIM, (pdt_window_rule){delay, budget}, capacity, NULL), 0);
}

/* The vector of a note: distinct numbers. */
static void vector_of(pdt_round round, pdt_stream stream, float out[DIM]) {
  for (int i = 0; i < DIM; i++) out[i] = (float)(round * 100 + stream * 10 + i);
}

static void publish(pdt_bus *bus, pdt_round round, pdt_stream stream) {
  float vector[DIM];
  vector_of(round, stream, vector);
  assert_int_equal(pdt_bus_publish(bus, round, stream, NULL), 0);
  assert_true(pdt_bus_fill(bus, round, stream, vector));
}

/* Expects a window of these notes, round.stream each: "0.-1 2.0 2.1". */
static void expect_window(const pdt_bus *bus, pdt_round round, const char *expected) {
  char text[512] = "";
  int32_t indices[MOST], n = pdt_bus_window(bus, round, indices);
  size_t at = 0;
  assert_in_range(n, 0, bus->rule.budget);
  for (int32_t i = 0; i < n; i++) {
    const pdt_note *note = &bus->notes[indices[i]];
    at += (size_t)snprintf(text + at, sizeof text - at, "%s%d.%d", i ? " " : "", note->name.round,
                           note->name.stream);
  }
  assert_string_equal(text, expected);
}

static void newest_first_streams_ascending(void **state) {
  (void)state;
  pdt_bus bus;
  new_bus(&bus, 1, 100, 20);
  expect_window(&bus, 1, "");
  publish(&bus, 0, PDT_PLANNER);
  expect_window(&bus, 1, "0.-1");
  publish(&bus, 1, 0);
  publish(&bus, 1, 2);
  expect_window(&bus, 1, "0.-1"); /* a round does not see itself */
  expect_window(&bus, 2, "0.-1 1.0 1.2");
  publish(&bus, 2, 1);
  publish(&bus, 4, 0);
  publish(&bus, 4, 1);
  expect_window(&bus, 5, "0.-1 4.0 4.1 2.1 1.0 1.2");
  expect_window(&bus, 4, "0.-1 2.1 1.0 1.2"); /* of an earlier round: as it was */
  pdt_bus_free(&bus);
}

static void delay(void **state) {
  (void)state;
  for (int32_t d = 1; d <= 3; d++) {
    pdt_bus bus;
    new_bus(&bus, d, 100, 20);
    publish(&bus, 0, PDT_PLANNER);
    publish(&bus, 1, 0);
    for (pdt_round r = 1; r <= 5; r++) expect_window(&bus, r, r - d >= 1 ? "0.-1 1.0" : "0.-1");
    pdt_bus_free(&bus);
  }
}

static void budget_counts_the_plan_note(void **state) {
  (void)state;
  static const char *const shown[] = {"",
                                      "0.-1",
                                      "0.-1 2.0",
                                      "0.-1 2.0 2.1",
                                      "0.-1 2.0 2.1 1.0",
                                      "0.-1 2.0 2.1 1.0 1.1",
                                      "0.-1 2.0 2.1 1.0 1.1"};
  for (int32_t budget = 0; budget <= 6; budget++) {
    pdt_bus bus;
    new_bus(&bus, 1, budget, 20);
    publish(&bus, 0, PDT_PLANNER);
    for (pdt_round r = 1; r <= 2; r++)
      for (pdt_stream k = 0; k < 2; k++) publish(&bus, r, k);
    expect_window(&bus, 3, shown[budget]);
    pdt_bus_free(&bus);
  }
  pdt_bus bus; /* without a plan note the budget is all for the others */
  new_bus(&bus, 1, 2, 20);
  for (pdt_stream k = 0; k < 4; k++) publish(&bus, 1, k);
  expect_window(&bus, 2, "1.0 1.1");
  pdt_bus_free(&bus);
}

static void withdrawal(void **state) {
  (void)state;
  pdt_bus bus;
  new_bus(&bus, 1, 100, 7);
  publish(&bus, 0, PDT_PLANNER);
  for (pdt_round r = 1; r <= 3; r++)
    for (pdt_stream k = 0; k < 2; k++) publish(&bus, r, k);
  pdt_bus_withdraw(&bus, 1, 2);
  expect_window(&bus, 9, "0.-1 3.0 2.0 1.0 1.1");
  pdt_bus_withdraw(&bus, 1, 2); /* again: nothing left to take */
  pdt_bus_withdraw(&bus, 5, 1);
  assert_int_equal(bus.count, 5);
  publish(&bus, 4, 0); /* the two places are free again, and no more */
  publish(&bus, 4, 1);
  assert_int_equal(pdt_bus_publish(&bus, 5, 0, NULL), -1);
  expect_window(&bus, 5, "0.-1 4.0 4.1 3.0 2.0 1.0 1.1");
  for (int32_t i = 0; i < bus.count; i++) { /* whoever got whose place, each has its own vector */
    float vector[DIM];
    vector_of(bus.notes[i].name.round, bus.notes[i].name.stream, vector);
    assert_memory_equal(bus.notes[i].vector, vector, sizeof vector);
  }
  pdt_bus_withdraw(&bus, 0, 1);
  expect_window(&bus, 5, "0.-1 4.1 1.1");
  pdt_bus_free(&bus);
}

static void refuse(pdt_bus *bus, pdt_round round, pdt_stream stream, const char *part) {
  pdt_error err = {0};
  int32_t count = bus->count;
  assert_int_equal(pdt_bus_publish(bus, round, stream, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  if (!strstr(err.message, part)) fail_msg("'%s' is not in: %s", part, err.message);
  assert_int_equal(bus->count, count);
}

static void order_and_capacity(void **state) {
  (void)state;
  pdt_bus bus;
  new_bus(&bus, 1, 100, 3);
  publish(&bus, 0, PDT_PLANNER);
  publish(&bus, 2, 1);
  refuse(&bus, 1, 2, "(1, 2) published after (2, 1): out of order");
  refuse(&bus, 2, 1, "out of order");
  refuse(&bus, 2, 0, "out of order");
  publish(&bus, 2, 2);
  refuse(&bus, 3, 0, "full with 3 notes");
  pdt_bus_free(&bus);
  new_bus(&bus, 1, 100, 0);
  refuse(&bus, 0, PDT_PLANNER, "full");
  pdt_bus_free(&bus);
  pdt_error err = {0};
  assert_int_equal(pdt_bus_new(&bus, INT32_MAX, (pdt_window_rule){1, 1}, INT32_MAX, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_MEMORY);
  assert_null(bus.notes);
}

static void vectors_may_come_late(void **state) {
  (void)state;
  pdt_bus bus;
  float vector[DIM];
  new_bus(&bus, 2, 100, 10);
  publish(&bus, 0, PDT_PLANNER);
  assert_int_equal(pdt_bus_publish(&bus, 1, 0, NULL), 0);
  assert_int_equal(pdt_bus_publish(&bus, 1, 1, NULL), 0);
  assert_false(bus.notes[1].filled || bus.notes[2].filled);
  vector_of(1, 1, vector);
  assert_true(pdt_bus_fill(&bus, 1, 1, vector));
  assert_false(bus.notes[1].filled);
  assert_true(bus.notes[2].filled);
  memset(vector, 0, sizeof vector); /* it was copied */
  float expected[DIM];
  vector_of(1, 1, expected);
  assert_memory_equal(bus.notes[2].vector, expected, sizeof expected);
  assert_false(pdt_bus_fill(&bus, 1, 2, vector)); /* no such stream, round, or no more */
  assert_false(pdt_bus_fill(&bus, 2, 0, vector));
  pdt_bus_withdraw(&bus, 0, 1);
  assert_false(pdt_bus_fill(&bus, 1, 0, vector));
  assert_int_equal(bus.count, 2);
  /* A place that is handed out again starts unfilled. */
  assert_int_equal(pdt_bus_publish(&bus, 2, 0, NULL), 0);
  assert_false(bus.notes[2].filled);
  pdt_bus_free(&bus);
}

static void equal_histories_hash_alike(void **state) {
  (void)state;
  pdt_bus a, b;
  new_bus(&a, 1, 100, 10);
  new_bus(&b, 3, 5, 20); /* how it is read is no part of what it holds */
  assert_int_equal(pdt_bus_hash(&a), pdt_bus_hash(&b));
  publish(&a, 0, PDT_PLANNER);
  assert_true(pdt_bus_hash(&a) != pdt_bus_hash(&b));
  publish(&b, 0, PDT_PLANNER);
  assert_true(pdt_bus_hash(&a) == pdt_bus_hash(&b));
  /* b takes a detour through places that a never used */
  publish(&a, 2, 1);
  publish(&b, 1, 0);
  publish(&b, 1, 1);
  pdt_bus_withdraw(&b, 0, 1);
  publish(&b, 2, 1);
  assert_true(pdt_bus_hash(&a) != pdt_bus_hash(&b));
  pdt_bus_withdraw(&b, 1, 1);
  publish(&b, 2, 1);
  assert_true(pdt_bus_hash(&a) == pdt_bus_hash(&b));
  pdt_bus_free(&a);
  pdt_bus_free(&b);
}

/* Bus with two notes, one thing about the second as the caller says. */
static uint64_t hash_with(pdt_round round, pdt_stream stream, bool filled, float last) {
  pdt_bus bus;
  const float vector[DIM] = {1, 2, last};
  new_bus(&bus, 1, 4, 4);
  publish(&bus, 0, PDT_PLANNER);
  assert_int_equal(pdt_bus_publish(&bus, round, stream, NULL), 0);
  if (filled) assert_true(pdt_bus_fill(&bus, round, stream, vector));
  uint64_t hash = pdt_bus_hash(&bus);
  pdt_bus_free(&bus);
  return hash;
}

static void the_hash_sees_everything(void **state) {
  (void)state;
  const uint64_t base = hash_with(1, 1, true, 3);
  assert_true(base == hash_with(1, 1, true, 3));
  assert_true(base != hash_with(2, 1, true, 3));
  assert_true(base != hash_with(1, 2, true, 3));
  assert_true(base != hash_with(1, 1, false, 3));
  assert_true(base != hash_with(1, 1, true, 3.0000002F)); /* one bit of one number */
  assert_true(hash_with(1, 1, true, 0.0F) != hash_with(1, 1, true, -0.0F));
}

/* Hashes that begin at sums are those from the first note on, whatever happened in between. */
static void sums_change_no_hash(void **state) {
  (void)state;
  pdt_bus summed, plain;
  uint32_t draw = 1;
  new_bus(&summed, 1, 100, 200);
  new_bus(&plain, 1, 100, 200);
  pdt_bus *both[] = {&summed, &plain};
  for (int b = 0; b < 2; b++) publish(both[b], 0, PDT_PLANNER);
  for (pdt_round round = 1; round < 40; round++) {
    draw = draw * 1664525U + 1013904223U;
    pdt_stream late = (pdt_stream)(draw >> 24) % 4, gone = (pdt_stream)(draw >> 16) % 4;
    for (int b = 0; b < 2; b++) {
      for (pdt_stream k = 0; k < 4; k++)
        if (k != late) publish(both[b], round, k);
      if (round % 3 == 0) pdt_bus_withdraw(both[b], gone, round - (pdt_round)(draw >> 8) % 4);
      float vector[DIM];
      vector_of(round, 1, vector); /* a vector that comes, or comes again with another number */
      vector[0] += (float)(draw & 7);
      pdt_bus_fill(both[b], round - (pdt_round)(draw >> 12) % 3, 1, vector);
    }
    if (draw & 32) pdt_bus_sum(&summed);
    assert_true(pdt_bus_is_valid(&summed));
    assert_true(pdt_bus_hash(&summed) == pdt_bus_hash(&plain));
  }
  assert_true(summed.summed > 0 && plain.summed == 0);
  pdt_bus_free(&summed);
  pdt_bus_free(&plain);
}

/* By definition (eq. 4), over a plain list of all notes there are. */
typedef struct plain_note {
  pdt_round round;
  pdt_stream stream;
} plain_note;

static int shown_before(const void *x, const void *y) {
  const plain_note *a = x, *b = y;
  if ((a->stream < 0) != (b->stream < 0)) return a->stream < 0 ? -1 : 1;
  if (a->round != b->round) return a->round > b->round ? -1 : 1;
  return (a->stream > b->stream) - (a->stream < b->stream);
}

static void check_window(const pdt_bus *bus, const plain_note *notes, int32_t n, pdt_round round) {
  plain_note sorted[MOST];
  int32_t visible = 0, indices[MOST];
  for (int32_t i = 0; i < n; i++)
    if (notes[i].stream < 0 || notes[i].round <= round - bus->rule.delay)
      sorted[visible++] = notes[i];
  qsort(sorted, (size_t)visible, sizeof *sorted, shown_before);
  if (visible > bus->rule.budget) visible = bus->rule.budget;
  assert_int_equal(pdt_bus_window(bus, round, indices), visible);
  for (int32_t i = 0; i < visible; i++) {
    const pdt_note *note = &bus->notes[indices[i]];
    float vector[DIM];
    assert_int_equal(note->name.round, sorted[i].round);
    assert_int_equal(note->name.stream, sorted[i].stream);
    vector_of(note->name.round, note->name.stream, vector);
    assert_memory_equal(note->vector, vector, sizeof vector);
  }
}

static void random_histories(void **state) {
  (void)state;
  numbers r = {41};
  for (int trial = 0; trial < 2000; trial++) {
    pdt_bus bus;
    plain_note notes[MOST];
    int32_t n = 0, streams = numbers_int(&r, 1, 6);
    new_bus(&bus, numbers_int(&r, 1, 4), numbers_int(&r, 0, 20), 100);
    if (trial % 8) {
      publish(&bus, 0, PDT_PLANNER);
      notes[n++] = (plain_note){0, PDT_PLANNER};
    }
    for (pdt_round round = 1; round <= 15; round++) {
      check_window(&bus, notes, n, round);
      for (pdt_stream k = 0; k < streams; k++) {
        if (numbers_int(&r, 0, 5) == 0) {
          pdt_round first = numbers_int(&r, 1, round);
          int32_t kept = 0;
          for (int32_t i = 0; i < n; i++)
            if (notes[i].stream != k || notes[i].round < first) notes[kept++] = notes[i];
          n = kept;
          pdt_bus_withdraw(&bus, k, first);
        } else if (numbers_int(&r, 0, 2)) {
          notes[n++] = (plain_note){round, k};
          publish(&bus, round, k);
        }
      }
      assert_int_equal(bus.count, n);
      assert_int_equal(bus.n_free, 100 - n);
      assert_true(pdt_bus_is_valid(&bus));
    }
    pdt_bus_free(&bus);
  }
}

/* Breaks one number, expects the check to see it, and mends it. */
static void expect_broken(const pdt_bus *bus, int32_t *number, int32_t value) {
  int32_t was = *number;
  *number = value;
  if (pdt_bus_is_valid(bus)) fail_msg("%d in place of %d: not seen", value, was);
  *number = was;
  assert_true(pdt_bus_is_valid(bus));
}

static void invariants(void **state) {
  (void)state;
  pdt_bus bus;
  new_bus(&bus, 1, 9, 8);
  assert_true(pdt_bus_is_valid(&bus));
  publish(&bus, 0, PDT_PLANNER);
  publish(&bus, 1, 0);
  publish(&bus, 1, 2);
  assert_int_equal(pdt_bus_publish(&bus, 2, 0, NULL), 0); /* its vector is on its way */
  assert_true(pdt_bus_is_valid(&bus));
  pdt_note *note = &bus.notes[2];
  expect_broken(&bus, &note->name.stream, 0); /* twice */
  expect_broken(&bus, &note->name.stream, PDT_PLANNER);
  expect_broken(&bus, &note->name.round, 3);
  expect_broken(&bus, &bus.notes[0].name.stream, 0);
  expect_broken(&bus, &bus.notes[0].name.round, -1);
  expect_broken(&bus, &note->slot, bus.notes[1].slot);
  expect_broken(&bus, &note->slot, bus.free_slots[0]);
  expect_broken(&bus, &note->slot, 8);
  expect_broken(&bus, &bus.free_slots[1], bus.free_slots[0]);
  expect_broken(&bus, &bus.free_slots[0], note->slot);
  expect_broken(&bus, &bus.free_slots[0], -1);
  expect_broken(&bus, &bus.n_free, bus.n_free - 1);
  expect_broken(&bus, &bus.count, bus.count - 1);
  note->vector[1] += 1; /* written to past the bus */
  assert_false(pdt_bus_is_valid(&bus));
  note->vector[1] -= 1;
  note->vector += DIM;
  assert_false(pdt_bus_is_valid(&bus));
  note->vector -= DIM;
  note->filled = false; /* with a hash */
  assert_false(pdt_bus_is_valid(&bus));
  note->filled = true;
  bus.notes[3].filled = true; /* without one */
  assert_false(pdt_bus_is_valid(&bus));
  pdt_bus_free(&bus);
}

/* Memory that changes by itself shows in the hash, of every note that the next window may show. */
static void the_hash_reads_what_a_window_shows(void **state) {
  (void)state;
  enum { ROUNDS = 6, BUDGET = 5, DELAY = 2 };
  for (int32_t last = 1; last <= ROUNDS; last++) {
    pdt_bus bus;
    int32_t window[BUDGET];
    new_bus(&bus, DELAY, BUDGET, 2 * ROUNDS + 1);
    publish(&bus, 0, PDT_PLANNER);
    for (int32_t round = 1; round <= last; round++) {
      publish(&bus, round, 0);
      publish(&bus, round, 1);
    }
    const uint64_t sound = pdt_bus_hash(&bus);
    int32_t n = pdt_bus_window(&bus, last + 1, window);
    assert_true(n > 0);
    for (int32_t i = 0; i < n; i++) {
      float *changed = &bus.notes[window[i]].vector[i % DIM], before = *changed;
      *changed = -before - 1;
      assert_true(pdt_bus_hash(&bus) != sound);
      *changed = before;
    }
    assert_true(pdt_bus_hash(&bus) == sound);
    pdt_bus_free(&bus);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(newest_first_streams_ascending),
      cmocka_unit_test(delay),
      cmocka_unit_test(budget_counts_the_plan_note),
      cmocka_unit_test(withdrawal),
      cmocka_unit_test(order_and_capacity),
      cmocka_unit_test(vectors_may_come_late),
      cmocka_unit_test(equal_histories_hash_alike),
      cmocka_unit_test(the_hash_sees_everything),
      cmocka_unit_test(sums_change_no_hash),
      cmocka_unit_test(the_hash_reads_what_a_window_shows),
      cmocka_unit_test(random_histories),
      cmocka_unit_test(invariants),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
