#include "steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <xxhash.h>

#include <cmocka.h>
#include <jansson.h>

#include "journal/journal.h"
#include "run/decode_journal.h"
#include "tests/unit/numbers.h"

enum { SECONDS = 100 };

/* ---- requests ---- */

void script_new(script *s, uint64_t session, int32_t streams, int32_t n_prompt, uint64_t seed) {
  numbers r = {.state = seed};
  *s = (script){.request = {.session = session,
                            .prompt = s->prompt,
                            .n_prompt = n_prompt,
                            .prefix = s->prefix,
                            .n_prefix = s->n_prefix,
                            .settings = {.streams = streams,
                                         .reveal_delay = 1,
                                         .window = 9,
                                         .max_attempts = 3,
                                         .max_rounds = 40,
                                         .gamma = 0.115948,
                                         .seed = seed,
                                         .sampling = {.temperature = 0, .top_k = 0, .top_p = 1},
                                         .limits = {.block_tokens = 4,
                                                    .horizon = 8,
                                                    .max_tokens = 20,
                                                    .slots = PLAN_SLOTS,
                                                    .policy = PDT_SELECTIVE}}}};
  for (int k = 0; k < MOST_STREAMS; k++) s->prefix[k] = s->prefixes[k];
  for (int32_t i = 0; i < n_prompt; i++) s->prompt[i] = i == 0 ? 256 : numbers_int(&r, 1, 250);
}

scene scene_of(const char *model, const char *sidecar) {
  return (scene){.model = model,
                 .sidecar = sidecar,
                 .ranks = 1,
                 .tensor_parallel = 1,
                 .source_fails = NEVER,
                 .observer_fails = NEVER,
                 .allocation = -1};
}

void scene_add(scene *s, const script *request, int32_t comes) {
  s->come[s->n] = comes;
  s->requests[s->n++] = &request->request;
}

/* ---- one run ---- */

/* What the ranks share; all but `scene` is rank 0's. */
typedef struct playing {
  const scene *scene;
  ending *ending;
  FILE *texts[MOST_REQUESTS];
  int32_t step, n_handed_out, n_decided;
  pdt_journal journal;
  pdt_journal_order order;
  const pdt_engine *engine;
  bool is_last;         /* of its runs */
  allocations counts;   /* of the rank that is short of memory */
  allocations *counted; /* those of rank 0 now; NULL: none */
} playing;

/* What the test itself allocates does not count. */
static playing *pause_counting(void *context) {
  allocations_count(NULL);
  return context;
}

static int go_on_counting(const playing *p, int status) {
  allocations_count(p->counted);
  return status;
}

static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  playing *p = context;
  const scene *s = p->scene;
  (void)may_wait;
  if (p->step >= s->source_fails && !(s->runs > 1 && p->is_last)) {
    pdt_fail(err, PDT_ERROR_IO, "the source fails");
    return PDT_NEXT_FAILED;
  }
  if (p->n_handed_out == s->n) return PDT_NEXT_END;
  if (s->come[p->n_handed_out] > p->step) return PDT_NEXT_LATER;
  *request = s->requests[p->n_handed_out++];
  return PDT_NEXT_REQUEST;
}

static int next_decision(void *context, const void **packed, pdt_bytes *bytes, pdt_error *err) {
  playing *p = context;
  (void)err;
  if (p->n_decided == p->scene->n_recorded) return 0;
  *packed = p->scene->recorded->at[p->n_decided].packed;
  *bytes = p->scene->recorded->at[p->n_decided++].bytes;
  return 1;
}

static int on_started(void *context, const pdt_running *r, pdt_error *err) {
  playing *p = pause_counting(context);
  told *t = &p->ending->sessions[r->index];
  FILE *out = p->texts[r->index] = open_memstream(&t->text, &t->bytes);
  t->n_started++;
  t->first_step = t->last_step = -1;
  fprintf(out, "session %llu plan", (unsigned long long)r->request->session);
  for (int i = 0; i < PLAN_SLOTS; i++) fprintf(out, " %d", r->plan.ids[i]);
  fprintf(out, " hash %016llx\n", (unsigned long long)pdt_bus_hash(&r->session.bus));
  int status = 0;
  if (p->scene->journal)
    status = pdt_decode_journal_start(&p->journal, &p->order, r,
                                      &pdt_engine_loaded(p->engine)->sidecar.config, err);
  return go_on_counting(p, status);
}

