#include "journal/verify.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "protocol/decide.h"
#include "request/message.h"

static_assert(PDT__ACTION__ACTION_COMMIT == (int)PDT_ACTION_COMMIT, "actions share their values");
static_assert(PDT__ACTION__ACTION_FORCE == (int)PDT_ACTION_FORCE, "actions share their values");

void pdt_journal_check_init(pdt_journal_check *c) {
  *c = (pdt_journal_check){0};
}

void pdt_journal_check_free(pdt_journal_check *c) {
  for (size_t i = 0; i < c->n_started; i++) free(c->sessions[i].streams);
  free(c->sessions);
  pdt_journal_check_init(c);
}

#define BAD(...) pdt_fail(err, PDT_ERROR_INPUT, __VA_ARGS__)

static int check_header(pdt_journal_check *c, const Pdt__RunHeader *h, pdt_error *err) {
  if (c->have_header) return BAD("a second header");
  if (h->ranks == 0 || h->tensor_parallel == 0 || h->ranks % h->tensor_parallel != 0)
    return BAD("header: %u ranks cannot make shard groups of %u", h->ranks, h->tensor_parallel);
  if (!pdt_is_utf8(h->version, strlen(h->version))) return BAD("header: its text is no UTF-8");
  c->have_header = true;
  c->n_requests = h->requests;
  c->totals.requests = h->requests;
  return 0;
}

/* The session of a request in flight, as an entry names it; NULL after an error. */
static pdt_journal_session *in_flight(pdt_journal_check *c, uint32_t request, uint64_t session,
                                      pdt_error *err) {
  pdt_journal_session *s = request < c->n_started ? &c->sessions[request] : NULL;
  if (!s && request >= c->n_requests)
    BAD("request %u: expected one of the header's %zu", request, c->n_requests);
  else if (!s)
    BAD("request %u: its session has not started", request);
  else if (s->ended)
    BAD("request %u: its session has ended", request);
  else if (s->session != session)
    BAD("request %u: expected session %llu, found %llu", request, (unsigned long long)s->session,
        (unsigned long long)session);
  else
    return s;
  return NULL;
}

/* The request of a session, as far as it can be checked without its model. */
static int check_request(const Pdt__SessionStart *start, pdt_journal_session *s, pdt_error *err) {
  pdt_request r;
  char where[64];
  snprintf(where, sizeof where, "request %u", start->request);
  if (!start->resolved) return BAD("%s: its session starts without it", where);
  if (pdt_request_from_message(&r, start->resolved, where, NULL, err)) return -1;
  size_t slots = r.plan_ids ? (size_t)r.settings.limits.slots : start->n_plan_ids;
  *s = (pdt_journal_session){.session = start->session,
                             .max_block = pdt_request_block(&r),
                             .n_slots = start->n_plan_ids,
                             .n_streams = (size_t)r.settings.streams};
  bool same = r.session == start->session && slots == start->n_plan_ids;
  pdt_request_free(&r);
  return same ? 0 : BAD("%s: its session and plan are not those that it names", where);
}

static int check_start(pdt_journal_check *c, const Pdt__SessionStart *start, pdt_error *err) {
  if (start->request >= c->n_requests)
    return BAD("request %u: expected one of the header's %zu", start->request, c->n_requests);
  if (start->request < c->n_started)
    return BAD("request %u: its session starts again", start->request);
  if (start->request > c->n_started)
    return BAD("request %u: expected request %zu to start first", start->request, c->n_started);
  for (size_t i = 0; i < start->n_plan_ids; i++)
    if (start->plan_ids[i] < 0)
      return BAD("request %u: plan slot %zu: expected an id of 0 or more, found %d", start->request,
                 i, start->plan_ids[i]);
  for (size_t i = 0; i < start->n_plan_note; i++)
    if (!isfinite(start->plan_note[i]))
      return BAD("request %u: its plan note is not finite", start->request);
  if (PDT_GROW(&c->sessions, c->n_started, &c->room, err) ||
      check_request(start, &c->sessions[c->n_started], err))
    return -1;
  c->n_started++;
  c->totals.started++;
  return 0;
}

