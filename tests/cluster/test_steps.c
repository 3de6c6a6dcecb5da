/* The engine step by step: sessions that come at any time come to the same, a long prompt does not
 * keep others waiting, what can never fit is refused alone, and a run may end anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "steps.h"
#include "tests/unit/numbers.h"

#define MODEL   PDT_CASES "/selective-rollback/model"
#define SIDECAR PDT_CASES "/selective-rollback/sidecar.safetensors"

enum { REQUESTS = 4, LONG_PROMPT = 700 };

typedef struct fixture {
  scratch scratch;
  char model[512]; /* with room for a long prompt */
  script requests[REQUESTS];
  scene scene;
  ending together; /* all at once, on one rank */
} fixture;

static void draw_requests(script *r) {
  script_new(&r[0], 7, 4, 12, 1);
  script_new(&r[1], 8, 3, 5, 2);
  r[1].request.settings.reveal_delay = 2;
  r[1].request.settings.sampling = (pdt_sampling){.temperature = 0.8, .top_k = 20, .top_p = 0.9};
  r[1].request.settings.limits.policy = PDT_STALL;
  script_new(&r[2], 9, 4, 150, 3);
  r[2].n_prefix[1] = 3;
  memcpy(r[2].prefixes[1], (pdt_token[]){4, 5, 6}, 3 * sizeof(pdt_token));
  r[2].request.settings.limits.block_tokens = 3;
  script_new(&r[3], 10, 2, 1, 4);
  r[3].request.plan_ids = r[3].plan_ids;
  r[3].plan_ids[2] = 11;
}

static int set_up(void **state) {
  static fixture f;
  void *s;
  if (scratch_setup(&s)) return -1;
  f.scratch = *(scratch *)s;
  free(s);
  copy_model(&f.scratch, "model", MODEL, 1024);
  snprintf(f.model, sizeof f.model, "%s", scratch_path(&f.scratch, "model"));
  draw_requests(f.requests);
  f.scene = scene_of(f.model, SIDECAR);
  f.scene.details = true; /* notes arrive in their round, whatever runs beside */
  for (int i = 0; i < REQUESTS; i++) scene_add(&f.scene, &f.requests[i], 0);
  play(&f.scene, &f.together);
  *state = &f;
  return 0;
}

