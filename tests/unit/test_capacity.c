/* How much may be in flight: what the capacity that was made for some requests lets in, what the
 * ledger counts, and what is refused, against a second reading that counts stream by stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/capacity.h"
#include "numbers.h"

enum { MOST_RANKS = 12, MOST_REQUESTS = 9, MOST_STREAMS = 20 };

/* A request of which only sizes count. */
typedef struct sized {
  pdt_request request;
  int32_t n_prefix[MOST_STREAMS];
} sized;

static void draw_request(numbers *r, sized *s) {
  int32_t block = numbers_int(r, 1, 40);
  *s = (sized){.request = {.n_prompt = numbers_int(r, 1, 200),
                           .n_prefix = s->n_prefix,
                           .settings = {.streams = numbers_int(r, 1, MOST_STREAMS),
                                        .window = numbers_int(r, 1, 300),
                                        .max_rounds = numbers_int(r, 1, 30),
                                        .limits = {.block_tokens = block,
                                                   .horizon = 2 * block,
                                                   .max_tokens = numbers_int(r, 1, 300)}}}};
  for (int k = 0; k < MOST_STREAMS; k++)
    s->n_prefix[k] = numbers_int(r, 0, 1) * numbers_int(r, 0, 99);
}

static pdt_spread draw_spread(numbers *r) {
  pdt_rank ranks = numbers_int(r, 1, MOST_RANKS), group;
  do group = numbers_int(r, 1, ranks);
  while (ranks % group != 0);
  return (pdt_spread){ranks, group};
}

/* ---- the second reading ---- */

/* What is in flight, by rank and by the group that begins with a rank. */
typedef struct counts {
  int64_t sessions, lanes[MOST_RANKS], tokens[MOST_RANKS], pages[MOST_RANKS];
} counts;

