/* The Decision as a message: made by the coordinator, sent to everybody, read by everybody. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "engine/run.h"

static_assert(PDT__FAULT__FAULT_LOGITS == (int)PDT_FAULT_LOGITS, "faults share their values");
static_assert(PDT__FAULT__FAULT_WITHDRAWN == (int)PDT_FAULT_WITHDRAWN, "faults share their values");

/* A Decision under construction; everything it points to lives in the mail's arena or in the lanes.
 */
typedef struct draft {
  Pdt__Decision message;
  Pdt__SessionDecision *sessions;
  Pdt__SessionDecision **session_list;
  Pdt__StreamDecision *streams;
  Pdt__StreamDecision **stream_list;
  pdt_vote *votes;
  pdt_action *actions;
} draft;

static int new_draft(draft *d, pdt_arena *arena, int32_t n_sessions, int32_t n_lanes,
                     pdt_error *err) {
  *d = (draft){.message = PDT__DECISION__INIT};
  return PDT_TAKE(arena, &d->sessions, n_sessions, err) ||
         PDT_TAKE(arena, &d->session_list, n_sessions, err) ||
         PDT_TAKE(arena, &d->streams, n_lanes, err) ||
         PDT_TAKE(arena, &d->stream_list, n_lanes, err) ||
         PDT_TAKE(arena, &d->votes, n_lanes, err) || PDT_TAKE(arena, &d->actions, n_lanes, err);
}

/* The first lane of a session that met a number that is none; NULL without one. */
static const pdt_lane *faulty_lane(const pdt_round_buffers *b, const pdt_running *r) {
  for (int32_t i = r->first_lane; i < r->first_lane + r->n_lanes; i++)
    if (b->lanes[i].fault != PDT_FAULT_NONE) return &b->lanes[i];
  return NULL;
}

/* What ends the session in place of a round: a number that is none, or nobody who wants the answer;
 * *stream is the one that is named with it, which must have emitted a block. Where all streams wait
 * none has: the session is withdrawn in its next round, if it has one. */
static pdt_fault fault_of(const pdt_run *run, const pdt_running *r, pdt_stream *stream) {
  const pdt_observer *o = &run->setup.observer;
  if (r->n_lanes == 0) return PDT_FAULT_NONE;
  const pdt_lane *faulty = faulty_lane(&run->round, r);
  *stream = faulty ? faulty->stream : run->round.lanes[r->first_lane].stream;
  if (faulty) return faulty->fault;
  return o->withdrawn && o->withdrawn(o->context, r->index) ? PDT_FAULT_WITHDRAWN : PDT_FAULT_NONE;
}

static void put_block(const pdt_run *run, const pdt_lane *lane, const pdt_vote *vote,
                      pdt_action action, Pdt__StreamDecision *out) {
  pdt__stream_decision__init(out);
  out->stream = (uint32_t)lane->stream;
  out->action = (Pdt__Action)action;
  out->attempt = (uint32_t)vote->attempt;
  out->readiness = lane->readiness;
  out->n_tokens = (size_t)lane->emitted;
  out->tokens = lane->tokens;
  out->ended = lane->ended;
  out->n_coverage = (size_t)run->loaded->sidecar.config.plan_slots;
  out->coverage = lane->coverage;
}

/* Decides about the lanes of one session. */
static void decide_session(const pdt_run *run, draft *d, const pdt_running *r,
                           Pdt__SessionDecision *out) {
  const pdt_settings *settings = &r->session.settings;
  const pdt_lane *lanes = run->round.lanes + r->first_lane;
  int32_t first = r->first_lane, n = r->n_lanes;
  pdt_stream named;
  pdt_fault fault = fault_of(run, r, &named);
  pdt__session_decision__init(out);
  out->session = r->request->session;
  out->request = (uint32_t)r->index;
  out->round = (uint32_t)r->session.round;
  out->bus_hash = r->bus_hash;
  if (fault != PDT_FAULT_NONE) {
    out->fault = (Pdt__Fault)fault;
    out->fault_stream = (uint32_t)named;
    return;
  }
  for (int32_t i = 0; i < n; i++)
    d->votes[i] = (pdt_vote){lanes[i].stream, r->session.streams[lanes[i].stream].attempt,
                             lanes[i].readiness};
  out->gate = pdt_decide(d->votes, n, settings->gamma, settings->limits.policy,
                         settings->max_attempts, d->actions);
  out->n_streams = (size_t)n;
  out->streams = d->stream_list + first;
  for (int32_t i = 0; i < n; i++) {
    d->stream_list[first + i] = &d->streams[first + i];
    put_block(run, &lanes[i], &d->votes[i], d->actions[i], &d->streams[first + i]);
  }
}