static int tear_down(void **state) {
  fixture *f = *state;
  ending_free(&f->together);
  return nftw(f->scratch.folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static const struct {
  pdt_rank ranks;
  int tensor_parallel;
} layouts[] = {{1, 1}, {4, 1}, {4, 2}, {2, 2}, {3, 1}, {4, 4}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static void lay_out(scene *s, int i) {
  s->ranks = layouts[i % LAYOUTS].ranks;
  s->tensor_parallel = layouts[i % LAYOUTS].tensor_parallel;
}

/* Blocks of every kind, and each session the same as if it were alone. */
static void test_alone(void **state) {
  const fixture *f = *state;
  went_well(&f->together);
  assert_true(f->together.stats.rollbacks > 2 && f->together.stats.holds > 2);
  assert_int_equal(f->together.stats.failed, 0);
  for (int i = 0; i < REQUESTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    s.details = true;
    scene_add(&s, &f->requests[i], 0);
    lay_out(&s, i);
    play(&s, &e);
    went_well(&e);
    assert_int_equal(e.sessions[0].n_ended, 1);
    same_session(&e, 0, &f->together, i);
    ending_free(&e);
  }
}

/* Requests that come at any step, and as many at once as there is room for. */
static void test_late(void **state) {
  const fixture *f = *state;
  numbers r = {.state = 1};
  for (int i = 0; i < 24; i++) {
    scene s = f->scene;
    ending e;
    int32_t step = 0;
    for (int j = 0; j < REQUESTS; j++)
      s.come[j] = step += numbers_int(&r, 0, 1) * numbers_int(&r, 0, 9);
    s.max_sessions = numbers_int(&r, 1, REQUESTS);
    lay_out(&s, i);
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &f->together);
    for (int j = 0; j < REQUESTS; j++) {
      assert_int_equal(e.sessions[j].n_ended, 1);
      assert_true(e.sessions[j].first_step >= s.come[j]);
    }
    assert_false(e.more);
    assert_int_equal(e.stats.rounds, f->together.stats.rounds);
    assert_int_equal(e.stats.committed_tokens, f->together.stats.committed_tokens);
    ending_free(&e);
  }
}

/* While a long prompt is read, the others have a round in every step. */
static void test_long_prompt(void **state) {
  const fixture *f = *state;
  script busy[2], late[2];
  for (int i = 0; i < 2; i++) {
    script_new(&busy[i], 20 + (uint64_t)i, 3, 9, 31 + (uint64_t)i);
    busy[i].request.settings.limits.max_tokens = 60;
    busy[i].request.settings.gamma = 0; /* a block in every round */
  }
  script_new(&late[0], 30, 4, LONG_PROMPT, 33);
  script_new(&late[1], 31, 2, LONG_PROMPT, 34);
  scene alone = scene_of(f->model, SIDECAR);
  ending expected;
  alone.details = true;
  for (int i = 0; i < 2; i++) scene_add(&alone, &late[i], 0);
  play(&alone, &expected);
  went_well(&expected);
  assert_int_equal(expected.sessions[0].first_step, 0); /* alone, it waits for nothing */
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    s.details = true;
    lay_out(&s, i);
    for (int j = 0; j < 4; j++) scene_add(&s, j < 2 ? &busy[j] : &late[j - 2], j < 2 ? 0 : 2);
    play(&s, &e);
    went_well(&e);
    same_session(&e, 2, &expected, 0);
    same_session(&e, 3, &expected, 1);
    /* 128 tokens of prompts in a step: 1400 take eleven */
    assert_int_equal(e.sessions[2].first_step, 2 + 5);
    assert_int_equal(e.sessions[3].first_step, 2 + 10);
    for (int32_t step = 0; step <= 12; step++) assert_int_equal(e.rounds_in_step[step] & 3, 3);
    for (int j = 0; j < 2; j++) assert_int_equal(e.sessions[j].rounds, 15);
    ending_free(&e);
  }
  ending_free(&expected);
}

/* ---- requests that never fit ---- */

/* The usual ones, with some that never fit among them. */
static void add_with_large(scene *s, const fixture *f, const script *large, const int *order) {
  for (int i = 0; order[i] >= -1; i++) {
    if (order[i] < 0) s->unexpected |= 1U << s->n;
    scene_add(s, order[i] < 0 ? large : &f->requests[order[i]], 0);
  }
}

static void test_refused(void **state) {
  const fixture *f = *state;
  static const int orders[][MOST_REQUESTS + 1] = {{0, -1, 1, 2, 3, -2},
                                                  {-1, -1, 0, 1, 2, 3, -2},
                                                  {0, 1, -1, -1, 2, -1, 3, -1, -2},
                                                  {0, 1, 2, 3, -1, -2},
                                                  {-1, -2}};
  script large;
  script_new(&large, 99, 2, LONG_PROMPT, 5);
  for (int i = 0; i < 20; i++) {
    const int *order = orders[i % 5];
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    s.details = true;
    s.lets_fail = true;
    s.max_sessions = 1 + i % 3;
    add_with_large(&s, f, &large, order);
    lay_out(&s, i);
    if (i >= 10)
      for (int j = 0; j < s.n; j++) s.come[j] = 2 * j;
    play(&s, &e);
    went_well(&e);
    assert_int_equal(e.stats.failed, 0); /* it never was a session */
    for (int j = 0; order[j] >= -1; j++) {
      char name[80];
      snprintf(name, sizeof name, "session 99 (request %d): %s: it needs ", j,
               i % 5 < 4 ? "pages of the key/value cache" : "streams");
      if (order[j] >= 0)
        same_session(&e, j, &f->together, order[j]);
      else if (e.sessions[j].n_failed != 1 || !strstr(e.sessions[j].failure, name))
        fail_msg("expected '%s' in: %s", name, e.sessions[j].failure);
      assert_int_equal(e.sessions[j].n_started, order[j] >= 0);
    }
    ending_free(&e);
  }
}

/* Where nobody wants to be told, it is the end of all. */
static void test_refused_for_all(void **state) {
  const fixture *f = *state;
  script large;
  script_new(&large, 99, 2, LONG_PROMPT, 5);
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    add_with_large(&s, f, &large, (const int[]){0, 1, -1, 2, -2});
    s.max_sessions = 2; /* of which the second is one that fits */
    lay_out(&s, i);
    if (i % 2) s.come[1] = s.come[2] = 3;
    play(&s, &e);
    assert_int_equal(e.status, -1);
    assert_int_equal(e.err.code, PDT_ERROR_USAGE);
    if (!strstr(e.err.message, "session 99 (request 2): pages of the key/value cache: it needs"))
      fail_msg("%s", e.err.message);
    assert_int_equal(e.sessions[2].n_failed, 0);
    ending_free(&e);
  }
}