static int check_end(pdt_journal_check *c, const Pdt__SessionEnd *end, pdt_error *err) {
  pdt_journal_session *s = in_flight(c, end->request, end->session, err);
  if (!s) return -1;
  for (size_t k = 0; end->complete && s->streams && k < s->n_streams; k++)
    if (s->streams[k].pending > 0)
      return BAD("request %u: complete, but stream %zu has %lld tokens pending", end->request, k,
                 (long long)s->streams[k].pending);
  if (end->complete && s->round == 0)
    return BAD("request %u: complete, but it had no round", end->request);
  free(s->streams);
  s->streams = NULL;
  s->ended = true;
  c->totals.ended++;
  c->totals.complete += end->complete;
  return 0;
}

/* The block itself: numbers in range. */
static int check_block(const pdt_journal_session *s, const Pdt__StreamDecision *d, pdt_error *err) {
  if (!(d->readiness >= 0 && d->readiness <= 1))
    return BAD("stream %u: expected a readiness from 0 to 1, found %g", d->stream, d->readiness);
  if (d->n_tokens == 0 || d->n_tokens > (size_t)s->max_block)
    return BAD("stream %u: expected a block of 1 to %d tokens, found %zu", d->stream, s->max_block,
               d->n_tokens);
  for (size_t i = 0; i < d->n_tokens; i++)
    if (d->tokens[i] < 0)
      return BAD("stream %u: expected a token of 0 or more, found %d", d->stream, d->tokens[i]);
  if (d->n_coverage != s->n_slots)
    return BAD("stream %u: expected coverage of %zu plan slots, found %zu", d->stream, s->n_slots,
               d->n_coverage);
  for (size_t i = 0; i < d->n_coverage; i++)
    if (!isfinite(d->coverage[i])) return BAD("stream %u: coverage is not finite", d->stream);
  return 0;
}

/* Applies one verdict to what is known of the stream (3.7). */
static int apply(pdt_journal_check *c, pdt_journal_stream *k, const Pdt__StreamDecision *d,
                 bool gate, pdt_error *err) {
  bool legal = gate ? d->action == PDT__ACTION__ACTION_COMMIT
                    : d->action == PDT__ACTION__ACTION_HOLD ||
                          d->action == PDT__ACTION__ACTION_ROLLBACK ||
                          d->action == PDT__ACTION__ACTION_FORCE;
  if (!legal)
    return BAD("stream %u: action %d cannot be where the gate %s", d->stream, (int)d->action,
               gate ? "passed" : "failed");
  if (d->attempt != k->attempt)
    return BAD("stream %u: expected attempt %lld, found %u", d->stream, (long long)k->attempt,
               d->attempt);
  if (k->ended) return BAD("stream %u: a block after the end of its sequence", d->stream);
  c->totals.tokens += (int64_t)d->n_tokens;
  if (d->action == PDT__ACTION__ACTION_ROLLBACK) {
    k->pending = 0;
    k->attempt++;
    c->totals.rollbacks++;
    return 0;
  }
  k->pending += (int64_t)d->n_tokens;
  k->ended = d->ended;
  c->totals.commits += d->action == PDT__ACTION__ACTION_COMMIT;
  c->totals.holds += d->action == PDT__ACTION__ACTION_HOLD;
  c->totals.forced += d->action == PDT__ACTION__ACTION_FORCE;
  if (d->action != PDT__ACTION__ACTION_FORCE) return 0;
  c->totals.committed += k->pending;
  k->pending = 0;
  k->attempt = 0;
  return 0;
}

/* A passed gate commits every pending block, also of streams that waited. */
static void commit_all(pdt_journal_check *c, pdt_journal_session *s) {
  for (size_t k = 0; k < s->n_streams; k++) {
    c->totals.committed += s->streams[k].pending;
    s->streams[k].pending = 0;
    s->streams[k].attempt = 0;
  }
}

