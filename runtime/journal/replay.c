#include "journal/replay.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "request/message.h"

static_assert(PDT__ACTION__ACTION_COMMIT == (int)PDT_ACTION_COMMIT, "actions share their values");
static_assert(PDT__ACTION__ACTION_FORCE == (int)PDT_ACTION_FORCE, "actions share their values");
static_assert(PDT__FAULT__FAULT_LOGITS == (int)PDT_FAULT_LOGITS, "faults share their values");
static_assert(PDT__FAULT__FAULT_WITHDRAWN == (int)PDT_FAULT_WITHDRAWN, "faults share their values");

void pdt_replay_init(pdt_replay *r) {
  *r = (pdt_replay){0};
}

static void free_session(pdt_replay_session *s) {
  if (!s) return;
  pdt_session_free(&s->session);
  free(s->plan_ids);
  pdt_request_free(&s->request);
  free(s);
}

void pdt_replay_free(pdt_replay *r) {
  for (size_t i = 0; i < r->n; i++) free_session(r->slots[i].session);
  free(r->slots);
  free(r->verdicts);
  free_session(r->ended);
  pdt_replay_init(r);
}

#define BAD(...) pdt_fail(err, PDT_ERROR_INPUT, __VA_ARGS__)

static int take_header(pdt_replay *r, const Pdt__RunHeader *h, pdt_error *err) {
  if (r->have_header) return BAD("a second header");
  if (h->ranks == 0 || h->tensor_parallel == 0 || h->ranks % h->tensor_parallel != 0)
    return BAD("header: %u ranks cannot make shard groups of %u", h->ranks, h->tensor_parallel);
  if (!pdt_is_utf8(h->version, strlen(h->version))) return BAD("header: its text is no UTF-8");
  r->have_header = true;
  r->totals.requests = h->requests;
  return 0;
}

/* ---- a session's start ---- */

static int check_order(const pdt_replay *r, uint32_t request, pdt_error *err) {
  if (request >= r->totals.requests)
    return BAD("request %u: expected one of the header's %lld", request,
               (long long)r->totals.requests);
  if (request < r->n) return BAD("request %u: its session starts again", request);
  if (request > r->n) return BAD("request %u: expected request %zu to start first", request, r->n);
  return 0;
}

static int check_plan(const Pdt__SessionStart *m, pdt_error *err) {
  for (size_t i = 0; i < m->n_plan_ids; i++)
    if (m->plan_ids[i] < 0)
      return BAD("request %u: plan slot %zu: expected an id of 0 or more, found %d", m->request, i,
                 m->plan_ids[i]);
  for (size_t i = 0; i < m->n_plan_note; i++)
    if (!isfinite(m->plan_note[i]))
      return BAD("request %u: its plan note is not finite", m->request);
  return 0;
}

/* The request, as far as it can be checked without its model, and the plan. */
static int read_start(pdt_replay_session *s, const Pdt__SessionStart *m, pdt_error *err) {
  char where[64];
  snprintf(where, sizeof where, "request %u", m->request);
  if (!m->resolved) return BAD("%s: its session starts without it", where);
  if (pdt_request_from_message(&s->request, m->resolved, where, NULL, err)) return -1;
  size_t slots = s->request.plan_ids ? (size_t)s->request.settings.limits.slots : m->n_plan_ids;
  if (s->request.session != m->session || slots != m->n_plan_ids)
    return BAD("%s: its session and plan are not those that it names", where);
  s->index = (int32_t)m->request;
  s->plan = pdt_replay_plan_hash(m->plan_ids, m->n_plan_ids, m->plan_note, m->n_plan_note);
  s->slots = (int32_t)slots;
  s->request.settings.limits.slots = s->slots;
  s->round = 1;
  if (PDT_NEW(&s->plan_ids, s->slots, "session", err)) return -1;
  if (s->slots > 0) memcpy(s->plan_ids, m->plan_ids, slots * sizeof *s->plan_ids);
  return 0;
}

static int take_start(pdt_replay *r, const Pdt__SessionStart *m, pdt_error *err) {
  pdt_replay_session *s;
  if (check_order(r, m->request, err) || check_plan(m, err) ||
      PDT_GROW(&r->slots, r->n, &r->room, err) || PDT_NEW(&s, 1, "session", err))
    return -1;
  if (read_start(s, m, err)) {
    free_session(s);
    return -1;
  }
  r->slots[r->n++] = (pdt_replay_slot){
      .number = m->session, .n_streams = s->request.settings.streams, .session = s};
  r->totals.started++;
  return 0;
}

