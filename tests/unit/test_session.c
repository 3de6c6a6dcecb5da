/* A session as a value: decisions that cannot have been change nothing, replicas that apply the
 * same decisions are equal, room for everything is enough for every walk, and a replica that grows
 * as it goes comes to the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"
#include "protocol/session.h"

enum { DIM = 2, SLOTS = 2, MOST_STREAMS = 6, MOST_BLOCK = 5 };

/* The blocks of one round and what was decided about them. */
typedef struct round_of {
  pdt_block_verdict blocks[MOST_STREAMS];
  pdt_token tokens[MOST_STREAMS][MOST_BLOCK];
  float coverage[MOST_STREAMS][SLOTS];
  pdt_session_decision decision;
} round_of;

static pdt_settings random_settings(numbers *r) {
  int32_t block = numbers_int(r, 1, MOST_BLOCK);
  return (pdt_settings){.streams = numbers_int(r, 1, MOST_STREAMS),
                        .reveal_delay = numbers_int(r, 1, 3),
                        .window = numbers_int(r, 1, 20),
                        .max_attempts = numbers_int(r, 1, 4),
                        .max_rounds = numbers_int(r, 1, 30),
                        .part_slots = numbers_int(r, 0, 2),
                        .gamma = 0.5,
                        .limits = {.block_tokens = block,
                                   .horizon = block * numbers_int(r, 1, 4),
                                   .max_tokens = numbers_int(r, 1, 25),
                                   .slots = SLOTS,
                                   .policy = (pdt_policy)numbers_int(r, 0, PDT_POLICIES - 1)}};
}

/* What every active stream might emit, and the coordinator's decision about it. */
static void draw(numbers *r, const pdt_session *s, round_of *out) {
  pdt_vote votes[MOST_STREAMS] = {0};
  pdt_action actions[MOST_STREAMS];
  int32_t n = 0;
  for (pdt_stream k = 0; k < s->settings.streams; k++) {
    if (!pdt_stream_active(&s->streams[k])) continue;
    int32_t room = pdt_stream_room(&s->streams[k], &s->settings.limits);
    bool ended = numbers_int(r, 0, 9) == 0;
    for (int i = 0; i < MOST_BLOCK; i++) out->tokens[n][i] = numbers_int(r, 0, 99);
    for (int i = 0; i < SLOTS; i++) out->coverage[n][i] = (float)numbers_int(r, -5, 5);
    votes[n] = (pdt_vote){k, s->streams[k].attempt, (float)numbers_int(r, 2, 19) / 20};
    out->blocks[n] = (pdt_block_verdict){.stream = k,
                                         .attempt = votes[n].attempt,
                                         .readiness = votes[n].readiness,
                                         .tokens = out->tokens[n],
                                         .n_tokens = ended ? numbers_int(r, 1, room) : room,
                                         .ended = ended,
                                         .coverage = out->coverage[n]};
    n++;
  }
  bool gate = pdt_decide(votes, n, s->settings.gamma, s->settings.limits.policy,
                         s->settings.max_attempts, actions);
  for (int32_t i = 0; i < n; i++) out->blocks[i].action = actions[i];
  out->decision = (pdt_session_decision){s->round, gate, out->blocks, n};
}

static void begin(pdt_session *s, const pdt_settings *settings, pdt_session_room room) {
  static const int32_t ids[SLOTS] = {3, 0};
  static const float note[DIM] = {1, -1};
  assert_int_equal(pdt_session_new(s, settings, DIM, room, NULL), 0);
  assert_int_equal(pdt_session_plan(s, ids, note, NULL), 0);
  assert_int_equal(pdt_session_plan(s, ids, note, NULL), -1); /* once */
}

