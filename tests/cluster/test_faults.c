/* Sessions that end by themselves: numbers that are none, in a plan or in a block, and memory that
 * ends while a session is admitted. The others are as without it, all ranks go on, and what was
 * recorded of such a run can be read, replayed and verified. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "journal/inspect.h"
#include "journal/replay.h"
#include "run/verify.h"
#include "steps.h"

#define MODEL   PDT_CASES "/selective-rollback/model"
#define SIDECAR PDT_CASES "/selective-rollback/sidecar.safetensors"

enum { REQUESTS = 4, VOCABULARY = 259, WIDTH = 32, FFN = 64, BAD_TOKEN = 255 };
enum { PLAN_WIDTH = 16, BAD_PLAN = 96, NOTE = 24, COVERAGE = 10, AGREE = 14 };

typedef struct fixture {
  scratch scratch;
  char good[512];            /* a model without bad tokens, */
  char bad[512];             /* and with one: BAD_TOKEN */
  char sidecar[512];         /* a copy to spoil */
  script requests[REQUESTS]; /* none has to do with BAD_TOKEN or BAD_PLAN */
  ending healthy;            /* what they come to */
} fixture;

/* A copy of the model in which the last number of a hidden state is 0 before the first layer's FFN,
 * where it would be multiplied by so much that what comes of it is no number. */
static void make_good(fixture *f, const char *name, char path[512]) {
  char file[600];
  copy_model(&f->scratch, name, MODEL, 0);
  snprintf(path, 512, "%s", scratch_path(&f->scratch, name));
  snprintf(file, sizeof file, "%s/model.safetensors", path);
  const run_of column = {WIDTH - 1, FFN, WIDTH}, row = {(WIDTH - 1) * WIDTH, WIDTH, 1};
  fill_tensor(file, "model.embed_tokens.weight", (run_of){WIDTH - 1, VOCABULARY, WIDTH}, 0);
  fill_tensor(file, "model.layers.0.self_attn.o_proj.weight", row, 0);
  fill_tensor(file, "model.layers.0.mlp.gate_proj.weight", column, 1e30F);
  fill_tensor(file, "model.layers.0.mlp.up_proj.weight", column, 1e30F);
}

/* Makes a token of it one whose states are no numbers. */
static void make_bad(const char *model, pdt_token token) {
  char file[600];
  snprintf(file, sizeof file, "%s/model.safetensors", model);
  fill_tensor(file, "model.embed_tokens.weight", (run_of){token * WIDTH + WIDTH - 1, 1, 1}, 1);
}

static scene scene_of_all(const fixture *f, const char *model, const char *sidecar) {
  scene s = scene_of(model, sidecar);
  s.details = true;
  s.lets_fail = true;
  for (int i = 0; i < REQUESTS; i++) scene_add(&s, &f->requests[i], i > 1);
  return s;
}

static int set_up(void **state) {
  static fixture f;
  void *p;
  if (scratch_setup(&p)) return -1;
  f.scratch = *(scratch *)p;
  free(p);
  make_good(&f, "good", f.good);
  make_good(&f, "bad", f.bad);
  make_bad(f.bad, BAD_TOKEN);
  snprintf(f.sidecar, sizeof f.sidecar, "%s", scratch_path(&f.scratch, "sidecar"));
  for (int i = 0; i < REQUESTS; i++) {
    script_new(&f.requests[i], 7 + (uint64_t)i, 4 - i % 2, 12 - i, 1 + (uint64_t)i);
    f.requests[i].request.settings.reveal_delay = 1 + i % 2;
  }
  const scene s = scene_of_all(&f, f.good, SIDECAR);
  play(&s, &f.healthy);
  *state = &f;
  return 0;
}