/* The session of a request in flight, as an entry names it; NULL after an error. */
static pdt_replay_session *in_flight(const pdt_replay *r, uint32_t request, uint64_t session,
                                     pdt_error *err) {
  const pdt_replay_slot *slot = request < r->n ? &r->slots[request] : NULL;
  if (!slot && request >= r->totals.requests)
    BAD("request %u: expected one of the header's %lld", request, (long long)r->totals.requests);
  else if (!slot)
    BAD("request %u: its session has not started", request);
  else if (!slot->session)
    BAD("request %u: its session has ended", request);
  else if (slot->number != session)
    BAD("request %u: expected session %llu, found %llu", request, (unsigned long long)slot->number,
        (unsigned long long)session);
  else
    return slot->session;
  return NULL;
}

/* ---- a decision ---- */

/* The block itself: numbers in range. */
static int check_block(const pdt_replay_session *s, const Pdt__StreamDecision *d, pdt_error *err) {
  int32_t most = pdt_settings_block(&s->request.settings);
  if (!(d->readiness >= 0 && d->readiness <= 1))
    return BAD("stream %u: expected a readiness from 0 to 1, found %g", d->stream,
               (double)d->readiness);
  if (d->action <= PDT__ACTION__ACTION_NONE || d->action > PDT__ACTION__ACTION_FORCE)
    return BAD("stream %u: expected an action from 1 to 4, found %d", d->stream, (int)d->action);
  if (d->n_tokens == 0 || d->n_tokens > (size_t)most)
    return BAD("stream %u: expected a block of 1 to %d tokens, found %zu", d->stream, most,
               d->n_tokens);
  for (size_t i = 0; i < d->n_tokens; i++)
    if (d->tokens[i] < 0)
      return BAD("stream %u: expected a token of 0 or more, found %d", d->stream, d->tokens[i]);
  if (d->n_coverage != (size_t)s->slots)
    return BAD("stream %u: expected coverage of %d plan slots, found %zu", d->stream, s->slots,
               d->n_coverage);
  for (size_t i = 0; i < d->n_coverage; i++)
    if (!isfinite(d->coverage[i])) return BAD("stream %u: coverage is not finite", d->stream);
  return 0;
}

/* The verdicts of one session's decision, into r->verdicts. */
static int read_verdicts(pdt_replay *r, const pdt_replay_session *s, const Pdt__SessionDecision *d,
                         pdt_error *err) {
  for (size_t i = 0; i < d->n_streams; i++) {
    const Pdt__StreamDecision *b = d->streams[i];
    if (b->stream >= (uint32_t)s->request.settings.streams)
      return BAD("stream %u: expected one of the request's %d", b->stream,
                 s->request.settings.streams);
    if (i > 0 && b->stream <= d->streams[i - 1]->stream)
      return BAD("stream %u follows stream %u", b->stream, d->streams[i - 1]->stream);
    if (check_block(s, b, err) || PDT_GROW(&r->verdicts, i, &r->verdicts_room, err)) return -1;
    r->verdicts[i] =
        (pdt_block_verdict){.stream = (pdt_stream)b->stream,
                            .attempt = b->attempt > INT32_MAX ? -1 : (int32_t)b->attempt,
                            .readiness = b->readiness,
                            .action = (pdt_action)b->action,
                            .tokens = b->tokens,
                            .n_tokens = (int32_t)b->n_tokens,
                            .ended = b->ended,
                            .coverage = b->coverage};
  }
  return 0;
}

/* Round 1 makes the session: a decision that has all streams that write accounts for their memory,
 * and the request's prefixes for that of the others. */
static int first_round(pdt_replay_session *s, const Pdt__SessionDecision *d, pdt_error *err) {
  if (d->round != 1) return BAD("expected round 1, found %u", d->round);
  int32_t writers = pdt_session_writers(&s->request.settings, s->plan_ids);
  if (d->n_streams != (size_t)writers)
    return BAD("round 1 of %zu streams: expected all that write, %d", d->n_streams, writers);
  return pdt_session_new(&s->session, &s->request.settings, 0, PDT_ROOM_AS_NEEDED, err) ||
                 pdt_session_plan(&s->session, s->plan_ids, NULL, err)
             ? -1
             : 0;
}

static void count(pdt_journal_totals *t, const pdt_session_decision *d, int64_t committed) {
  for (int32_t i = 0; i < d->n_blocks; i++) {
    t->tokens += d->blocks[i].n_tokens;
    t->commits += d->blocks[i].action == PDT_ACTION_COMMIT;
    t->holds += d->blocks[i].action == PDT_ACTION_HOLD;
    t->rollbacks += d->blocks[i].action == PDT_ACTION_ROLLBACK;
    t->forced += d->blocks[i].action == PDT_ACTION_FORCE;
  }
  t->rounds++;
  t->gates += d->gate;
  t->committed += committed;
}

