#include "run/verify.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "journal/replay.h"
#include "request/message.h"
#include "run/fingerprints.h"

/* What is known of the journal after it was read once, and where the replay stands in it. On rank
 * 0.
 */
typedef struct verify {
  const pdt_verify_options *options;
  const pdt_loaded *loaded;
  pdt_journal_totals totals;
  uint64_t model, sidecar; /* fingerprints by the header */
  pdt_bytes torn;
  pdt_journal_reader reader;
  bool reads;              /* the reader is open */
  pdt_journal_entry entry; /* the next one that nobody has taken */
  bool has_entry;
  pdt_request request; /* the one that was handed out last */
  uint64_t *plans;     /* [n_plans]: hash of each session's recorded plan, by request */
  size_t n_plans, room;
  int32_t n_owed;    /* requests that never started, of which the run is to be told */
  int32_t n_started; /* sessions whose plan has come out again */
} verify;

/* ---- reading it once ---- */

/* Makes a capacity of all requests that start. */
static int add_start(const Pdt__SessionStart *start, const pdt_request_context *context,
                     pdt_capacity_maker *maker, pdt_error *err) {
  pdt_request r;
  char where[64];
  snprintf(where, sizeof where, "request %u", start->request);
  if (pdt_request_from_message(&r, start->resolved, where, context, err)) return -1;
  int status = pdt_capacity_maker_add(maker, &r, err);
  pdt_request_free(&r);
  return status;
}

/* Every entry: sound, and, where there is a maker, with a request that fits the model. *most gets
 * the number of sessions that were in flight at once. */
static int read_entries(verify *v, pdt_capacity_maker *maker, int64_t *most, pdt_error *err) {
  const pdt_request_context context = {&v->loaded->model, &v->loaded->sidecar.config, NULL};
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  pdt_replay replay;
  const pdt_replay_session *ended;
  int more;
  if (pdt_journal_reader_open(&reader, v->options->journal, err)) return -1;
  pdt_replay_init(&replay);
  *most = 0;
  while ((more = pdt_journal_reader_next(&reader, &entry, err)) > 0) {
    const Pdt__JournalEntry *m = entry.message;
    bool start = m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START;
    if (pdt_replay_entry(&replay, &entry, &ended, err) ||
        (start && maker && add_start(m->start, &context, maker, err))) {
      more = pdt_fail_in(err, "%s: journal", reader.name);
      break;
    }
    if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER) {
      v->model = m->header->model_fingerprint;
      v->sidecar = m->header->sidecar_fingerprint;
    }
    int64_t now = replay.totals.started - replay.totals.ended;
    if (now > *most) *most = now;
  }
  v->totals = replay.totals;
  v->torn = reader.torn;
  if (more == 0 && !replay.have_header)
    more = pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: it has no header", reader.name);
  pdt_replay_free(&replay);
  pdt_journal_reader_close(&reader);
  return more;
}

/* Is what was loaded what the journal was written with? */
static int check_fingerprints(const verify *v, pdt_error *err) {
  const char *journal = v->options->journal;
  const pdt_engine_options *o = &v->options->engine;
  const pdt_engine_fingerprints *found = &v->loaded->fingerprints;
  return pdt_fingerprint_check(journal, "model", v->model, o->model, found->model, err) ||
                 pdt_fingerprint_check(journal, "sidecar", v->sidecar, o->sidecar, found->sidecar,
                                       err)
             ? -1
             : 0;
}

/* ---- handing it out ---- */

/* Looks at the next entry that is a start or a decision: 1, 0 at the end, -1 on error. A request
 * that never started is passed over, and keeps its place. */
static int look(verify *v, pdt_error *err) {
  while (!v->has_entry) {
    int more = pdt_journal_reader_next(&v->reader, &v->entry, err);
    if (more <= 0) return more;
    const Pdt__JournalEntry *m = v->entry.message;
    bool failure = m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE;
    if (failure && m->failure->request >= v->n_plans) {
      if (PDT_GROW(&v->plans, v->n_plans, &v->room, err)) return -1;
      v->plans[v->n_plans++] = 0;
      v->n_owed++;
    }
    v->has_entry = v->entry.decision != NULL || m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START;
  }
  return 1;
}

/* Hands out the request of the start at hand. */
static pdt_next hand_out(verify *v, const pdt_request **request, pdt_error *err) {
  const pdt_request_context read = {&v->loaded->model, &v->loaded->sidecar.config, NULL};
  const Pdt__SessionStart *start = v->entry.message->start;
  pdt_request_free(&v->request);
  if (PDT_GROW(&v->plans, v->n_plans, &v->room, err) ||
      pdt_request_from_message(&v->request, start->resolved, "request", &read, err))
    return PDT_NEXT_FAILED;
  v->plans[v->n_plans++] = pdt_replay_plan_hash(start->plan_ids, start->n_plan_ids,
                                                start->plan_note, start->n_plan_note);
  v->has_entry = false;
  *request = &v->request;
  return PDT_NEXT_REQUEST;
}