int pdt_decision_fit(pdt_run *run, int64_t bytes, pdt_error *err) {
  pdt_mail *m = &run->mail;
  if (bytes <= m->decision_bytes) return 0;
  free(m->decision);
  m->decision_bytes = 0;
  if (PDT_NEW(&m->decision, 2 * bytes, "decision", err)) return -1;
  m->decision_bytes = 2 * bytes;
  return 0;
}

int pdt_decision_make(pdt_run *run, uint64_t bus_hash, int64_t *bytes, pdt_error *err) {
  const pdt_observer *o = &run->setup.observer;
  draft d;
  int status = new_draft(&d, &run->mail.draft, run->n_decoding, run->round.n_lanes, err);
  for (int32_t i = 0; i < run->n_decoding && !status; i++) {
    d.session_list[i] = &d.sessions[i];
    decide_session(run, &d, run->sessions[i], &d.sessions[i]);
  }
  d.message.boundary = run->boundary;
  d.message.bus_hash = bus_hash;
  d.message.n_sessions = (size_t)run->n_decoding;
  d.message.sessions = d.session_list;
  *bytes = status ? 0 : (int64_t)pdt__decision__get_packed_size(&d.message);
  if (!status) status = pdt_decision_fit(run, *bytes, err);
  if (!status) pdt__decision__pack(&d.message, run->mail.decision);
  if (!status && o->decided) status = o->decided(o->context, run->mail.decision, *bytes, err);
  pdt_arena_reset(&run->mail.draft);
  return status ? -1 : 0;
}

/* Bytes that come first: as many as the packed decision about the lanes that are listed can have,
 * but not more than a letter's. The same on every rank. */
static int64_t letter_room(const pdt_run *run) {
  enum {
    SESSION = 64,
    LANE = 48,
    TOKEN = 5,
    SLOT = 4
  }; /* keys, lengths and numbers at their largest */
  int64_t bytes = SESSION * (1 + (int64_t)run->n_decoding),
          most = PDT_LETTER_BYTES - PDT_CARRIED_BYTES - 16;
  for (int32_t i = 0; i < run->round.n_lanes && bytes < most; i++)
    bytes += LANE + TOKEN * (int64_t)run->round.lanes[i].room +
             SLOT * (int64_t)run->loaded->sidecar.config.plan_slots;
  return bytes < most ? bytes : most;
}

/* Broadcasts a letter: its head, the packed message as far as `first` bytes hold all of it, and
 * notes that are carried. */
static void send_letter(pdt_run *run, int64_t head[2], int64_t first) {
  const pdt_comm *world = run->machine->world;
  pdt_mail *m = &run->mail;
  pdt_bytes notes = run->exchange.carried ? pdt_notes_bytes(run) : 0;
  uint8_t *message = m->letter + 2 * sizeof *head, *note = message + first;
  if (world->rank == 0) {
    memcpy(m->letter, head, 2 * sizeof *head);
    if (*head > 0 && *head <= first) memcpy(message, m->decision, (size_t)*head);
    if (notes > 0) memcpy(note, pdt_notes_under_way(run), (size_t)notes);
  }
  pdt_comm_broadcast(world, m->letter, note + notes - m->letter, 0);
  memcpy(head, m->letter, 2 * sizeof *head);
  if (notes > 0 && world->rank != 0) memcpy(pdt_notes_under_way(run), note, (size_t)notes);
  run->exchange.carried = false;
}

int pdt_decision_share(pdt_run *run, int64_t *bytes, int64_t room, pdt_error *err) {
  const pdt_comm *world = run->machine->world;
  pdt_mail *m = &run->mail;
  int64_t first = letter_room(run), head[2] = {*bytes, run->stopped};
  send_letter(run, head, first);
  *bytes = head[0];
  run->stopped = head[1] != 0;
  bool fits = *bytes <= first;
  if (*bytes < 0) { /* every rank says what it met */
    if (run->failure.code != PDT_ERROR_NONE) *err = run->failure;
    pdt_comm_agree(world, err);
    return -1;
  }
  if (*bytes > room) {
    pdt_decision_fit(run, *bytes, err);
    if (pdt_comm_agree(world, err)) return -1;
  }
  if (!fits)
    pdt_comm_broadcast(world, m->decision, *bytes, 0);
  else if (world->rank != 0 && *bytes > 0)
    memcpy(m->decision, m->letter + sizeof head, (size_t)*bytes);
  return 0;
}

