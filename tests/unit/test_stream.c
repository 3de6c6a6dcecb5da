/* One stream's state machine: each rule by hand, random walks against a model that keeps lists of
 * blocks, and whole sessions against the oracle: streams, bus, decisions and merge together. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "numbers.h"
#include "oracle_cases.h"
#include "protocol/bus.h"
#include "protocol/merge.h"
#include "protocol/stream.h"

enum { SLOTS = 2, MOST_TOKENS = 64, MOST_STREAMS = 8, MOST_ROUNDS = 64, DIM = 3 };

static const pdt_stream_limits usual = {
    .block_tokens = 3, .horizon = 6, .max_tokens = 10, .slots = SLOTS, .policy = PDT_SELECTIVE};

static void new_stream(pdt_stream_state *s, const pdt_stream_limits *limits) {
  assert_int_equal(pdt_stream_new(s, 4, limits, INT32_MAX, NULL), 0);
  assert_true(pdt_stream_active(s));
  assert_int_equal(pdt_stream_room(s, limits), limits->max_tokens < limits->block_tokens
                                                   ? limits->max_tokens
                                                   : limits->block_tokens);
  for (int32_t i = 0; i < limits->slots; i++) assert_true(s->best_coverage[i] == -INFINITY);
}

/* Applies a block of the tokens first, first+1 ..; coverage is `first` in slot 0, -first in 1. */
static pdt_round apply(pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                       bool gate, pdt_action action, pdt_token first, int32_t n, bool ended) {
  pdt_token tokens[MOST_TOKENS];
  const float coverage[SLOTS] = {(float)first, (float)-first};
  for (int32_t i = 0; i < n; i++) tokens[i] = first + i;
  const pdt_block_verdict v = {
      .action = action, .tokens = tokens, .n_tokens = n, .ended = ended, .coverage = coverage};
  pdt_round withdraw_from = -1;
  pdt_error err = {0};
  if (pdt_stream_apply(s, limits, round, gate, &v, &withdraw_from, &err))
    fail_msg("%s", err.message);
  return withdraw_from;
}

static void expect_tokens(const pdt_stream_state *s, int32_t committed, int32_t n,
                          const pdt_token *tokens) {
  assert_int_equal(s->n_committed, committed);
  assert_int_equal(s->n_tokens, n);
  assert_memory_equal(s->tokens, tokens, (size_t)n * sizeof *tokens);
}

static void commits_to_the_token_limit(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  const pdt_token all[] = {10, 11, 12, 20, 21, 22, 30, 31, 32, 40};
  for (pdt_round r = 1; r <= 3; r++) {
    assert_int_equal(apply(&s, &usual, r, true, PDT_ACTION_COMMIT, 10 * r, 3, false), 0);
    expect_tokens(&s, 3 * r, 3 * r, all);
    assert_true(pdt_stream_active(&s));
  }
  assert_int_equal(pdt_stream_room(&s, &usual), 1); /* the last block is shorter */
  apply(&s, &usual, 4, true, PDT_ACTION_COMMIT, 40, 1, false);
  expect_tokens(&s, 10, 10, all);
  assert_true(s.done && !s.stalled && !pdt_stream_active(&s));
  assert_int_equal(pdt_stream_room(&s, &usual), 0);
  assert_true(s.best_coverage[0] == 40 && s.best_coverage[1] == -10);
  pdt_stream_free(&s);
}

static void holds_up_to_the_horizon(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  const pdt_token all[] = {10, 11, 12, 20, 21, 22};
  apply(&s, &usual, 1, false, PDT_ACTION_HOLD, 10, 3, false); /* 3 + 3 <= 6 */
  assert_true(pdt_stream_active(&s) && !s.stalled);
  apply(&s, &usual, 2, false, PDT_ACTION_HOLD, 20, 3, false); /* 6 + 3 > 6 */
  assert_true(s.stalled && !s.done && !pdt_stream_active(&s));
  expect_tokens(&s, 0, 6, all);
  assert_true(s.best_coverage[0] == -INFINITY);              /* what is held covers nothing yet */
  apply(&s, &usual, 3, false, PDT_ACTION_NONE, 0, 0, false); /* still waiting */
  assert_true(s.stalled && s.n_pending == 2);
  apply(&s, &usual, 4, true, PDT_ACTION_NONE, 0, 0, false); /* the others passed the gate */
  expect_tokens(&s, 6, 6, all);
  assert_true(pdt_stream_active(&s) && s.n_pending == 0);
  assert_true(s.best_coverage[0] == 20 && s.best_coverage[1] == -10);
  pdt_stream_free(&s);
}