/* ---- requests that nobody wants any more ---- */

/* Sessions that are withdrawn, with a prompt half read or before they began, end alone, by a
 * decision that is recorded: who plays the record back needs nobody to withdraw them. */
static void test_withdrawn(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < 24; i++) {
    scene s = f->scene, again = f->scene;
    ending e, second;
    s.lets_fail = again.lets_fail = true;
    s.withdrawn = i % 3 == 0 ? 2 : i % 3 == 1 ? 5 : 15;
    s.withdrawn_from = i / 3;
    s.max_sessions = again.max_sessions = i % 2 ? 2 : REQUESTS;
    lay_out(&s, i);
    play(&s, &e);
    went_well(&e);
    int32_t failed = 0;
    for (int j = 0; j < REQUESTS; j++) {
      bool withdrawn = (s.withdrawn >> j & 1) != 0;
      if (!withdrawn) same_session(&e, j, &f->together, j);
      if (!withdrawn || e.sessions[j].n_ended) continue; /* it may have ended before */
      assert_int_equal(e.sessions[j].n_failed, 1);
      assert_non_null(strstr(e.sessions[j].failure, "it was withdrawn"));
      assert_true(e.sessions[j].rounds <= s.withdrawn_from);
      failed += !strstr(e.sessions[j].failure, "before it began");
    }
    assert_int_equal(e.stats.failed, failed);
    assert_true(i >= 12 || failed > 0 || s.withdrawn_from == 0);
    again.recorded = &e.decisions;
    again.n_recorded = e.decisions.n;
    if (e.stats.boundaries > 0 && s.max_sessions == REQUESTS && s.withdrawn_from > 0) {
      play(&again, &second);
      went_well(&second);
      for (int j = 0; j < REQUESTS; j++)
        if (e.sessions[j].n_started)
          assert_int_equal(second.sessions[j].n_failed, e.sessions[j].n_failed);
      ending_free(&second);
    }
    ending_free(&e);
  }
}

/* The prompt of a session that is withdrawn is read no further. */
static void test_withdrawn_prompt(void **state) {
  const fixture *f = *state;
  script late;
  script_new(&late, 30, 4, LONG_PROMPT, 33);
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    s.details = true;
    s.lets_fail = true;
    s.withdrawn = 2;
    s.withdrawn_from = 3; /* 128 tokens in each of the steps 1 and 2 */
    lay_out(&s, i);
    scene_add(&s, &f->requests[0], 0);
    scene_add(&s, &late, 1);
    play(&s, &e);
    went_well(&e);
    same_session(&e, 0, &f->together, 0);
    assert_true(e.sessions[1].n_started == 0 && e.sessions[1].n_failed == 1);
    assert_string_equal(e.sessions[1].failure,
                        "session 30 (request 1): it was withdrawn while its prompt was read");
    ending_free(&e);
  }
}