/* What was written cannot be: it is no invariant of this program's that broke. */
static int blame_input(pdt_error *err) {
  if (err && err->code == PDT_ERROR_RUNTIME) err->code = PDT_ERROR_INPUT;
  return -1;
}

/* The fault of a session that has had no round: it has no streams to ask. */
static int check_first_fault(const pdt_replay_session *s, const Pdt__SessionDecision *d,
                             pdt_error *err) {
  if (d->round != 1) return BAD("expected round 1, found %u", d->round);
  if (d->fault_stream < (uint32_t)s->request.settings.streams) return 0;
  return BAD("a fault of stream %u: expected one of the request's %d", d->fault_stream,
             s->request.settings.streams);
}

/* A number that was none ends a session, in place of a round. */
static int take_fault(pdt_replay *r, pdt_replay_session *s, const Pdt__SessionDecision *d,
                      pdt_error *err) {
  pdt_round round = d->round > INT32_MAX ? -1 : (pdt_round)d->round;
  pdt_stream k = d->fault_stream > INT32_MAX ? -1 : (pdt_stream)d->fault_stream;
  if (d->fault <= PDT__FAULT__FAULT_NONE || d->fault > PDT__FAULT__FAULT_WITHDRAWN)
    return BAD("expected a fault from 1 to 5, found %d", (int)d->fault);
  if (d->n_streams > 0 || d->gate)
    return BAD("a fault with %zu blocks and a gate that %s: expected none, and one that failed",
               d->n_streams, d->gate ? "passed" : "failed");
  if (!s->session.streams && check_first_fault(s, d, err)) return -1;
  if (s->session.streams && pdt_session_check_fault(&s->session, round, k, err))
    return blame_input(err);
  s->fault = r->slots[d->request].fault = (pdt_fault)d->fault;
  s->fault_stream = k;
  r->totals.faults++;
  return 0;
}

static int decide_round(pdt_replay *r, pdt_replay_session *s, const Pdt__SessionDecision *m,
                        pdt_error *err) {
  int64_t committed;
  if ((!s->session.streams && first_round(s, m, err)) || read_verdicts(r, s, m, err)) return -1;
  const pdt_session_decision d = {.round = m->round > INT32_MAX ? -1 : (pdt_round)m->round,
                                  .gate = m->gate,
                                  .blocks = r->verdicts,
                                  .n_blocks = (int32_t)m->n_streams};
  if (pdt_session_reserve(&s->session, &d, err) ||
      pdt_session_apply(&s->session, &d, &committed, err))
    return blame_input(err);
  r->slots[m->request].rounds = d.round;
  s->round = d.round + 1;
  count(&r->totals, &d, committed);
  return 0;
}

static int decide_session(pdt_replay *r, const Pdt__SessionDecision *m, pdt_error *err) {
  pdt_replay_session *s = in_flight(r, m->request, m->session, err);
  if (!s) return -1;
  if (s->boundary == r->boundary) return BAD("request %u: decided twice", m->request);
  if (s->fault != PDT_FAULT_NONE)
    return BAD("request %u: a fault of its %s has ended it", m->request, pdt_fault_name(s->fault));
  s->boundary = r->boundary;
  if (s->first == 0) s->first = r->boundary;
  int status =
      m->fault == PDT__FAULT__FAULT_NONE ? decide_round(r, s, m, err) : take_fault(r, s, m, err);
  return status ? pdt_fail_in(err, "request %u, round %u", m->request, m->round) : 0;
}

static int take_decision(pdt_replay *r, const Pdt__Decision *d, pdt_error *err) {
  if (d->boundary == 0 || d->boundary != r->boundary + 1)
    return BAD("expected boundary %llu, found %llu", (unsigned long long)r->boundary + 1,
               (unsigned long long)d->boundary);
  r->boundary = d->boundary;
  r->totals.boundaries++;
  uint64_t hash = 0;
  for (size_t i = 0; i < d->n_sessions; i++) {
    if (decide_session(r, d->sessions[i], err)) return -1;
    hash = pdt_bus_hash_add(hash, d->sessions[i]->bus_hash);
  }
  if (hash == d->bus_hash) return 0;
  return BAD("boundary %llu: the hash of all notes is not that of its sessions' notes",
             (unsigned long long)d->boundary);
}

/* ---- a session's end ---- */