static void rolls_back_to_the_commit_point(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  const pdt_token all[] = {10, 11, 12, 20, 21, 22};
  apply(&s, &usual, 1, true, PDT_ACTION_COMMIT, 10, 3, false);
  apply(&s, &usual, 2, false, PDT_ACTION_HOLD, 50, 3, false);
  assert_int_equal(apply(&s, &usual, 3, false, PDT_ACTION_ROLLBACK, 60, 3, true), 2);
  expect_tokens(&s, 3, 3, all);
  assert_int_equal(s.attempt, 1);
  assert_true(pdt_stream_active(&s) && !s.ended);
  /* With nothing pending there is no note to take back. */
  assert_int_equal(apply(&s, &usual, 4, false, PDT_ACTION_ROLLBACK, 70, 3, false), 0);
  assert_int_equal(s.attempt, 2);
  apply(&s, &usual, 5, false, PDT_ACTION_HOLD, 20, 3, false);
  assert_int_equal(s.attempt, 2); /* holding is no new start */
  apply(&s, &usual, 6, true, PDT_ACTION_NONE, 0, 0, false);
  expect_tokens(&s, 6, 6, all);
  assert_int_equal(s.attempt, 0);
  assert_true(s.best_coverage[0] == 20); /* not 50: what was dropped covers nothing */
  pdt_stream_free(&s);
}

static void force_commits_one_stream(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  const pdt_token all[] = {10, 11, 12, 20, 21, 22, 30};
  apply(&s, &usual, 1, false, PDT_ACTION_HOLD, 10, 3, false);
  assert_int_equal(apply(&s, &usual, 2, false, PDT_ACTION_FORCE, 20, 3, false), 0);
  expect_tokens(&s, 6, 6, all);
  assert_true(s.n_forced == 1 && s.forced[0] == 2 && s.n_pending == 0 && s.attempt == 0);
  apply(&s, &usual, 3, false, PDT_ACTION_FORCE, 30, 1, true);
  expect_tokens(&s, 7, 7, all);
  assert_true(s.n_forced == 2 && s.forced[1] == 3 && s.done);
  pdt_stream_free(&s);
}

static void the_end_waits_for_its_commit(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  apply(&s, &usual, 1, false, PDT_ACTION_HOLD, 10, 2, true);
  assert_true(s.ended && s.stalled && !s.done);
  apply(&s, &usual, 2, false, PDT_ACTION_NONE, 0, 0, false);
  assert_true(s.stalled && !s.done);
  apply(&s, &usual, 3, true, PDT_ACTION_NONE, 0, 0, false);
  assert_true(!s.stalled && s.done);
  apply(&s, &usual, 4, true, PDT_ACTION_NONE, 0, 0, false); /* stays done */
  assert_true(s.done && s.n_committed == 2);
  pdt_stream_free(&s);
}

static void a_stalling_policy_waits_with_anything(void **state) {
  (void)state;
  pdt_stream_limits limits = usual;
  limits.policy = PDT_STALL;
  pdt_stream_state s;
  new_stream(&s, &limits);
  apply(&s, &limits, 1, false, PDT_ACTION_HOLD, 10, 3, false);
  assert_true(s.stalled);
  apply(&s, &limits, 2, true, PDT_ACTION_NONE, 0, 0, false);
  assert_true(pdt_stream_active(&s));
  pdt_stream_free(&s);
  new_stream(&s, &limits);
  apply(&s, &limits, 1, false, PDT_ACTION_ROLLBACK, 10, 3, false);
  assert_true(pdt_stream_active(&s)); /* nothing pending: it goes on */
  pdt_stream_free(&s);
}