static int on_decided(void *context, const void *packed, pdt_bytes bytes, pdt_error *err) {
  playing *p = pause_counting(context);
  decisions *d = &p->ending->decisions;
  if (d->n == MOST_STEPS) return pdt_fail(err, PDT_ERROR_RUNTIME, "more decisions than expected");
  d->at[d->n].packed = malloc((size_t)bytes);
  memcpy(d->at[d->n].packed, packed, (size_t)bytes);
  d->at[d->n++].bytes = bytes;
  int status = 0;
  if (p->scene->journal) status = pdt_journal_append_decision(&p->journal, packed, bytes, err);
  return go_on_counting(p, status);
}

static int on_block(void *context, const pdt_running *r, const pdt_block_report *block,
                    float *readiness, pdt_error *err) {
  const playing *p = context;
  (void)err;
  if (p->scene->assess) *readiness = p->scene->assess(r->session.round, block->stream);
  return 0;
}

static void tell_block(FILE *out, const pdt_block_report *b) {
  fprintf(out, " [%d.%d %s %a:", b->stream, b->attempt, pdt_action_name(b->action),
          (double)b->readiness);
  for (int32_t i = 0; i < b->n_tokens; i++) fprintf(out, " %d", b->tokens[i]);
  fprintf(out, " %016llx]",
          (unsigned long long)XXH3_64bits(b->coverage, PLAN_SLOTS * sizeof *b->coverage));
}

static bool is_withdrawn(void *context, int32_t index) {
  const playing *p = context;
  return p->step >= p->scene->withdrawn_from && (p->scene->withdrawn >> index & 1) != 0;
}

static int on_round(void *context, const pdt_round_report *report, pdt_error *err) {
  playing *p = pause_counting(context);
  const pdt_running *r = report->running;
  told *t = &p->ending->sessions[r->index];
  FILE *out = p->texts[r->index];
  t->rounds++;
  if (t->first_step < 0) t->first_step = p->step;
  t->last_step = p->step;
  p->ending->rounds_in_step[p->step] |= 1U << r->index;
  fprintf(out, "round %d %s", report->round, report->gate ? "passed" : "failed");
  for (int32_t i = 0; i < report->n_blocks; i++) tell_block(out, &report->blocks[i]);
  fprintf(out, " hash %016llx\n", (unsigned long long)pdt_bus_hash(&r->session.bus));
  bool fails = p->step >= p->scene->observer_fails && !(p->scene->runs > 1 && p->is_last);
  return go_on_counting(p, fails ? pdt_fail(err, PDT_ERROR_IO, "the observer fails") : 0);
}

static int on_ended(void *context, const pdt_running *r, pdt_error *err) {
  playing *p = pause_counting(context);
  told *t = &p->ending->sessions[r->index];
  FILE *out = p->texts[r->index];
  t->n_ended++;
  fprintf(out, "end %d hash %016llx\n", pdt_session_complete(&r->session),
          (unsigned long long)pdt_session_hash(&r->session));
  int status = p->scene->journal ? pdt_decode_journal_end(&p->journal, r->request, r->index,
                                                          pdt_session_complete(&r->session), err)
                                 : 0;
  return go_on_counting(p, status);
}

static int on_failed(void *context, const pdt_request *request, int32_t index, const pdt_error *why,
                     pdt_error *err) {
  playing *p = pause_counting(context);
  told *t = &p->ending->sessions[index];
  Pdt__RequestFailure failure = PDT__REQUEST_FAILURE__INIT;
  t->n_failed++;
  snprintf(t->failure, sizeof t->failure, "%s", why->message);
  if (request->session != p->scene->requests[index]->session)
    snprintf(t->failure, sizeof t->failure, "another request failed than number %d", index);
  failure.session = request->session;
  failure.request = (uint32_t)index;
  failure.error = (ProtobufCBinaryData){strlen(t->failure), (uint8_t *)t->failure};
  int status =
      p->scene->journal ? pdt_decode_journal_failure(&p->journal, &p->order, &failure, err) : 0;
  return go_on_counting(p, status);
}

static int open_journal(playing *p, pdt_error *err) {
  const pdt_loaded *loaded = pdt_engine_loaded(p->engine);
  char version[] = "test";
  Pdt__RunHeader header = PDT__RUN_HEADER__INIT;
  header.version = version;
  header.ranks = (uint32_t)p->scene->ranks;
  header.tensor_parallel = (uint32_t)p->scene->tensor_parallel;
  header.requests = (uint32_t)p->scene->n;
  header.model_fingerprint = loaded->fingerprints.model;
  header.sidecar_fingerprint = loaded->fingerprints.sidecar;
  return pdt_journal_create(&p->journal, p->scene->journal, true, PDT_JOURNAL_SYNC_NEVER, err) ||
         pdt_journal_append_header(&p->journal, &header, err);
}