static int check_streams(pdt_journal_check *c, pdt_journal_session *s,
                         const Pdt__SessionDecision *d, pdt_error *err) {
  bool weak = false;
  for (size_t i = 0; i < d->n_streams; i++) {
    const Pdt__StreamDecision *block = d->streams[i];
    if (i > 0 && block->stream <= d->streams[i - 1]->stream)
      return BAD("stream %u follows stream %u", block->stream, d->streams[i - 1]->stream);
    if (block->stream >= s->n_streams)
      return BAD("stream %u: expected one of the request's %zu", block->stream, s->n_streams);
    if (check_block(s, block, err) || apply(c, &s->streams[block->stream], block, d->gate, err))
      return -1;
    weak = weak || block->action == PDT__ACTION__ACTION_ROLLBACK ||
           block->action == PDT__ACTION__ACTION_FORCE;
  }
  if (!d->gate && !weak) return BAD("the gate failed, but no block was weak");
  if (d->gate) commit_all(c, s);
  return 0;
}

static int check_session(pdt_journal_check *c, const Pdt__SessionDecision *d, pdt_error *err) {
  pdt_journal_session *s = in_flight(c, d->request, d->session, err);
  if (!s) return -1;
  if (s->boundary == c->boundary) return BAD("request %u: decided twice", d->request);
  if (d->round != (uint64_t)s->round + 1)
    return BAD("request %u: expected round %llu, found %u", d->request,
               (unsigned long long)s->round + 1, d->round);
  if (d->round == 1) {
    if (d->n_streams != s->n_streams)
      return BAD("request %u: round 1 of %zu streams: expected all, %zu", d->request, d->n_streams,
                 s->n_streams);
    if (PDT_NEW(&s->streams, d->n_streams, "journal streams", err)) return -1;
  }
  s->boundary = c->boundary;
  s->round = d->round;
  c->totals.rounds++;
  c->totals.gates += d->gate;
  if (check_streams(c, s, d, err))
    return pdt_fail_in(err, "request %u, round %u", d->request, d->round);
  return 0;
}

static int check_decision(pdt_journal_check *c, const Pdt__Decision *d, pdt_error *err) {
  if (d->boundary == 0 || d->boundary != c->boundary + 1)
    return BAD("expected boundary %llu, found %llu", (unsigned long long)c->boundary + 1,
               (unsigned long long)d->boundary);
  c->boundary = d->boundary;
  c->totals.boundaries++;
  for (size_t i = 0; i < d->n_sessions; i++)
    if (check_session(c, d->sessions[i], err)) return -1;
  return 0;
}

static int check_kind(pdt_journal_check *c, const pdt_journal_entry *entry, pdt_error *err) {
  const Pdt__JournalEntry *m = entry->message;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER) return check_header(c, m->header, err);
  if (!c->have_header) return BAD("expected the header first");
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START) return check_start(c, m->start, err);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_END) return check_end(c, m->end, err);
  return check_decision(c, entry->decision, err);
}

int pdt_journal_check_entry(pdt_journal_check *c, const pdt_journal_entry *entry, pdt_error *err) {
  if (check_kind(c, entry, err))
    return pdt_fail_in(err, "entry %lld at byte %lld", (long long)entry->index,
                       (long long)entry->offset);
  c->totals.entries++;
  return 0;
}

static int verify_all(pdt_journal_reader *r, pdt_journal_check *c, pdt_error *err) {
  pdt_journal_entry entry;
  int more;
  while ((more = pdt_journal_reader_next(r, &entry, err)) > 0)
    if (pdt_journal_check_entry(c, &entry, err)) return pdt_fail_in(err, "%s: journal", r->name);
  if (more < 0) return -1;
  return c->have_header ? 0 : BAD("%s: journal: it has no header", r->name);
}

int pdt_journal_verify(const char *path, pdt_journal_totals *totals, pdt_bytes *torn,
                       pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_check check;
  if (pdt_journal_reader_open(&reader, path, err)) return -1;
  pdt_journal_check_init(&check);
  int rc = verify_all(&reader, &check, err);
  if (rc == 0 && totals) *totals = check.totals;
  if (rc == 0 && torn) *torn = reader.torn;
  pdt_journal_check_free(&check);
  pdt_journal_reader_close(&reader);
  return rc;
}