static int tear_down(void **state) {
  fixture *f = *state;
  ending_free(&f->healthy);
  return nftw(f->scratch.folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static const struct {
  pdt_rank ranks;
  int tensor_parallel;
} layouts[] = {{1, 1}, {4, 1}, {4, 2}, {2, 2}, {4, 4}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static void lay_out(scene *s, int i) {
  s->ranks = layouts[i % LAYOUTS].ranks;
  s->tensor_parallel = layouts[i % LAYOUTS].tensor_parallel;
}

/* Request i of the scene ended alone, for this reason, after so many rounds. The others are as in
 * the healthy run. */
static void ended_alone(const ending *healthy, const ending *e, int i, int32_t rounds,
                        const char *want) {
  const told *t = &e->sessions[i];
  went_well(e);
  assert_int_equal(t->n_failed, 1);
  assert_int_equal(t->n_ended, 0);
  if (!strstr(t->failure, want)) fail_msg("expected '%s' in: %s", want, t->failure);
  assert_int_equal(t->rounds, rounds);
  for (int j = 0; j < REQUESTS; j++)
    if (j != i) same_session(e, j, healthy, j);
}

/* ---- plans ---- */

/* A prompt whose states are none: the planner makes no plan of it. */
static void test_planner(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < LAYOUTS; i++) {
    script bad = f->requests[1];
    scene s = scene_of_all(f, f->bad, SIDECAR);
    ending e;
    bad.request.prompt = bad.prompt;
    bad.prompt[i] = BAD_TOKEN;
    s.requests[1] = &bad.request;
    lay_out(&s, i);
    play(&s, &e);
    ended_alone(&f->healthy, &e, 1, 0,
                "session 8 (request 1): planner: slot 0: a logit is not a finite");
    assert_int_equal(e.sessions[1].n_started, 0);
    assert_int_equal(e.stats.failed, 1);
    assert_int_equal(e.decisions.n, f->healthy.decisions.n);
    ending_free(&e);
  }
}

/* Sidecars in which one plan item is out of range: of the plan's note, or of its coverage. */
static void make_bad_plan(const fixture *f, bool of_note) {
  const run_of item = {BAD_PLAN * PLAN_WIDTH, PLAN_WIDTH, 1}, row = {0, PLAN_WIDTH, 1};
  copy_file(f->sidecar, SIDECAR);
  fill_tensor(f->sidecar, "plan.embedding.weight", item, 3e37F);
  fill_tensor(f->sidecar, "plan.to_notes.weight", (run_of){0, NOTE * PLAN_WIDTH, 1}, 0);
  fill_tensor(f->sidecar, "coverage.item.weight", (run_of){0, COVERAGE * PLAN_WIDTH, 1}, 0);
  fill_tensor(f->sidecar, of_note ? "plan.to_notes.weight" : "coverage.item.weight", row, 1);
}

/* A plan that was given has such an item. */
static void test_given_plan(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < 2 * LAYOUTS; i++) {
    bool of_note = i % 2;
    script bad = f->requests[2];
    make_bad_plan(f, of_note);
    scene s = scene_of_all(f, f->good, f->sidecar);
    ending healthy, e;
    play(&s, &healthy);
    bad.request.plan_ids = bad.plan_ids;
    bad.plan_ids[4] = BAD_PLAN;
    s.requests[2] = &bad.request;
    lay_out(&s, i / 2);
    play(&s, &e);
    ended_alone(&healthy, &e, 2, 0,
                of_note ? "session 9 (request 2): plan: its note: expected finite numbers"
                        : "session 9 (request 2), round 1, stream 0: coverage: expected finite");
    assert_int_equal(e.sessions[2].n_started, !of_note);
    ending_free(&healthy);
    ending_free(&e);
  }
}

/* ---- blocks ---- */

/* A stream's prefix, whose states are none. */
static void test_first_round(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < LAYOUTS; i++) {
    script bad = f->requests[0];
    scene s = scene_of_all(f, f->bad, SIDECAR);
    ending e;
    bad.request.prefix = bad.prefix;
    bad.request.n_prefix = bad.n_prefix;
    bad.prefix[2] = (pdt_token[]){7, BAD_TOKEN, 9};
    bad.n_prefix[2] = 3;
    s.requests[0] = &bad.request;
    lay_out(&s, i);
    play(&s, &e);
    ended_alone(&f->healthy, &e, 0, 0,
                "session 7 (request 0), round 1, stream 2: the logits: expected finite numbers, "
                "found NaN or infinity");
    assert_int_equal(e.sessions[0].n_started, 1);
    ending_free(&e);
  }
}

/* A token that one session alone emits, once: stream, round, and where. */
typedef struct lone_token {
  pdt_token token;
  int request;
  pdt_stream stream;
  pdt_round round;
} lone_token;