/* Three replicas go the same way: two with all room, one that grows. */
static void replicas_stay_equal(void **state) {
  (void)state;
  numbers r = {71};
  int64_t rounds = 0, complete = 0;
  for (int walk = 0; walk < 400; walk++) {
    pdt_settings settings = random_settings(&r);
    pdt_session a, b, grown;
    round_of x;
    int64_t committed[3], sum = 0;
    begin(&a, &settings, PDT_ROOM_FOR_ALL);
    begin(&b, &settings, PDT_ROOM_FOR_ALL);
    begin(&grown, &settings, PDT_ROOM_AS_NEEDED);
    int32_t capacity = a.bus.capacity;
    while (!pdt_session_over(&a)) {
      pdt_error err = {0};
      draw(&r, &a, &x);
      if (pdt_session_apply(&a, &x.decision, &committed[0], &err) ||
          pdt_session_reserve(&grown, &x.decision, &err) ||
          pdt_session_apply(&grown, &x.decision, &committed[1], &err))
        fail_msg("walk %d: %s", walk, err.message);
      assert_false(pdt_session_equal(&a, &b));
      assert_int_equal(pdt_session_apply(&b, &x.decision, &committed[2], NULL), 0);
      assert_true(pdt_session_equal(&a, &b) && pdt_session_equal(&a, &grown));
      assert_true(pdt_session_is_valid(&a) && pdt_session_is_valid(&grown));
      assert_int_equal(pdt_session_hash(&a), pdt_session_hash(&grown));
      assert_true(committed[0] == committed[1] && committed[1] == committed[2]);
      sum += committed[0];
      rounds++;
    }
    assert_int_equal(a.bus.capacity, capacity); /* what was made at the beginning was enough */
    for (pdt_stream k = 0; k < settings.streams; k++) sum -= a.streams[k].n_committed;
    assert_int_equal(sum, 0);
    complete += pdt_session_complete(&a);
    pdt_session_free(&a);
    pdt_session_free(&b);
    pdt_session_free(&grown);
  }
  assert_true(rounds > 1500 && complete > 100);
}

/* Streams whose part of the plan is empty are done before the first round, and stay so; where it is
 * empty for all of them, all write. */
static void streams_follow_the_plan(void **state) {
  (void)state;
  enum { PLAN = 5 };
  static const struct {
    int32_t part, ids[PLAN];
    const char *writes; /* a letter a stream: y or n */
  } cases[] = {
      {0, {1, 0, 0, 0, 0}, "yyyy"}, {1, {1, 0, 0, 4, 0}, "ynny"}, {2, {0, 7, 0, 0, 3}, "ynyn"},
      {2, {0, 0, 2, 2, 0}, "nynn"}, {3, {0, 0, 0, 0, 1}, "nynn"}, {9, {0, 0, 0, 0, 1}, "ynnn"},
      {1, {0, 0, 0, 0, 0}, "yyyy"}, {1, {0, 0, 0, 0, 8}, "yyyy"}, /* a part of no stream */
  };
  numbers r = {74};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pdt_settings settings = random_settings(&r);
    pdt_session s;
    settings.streams = 4;
    settings.max_rounds = 30;
    settings.limits.slots = PLAN;
    settings.part_slots = cases[i].part;
    assert_int_equal(pdt_session_new(&s, &settings, DIM, PDT_ROOM_FOR_ALL, NULL), 0);
    assert_int_equal(pdt_session_plan(&s, cases[i].ids, (const float[DIM]){0}, NULL), 0);
    for (pdt_stream k = 0; k < 4; k++)
      assert_int_equal(pdt_stream_active(&s.streams[k]), cases[i].writes[k] == 'y');
    s.settings.limits.slots = SLOTS; /* of what `draw` makes */
    while (!pdt_session_over(&s)) {
      round_of x;
      int64_t committed;
      draw(&r, &s, &x);
      assert_int_equal(pdt_session_apply(&s, &x.decision, &committed, NULL), 0);
    }
    for (pdt_stream k = 0; k < 4; k++)
      if (cases[i].writes[k] == 'n') assert_true(s.streams[k].done && s.streams[k].n_tokens == 0);
    s.settings.limits.slots = PLAN;
    pdt_session_free(&s);
  }
}