/* ---- reading ---- */

/* Tokens are the model's, and the last one alone may end the stream, as the block says. */
static int check_tokens(const pdt_run *run, const pdt_running *r, const Pdt__StreamDecision *b,
                        pdt_error *err) {
  for (size_t i = 0; i < b->n_tokens; i++) {
    if (b->tokens[i] < 0 || b->tokens[i] >= run->loaded->model.vocab_size)
      return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %u: token %d: expected 0 to %d", b->stream,
                      b->tokens[i], run->loaded->model.vocab_size - 1);
    bool ends = i + 1 == b->n_tokens && b->ended;
    if (pdt_run_ends(run, r, (pdt_stream)b->stream, (int64_t)i, b->tokens[i]) == ends) continue;
    return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %u: its block %s, but token %zu of %zu is %d",
                    b->stream, b->ended ? "ends the stream" : "does not end the stream", i + 1,
                    b->n_tokens, b->tokens[i]);
  }
  return 0;
}

static int read_block(const pdt_run *run, const pdt_running *r, const Pdt__StreamDecision *b,
                      pdt_block_verdict *out, pdt_error *err) {
  if (b->stream >= (uint32_t)r->session.settings.streams ||
      b->n_coverage != (size_t)run->loaded->sidecar.config.plan_slots || b->n_tokens > INT32_MAX ||
      b->attempt > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "a block of stream %u with coverage of %zu plan slots: expected one of %d "
                    "streams, %d slots",
                    b->stream, b->n_coverage, r->session.settings.streams,
                    run->loaded->sidecar.config.plan_slots);
  if (b->action <= PDT__ACTION__ACTION_NONE || b->action > PDT__ACTION__ACTION_FORCE)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %u: expected an action from 1 to 4, found %d",
                    b->stream, (int)b->action);
  if (check_tokens(run, r, b, err)) return -1;
  *out = (pdt_block_verdict){.stream = (pdt_stream)b->stream,
                             .attempt = (int32_t)b->attempt,
                             .readiness = b->readiness,
                             .action = (pdt_action)b->action,
                             .tokens = b->tokens,
                             .n_tokens = (int32_t)b->n_tokens,
                             .ended = b->ended,
                             .coverage = b->coverage};
  return 0;
}

/* A session that met a number that is none has nothing but that. */
static int check_fault(const pdt_running *r, const Pdt__SessionDecision *d, pdt_error *err) {
  if (d->fault <= PDT__FAULT__FAULT_NONE || d->fault > PDT__FAULT__FAULT_WITHDRAWN)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "expected a fault from 1 to 5, found %d",
                    (int)d->fault);
  if (d->n_streams > 0 || d->gate)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "a fault with %zu blocks and a gate that %s: expected none, and one that "
                    "failed",
                    d->n_streams, d->gate ? "passed" : "failed");
  pdt_stream k = d->fault_stream > INT32_MAX ? -1 : (pdt_stream)d->fault_stream;
  return pdt_session_check_fault(&r->session, (pdt_round)d->round, k, err);
}

int pdt_decision_read(pdt_run *run, const pdt_running *r, const Pdt__SessionDecision *d,
                      pdt_session_decision *out, pdt_error *err) {
  if (d->request != (uint32_t)r->index || d->session != r->request->session ||
      d->n_streams > (size_t)r->session.settings.streams || d->round > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "expected the decision about request %d, found round %u of request %u, session "
                    "%llu, with %zu blocks",
                    r->index, d->round, d->request, (unsigned long long)d->session, d->n_streams);
  if (d->fault != PDT__FAULT__FAULT_NONE && check_fault(r, d, err)) return -1;
  for (size_t i = 0; i < d->n_streams; i++)
    if (read_block(run, r, d->streams[i], &run->mail.verdicts[i], err)) return -1;
  *out = (pdt_session_decision){.round = (pdt_round)d->round,
                                .gate = d->gate,
                                .blocks = run->mail.verdicts,
                                .n_blocks = (int32_t)d->n_streams};
  return 0;
}