static void refuse(pdt_stream_state *s, pdt_action action, int32_t n, bool ended,
                   const char *part) {
  const pdt_token tokens[MOST_TOKENS] = {0};
  const float coverage[SLOTS] = {0};
  const pdt_block_verdict v = {
      .action = action, .tokens = tokens, .n_tokens = n, .ended = ended, .coverage = coverage};
  pdt_round withdraw_from;
  pdt_error err = {0};
  pdt_stream_state before = *s;
  assert_int_equal(pdt_stream_apply(s, &usual, 9, false, &v, &withdraw_from, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_RUNTIME);
  if (!strstr(err.message, part)) fail_msg("'%s' is not in: %s", part, err.message);
  assert_memory_equal(&before, s, sizeof before);
}

static void refuses_what_cannot_be(void **state) {
  (void)state;
  pdt_stream_state s;
  new_stream(&s, &usual);
  refuse(&s, PDT_ACTION_COMMIT, 4, false, "stream 4, round 9: a block of 4 tokens");
  refuse(&s, PDT_ACTION_COMMIT, 4, true, "expected 1 to 3");
  refuse(&s, PDT_ACTION_COMMIT, 0, true, "a block of 0 tokens");
  refuse(&s, PDT_ACTION_FORCE, -1, false, "a block of -1 tokens");
  refuse(&s, PDT_ACTION_HOLD, 2, false, "expected 3"); /* short, and not ended */
  refuse(&s, PDT_ACTION_ROLLBACK, 2, false, "expected 3");
  for (pdt_round r = 1; r <= 3; r++) apply(&s, &usual, r, true, PDT_ACTION_COMMIT, 1, 3, false);
  refuse(&s, PDT_ACTION_COMMIT, 3, false, "expected 1");
  apply(&s, &usual, 4, false, PDT_ACTION_HOLD, 1, 1, false);
  refuse(&s, PDT_ACTION_COMMIT, 1, true, "waiting");
  refuse(&s, PDT_ACTION_ROLLBACK, 1, true, "waiting");
  apply(&s, &usual, 5, true, PDT_ACTION_NONE, 0, 0, false);
  refuse(&s, PDT_ACTION_FORCE, 1, true, "done");
  pdt_stream_free(&s);
}

/* The same as the oracle keeps it: lists of blocks, the rest worked out from them each time. */
typedef struct model_block {
  pdt_round round;
  int32_t n;
  pdt_token tokens[MOST_TOKENS];
  float coverage[SLOTS];
} model_block;

typedef struct model {
  model_block committed[MOST_TOKENS], pending[MOST_TOKENS];
  int32_t n_committed, n_pending, attempt, n_forced;
  pdt_round forced[MOST_TOKENS];
} model;

static int32_t count_tokens(const model_block *blocks, int32_t n) {
  int32_t tokens = 0;
  for (int32_t i = 0; i < n; i++) tokens += blocks[i].n;
  return tokens;
}

static void model_apply(model *m, pdt_round round, bool gate, pdt_action action,
                        const model_block *block) {
  if (action == PDT_ACTION_ROLLBACK) {
    m->n_pending = 0;
    m->attempt++;
  } else if (action != PDT_ACTION_NONE) {
    m->pending[m->n_pending++] = *block;
  }
  if (action == PDT_ACTION_FORCE) m->forced[m->n_forced++] = round;
  bool all = gate || action == PDT_ACTION_COMMIT || action == PDT_ACTION_FORCE;
  if (m->n_pending == 0 || !all) return;
  for (int32_t i = 0; i < m->n_pending; i++) m->committed[m->n_committed++] = m->pending[i];
  m->n_pending = 0;
  m->attempt = 0;
}

/* Token 0 ends a sequence. */
static bool model_complete(const model *m, const pdt_stream_limits *limits) {
  const model_block *last = m->n_pending     ? &m->pending[m->n_pending - 1]
                            : m->n_committed ? &m->committed[m->n_committed - 1]
                                             : NULL;
  int32_t tokens =
      count_tokens(m->committed, m->n_committed) + count_tokens(m->pending, m->n_pending);
  return last && (last->tokens[last->n - 1] == 0 || tokens >= limits->max_tokens);
}

static bool model_waits(const model *m, const pdt_stream_limits *limits) {
  int32_t held = count_tokens(m->pending, m->n_pending);
  return m->n_pending > 0 && (model_complete(m, limits) || limits->policy == PDT_STALL ||
                              held + limits->block_tokens > limits->horizon);
}

static void compare(const pdt_stream_state *s, const model *m, const pdt_stream_limits *limits) {
  float best[SLOTS] = {-INFINITY, -INFINITY};
  int32_t at = 0;
  for (int32_t i = 0; i < m->n_committed + m->n_pending; i++) {
    bool is_committed = i < m->n_committed;
    const model_block *b = is_committed ? &m->committed[i] : &m->pending[i - m->n_committed];
    for (int32_t j = 0; j < b->n; j++) assert_int_equal(s->tokens[at++], b->tokens[j]);
    for (int32_t j = 0; j < SLOTS && is_committed; j++) best[j] = fmaxf(best[j], b->coverage[j]);
    if (i + 1 == m->n_committed) assert_int_equal(s->n_committed, at);
    if (!is_committed) assert_int_equal(s->pending[i - m->n_committed].round, b->round);
  }
  assert_int_equal(s->n_tokens, at);
  assert_int_equal(s->n_pending, m->n_pending);
  assert_int_equal(s->attempt, m->attempt);
  assert_memory_equal(s->best_coverage, best, sizeof best);
  assert_int_equal(s->n_forced, m->n_forced);
  assert_memory_equal(s->forced, m->forced, (size_t)m->n_forced * sizeof *m->forced);
  assert_int_equal(s->stalled, model_waits(m, limits));
  assert_int_equal(s->done, model_complete(m, limits) && m->n_pending == 0);
}

static model_block random_block(numbers *r, pdt_round round, int32_t room) {
  model_block b = {.round = round};
  while (b.n < room) {
    b.tokens[b.n++] = numbers_int(r, 0, 15);
    if (b.tokens[b.n - 1] == 0) break;
  }
  for (int i = 0; i < SLOTS; i++) b.coverage[i] = (float)numbers_int(r, -9, 9) / 4;
  return b;
}

static void random_walk(numbers *r, int seen[5]) {
  const pdt_stream_limits limits = {.block_tokens = numbers_int(r, 1, 5),
                                    .horizon = numbers_int(r, 1, 15),
                                    .max_tokens = numbers_int(r, 1, 30),
                                    .slots = SLOTS,
                                    .policy = (pdt_policy)numbers_int(r, 0, PDT_POLICIES - 1)};
  pdt_stream_state s;
  model m = {0};
  new_stream(&s, &limits);
  for (pdt_round round = 1; round < 40 && !s.done; round++) {
    bool gate = numbers_int(r, 0, 2) == 0;
    pdt_action action = gate ? PDT_ACTION_COMMIT : (pdt_action)numbers_int(r, 2, 4);
    if (limits.policy == PDT_LOCAL && action == PDT_ACTION_HOLD) action = PDT_ACTION_COMMIT;
    if (!pdt_stream_active(&s)) action = PDT_ACTION_NONE;
    seen[action]++;
    model_block block = random_block(r, round, pdt_stream_room(&s, &limits));
    if (action == PDT_ACTION_NONE) block.n = 0;
    const pdt_block_verdict v = {0,
                                 0,
                                 0,
                                 action,
                                 block.tokens,
                                 block.n,
                                 block.n > 0 && block.tokens[block.n - 1] == 0,
                                 block.coverage};
    pdt_round expected = action == PDT_ACTION_ROLLBACK && m.n_pending ? m.pending[0].round : 0;
    pdt_round withdraw_from;
    pdt_error err = {0};
    if (pdt_stream_apply(&s, &limits, round, gate, &v, &withdraw_from, &err))
      fail_msg("%s", err.message);
    assert_int_equal(withdraw_from, expected);
    model_apply(&m, round, gate, action, &block);
    compare(&s, &m, &limits);
  }
  pdt_stream_free(&s);
}

static void random_walks(void **state) {
  (void)state;
  numbers r = {31};
  int seen[5] = {0};
  for (int trial = 0; trial < 20000; trial++) random_walk(&r, seen);
  for (int a = 0; a < 5; a++) assert_true(seen[a] > 5000);
}

/* A session of the oracle, told again by the runtime's parts. */
typedef struct replay {
  pdt_stream_limits limits;
  int32_t K, budget, max_attempts, slots;
  double gamma;
  pdt_bus bus;
  pdt_stream_state streams[MOST_STREAMS];
  float notes[MOST_ROUNDS + 1][MOST_STREAMS][DIM]; /* by round and stream */
  pdt_round arrived;                               /* notes are in the bus up to this round */
} replay;

static const json_t *at(const json_t *array, int32_t i) {
  const json_t *value = json_array_get(array, (size_t)i);
  assert_non_null(value);
  return value;
}

static int32_t int_at(const json_t *array, int32_t i) {
  return (int32_t)json_integer_value(at(array, i));
}

static int32_t size_of(const json_t *array) {
  return (int32_t)json_array_size(array);
}

static void floats(const json_t *array, float *out, int32_t n) {
  assert_int_equal(size_of(array), n);
  for (int32_t i = 0; i < n; i++) out[i] = (float)json_number_value(at(array, i));
}

static void replay_new(replay *p, const json_t *settings, const json_t *trace) {
  float note[DIM];
  *p = (replay){.K = (int32_t)oracle_int(settings, "streams"),
                .budget = (int32_t)oracle_int(settings, "window"),
                .max_attempts = (int32_t)oracle_int(settings, "max_attempts"),
                .slots = size_of(json_object_get(trace, "plan_ids")),
                .gamma = oracle_real(settings, "gamma"),
                .limits = {.block_tokens = (int32_t)oracle_int(settings, "block_tokens"),
                           .horizon = (int32_t)oracle_int(settings, "horizon"),
                           .max_tokens = (int32_t)oracle_int(settings, "max_tokens")}};
  p->limits.slots = p->slots;
  assert_true(pdt_policy_parse(oracle_string(settings, "policy"), &p->limits.policy));
  int32_t blocks = (p->limits.max_tokens + p->limits.block_tokens - 1) / p->limits.block_tokens;
  assert_in_range(p->K, 1, MOST_STREAMS);
  const pdt_window_rule rule = {(int32_t)oracle_int(settings, "reveal_delay"), p->budget};
  assert_int_equal(pdt_bus_new(&p->bus, DIM, rule, 1 + p->K * blocks, NULL), 0);
  for (pdt_stream k = 0; k < p->K; k++)
    assert_int_equal(pdt_stream_new(&p->streams[k], k, &p->limits, INT32_MAX, NULL), 0);
  const json_t *first = json_object_get(at(json_object_get(trace, "rounds"), 0), "streams");
  for (pdt_stream k = 0; k < p->K; k++) { /* those that the plan has nothing for */
    p->streams[k].done = true;
    for (int32_t i = 0; i < size_of(first); i++)
      if (oracle_int(at(first, i), "stream") == k) p->streams[k].done = false;
  }
  floats(json_object_get(trace, "plan_note"), note, DIM);
  assert_int_equal(pdt_bus_publish(&p->bus, 0, PDT_PLANNER, NULL), 0);
  assert_true(pdt_bus_fill(&p->bus, 0, PDT_PLANNER, note));
}

static void replay_free(replay *p) {
  for (pdt_stream k = 0; k < p->K; k++) pdt_stream_free(&p->streams[k]);
  pdt_bus_free(&p->bus);
}

/* Notes arrive as late as they may: when a window is about to show them. */
static void deliver(replay *p, pdt_round round) {
  for (; p->arrived < round - p->bus.rule.delay; p->arrived++)
    for (pdt_stream k = 0; k < p->K; k++)
      pdt_bus_fill(&p->bus, p->arrived + 1, k, p->notes[p->arrived + 1][k]);
}

static void check_window(replay *p, pdt_round round, const json_t *expected) {
  int32_t window[16];
  deliver(p, round);
  int32_t n = pdt_bus_window(&p->bus, round, window);
  assert_int_equal(n, size_of(expected));
  for (int32_t i = 0; i < n; i++) {
    const pdt_note *note = &p->bus.notes[window[i]];
    assert_int_equal(note->name.round, int_at(at(expected, i), 0));
    assert_int_equal(note->name.stream, int_at(at(expected, i), 1));
    assert_true(note->filled);
    if (note->name.stream != PDT_PLANNER)
      assert_memory_equal(note->vector, p->notes[note->name.round][note->name.stream],
                          sizeof p->notes[0][0]);
  }
}

/* What the oracle's streams emitted must be what these would be asked for. */
static int32_t read_votes(replay *p, const json_t *record, pdt_vote *votes) {
  const json_t *blocks = json_object_get(record, "streams");
  int32_t n = 0;
  pdt_round round = (pdt_round)oracle_int(record, "round");
  assert_in_range(round, 1, MOST_ROUNDS);
  for (pdt_stream k = 0; k < p->K; k++) {
    if (!pdt_stream_active(&p->streams[k])) continue;
    const json_t *b = at(blocks, n);
    assert_int_equal(oracle_int(b, "stream"), k);
    assert_int_equal(oracle_int(b, "attempt"), p->streams[k].attempt);
    floats(json_object_get(b, "note"), p->notes[round][k], DIM);
    votes[n++] = (pdt_vote){k, p->streams[k].attempt, (float)oracle_real(b, "readiness")};
  }
  assert_int_equal(n, size_of(blocks));
  return n;
}

static void apply_block(replay *p, pdt_stream k, pdt_round round, bool gate, pdt_action action,
                        const json_t *block) {
  pdt_token tokens[MOST_TOKENS];
  float coverage[16];
  pdt_block_verdict v = {.action = action, .tokens = tokens, .coverage = coverage};
  if (action != PDT_ACTION_NONE) {
    const json_t *list = json_object_get(block, "tokens");
    v.n_tokens = size_of(list);
    for (int32_t i = 0; i < v.n_tokens; i++) tokens[i] = int_at(list, i);
    v.ended = tokens[v.n_tokens - 1] == 0;
    floats(json_object_get(block, "coverage"), coverage, p->slots);
  }
  pdt_round withdraw_from;
  pdt_error err = {0};
  if (pdt_stream_apply(&p->streams[k], &p->limits, round, gate, &v, &withdraw_from, &err))
    fail_msg("%s", err.message);
  if (withdraw_from) pdt_bus_withdraw(&p->bus, k, withdraw_from);
  if (action != PDT_ACTION_NONE && action != PDT_ACTION_ROLLBACK)
    assert_int_equal(pdt_bus_publish(&p->bus, round, k, NULL), 0);
}

static void replay_round(replay *p, const json_t *record) {
  pdt_vote votes[MOST_STREAMS];
  pdt_action actions[MOST_STREAMS];
  pdt_round round = (pdt_round)oracle_int(record, "round");
  const json_t *blocks = json_object_get(record, "streams");
  const json_t *stalled = json_object_get(record, "stalled_next");
  check_window(p, round, json_object_get(record, "window"));
  int32_t n = read_votes(p, record, votes), next = 0, waiting = 0;
  bool gate = pdt_decide(votes, n, p->gamma, p->limits.policy, p->max_attempts, actions);
  assert_int_equal(gate, json_is_true(json_object_get(record, "gate")));
  for (pdt_stream k = 0; k < p->K; k++) {
    bool spoke = next < n && votes[next].stream == k;
    apply_block(p, k, round, gate, spoke ? actions[next] : PDT_ACTION_NONE,
                spoke ? at(blocks, next) : NULL);
    if (spoke) {
      char name[16];
      snprintf(name, sizeof name, "%d", k);
      assert_string_equal(oracle_string(json_object_get(record, "actions"), name),
                          pdt_action_name(actions[next++]));
    }
    assert_int_equal(p->streams[k].n_committed, int_at(json_object_get(record, "committed"), k));
    if (p->streams[k].stalled) assert_int_equal(int_at(stalled, waiting++), k);
  }
  assert_int_equal(waiting, size_of(stalled));
}

static void check_stream(const pdt_stream_state *s, const json_t *expected) {
  const json_t *tokens = json_object_get(expected, "tokens");
  const json_t *rest = json_object_get(expected, "uncommitted");
  const json_t *forced = json_object_get(expected, "forced_rounds");
  assert_int_equal(s->n_committed, size_of(tokens));
  assert_int_equal(s->n_tokens, size_of(tokens) + size_of(rest));
  for (int32_t i = 0; i < s->n_tokens; i++)
    assert_int_equal(s->tokens[i],
                     i < s->n_committed ? int_at(tokens, i) : int_at(rest, i - s->n_committed));
  assert_int_equal(s->done, json_is_true(json_object_get(expected, "done")));
  assert_int_equal(s->n_forced, size_of(forced));
  for (int32_t i = 0; i < s->n_forced; i++) assert_int_equal(s->forced[i], int_at(forced, i));
}

static void check_end(const replay *p, const json_t *trace) {
  int32_t plan_ids[16];
  pdt_stream owner[16], order[MOST_STREAMS];
  for (pdt_stream k = 0; k < p->K; k++)
    check_stream(&p->streams[k], at(json_object_get(trace, "streams"), k));
  for (int32_t i = 0; i < p->slots; i++)
    plan_ids[i] = int_at(json_object_get(trace, "plan_ids"), i);
  pdt_merge(p->streams, p->K, plan_ids, p->slots, false, owner, order);
  for (int32_t i = 0; i < p->slots; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d", i);
    const json_t *expected = json_object_get(json_object_get(trace, "slot_owner"), name);
    assert_int_equal(owner[i], expected ? json_integer_value(expected) : -1);
  }
  for (pdt_stream k = 0; k < p->K; k++)
    assert_int_equal(order[k], int_at(json_object_get(trace, "merge_order"), k));
}

static void sessions_as_the_oracle(void **state) {
  (void)state;
  FILE *cases = oracle_open("session", 2000, 32);
  if (!cases) skip();
  int n = 0, rounds = 0;
  for (json_t *c; (c = oracle_next(cases)); json_decref(c), n++) {
    replay p;
    const json_t *trace = json_object_get(c, "trace"), *records = json_object_get(trace, "rounds");
    replay_new(&p, json_object_get(c, "settings"), trace);
    for (int32_t i = 0; i < size_of(records); i++, rounds++) replay_round(&p, at(records, i));
    check_end(&p, trace);
    replay_free(&p);
  }
  oracle_close(cases);
  assert_int_equal(n, 2000);
  assert_true(rounds > 5000);
  print_message("%d sessions, %d rounds\n", n, rounds);
}

/* Room goes by what can be, not by what limits allow; and no block is written past it. */
static void room_for_what_can_be(void **state) {
  (void)state;
  pdt_stream_limits limits = {.block_tokens = 4,
                              .horizon = 1 << 24,
                              .max_tokens = 1 << 24,
                              .slots = 1,
                              .policy = PDT_SELECTIVE};
  pdt_stream_state s;
  assert_int_equal(pdt_stream_new(&s, 0, &limits, 2, NULL), 0);
  assert_int_equal(s.max_tokens, 8);
  assert_int_equal(s.max_blocks, 2);
  assert_int_equal(s.max_pending, 2);
  const pdt_token tokens[4] = {1, 2, 3, 4};
  const float coverage[1] = {0};
  const pdt_block_verdict hold = {
      .action = PDT_ACTION_HOLD, .tokens = tokens, .n_tokens = 4, .coverage = coverage};
  pdt_round withdraw;
  pdt_error err = {0};
  for (pdt_round round = 1; round <= 2; round++)
    assert_int_equal(pdt_stream_apply(&s, &limits, round, false, &hold, &withdraw, NULL), 0);
  assert_int_equal(pdt_stream_apply(&s, &limits, 3, false, &hold, &withdraw, &err), -1);
  assert_non_null(strstr(err.message, "after the last round"));
  pdt_stream_free(&s);
  limits.horizon = 11; /* two blocks wait, a third does not fit */
  assert_int_equal(pdt_stream_new(&s, 0, &limits, 1000, NULL), 0);
  assert_int_equal(s.max_tokens, 4000);
  assert_int_equal(s.max_pending, 2);
  pdt_stream_free(&s);
  limits.policy = PDT_STALL;
  limits.block_tokens = 1 << 24;
  limits.max_tokens = 8;
  assert_int_equal(pdt_stream_new(&s, 0, &limits, INT32_MAX, NULL), 0);
  assert_int_equal(s.max_tokens, 8);
  assert_int_equal(s.max_blocks, 1);
  assert_int_equal(s.max_pending, 1);
  pdt_stream_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(room_for_what_can_be),
      cmocka_unit_test(commits_to_the_token_limit),
      cmocka_unit_test(holds_up_to_the_horizon),
      cmocka_unit_test(rolls_back_to_the_commit_point),
      cmocka_unit_test(force_commits_one_stream),
      cmocka_unit_test(the_end_waits_for_its_commit),
      cmocka_unit_test(a_stalling_policy_waits_with_anything),
      cmocka_unit_test(refuses_what_cannot_be),
      cmocka_unit_test(random_walks),
      cmocka_unit_test(sessions_as_the_oracle),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