static float first_is_ready(pdt_round round, pdt_stream stream) {
  (void)round;
  return stream == 0 ? 1 : 0;
}

/* A session whose streams all wait has no block in that round, and is withdrawn in none: stream 0
 * has held its only block while stream 1 was forced, and there is no third. */
static void test_withdrawn_while_waiting(void **state) {
  const fixture *f = *state;
  script waits, other;
  script_new(&waits, 40, 2, 5, 41);
  waits.request.settings.max_attempts = 1;
  waits.request.settings.limits.max_tokens = waits.request.settings.limits.block_tokens;
  script_new(&other, 41, 4, 5, 42);
  for (int i = 0; i < 2 * LAYOUTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    s.lets_fail = true;
    s.assess = first_is_ready;
    s.withdrawn = 1;
    s.withdrawn_from = 1; /* the second round */
    lay_out(&s, i % LAYOUTS);
    scene_add(&s, &waits, 0);
    if (i >= LAYOUTS) scene_add(&s, &other, 0); /* whose lanes are none of it */
    play(&s, &e);
    went_well(&e);
    assert_true(e.sessions[0].n_ended == 1 && e.sessions[0].n_failed == 0);
    assert_int_equal(e.sessions[0].rounds, 2);
    ending_free(&e);
  }
}

/* ---- runs that end ---- */

/* A run of no requests, and one whose only request comes when several steps had nothing to do. */
static void test_nothing_to_do(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = scene_of(f->model, SIDECAR);
    ending e;
    lay_out(&s, i);
    play(&s, &e);
    went_well(&e);
    assert_true(e.n_steps == 1 && !e.more);
    ending_free(&e);
    s.details = true;
    scene_add(&s, &f->requests[3], 5);
    play(&s, &e);
    went_well(&e);
    same_session(&e, 0, &f->together, 3);
    assert_int_equal(e.sessions[0].first_step, 5);
    ending_free(&e);
  }
}

/* A run that ends after any number of steps, with sessions in flight, notes on their way and a
 * prompt half read, leaves nothing behind: the next one is as if there had been none. */
static void test_ends_anywhere(void **state) {
  const fixture *f = *state;
  scene s = scene_of(f->model, SIDECAR);
  ending expected, cut, e;
  script slow[2];
  for (int i = 0; i < 2; i++) { /* notes have a round to arrive */
    script_new(&slow[i], 40 + (uint64_t)i, 4, i ? 300 : 9, 41 + (uint64_t)i);
    slow[i].request.settings.reveal_delay = 3;
    scene_add(&s, &slow[i], i);
  }
  play(&s, &expected);
  went_well(&expected);
  for (int32_t steps = 1; steps < expected.n_steps; steps++) {
    lay_out(&s, steps);
    s.steps = steps;
    s.runs = 1;
    play(&s, &cut);
    went_well(&cut);
    assert_int_equal(cut.n_steps, steps);
    assert_true(cut.stats.boundaries <= steps);
    for (int i = 0; i < 2; i++)
      if (cut.sessions[i].text && cut.sessions[i].n_ended == 0)
        assert_memory_equal(cut.sessions[i].text, expected.sessions[i].text, cut.sessions[i].bytes);
    ending_free(&cut);
    s.runs = 3;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &expected);
    ending_free(&e);
  }
  ending_free(&expected);
}

/* A source that fails ends the run in that step, on all ranks, and an observer that does at the
 * next boundary; the next run of the engine is as if there had been none. */