/* How often tokens come about in decisions, and where last. */
static lone_token find_lone_token(const decisions *d, pdt_round from_round) {
  static lone_token last[259];
  int32_t times[259] = {0};
  for (int32_t i = 0; i < d->n; i++) {
    Pdt__Decision *m =
        pdt__decision__unpack(NULL, (size_t)d->at[i].bytes, (const uint8_t *)d->at[i].packed);
    for (size_t j = 0; j < m->n_sessions; j++)
      for (size_t k = 0; k < m->sessions[j]->n_streams; k++) {
        const Pdt__SessionDecision *s = m->sessions[j];
        const Pdt__StreamDecision *b = s->streams[k];
        for (size_t t = 0; t < b->n_tokens; t++) {
          /* the last token of a block is read in the next one, if there is one */
          times[b->tokens[t]] += t + 1 < b->n_tokens && s->round >= (uint32_t)from_round ? 1 : 2;
          last[b->tokens[t]] = (lone_token){b->tokens[t], (int)s->request, (pdt_stream)b->stream,
                                            (pdt_round)s->round};
        }
      }
    pdt__decision__free_unpacked(m, NULL);
  }
  for (pdt_token t = 0; t < 256; t++)
    if (times[t] == 1) return last[t];
  fail_msg("every token comes about twice");
  return last[0];
}

/* The first n lines of a and b are the same. */
static void same_beginning(const char *a, const char *b, int32_t n) {
  for (int32_t line = 0; line < n; line++) {
    size_t bytes = strcspn(a, "\n") + 1;
    assert_memory_equal(a, b, bytes);
    a += bytes;
    b += bytes;
  }
}

/* A run in which a session meets a token whose embedding is none, in a later round; its journal,
 * and what was decided. */
typedef struct later_fault {
  char model[512], journal[512], want[160];
  lone_token lone;
  scene scene;
  ending live;
} later_fault;

static void play_later_fault(fixture *f, later_fault *l) {
  l->lone = find_lone_token(&f->healthy.decisions, 3);
  for (int i = 0; i < REQUESTS; i++)
    for (int32_t j = 0; j < f->requests[i].request.n_prompt; j++)
      assert_int_not_equal(f->requests[i].prompt[j], l->lone.token);
  snprintf(l->journal, sizeof l->journal, "%s", scratch_path(&f->scratch, "journal"));
  snprintf(l->model, sizeof l->model, "%s", scratch_path(&f->scratch, "later"));
  if (access(l->model, F_OK) != 0) make_good(f, "later", l->model);
  make_bad(l->model, l->lone.token);
  l->scene = scene_of_all(f, l->model, SIDECAR);
  l->scene.journal = l->journal;
  play(&l->scene, &l->live);
  l->scene.journal = NULL;
  snprintf(l->want, sizeof l->want,
           "session %d (request %d), round %d, stream %d: the logits: expected finite numbers",
           7 + l->lone.request, l->lone.request, l->lone.round, l->lone.stream);
}

static void test_later_round(void **state) {
  fixture *f = *state;
  later_fault l;
  play_later_fault(f, &l);
  int i = l.lone.request;
  ended_alone(&f->healthy, &l.live, i, l.lone.round - 1, l.want);
  same_beginning(l.live.sessions[i].text, f->healthy.sessions[i].text, l.lone.round);
  assert_int_equal(l.live.stats.failed, 1);
  for (int j = 1; j < LAYOUTS; j++) {
    scene s = l.scene;
    ending e;
    lay_out(&s, j);
    play(&s, &e);
    ended_alone(&f->healthy, &e, i, l.lone.round - 1, l.want);
    same_sessions(&e, &l.live);
    assert_string_equal(e.sessions[i].failure, l.live.sessions[i].failure);
    ending_free(&e);
  }
  ending_free(&l.live);
}

/* Where nobody wants to be told, it is the end of all. */
static void test_ends_all(void **state) {
  fixture *f = *state;
  later_fault l;
  play_later_fault(f, &l);
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = l.scene;
    ending e;
    s.lets_fail = false;
    lay_out(&s, i);
    play(&s, &e);
    assert_int_equal(e.status, -1);
    assert_int_equal(e.err.code, PDT_ERROR_RUNTIME);
    if (!strstr(e.err.message, l.want)) fail_msg("expected '%s' in: %s", l.want, e.err.message);
    ending_free(&e);
  }
  ending_free(&l.live);
}