static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  verify *v = context;
  int more = look(v, err);
  if (more < 0) return PDT_NEXT_FAILED;
  if (v->n_owed > 0) {
    v->n_owed--;
    return PDT_NEXT_PASSED;
  }
  if (more == 0) return PDT_NEXT_END;
  if (!v->entry.decision) return hand_out(v, request, err);
  if (!may_wait) return PDT_NEXT_LATER;
  pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: entry %lld at byte %lld decides about no session",
           v->options->journal, (long long)v->entry.index, (long long)v->entry.offset);
  return PDT_NEXT_FAILED;
}

static int next_decision(void *context, const void **packed, pdt_bytes *bytes, pdt_error *err) {
  verify *v = context;
  int more = look(v, err);
  if (more <= 0) return more;
  if (!v->entry.decision)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: journal: entry %lld at byte %lld starts a session that there is no room "
                    "for",
                    v->options->journal, (long long)v->entry.index, (long long)v->entry.offset);
  *packed = v->entry.message->decision.data;
  *bytes = (pdt_bytes)v->entry.message->decision.len;
  v->has_entry = false;
  return 1;
}

/* A session's plan is the recorded one. */
static int on_started(void *context, const pdt_running *r, pdt_error *err) {
  verify *v = context;
  const pdt_sidecar_config *c = &v->loaded->sidecar.config;
  uint64_t own =
      pdt_replay_plan_hash(r->plan.ids, (size_t)c->plan_slots, r->plan.note, (size_t)c->notes_dim);
  v->n_started = r->index + 1;
  if (own == v->plans[r->index]) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: journal: request %d: its plan is not the recorded one (hint: another layout "
                  "of ranks or machine than it was written with?)",
                  v->options->journal, r->index);
}

/* A session with a plan is ended by a fault where the journal has one, and nowhere else. One
 * without had none of its own when it was recorded. */
static int on_failed(void *context, const pdt_request *request, int32_t index, const pdt_error *why,
                     pdt_error *err) {
  const verify *v = context;
  (void)request;
  if (index < v->n_started) return 0;
  *err = *why;
  return -1;
}

/* ---- both ---- */

/* Rank 0: reads the journal, and says what its replay needs. */
static int prepare(verify *v, pdt_spread spread, pdt_run_setup *setup, pdt_error *err) {
  int64_t most;
  if (read_entries(v, NULL, &most, err) || check_fingerprints(v, err)) return -1;
  if (most < 1) most = 1;
  pdt_capacity_maker maker = pdt_capacity_maker_of((int32_t)most, spread);
  int status = read_entries(v, &maker, &most, err);
  setup->capacity = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  if (status || pdt_journal_reader_open(&v->reader, v->options->journal, err)) return -1;
  v->reads = true;
  setup->requests = (pdt_request_source){v, next_request};
  setup->decisions = (pdt_decision_source){.context = v, .next = next_decision};
  setup->observer =
      (pdt_observer){.context = v, .session_started = on_started, .request_failed = on_failed};
  return 0;
}

static void report(const verify *v, const pdt_run_stats *stats) {
  if (v->options->json)
    printf("{\"boundaries\":%lld,\"sessions\":%lld,\"rounds\":%lld,\"tokens\":%lld,"
           "\"torn_bytes\":%lld,\"seconds\":%.6f}\n",
           (long long)stats->boundaries, (long long)v->n_started, (long long)stats->rounds,
           (long long)stats->emitted_tokens, (long long)v->torn, stats->seconds);
  else
    printf("%lld boundaries of %lld sessions came out again, every plan and every hash of the "
           "notes: %lld rounds, %lld tokens, %.2f s\n",
           (long long)stats->boundaries, (long long)v->n_started, (long long)stats->rounds,
           (long long)stats->emitted_tokens, stats->seconds);
}

/* All of it came out, or it is an error: a run that stops early has compared less than it says. */
static int check_whole(const verify *v, const pdt_run_stats *stats, pdt_error *err) {
  if (stats->boundaries == v->totals.boundaries) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: %lld of %lld boundaries came out again",
                  v->options->journal, (long long)stats->boundaries,
                  (long long)v->totals.boundaries);
}

int pdt_verify_run(const pdt_comm *world, const pdt_verify_options *options, pdt_error *err) {
  verify v = {.options = options};
  pdt_engine *engine;
  pdt_run_setup setup = {0};
  pdt_run_stats stats;
  if (pdt_engine_new(&engine, world, &options->engine, err)) return -1;
  const pdt_error *notice = &pdt_engine_machine(engine)->notice;
  if (world->rank == 0 && notice->code != PDT_ERROR_NONE)
    pdt_say(stderr, "pdt inspect: warning: all ranks compute on the CPU: %s", notice->message);
  v.loaded = pdt_engine_loaded(engine);
  if (world->rank == 0) prepare(&v, pdt_machine_spread(pdt_engine_machine(engine)), &setup, err);
  int status = pdt_comm_agree(world, err);
  if (!status) status = pdt_engine_run(engine, &setup, &stats, err);
  if (!status && world->rank == 0 && !check_whole(&v, &stats, err)) report(&v, &stats);
  if (!status) status = pdt_comm_agree(world, err);
  if (v.reads) pdt_journal_reader_close(&v.reader);
  pdt_request_free(&v.request);
  free(v.plans);
  pdt_engine_free(engine);
  return status ? -1 : 0;
}