static void test_failures(void **state) {
  const fixture *f = *state;
  for (int32_t i = 0; i < 12; i++) {
    bool of_source = i % 2;
    int32_t step = i / 2;
    scene s = f->scene;
    ending e;
    lay_out(&s, i);
    s.come[3] = of_source ? 30 : 0;
    *(of_source ? &s.source_fails : &s.observer_fails) = step;
    play(&s, &e);
    assert_int_equal(e.status, -1);
    assert_int_equal(e.err.code, PDT_ERROR_IO);
    assert_string_equal(e.err.message, of_source ? "the source fails" : "the observer fails");
    assert_int_equal(e.n_steps, of_source ? step + 1 : step + 2);
    ending_free(&e);
    s.runs = 2;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &f->together);
    ending_free(&e);
  }
}

/* ---- capacities that cannot be ---- */

static int begin_badly(const pdt_comm *world, void *context, pdt_error *err) {
  const fixture *f = context;
  static const struct {
    pdt_capacity capacity;
    const char *want;
  } bad[] = {{{.sessions = 0}, "expected 1 session or more at once, found 0"},
             {{.sessions = 1, .load = {.tokens = -1}}, "capacity: expected counts of 0 or more"},
             {{.sessions = 1, .load = {.lanes = 1 << 21}}, "are too many (hint: --max-sessions)"},
             {{.sessions = 1, .load = {.pages = 1 << 20}}, "--kv-memory allows 1 MiB"}};
  const pdt_engine_options options = {.model = f->model,
                                      .sidecar = SIDECAR,
                                      .machine = {.tensor_parallel = 1, .threads = 1},
                                      .max_sessions = 2,
                                      .kv_bytes = 1 << 20};
  pdt_engine *engine;
  pdt_run_stats stats = {0};
  if (pdt_engine_new(&engine, world, &options, err)) return -1;
  int status = 0;
  for (size_t i = 0; i < sizeof bad / sizeof *bad && !status; i++) {
    pdt_error why = {0};
    pdt_run_setup setup = {0};
    if (world->rank == 0) setup.capacity = bad[i].capacity; /* the others need not know */
    if (!pdt_engine_begin(engine, &setup, &why) || !strstr(why.message, bad[i].want))
      status = pdt_fail(err, PDT_ERROR_RUNTIME, "expected '%s' in: %s", bad[i].want, why.message);
  }
  pdt_request lists[2] = {f->requests[3].request, f->requests[0].request};
  for (int32_t n = 0; n <= 2 && !status; n += 2) { /* after that it runs as ever */
    status = pdt_engine_run_list(engine, lists, n, NULL, &stats, err);
    if (!status && (stats.rounds > 0) != (n > 0))
      status = pdt_fail(err, PDT_ERROR_RUNTIME, "%d requests: %d rounds", n, (int)stats.rounds);
  }
  pdt_engine_free(engine);
  return status;
}

static void test_bad_capacities(void **state) {
  fixture *f = *state;
  for (pdt_rank ranks = 1; ranks <= MOST_RANKS; ranks += 3) {
    pdt_comm_memory_outcome outcomes[MOST_RANKS];
    const pdt_comm_memory_options options = {0};
    pdt_error err = {0};
    if (pdt_comm_memory_run(ranks, &options, begin_badly, f, outcomes, &err))
      fail_msg("the cluster ended: %s", err.message);
    for (pdt_rank r = 0; r < ranks; r++)
      if (outcomes[r].status) fail_msg("rank %d: %s", r, outcomes[r].err.message);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alone),
      cmocka_unit_test(test_late),
      cmocka_unit_test(test_long_prompt),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_refused_for_all),
      cmocka_unit_test(test_nothing_to_do),
      cmocka_unit_test(test_ends_anywhere),
      cmocka_unit_test(test_failures),
      cmocka_unit_test(test_bad_capacities),
      cmocka_unit_test(test_withdrawn),
      cmocka_unit_test(test_withdrawn_prompt),
      cmocka_unit_test(test_withdrawn_while_waiting),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