/* Nor does the run wait for another request before it says so. */
static void test_ends_before_it_waits(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < LAYOUTS; i++) {
    script bad = f->requests[1];
    scene s = scene_of(f->bad, SIDECAR);
    ending e;
    bad.request.prompt = bad.prompt;
    bad.prompt[2] = BAD_TOKEN;
    scene_add(&s, &bad, 0);
    scene_add(&s, &f->requests[0], 100);
    lay_out(&s, i);
    play(&s, &e);
    assert_int_equal(e.status, -1);
    assert_non_null(strstr(e.err.message, "session 8 (request 0): planner: slot 0"));
    assert_int_equal(e.n_steps, 2);
    ending_free(&e);
  }
}

/* A head that all sessions share and that gives no numbers: all of them end, each by itself, and
 * the run is none the worse. */
static void test_all_sessions(void **state) {
  const fixture *f = *state;
  copy_file(f->sidecar, SIDECAR);
  fill_tensor(f->sidecar, "agree.out.weight", (run_of){0, AGREE, 1}, 3e38F);
  fill_tensor(f->sidecar, "agree.bias", (run_of){0, AGREE, 1}, 3e38F);
  for (int i = 0; i < LAYOUTS; i++) {
    scene s = scene_of_all(f, f->good, f->sidecar);
    ending e;
    lay_out(&s, i);
    play(&s, &e);
    went_well(&e);
    assert_int_equal(e.stats.failed, REQUESTS);
    assert_int_equal(e.stats.rounds, 0);
    for (int j = 0; j < REQUESTS; j++) {
      char want[160];
      snprintf(want, sizeof want,
               "session %d (request %d), round 1, stream 0: readiness: expected finite numbers",
               7 + j, j);
      if (!strstr(e.sessions[j].failure, want))
        fail_msg("expected '%s' in: %s", want, e.sessions[j].failure);
      assert_int_equal(e.sessions[j].n_failed + e.sessions[j].n_started, 2);
    }
    ending_free(&e);
  }
}

/* ---- what was recorded of it ---- */

static void test_recorded(void **state) {
  fixture *f = *state;
  later_fault l;
  play_later_fault(f, &l);
  const decisions *all = &l.live.decisions;
  for (int32_t n = 0; n <= all->n; n++) { /* then the coordinator goes on */
    scene s = l.scene;
    ending e;
    lay_out(&s, n);
    s.recorded = all;
    s.n_recorded = n;
    s.resumes = n < all->n;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &l.live);
    assert_string_equal(e.sessions[l.lone.request].failure,
                        l.live.sessions[l.lone.request].failure);
    assert_int_equal(e.decisions.n, all->n - n);
    for (int32_t i = n; i < all->n; i++) {
      assert_int_equal(e.decisions.at[i - n].bytes, all->at[i].bytes);
      assert_memory_equal(e.decisions.at[i - n].packed, all->at[i].packed, all->at[i].bytes);
    }
    ending_free(&e);
  }
  ending_free(&l.live);
}

/* A record in which nothing happened does not hide what happens now. */
static void test_fault_where_none_was(void **state) {
  fixture *f = *state;
  later_fault l;
  play_later_fault(f, &l);
  for (int i = 0; i < LAYOUTS; i++) {
    char want[64];
    scene s = l.scene;
    ending e;
    lay_out(&s, i);
    s.recorded = &f->healthy.decisions;
    s.n_recorded = f->healthy.decisions.n;
    play(&s, &e);
    assert_int_equal(e.status, -1);
    snprintf(want, sizeof want, "request %d, stream %d: expected finite numbers, as in the record",
             l.lone.request, l.lone.stream);
    if (!strstr(e.err.message, want)) fail_msg("expected '%s' in: %s", want, e.err.message);
    ending_free(&e);
  }
  ending_free(&l.live);
}

/* ---- its journal ---- */