static int64_t pages_of(int64_t positions) {
  return (positions + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static void count_in(counts *c, const pdt_request *r, pdt_spread spread, int sign) {
  const pdt_stream_limits *limits = &r->settings.limits;
  int64_t block = least(limits->block_tokens, limits->max_tokens);
  int64_t written =
      least((int64_t)r->settings.max_rounds * limits->block_tokens, limits->max_tokens);
  bool has_prompt[MOST_RANKS] = {false};
  c->sessions += sign;
  for (int32_t k = 0; k < r->settings.streams; k++) {
    pdt_rank rank = k % spread.ranks, group = rank - rank % spread.group_size;
    c->lanes[rank] += sign;
    c->tokens[rank] += sign * block;
    c->pages[group] += sign * pages_of(r->n_prefix[k] + written);
    if (!has_prompt[group]) c->pages[group] += sign * pages_of(r->n_prompt);
    has_prompt[group] = true;
  }
}

/* The most that there is of everything. */
static pdt_load load_of(const counts *c, pdt_spread spread) {
  pdt_load load = {0};
  for (pdt_rank begin = 0; begin < spread.ranks; begin += spread.group_size) {
    int64_t group_lanes = 0;
    for (pdt_rank r = begin; r < begin + spread.group_size; r++) {
      load.lanes += c->lanes[r];
      load.tokens += c->tokens[r];
      group_lanes += c->lanes[r];
      if (c->lanes[r] > load.own_lanes) load.own_lanes = c->lanes[r];
      if (c->tokens[r] > load.own_tokens) load.own_tokens = c->tokens[r];
    }
    if (group_lanes > load.group_lanes) load.group_lanes = group_lanes;
    if (c->pages[begin] > load.pages) load.pages = c->pages[begin];
  }
  return load;
}

static bool within(const pdt_load *a, const pdt_load *b) {
  return a->lanes <= b->lanes && a->group_lanes <= b->group_lanes && a->own_lanes <= b->own_lanes &&
         a->tokens <= b->tokens && a->own_tokens <= b->own_tokens && a->pages <= b->pages;
}

/* The ledger has counted the same. */
static void compare(const pdt_ledger *l, const counts *c) {
  int64_t lanes = 0, tokens = 0;
  assert_int_equal(l->sessions, c->sessions);
  for (pdt_rank r = 0; r < l->spread.ranks; r++) {
    assert_int_equal(l->rank_lanes[r], c->lanes[r]);
    assert_int_equal(l->rank_tokens[r], c->tokens[r]);
    if (r % l->spread.group_size == 0)
      assert_int_equal(l->group_pages[r / l->spread.group_size], c->pages[r]);
    lanes += c->lanes[r];
    tokens += c->tokens[r];
  }
  assert_int_equal(l->lanes, lanes);
  assert_int_equal(l->tokens, tokens);
}

/* ---- tests ---- */

static void test_load_of_one(void **state) {
  (void)state;
  numbers r = {.state = 1};
  for (int i = 0; i < 3000; i++) {
    sized s;
    counts c = {0};
    pdt_spread spread = draw_spread(&r);
    draw_request(&r, &s);
    count_in(&c, &s.request, spread, 1);
    pdt_load load = pdt_load_of(&s.request, spread), expected = load_of(&c, spread);
    assert_memory_equal(&load, &expected, sizeof load);
  }
}

/* Requests that come and go in any order under one capacity. */
typedef struct walk {
  pdt_spread spread;
  int32_t n, max_sessions;
  sized requests[MOST_REQUESTS];
  bool in_flight[MOST_REQUESTS];
  pdt_capacity capacity;
  counts counts;
  pdt_ledger ledger;
} walk;

static void start_walk(walk *w, numbers *r) {
  *w = (walk){.spread = draw_spread(r),
              .n = numbers_int(r, 1, MOST_REQUESTS),
              .max_sessions = numbers_int(r, 1, MOST_REQUESTS)};
  pdt_capacity_maker maker = pdt_capacity_maker_of(w->max_sessions, w->spread);
  for (int32_t i = 0; i < w->n; i++) {
    draw_request(r, &w->requests[i]);
    assert_int_equal(pdt_capacity_maker_add(&maker, &w->requests[i].request, NULL), 0);
  }
  w->capacity = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  assert_int_equal(pdt_ledger_new(&w->ledger, w->spread, NULL), 0);
}

/* Adds a request that is not in flight, or takes one away that is; it must fit exactly when the
 * second reading has room for it. Returns whether it fitted. */
static bool take_step(walk *w, int32_t i) {
  const pdt_request *request = &w->requests[i].request;
  bool fitted = true;
  if (w->in_flight[i]) {
    pdt_ledger_remove(&w->ledger, request);
    count_in(&w->counts, request, w->spread, -1);
  } else {
    counts with = w->counts;
    count_in(&with, request, w->spread, 1);
    pdt_load load = load_of(&with, w->spread);
    bool expected = with.sessions <= w->capacity.sessions && within(&load, &w->capacity.load);
    fitted = pdt_ledger_add(&w->ledger, &w->capacity, request);
    assert_int_equal(fitted, expected);
    if (fitted) w->counts = with;
  }
  if (fitted) w->in_flight[i] = !w->in_flight[i];
  compare(&w->ledger, &w->counts);
  return fitted;
}

/* Any max_sessions of the requests fit at once, whatever came and went before, and one more never
 * does. */
static void test_any_of_them_fit(void **state) {
  (void)state;
  numbers r = {.state = 2};
  int full = 0;
  for (int i = 0; i < 400; i++) {
    walk w;
    pdt_error err = {0};
    start_walk(&w, &r);
    assert_int_equal(w.capacity.sessions, w.n < w.max_sessions ? w.n : w.max_sessions);
    for (int32_t j = 0; j < w.n; j++)
      if (pdt_capacity_check(&w.capacity, &w.requests[j].request, w.spread, &err))
        fail_msg("%s", err.message);
    for (int j = 0; j < 60; j++) {
      int32_t which = numbers_int(&r, 0, w.n - 1);
      bool room = w.in_flight[which] || w.ledger.sessions < w.max_sessions;
      assert_int_equal(take_step(&w, which), room);
      full += !room;
    }
    pdt_ledger_free(&w.ledger);
  }
  assert_true(full > 1000);
}

/* With less than that, each joins exactly when there is room, and what does not is undone. */
static void test_less_room(void **state) {
  (void)state;
  numbers r = {.state = 3};
  int refused = 0, fitted = 0;
  for (int i = 0; i < 400; i++) {
    walk w;
    start_walk(&w, &r);
    pdt_load *load = &w.capacity.load;
    int64_t *kinds[PDT_LOAD_KINDS] = {&load->lanes,  &load->group_lanes, &load->own_lanes,
                                      &load->tokens, &load->own_tokens,  &load->pages};
    int64_t *less = kinds[numbers_int(&r, 0, PDT_LOAD_KINDS - 1)];
    *less = *less * numbers_int(&r, 0, 9) / 10;
    for (int j = 0; j < 60; j++) {
      int32_t which = numbers_int(&r, 0, w.n - 1);
      bool was_out = !w.in_flight[which], joined = take_step(&w, which);
      refused += !joined;
      fitted += was_out && joined;
      if (w.ledger.sessions > 0 || joined) continue;
      /* what does not fit into nothing never fits */
      assert_int_equal(pdt_capacity_check(&w.capacity, &w.requests[which].request, w.spread, NULL),
                       -1);
    }
    for (int32_t j = 0; j < w.n; j++)
      if (w.in_flight[j]) take_step(&w, j);
    assert_int_equal(w.ledger.lanes, 0);
    for (int32_t j = 0; j < w.n; j++) /* and what does, always does */
      if (!pdt_capacity_check(&w.capacity, &w.requests[j].request, w.spread, NULL)) {
        assert_true(take_step(&w, j));
        take_step(&w, j);
      }
    pdt_ledger_free(&w.ledger);
  }
  assert_true(refused > 1000 && fitted > 1000);
}

/* The sum of the largest: a capacity for equal requests is a multiple of one's. */
static void test_made_for_equal_requests(void **state) {
  (void)state;
  numbers r = {.state = 4};
  sized s, small;
  draw_request(&r, &s);
  pdt_spread spread = {4, 2};
  pdt_load one = pdt_load_of(&s.request, spread);
  pdt_capacity_maker maker = pdt_capacity_maker_of(3, spread);
  pdt_capacity none = pdt_capacity_made(&maker);
  assert_int_equal(none.sessions, 1);
  assert_int_equal(none.load.lanes + none.load.pages + none.positions, 0);
  for (int i = 0; i < 5; i++) assert_int_equal(pdt_capacity_maker_add(&maker, &s.request, NULL), 0);
  small = s;
  small.request.n_prefix = small.n_prefix;
  small.request.settings.streams = small.request.n_prompt = 1;
  assert_int_equal(pdt_capacity_maker_add(&maker, &small.request, NULL), 0);
  pdt_capacity c = pdt_capacity_made(&maker);
  assert_int_equal(c.sessions, 3);
  assert_int_equal(c.load.lanes, 3 * one.lanes);
  assert_int_equal(c.load.group_lanes, 3 * one.group_lanes);
  assert_int_equal(c.load.own_lanes, 3 * one.own_lanes);
  assert_int_equal(c.load.tokens, 3 * one.tokens);
  assert_int_equal(c.load.own_tokens, 3 * one.own_tokens);
  assert_int_equal(c.load.pages, 3 * one.pages);
  assert_int_equal(c.positions, pdt_request_positions(&s.request));
  pdt_capacity_maker_free(&maker);
}

/* Two ranks, one group: 3 streams of blocks of 4, 30 prompt tokens, prefixes of 5, 0 and 2. */
static void test_messages(void **state) {
  (void)state;
  const pdt_spread spread = {2, 2};
  int32_t n_prefix[] = {5, 0, 2};
  const pdt_request r = {
      .n_prompt = 30,
      .n_prefix = n_prefix,
      .settings = {.streams = 3,
                   .window = 9,
                   .max_rounds = 40,
                   .limits = {.block_tokens = 4, .horizon = 8, .max_tokens = 20}}};
  pdt_capacity exact = {
      .sessions = 1,
      .load = {3, 3, 2, 12, 8, pages_of(30) + pages_of(25) + pages_of(20) + pages_of(22)},
      .positions = 29 + 5 + 20,
      .block_tokens = 4,
      .window = 9};
  pdt_error err = {0};
  if (pdt_capacity_check(&exact, &r, spread, &err)) fail_msg("%s", err.message);
  const struct {
    int64_t *wide;
    int32_t *narrow;
    const char *what;
  } limits[] = {{&exact.load.lanes, NULL, "streams"},
                {&exact.load.group_lanes, NULL, "streams of one shard group"},
                {&exact.load.own_lanes, NULL, "streams of one rank"},
                {&exact.load.tokens, NULL, "tokens of its blocks together"},
                {&exact.load.own_tokens, NULL, "tokens of one rank's blocks together"},
                {&exact.load.pages, NULL, "pages of the key/value cache"},
                {NULL, &exact.positions, "positions of a sequence"},
                {NULL, &exact.block_tokens, "tokens of a block"},
                {NULL, &exact.window, "notes of a window"}};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    char want[128];
    pdt_capacity whole = exact;
    long long needs = limits[i].wide ? (*limits[i].wide)-- : (*limits[i].narrow)--;
    snprintf(want, sizeof want, "%s: it needs %lld, this run was made for %lld", limits[i].what,
             needs, needs - 1);
    assert_int_equal(pdt_capacity_check(&exact, &r, spread, &err), -1);
    assert_int_equal(err.code, PDT_ERROR_USAGE);
    assert_string_equal(err.message, want);
    exact = whole;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_load_of_one), cmocka_unit_test(test_any_of_them_fit),
      cmocka_unit_test(test_less_room),   cmocka_unit_test(test_made_for_equal_requests),
      cmocka_unit_test(test_messages),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
