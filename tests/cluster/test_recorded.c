/* Decisions that were recorded, in place of the coordinator's: the same sessions come out on any
 * number of ranks, whenever requests come; what was changed in a record is told by its boundary;
 * and where a record ends in the middle, the run goes on as if nothing had happened. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "pdt.pb-c.h"
#include "steps.h"

#define MODEL   PDT_CASES "/selective-rollback/model"
#define SIDECAR PDT_CASES "/selective-rollback/sidecar.safetensors"

/* Four requests of different kinds, of which two come late. The third has a prompt that takes
 * several rounds of the others to read. */
typedef struct fixture {
  scratch scratch;
  char model[512];
  script requests[4];
  scene scene;
  ending live, detailed; /* without details and with */
} fixture;

static void draw_requests(script *r) {
  script_new(&r[0], 7, 4, 12, 1);
  script_new(&r[1], 8, 3, 5, 2);
  r[1].request.settings.reveal_delay = 2;
  r[1].request.settings.sampling = (pdt_sampling){.temperature = 0.8, .top_k = 20, .top_p = 0.9};
  r[1].request.settings.limits.policy = PDT_STALL;
  r[1].request.settings.limits.block_tokens = 3;
  script_new(&r[2], 9, 4, 400, 3);
  r[2].n_prefix[1] = 3;
  memcpy(r[2].prefixes[1], (pdt_token[]){4, 5, 6}, 3 * sizeof(pdt_token));
  script_new(&r[3], 10, 2, 1, 4);
  r[3].request.plan_ids = r[3].plan_ids;
  r[3].plan_ids[2] = 11;
  r[3].request.settings.limits.policy = PDT_GLOBAL;
  r[3].request.settings.gamma = 0.2;
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
  static const int32_t comes[] = {0, 1, 1, 4};
  for (int i = 0; i < 4; i++) scene_add(&f.scene, &f.requests[i], comes[i]);
  play(&f.scene, &f.live);
  f.scene.details = true;
  play(&f.scene, &f.detailed);
  f.scene.details = false;
  *state = &f;
  return 0;
}

static int tear_down(void **state) {
  fixture *f = *state;
  ending_free(&f->live);
  ending_free(&f->detailed);
  return nftw(f->scratch.folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* The scene with decisions of the live run. */
static scene recorded(const fixture *f, pdt_rank ranks, int tensor_parallel) {
  scene s = f->scene;
  s.ranks = ranks;
  s.tensor_parallel = tensor_parallel;
  s.recorded = &f->live.decisions;
  s.n_recorded = f->live.decisions.n;
  return s;
}

/* The run that is recorded has everything in it: rollbacks, holds, sessions that join while others
 * decode, and one whose prompt they did not wait for. */
static void test_live(void **state) {
  const fixture *f = *state;
  const ending *e = &f->live;
  went_well(e);
  assert_true(e->stats.rollbacks > 2 && e->stats.holds > 2 && e->stats.commits > 10);
  for (int i = 0; i < 4; i++) assert_int_equal(e->sessions[i].n_ended, 1);
  assert_true(e->sessions[1].first_step == 1 && e->sessions[2].first_step >= 3);
  assert_true(e->sessions[3].first_step >= e->sessions[2].first_step);
  assert_int_equal(e->decisions.n, e->stats.boundaries);
}

static const struct {
  pdt_rank ranks;
  int tensor_parallel;
} layouts[] = {{1, 1}, {2, 1}, {2, 2}, {3, 1}, {4, 1}, {4, 2}, {4, 4}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* Every layout, requests all there from the start or not, with details and without. */
static void test_layouts(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < 2 * LAYOUTS; i++) {
    scene s = recorded(f, layouts[i / 2].ranks, layouts[i / 2].tensor_parallel);
    ending e;
    s.details = i % 4 == 1;
    for (int j = 0; j < s.n && i % 2; j++) s.come[j] = 0;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, s.details ? &f->detailed : &f->live);
    assert_int_equal(e.decisions.n, 0); /* the coordinator made none */
    assert_int_equal(e.stats.boundaries, f->live.stats.boundaries);
    assert_int_equal(e.stats.committed_tokens, f->live.stats.committed_tokens);
    ending_free(&e);
  }
}

/* What a run on ranks made is replayed by one. */
static void test_made_on_ranks(void **state) {
  const fixture *f = *state;
  scene s = f->scene;
  ending live, e;
  s.ranks = 4;
  s.tensor_parallel = 2;
  play(&s, &live);
  went_well(&live);
  same_sessions(&live, &f->live);
  assert_int_equal(live.decisions.n, f->live.decisions.n);
  for (int i = 0; i < live.decisions.n; i++) {
    assert_int_equal(live.decisions.at[i].bytes, f->live.decisions.at[i].bytes);
    assert_memory_equal(live.decisions.at[i].packed, f->live.decisions.at[i].packed,
                        live.decisions.at[i].bytes);
  }
  s = recorded(f, 1, 1);
  s.recorded = &live.decisions;
  play(&s, &e);
  went_well(&e);
  same_sessions(&e, &live);
  ending_free(&e);
  ending_free(&live);
}

/* Readiness by somebody who looks at blocks from outside, and who is not there at the replay. */
static float assess(pdt_round round, pdt_stream stream) {
  return (round + stream) % 3 == 0 ? 0.01F : 1;
}

static void test_assessed(void **state) {
  const fixture *f = *state;
  scene s = f->scene;
  ending live, e;
  s.assess = assess;
  s.ranks = 2;
  play(&s, &live);
  went_well(&live);
  assert_true(live.stats.rollbacks > 5 && live.stats.commits > 5);
  for (int i = 0; i < LAYOUTS; i++) {
    s = recorded(f, layouts[i].ranks, layouts[i].tensor_parallel);
    s.recorded = &live.decisions;
    s.n_recorded = live.decisions.n;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &live);
    ending_free(&e);
  }
  ending_free(&live);
}