/* One thing is changed in a sound decision: it is refused, and the session is as it was. */
static void what_cannot_be_changes_nothing(void **state) {
  (void)state;
  numbers r = {72};
  for (int trial = 0; trial < 600; trial++) {
    pdt_settings settings = random_settings(&r);
    pdt_session s, before;
    round_of x;
    int64_t committed;
    begin(&s, &settings, PDT_ROOM_FOR_ALL);
    begin(&before, &settings, PDT_ROOM_FOR_ALL);
    for (int32_t n = numbers_int(&r, 0, 3); n > 0 && !pdt_session_over(&s); n--) {
      draw(&r, &s, &x);
      assert_int_equal(pdt_session_apply(&s, &x.decision, &committed, NULL), 0);
      assert_int_equal(pdt_session_apply(&before, &x.decision, &committed, NULL), 0);
    }
    if (!pdt_session_over(&s)) draw(&r, &s, &x);
    if (!pdt_session_over(&s) && x.decision.n_blocks > 0) {
      pdt_block_verdict *v = &x.blocks[numbers_int(&r, 0, x.decision.n_blocks - 1)];
      pdt_error err = {0};
      switch (trial % 7) {
      case 0:
        x.decision.round++;
        break;
      case 1:
        x.decision.gate = !x.decision.gate;
        break;
      case 2:
        x.decision.n_blocks--;
        break;
      case 3:
        v->attempt++;
        break;
      case 4:
        v->n_tokens = 0;
        break;
      case 5:
        v->stream += v->stream == 0 ? settings.streams : -1;
        break;
      default:
        v->action = v->action == PDT_ACTION_COMMIT ? PDT_ACTION_HOLD : PDT_ACTION_COMMIT;
      }
      assert_int_equal(pdt_session_apply(&s, &x.decision, &committed, &err), -1);
      assert_int_equal(err.code, PDT_ERROR_RUNTIME);
      assert_true(err.message[0] != '\0' && committed == 0);
      assert_true(pdt_session_equal(&s, &before));
    }
    pdt_session_free(&s);
    pdt_session_free(&before);
  }
}

/* Changes one number of a session of which `other` is a replica; it must be seen, and is mended. */
static void expect_seen(const pdt_session *s, const pdt_session *other, int32_t *number,
                        int32_t value, bool valid) {
  int32_t was = *number;
  *number = value;
  if (pdt_session_is_valid(s) != valid)
    fail_msg("%d in place of %d: expected %s", value, was, valid ? "valid" : "broken");
  assert_false(pdt_session_equal(s, other));
  assert_int_not_equal(pdt_session_hash(s), pdt_session_hash(other));
  *number = was;
  assert_true(pdt_session_is_valid(s));
}

/* Two streams: one holds a block, the other's is forced. */
static void begin_with_blocks(pdt_session *s) {
  const pdt_settings settings = {.streams = 2,
                                 .reveal_delay = 1,
                                 .window = 9,
                                 .max_attempts = 1,
                                 .max_rounds = 9,
                                 .gamma = 0.5,
                                 .limits = {.block_tokens = 2,
                                            .horizon = 8,
                                            .max_tokens = 8,
                                            .slots = SLOTS,
                                            .policy = PDT_SELECTIVE}};
  static const pdt_token tokens[2] = {7, 8};
  static const float coverage[SLOTS] = {1, 2};
  pdt_block_verdict blocks[2] = {{.stream = 0, .readiness = 0.9F, .action = PDT_ACTION_HOLD},
                                 {.stream = 1, .readiness = 0.1F, .action = PDT_ACTION_FORCE}};
  for (int i = 0; i < 2; i++) {
    blocks[i].tokens = tokens;
    blocks[i].n_tokens = 2;
    blocks[i].coverage = coverage;
  }
  int64_t committed;
  pdt_error err = {0};
  begin(s, &settings, PDT_ROOM_FOR_ALL);
  for (pdt_round v = 1; v <= 2; v++) {
    const pdt_session_decision decision = {v, false, blocks, 2};
    if (pdt_session_apply(s, &decision, &committed, &err)) fail_msg("%s", err.message);
  }
}