/* A session ends complete or not as its streams are, and after a fault never complete. */
static int check_end(const pdt_replay_session *s, const Pdt__SessionEnd *m, pdt_error *err) {
  bool begun = s->session.streams != NULL, done = begun && pdt_session_complete(&s->session);
  if (s->fault != PDT_FAULT_NONE && m->complete)
    return BAD("request %u: it ends complete, but a fault of its %s has ended it", m->request,
               pdt_fault_name(s->fault));
  if (s->fault != PDT_FAULT_NONE || (begun && done == (m->complete != 0))) return 0;
  return BAD("request %u: it ends %s, but its streams are %s", m->request,
             m->complete ? "complete" : "before its streams are done",
             !begun ? "without a round"
             : done ? "done"
                    : "not done");
}

bool pdt_replay_is_over(const pdt_replay_session *s) {
  return s->session.streams && s->fault == PDT_FAULT_NONE && pdt_session_over(&s->session);
}

uint64_t pdt_replay_plan_hash(const int32_t *ids, size_t n, const float *note, size_t dim) {
  return XXH3_64bits_withSeed(note, dim * sizeof *note, XXH3_64bits(ids, n * sizeof *ids));
}

static int take_end(pdt_replay *r, const Pdt__SessionEnd *m, pdt_error *err) {
  pdt_replay_session *s = in_flight(r, m->request, m->session, err);
  if (!s) return -1;
  if (check_end(s, m, err)) return -1;
  s->complete = m->complete;
  r->slots[m->request].session = NULL;
  r->ended = s;
  r->totals.ended++;
  r->totals.complete += s->complete;
  return 0;
}

/* ---- a request that is not served ---- */

/* It never started, or a fault has ended it. */
static int take_failure(pdt_replay *r, const Pdt__RequestFailure *m, pdt_error *err) {
  if (!pdt_is_utf8((const char *)m->error.data, m->error.len))
    return BAD("request %u: its error is no UTF-8", m->request);
  if (m->request < r->n) {
    pdt_replay_session *s = in_flight(r, m->request, m->session, err);
    if (!s) return -1;
    if (s->fault == PDT_FAULT_NONE)
      return BAD("request %u: it is not served, but no fault has ended its session", m->request);
    r->ended = s;
    r->slots[m->request].session = NULL;
    r->totals.ended++;
  } else {
    if (check_order(r, m->request, err) || PDT_GROW(&r->slots, r->n, &r->room, err)) return -1;
    r->slots[r->n++] = (pdt_replay_slot){.number = m->session};
  }
  r->slots[m->request].failed = true;
  r->totals.failed++;
  return 0;
}

static int take(pdt_replay *r, const pdt_journal_entry *entry, pdt_error *err) {
  const Pdt__JournalEntry *m = entry->message;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER) return take_header(r, m->header, err);
  if (!r->have_header) return BAD("expected the header first");
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START) return take_start(r, m->start, err);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_END) return take_end(r, m->end, err);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE) return take_failure(r, m->failure, err);
  return take_decision(r, entry->decision, err);
}

int pdt_replay_entry(pdt_replay *r, const pdt_journal_entry *entry,
                     const pdt_replay_session **ended, pdt_error *err) {
  free_session(r->ended);
  r->ended = NULL;
  *ended = NULL;
  if (take(r, entry, err))
    return pdt_fail_in(err, "entry %lld at byte %lld", (long long)entry->index,
                       (long long)entry->offset);
  r->totals.entries++;
  bool failed = entry->message->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE;
  *ended = failed ? NULL : r->ended;
  return 0;
}

static int replay_all(pdt_journal_reader *reader, pdt_replay *r, pdt_error *err) {
  pdt_journal_entry entry;
  const pdt_replay_session *ended;
  int more;
  while ((more = pdt_journal_reader_next(reader, &entry, err)) > 0)
    if (pdt_replay_entry(r, &entry, &ended, err))
      return pdt_fail_in(err, "%s: journal", reader->name);
  if (more < 0) return -1;
  return r->have_header ? 0 : BAD("%s: journal: it has no header", reader->name);
}

int pdt_journal_verify(const char *path, pdt_journal_totals *totals, pdt_bytes *torn,
                       pdt_error *err) {
  pdt_journal_reader reader;
  pdt_replay replay;
  if (pdt_journal_reader_open(&reader, path, err)) return -1;
  pdt_replay_init(&replay);
  int rc = replay_all(&reader, &replay, err);
  if (rc == 0 && totals) *totals = replay.totals;
  if (rc == 0 && torn) *torn = reader.torn;
  pdt_replay_free(&replay);
  pdt_journal_reader_close(&reader);
  return rc;
}