static float no_number(pdt_round round, pdt_stream stream) {
  return round == 2 && stream == 1 ? NAN : 1;
}

/* What could not be recorded is refused before it is. */
static void test_assessed_with_no_number(void **state) {
  const fixture *f = *state;
  scene s = f->scene;
  ending e;
  s.assess = no_number;
  s.ranks = 3;
  play(&s, &e);
  assert_int_equal(e.status, -1);
  assert_string_equal(e.err.message,
                      "boundary 2: rank 0: session 7 (request 0): stream 1: assessed with a "
                      "readiness of nan: expected 0 to 1");
  assert_int_equal(e.decisions.n, 1);
  ending_free(&e);
}

/* ---- a record that was changed ---- */

typedef struct change {
  const char *name;
  /* Changes a decision; false where it has nothing to change. */
  bool (*make)(Pdt__Decision *d);
  const char *want; /* in the message, beside the boundary */
} change;

/* A block that the decision keeps, of at least n tokens; NULL without one. */
static Pdt__StreamDecision *kept_block(const Pdt__Decision *d, size_t n) {
  for (size_t i = 0; i < d->n_sessions; i++)
    for (size_t j = 0; j < d->sessions[i]->n_streams; j++) {
      Pdt__StreamDecision *b = d->sessions[i]->streams[j];
      if (b->action != PDT__ACTION__ACTION_ROLLBACK && b->n_tokens >= n) return b;
    }
  return NULL;
}

static bool change_hash(Pdt__Decision *d) {
  d->bus_hash ^= 1U << 17;
  return true;
}

static bool change_boundary(Pdt__Decision *d) {
  d->boundary++;
  return true;
}

static bool change_token(Pdt__Decision *d) {
  Pdt__StreamDecision *b = kept_block(d, 2);
  if (b) b->tokens[0] = b->tokens[0] == 7 ? 8 : 7;
  return b != NULL;
}

static bool end_early(Pdt__Decision *d) {
  Pdt__StreamDecision *b = kept_block(d, 2);
  if (b) b->tokens[0] = 257;
  return b != NULL;
}

static bool flip_end(Pdt__Decision *d) {
  Pdt__StreamDecision *b = kept_block(d, 1);
  if (b) b->ended = !b->ended;
  return b != NULL;
}

static bool unknown_token(Pdt__Decision *d) {
  Pdt__StreamDecision *b = kept_block(d, 1);
  if (b) b->tokens[b->n_tokens - 1] = 259;
  return b != NULL;
}

static bool change_coverage(Pdt__Decision *d) {
  Pdt__StreamDecision *b = kept_block(d, 1);
  if (b) b->coverage[3] += 1;
  return b != NULL;
}

static bool change_action(Pdt__Decision *d) {
  Pdt__StreamDecision *b = d->sessions[0]->streams[0];
  b->action =
      b->action == PDT__ACTION__ACTION_HOLD ? PDT__ACTION__ACTION_COMMIT : PDT__ACTION__ACTION_HOLD;
  return true;
}

static bool unknown_action(Pdt__Decision *d) {
  d->sessions[0]->streams[0]->action = (Pdt__Action)9;
  return true;
}