static void invariants(void **state) {
  (void)state;
  pdt_session s, other;
  begin_with_blocks(&s);
  begin_with_blocks(&other);
  assert_true(pdt_session_is_valid(&s) && pdt_session_equal(&s, &other));
  assert_int_equal(pdt_session_hash(&s), pdt_session_hash(&other));
  pdt_stream_state *held = &s.streams[0], *forced = &s.streams[1];
  assert_true(held->n_pending == 2 && forced->n_forced == 2 && s.bus.count == 5);
  expect_seen(&s, &other, &s.round, 4, true);  /* another one, but a possible one */
  expect_seen(&s, &other, &s.round, 2, false); /* notes of the future */
  expect_seen(&s, &other, &s.plan_ids[1], 5, true);
  expect_seen(&s, &other, &held->tokens[3], 5, true);
  expect_seen(&s, &other, &held->n_tokens, 3, false);
  expect_seen(&s, &other, &held->n_committed, 2, false);
  expect_seen(&s, &other, &held->n_pending, 1, false);
  expect_seen(&s, &other, &held->pending[0].tokens, 3, false);
  expect_seen(&s, &other, &held->pending[1].round, 1, false);
  expect_seen(&s, &other, &held->pending[1].round, 3, false); /* without its note */
  expect_seen(&s, &other, &held->attempt, 1, true);
  expect_seen(&s, &other, &held->attempt, -1, false);
  expect_seen(&s, &other, &held->index, 1, false);
  expect_seen(&s, &other, &forced->forced[1], 1, false);
  expect_seen(&s, &other, &forced->n_forced, 1, true);
  expect_seen(&s, &other, &s.bus.notes[4].name.stream, 2, false); /* there is none */
  held->done = true;
  assert_false(pdt_session_is_valid(&s));
  held->done = false;
  forced->stalled = true;
  assert_false(pdt_session_is_valid(&s));
  pdt_session_free(&s);
  pdt_session_free(&other);
}

/* Eq. 4 against its own words, over random sets of names. */
static void windows_are_those_of_the_paper(void **state) {
  (void)state;
  enum { MOST = 40 };
  numbers r = {73};
  for (int trial = 0; trial < 2000; trial++) {
    pdt_note_name names[MOST], expected[MOST];
    int32_t n = 0, m = 0, window[MOST];
    if (numbers_int(&r, 0, 3) > 0) names[n++] = (pdt_note_name){0, PDT_PLANNER};
    for (pdt_round v = 1; v < 8; v++)
      for (pdt_stream k = 0; k < 4; k++)
        if (numbers_int(&r, 0, 1)) names[n++] = (pdt_note_name){v, k};
    const pdt_window_rule rule = {numbers_int(&r, 1, 4), numbers_int(&r, 0, 20)};
    pdt_round round = numbers_int(&r, 1, 9);
    for (int32_t i = 0; i < n; i++) /* the plan's note, */
      if (names[i].stream == PDT_PLANNER) expected[m++] = names[i];
    for (pdt_round v = round - rule.delay; v >= 1; v--) /* newest round first, streams ascending */
      for (int32_t i = 0; i < n; i++)
        if (names[i].stream != PDT_PLANNER && names[i].round == v) expected[m++] = names[i];
    if (m > rule.budget) m = rule.budget;
    const pdt_note_names view = {names, sizeof *names, n};
    assert_int_equal(pdt_window_notes(view, round, rule, window), m);
    for (int32_t i = 0; i < m; i++) {
      assert_int_equal(pdt_note_order(names[window[i]], expected[i]), 0);
      assert_true(i == 0 || pdt_note_order(names[window[i - 1]], names[window[i]]) < 0);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(replicas_stay_equal),
      cmocka_unit_test(streams_follow_the_plan),
      cmocka_unit_test(what_cannot_be_changes_nothing),
      cmocka_unit_test(invariants),
      cmocka_unit_test(windows_are_those_of_the_paper),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