static int verify(const pdt_comm *world, void *context, pdt_error *err) {
  const later_fault *l = context;
  const pdt_verify_options options = {.journal = l->journal,
                                      .engine = {.model = l->model,
                                                 .sidecar = SIDECAR,
                                                 .machine = {.tensor_parallel = 2, .threads = 1},
                                                 .max_sessions = REQUESTS},
                                      .json = true};
  return pdt_verify_run(world, &options, err);
}

static void test_journal(void **state) {
  fixture *f = *state;
  later_fault l;
  pdt_journal_totals t;
  pdt_bytes torn;
  pdt_error err = {0};
  char *text = NULL, want[96];
  size_t n;
  play_later_fault(f, &l);
  if (pdt_journal_verify(l.journal, &t, &torn, &err)) fail_msg("%s", err.message);
  assert_int_equal(torn, 0);
  assert_int_equal(t.started, REQUESTS);
  assert_int_equal(t.ended, REQUESTS);
  assert_int_equal(t.complete, REQUESTS - 1);
  assert_int_equal(t.faults, 1);
  assert_int_equal(t.rounds, l.live.stats.rounds);
  assert_int_equal(t.boundaries, l.live.stats.boundaries);
  assert_int_equal(t.committed, l.live.stats.committed_tokens);
  FILE *out = open_memstream(&text, &n);
  assert_int_equal(pdt_inspect_journal(l.journal, false, out, &err), 0);
  fclose(out);
  snprintf(want, sizeof want, "  %7d  %7d  %5d  a fault of stream %d's logits ends it\n",
           l.lone.request, 7 + l.lone.request, l.lone.round, l.lone.stream);
  if (!strstr(text, want)) fail_msg("expected '%s' in %s", want, text);
  free(text);
  pdt_comm_memory_outcome outcomes[4];
  const pdt_comm_memory_options options = {0};
  if (pdt_comm_memory_run(4, &options, verify, &l, outcomes, &err)) fail_msg("%s", err.message);
  for (int r = 0; r < 4; r++)
    if (outcomes[r].status) fail_msg("rank %d: %s", r, outcomes[r].err.message);
  ending_free(&l.live);
}

/* ---- memory ---- */

/* At every third allocation of a rank in the step that admits request 2: the session ends alone,
 * or, where memory ends for what all have together, the run; later sessions go on. */
static void test_memory(void **state) {
  enum { SHARE = 3 };
  const fixture *f = *state;
  int alone = 0, all = 0, whole = 0;
  for (int i = 0; i < 5; i++) {
    scene s = scene_of_all(f, f->good, SIDECAR);
    int64_t n = 0;
    ending e;
    s.ranks = i == 4 ? 1 : 4;
    s.tensor_parallel = i == 4 ? 1 : 2;
    s.come[3] = 3;
    s.allocation_step = 1; /* when request 2 comes, alone */
    s.short_of_memory = i % 4;
    s.allocations = &n;
    play(&s, &e);
    ending_free(&e);
    s.allocations = NULL;
    for (s.allocation = i % SHARE; s.allocation < n; s.allocation += SHARE) {
      play(&s, &e);
      bool failed = e.sessions[2].n_failed == 1;
      if (e.status != 0) {
        if (!strstr(e.err.message, "memory")) fail_msg("no lack of memory: %s", e.err.message);
      } else if (failed) {
        ended_alone(&f->healthy, &e, 2, 0, "session 9 (request 2): ");
        assert_non_null(strstr(e.sessions[2].failure, "memory"));
      } else {
        same_sessions(&e, &f->healthy);
      }
      alone += !e.status && failed;
      all += e.status != 0;
      whole += !e.status && !failed;
      ending_free(&e);
    }
  }
  print_message("%d ended alone, %d ended the run, %d went well\n", alone, all, whole);
  assert_true(alone > 50);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_planner),
      cmocka_unit_test(test_given_plan),
      cmocka_unit_test(test_first_round),
      cmocka_unit_test(test_later_round),
      cmocka_unit_test(test_ends_all),
      cmocka_unit_test(test_ends_before_it_waits),
      cmocka_unit_test(test_all_sessions),
      cmocka_unit_test(test_recorded),
      cmocka_unit_test(test_fault_where_none_was),
      cmocka_unit_test(test_journal),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