/* Rank 0's. */
static int set_up(playing *p, pdt_spread spread, pdt_run_setup *setup, pdt_error *err) {
  const scene *s = p->scene;
  int status = 0;
  pdt_capacity_maker maker =
      pdt_capacity_maker_of(s->max_sessions > 0 ? s->max_sessions : MOST_REQUESTS, spread);
  for (int32_t i = 0; i < s->n && !status; i++)
    if (!(s->unexpected >> i & 1)) status = pdt_capacity_maker_add(&maker, s->requests[i], err);
  *setup = (pdt_run_setup){.capacity = pdt_capacity_made(&maker),
                           .requests = {p, next_request},
                           .observer = {.context = p,
                                        .session_started = on_started,
                                        .assess = on_block,
                                        .withdrawn = s->withdrawn ? is_withdrawn : NULL,
                                        .decided = on_decided,
                                        .round_done = on_round,
                                        .session_ended = on_ended,
                                        .request_failed = s->lets_fail ? on_failed : NULL}};
  if (s->recorded) setup->decisions = (pdt_decision_source){p, next_decision, s->resumes, 0};
  pdt_capacity_maker_free(&maker);
  if (!status && s->journal) status = open_journal(p, err);
  return status;
}

/* One step; where this rank is to be short of memory in it, its allocations are counted. */
static int step(playing *p, const pdt_comm *world, pdt_engine *engine, int32_t number, bool *more,
                pdt_error *err) {
  const scene *s = p->scene;
  bool counts = number == s->allocation_step && world->rank == s->short_of_memory &&
                (s->allocation >= 0 || s->allocations);
  if (world->rank == 0) {
    p->step = number;
    p->counted = counts ? &p->counts : NULL;
  }
  if (counts) p->counts = (allocations){.failing = s->allocation};
  if (counts) allocations_count(&p->counts);
  int status = pdt_engine_step(engine, more, err);
  allocations_count(NULL);
  if (counts && s->allocations) *s->allocations = p->counts.count;
  return status;
}

static int run(playing *p, const pdt_comm *world, pdt_engine *engine, int32_t steps,
               pdt_error *err) {
  pdt_run_setup setup = {0};
  pdt_run_stats stats;
  pdt_error last = {0};
  bool more = true;
  int32_t n = 0;
  if (world->rank == 0) set_up(p, pdt_machine_spread(pdt_engine_machine(engine)), &setup, err);
  if (pdt_comm_agree(world, err) || pdt_engine_begin(engine, &setup, err)) return -1;
  int status = 0;
  for (; more && !status && n < MOST_STEPS && (steps == 0 || n < steps); n++)
    status = step(p, world, engine, n, &more, err);
  if (pdt_engine_end(engine, &stats, &last) && !status) {
    *err = last;
    status = -1;
  }
  if (world->rank == 0) {
    pdt_journal_close(&p->journal, NULL);
    pdt_journal_order_free(&p->order);
    p->ending->stats = stats;
    p->ending->n_steps = n;
    p->ending->more = more;
  }
  return status;
}

/* Forgets what an earlier run told. */
static void start_over(playing *p, const pdt_engine *engine, bool is_last) {
  for (int i = 0; i < MOST_REQUESTS; i++) {
    if (p->texts[i]) fclose(p->texts[i]);
    p->texts[i] = NULL;
  }
  ending_free(p->ending);
  p->n_handed_out = p->n_decided = 0;
  p->engine = engine;
  p->is_last = is_last;
  p->journal = (pdt_journal){.fd = -1};
}

static int take_part(const pdt_comm *world, void *context, pdt_error *err) {
  playing *p = context;
  const scene *s = p->scene;
  const pdt_engine_options options = {
      .model = s->model,
      .sidecar = s->sidecar,
      .machine = {.tensor_parallel = s->tensor_parallel, .threads = 1},
      .max_sessions = MOST_REQUESTS,
      .details = s->details};
  pdt_engine *engine;
  if (pdt_engine_new(&engine, world, &options, err)) return -1;
  int status = 0;
  for (int32_t left = s->runs > 1 ? s->runs : 1; left > 0 && !status; left--) {
    if (world->rank == 0) start_over(p, engine, left == 1);
    pdt_error own = {0};
    status = run(p, world, engine, s->runs > 1 && left == 1 ? 0 : s->steps, &own);
    if (left > 1)
      status = 0;
    else
      *err = own;
  }
  pdt_engine_free(engine);
  return status;
}