/* A block without an action of a stream that is done: it would move the others. */
static bool no_action(Pdt__Decision *d) {
  Pdt__SessionDecision *s = d->sessions[0];
  if (s->n_streams < 2 || s->streams[0]->stream != 0) return false;
  s->streams[0]->action = PDT__ACTION__ACTION_NONE;
  return true;
}

static bool change_readiness(Pdt__Decision *d) {
  Pdt__StreamDecision *b = d->sessions[0]->streams[0];
  b->readiness = d->sessions[0]->gate ? 0 : b->action == PDT__ACTION__ACTION_HOLD ? 0.01F : 0.99F;
  return true;
}

static bool change_gate(Pdt__Decision *d) {
  d->sessions[d->n_sessions - 1]->gate = !d->sessions[d->n_sessions - 1]->gate;
  return true;
}

static bool change_attempt(Pdt__Decision *d) {
  d->sessions[0]->streams[0]->attempt++;
  return true;
}

static bool change_round(Pdt__Decision *d) {
  d->sessions[d->n_sessions - 1]->round++;
  return true;
}

static bool change_request(Pdt__Decision *d) {
  d->sessions[0]->request++;
  return true;
}

static bool leave_out_a_session(Pdt__Decision *d) {
  static Pdt__SessionDecision *left_out;
  left_out = d->sessions[--d->n_sessions];
  pdt__session_decision__free_unpacked(left_out, NULL);
  return true;
}

static bool leave_out_a_block(Pdt__Decision *d) {
  Pdt__SessionDecision *s = d->sessions[0];
  pdt__stream_decision__free_unpacked(s->streams[--s->n_streams], NULL);
  return true;
}

static bool unknown_fault(Pdt__Decision *d) {
  Pdt__SessionDecision *s = d->sessions[0];
  while (s->n_streams > 0) pdt__stream_decision__free_unpacked(s->streams[--s->n_streams], NULL);
  s->fault = (Pdt__Fault)6;
  s->gate = false;
  return true;
}

static bool fault_of_nobody(Pdt__Decision *d) {
  unknown_fault(d);
  d->sessions[0]->fault = PDT__FAULT__FAULT_LOGITS;
  d->sessions[0]->fault_stream = 4;
  return true;
}

static bool fault_with_blocks(Pdt__Decision *d) {
  d->sessions[0]->fault = PDT__FAULT__FAULT_LOGITS;
  return true;
}

static const change changes[] = {
    {"hash", change_hash, "notes have hash"},
    {"boundary", change_boundary, "the record has boundary"},
    {"token", change_token, "its coverage is not the recorded one"},
    {"end in a block", end_early, "does not end the stream, but token 1 of"},
    {"end", flip_end, ": its block "},
    {"unknown token", unknown_token, "token 259: expected 0 to 258"},
    {"coverage", change_coverage, "its coverage is not the recorded one"},
    {"action", change_action, "expected the action"},
    {"unknown action", unknown_action, "expected an action from 1 to 4, found 9"},
    {"no action", no_action, "expected an action from 1 to 4, found 0"},
    {"readiness", change_readiness, ""},
    {"gate", change_gate, ""},
    {"attempt", change_attempt, "expected attempt"},
    {"round", change_round, "expected round"},
    {"request", change_request, "expected the decision about request"},
    {"session left out", leave_out_a_session, ""},
    {"block left out", leave_out_a_block, "expected a block, found none"},
    {"unknown fault", unknown_fault, "expected a fault from 1 to 5, found 6"},
    {"fault of nobody", fault_of_nobody, "a fault of stream 4, which has no block in round"},
    {"fault with blocks", fault_with_blocks, "blocks and a gate that"},
};

/* Decision n of the record in other bytes; false where there is nothing to change. */
static bool change_decision(const decisions *from, int32_t n, const change *c, decisions *to) {
  *to = *from;
  Pdt__Decision *d =
      pdt__decision__unpack(NULL, (size_t)from->at[n].bytes, (const uint8_t *)from->at[n].packed);
  bool made = c->make(d);
  to->at[n].bytes = (pdt_bytes)pdt__decision__get_packed_size(d);
  to->at[n].packed = malloc((size_t)to->at[n].bytes);
  pdt__decision__pack(d, (uint8_t *)to->at[n].packed);
  pdt__decision__free_unpacked(d, NULL);
  return made;
}