void play(const scene *s, ending *e) {
  playing p = {.scene = s, .ending = e};
  pdt_comm_memory_outcome outcomes[MOST_RANKS];
  const pdt_comm_memory_options options = {0};
  pdt_error err = {0};
  *e = (ending){0};
  alarm(SECONDS); /* what the cluster itself does not see: a rank that computes for ever */
  int status = pdt_comm_memory_run(s->ranks, &options, take_part, &p, outcomes, &err);
  alarm(0);
  for (int i = 0; i < MOST_REQUESTS; i++)
    if (p.texts[i]) fclose(p.texts[i]);
  if (status) fail_msg("the cluster ended: %s", err.message);
  e->status = outcomes[0].status;
  e->err = outcomes[0].err;
  for (pdt_rank r = 1; r < s->ranks; r++) {
    assert_int_equal(outcomes[r].status, e->status);
    assert_int_equal(outcomes[r].err.code, e->err.code);
    assert_string_equal(outcomes[r].err.message, e->err.message);
  }
  assert_true((e->status != 0) == (e->err.code != PDT_ERROR_NONE));
  assert_true(e->n_steps < MOST_STEPS);
}

void decisions_free(decisions *d) {
  for (int32_t i = 0; i < d->n; i++) free(d->at[i].packed);
  d->n = 0;
}

void ending_free(ending *e) {
  for (int i = 0; i < MOST_REQUESTS; i++) free(e->sessions[i].text);
  decisions_free(&e->decisions);
  *e = (ending){0};
}

/* ---- comparisons ---- */

void went_well(const ending *e) {
  if (e->status) fail_msg("%s", e->err.message);
}

void same_session(const ending *a, int32_t i, const ending *b, int32_t j) {
  const told *x = &a->sessions[i], *y = &b->sessions[j];
  assert_int_equal(x->n_ended, y->n_ended);
  assert_int_equal(x->n_failed, y->n_failed);
  assert_int_equal(x->text != NULL, y->text != NULL);
  if (x->text) assert_string_equal(x->text, y->text);
  if (x->n_ended) assert_true(x->n_ended == 1 && x->n_started == 1);
}

void same_sessions(const ending *a, const ending *b) {
  for (int32_t i = 0; i < MOST_REQUESTS; i++) same_session(a, i, b, i);
}

/* ---- files ---- */

void copy_file(const char *to, const char *from) {
  char piece[4096];
  size_t n;
  FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
  if (!in || !out) fail_msg("cannot copy %s to %s", from, to);
  while ((n = fread(piece, 1, sizeof piece, in)) > 0)
    if (fwrite(piece, 1, n, out) != n) fail_msg("cannot write %s", to);
  fclose(in);
  fclose(out);
}

void copy_model(scratch *s, const char *name, const char *model, int positions) {
  char from[512], to[600];
  const char *folder = scratch_path(s, name);
  assert_int_equal(mkdir(folder, 0700), 0);
  snprintf(from, sizeof from, "%s/model.safetensors", model);
  snprintf(to, sizeof to, "%s/model.safetensors", folder);
  copy_file(to, from);
  snprintf(from, sizeof from, "%s/config.json", model);
  snprintf(to, sizeof to, "%s/config.json", folder);
  json_t *config = json_load_file(from, 0, NULL);
  if (positions > 0)
    json_object_set_new(config, "max_position_embeddings", json_integer(positions));
  assert_int_equal(json_dump_file(config, to, 0), 0);
  json_decref(config);
}

void fill_tensor(const char *safetensors, const char *tensor, run_of elements, float value) {
  uint64_t header_bytes = 0;
  FILE *f = fopen(safetensors, "r+b");
  if (!f || fread(&header_bytes, 8, 1, f) != 1) fail_msg("cannot read %s", safetensors);
  char *header = calloc(1, header_bytes + 1);
  assert_int_equal(fread(header, 1, header_bytes, f), header_bytes);
  json_t *json = json_loadb(header, header_bytes, 0, NULL), *entry = json_object_get(json, tensor);
  if (!entry) fail_msg("%s has no %s", safetensors, tensor);
  assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "F32");
  json_t *offsets = json_object_get(entry, "data_offsets");
  int64_t begin = json_integer_value(json_array_get(offsets, 0));
  int64_t end = json_integer_value(json_array_get(offsets, 1));
  for (int64_t i = 0; i < elements.n; i++) {
    int64_t at = begin + 4 * (elements.first + i * elements.stride);
    assert_true(at >= begin && at + 4 <= end);
    assert_int_equal(fseek(f, (long)(8 + (int64_t)header_bytes + at), SEEK_SET), 0);
    assert_int_equal(fwrite(&value, sizeof value, 1, f), 1);
  }
  fclose(f);
  json_decref(json);
  free(header);
}