static void expect_told(const fixture *f, const decisions *d, int32_t n, const char *name,
                        const char *want, int layout) {
  char boundary[32];
  scene s = recorded(f, layouts[layout].ranks, layouts[layout].tensor_parallel);
  ending e;
  s.recorded = d;
  snprintf(boundary, sizeof boundary, "boundary %d", n + 1);
  play(&s, &e);
  if (!e.status) fail_msg("%s, boundary %d: it was not noticed", name, n + 1);
  if (!strstr(e.err.message, boundary) || !strstr(e.err.message, want))
    fail_msg("%s: expected '%s' and '%s' in: %s", name, boundary, want, e.err.message);
  assert_int_equal(e.err.code, PDT_ERROR_INPUT);
  assert_true(e.stats.boundaries <= n);
  ending_free(&e);
}

/* Every change is told at its boundary, on all ranks alike. */
static void test_changed(void **state) {
  const fixture *f = *state;
  for (size_t c = 0; c < sizeof changes / sizeof *changes; c++) {
    int made = 0;
    for (int32_t n = (int32_t)c % 3; n < f->live.decisions.n; n += 1 + f->live.decisions.n / 4) {
      decisions changed;
      bool is_made = change_decision(&f->live.decisions, n, &changes[c], &changed);
      if (is_made)
        expect_told(f, &changed, n, changes[c].name, changes[c].want,
                    (int)(c + (size_t)n) % LAYOUTS);
      made += is_made;
      free(changed.at[n].packed);
    }
    if (made == 0) fail_msg("%s: there was nothing to change", changes[c].name);
  }
}

/* Bytes that are no decision at all. */
static void test_bytes(void **state) {
  const fixture *f = *state;
  for (int i = 0; i < 2; i++) {
    decisions changed = f->live.decisions;
    int32_t n = 3 + 4 * i;
    changed.at[n].bytes = i == 0 ? changed.at[n].bytes - 1 : 1;
    expect_told(f, &changed, n, "bytes cut off", "no decision", 2 + 3 * i);
  }
}

/* ---- a record that ends ---- */

/* Decisions of a run that goes on behind n recorded ones are the others, byte for byte. */
static void test_resumed(void **state) {
  const fixture *f = *state;
  const decisions *all = &f->live.decisions;
  for (int32_t n = 0; n <= all->n; n++) {
    int layout = n % LAYOUTS;
    scene s = recorded(f, layouts[layout].ranks, layouts[layout].tensor_parallel);
    ending e;
    s.n_recorded = n;
    s.resumes = true;
    play(&s, &e);
    went_well(&e);
    same_sessions(&e, &f->live);
    assert_int_equal(e.decisions.n, all->n - n);
    for (int32_t i = n; i < all->n; i++) {
      assert_int_equal(e.decisions.at[i - n].bytes, all->at[i].bytes);
      assert_memory_equal(e.decisions.at[i - n].packed, all->at[i].packed, all->at[i].bytes);
    }
    ending_free(&e);
  }
}

/* Without the coordinator behind it the run stops where the record does. */
static void test_stops(void **state) {
  const fixture *f = *state;
  for (int32_t n = 0; n < f->live.decisions.n; n += 5) {
    scene s = recorded(f, 2, 1);
    ending e;
    s.n_recorded = n;
    play(&s, &e);
    went_well(&e);
    assert_int_equal(e.stats.boundaries, n);
    assert_false(e.more);
    for (int i = 0; i < 4; i++)
      if (e.sessions[i].text)
        assert_memory_equal(e.sessions[i].text, f->live.sessions[i].text, e.sessions[i].bytes);
    ending_free(&e);
  }
}

/* A record of other requests, or of more room. */
static void test_other_requests(void **state) {
  const fixture *f = *state;
  scene s = recorded(f, 2, 2);
  ending e;
  s.max_sessions = 1;
  play(&s, &e);
  assert_int_equal(e.status, -1);
  assert_non_null(strstr(e.err.message, "boundary 2 with 1 sessions: the record has boundary 2 "
                                        "with 2 sessions"));
  ending_free(&e);
  s = recorded(f, 2, 1);
  s.n = 1;
  play(&s, &e);
  assert_int_equal(e.status, -1);
  assert_non_null(strstr(e.err.message, "the record has boundary 2 with 2 sessions"));
  ending_free(&e);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_live),
      cmocka_unit_test(test_layouts),
      cmocka_unit_test(test_made_on_ranks),
      cmocka_unit_test(test_assessed),
      cmocka_unit_test(test_assessed_with_no_number),
      cmocka_unit_test(test_changed),
      cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_resumed),
      cmocka_unit_test(test_stops),
      cmocka_unit_test(test_other_requests),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
