/* The boundary of a round: gather(records), decide, broadcast(decision), apply it on every rank
 * (3.7). Decide first, change state second: nothing is committed, published or dropped before the
 * decision has come back, and every rank changes its replicas by the same message. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/internal.h"
#include "pdt.pb-c.h"

/* What a rank says of itself, before the records of its lanes. */
typedef struct rank_header {
  uint64_t bus_hash;
  int64_t failed;
} rank_header;

/* What an owner says of one block; then tokens [room], coverage [S] and, with details, the states
 * [room, d] of its steps. */
typedef struct lane_record {
  float readiness;
  int32_t n_tokens;
} lane_record;

pdt_bytes pdt_record_bytes(const pdt_engine *e, int32_t room) {
  int64_t words = (int64_t)room + e->sidecar.config.plan_slots;
  if (e->options.details) words += (int64_t)room * e->model.hidden_size;
  return (pdt_bytes)sizeof(lane_record) + 4 * words;
}

static void *put(void *to, const void *from, pdt_bytes bytes) {
  memcpy(to, from, (size_t)bytes);
  return (char *)to + bytes;
}

/* Writes this rank's header and records; how many bytes. */
static pdt_bytes write_records(pdt_engine *e, uint64_t bus_hash) {
  const rank_header header = {bus_hash, e->failure.code != PDT_ERROR_NONE};
  char *at = put(e->buffers.record, &header, sizeof header);
  for (int32_t i = 0; i < e->buffers.n_own; i++) {
    const pdt_lane *lane = e->buffers.own[i];
    const lane_record record = {lane->readiness, lane->emitted};
    char *next = at + pdt_record_bytes(e, lane->room);
    at = put(at, &record, sizeof record);
    put(at, lane->tokens, lane->emitted * 4);
    at = put(at + 4 * (int64_t)lane->room, lane->coverage, e->sidecar.config.plan_slots * 4);
    if (e->options.details && lane->emitted_states)
      put(at, lane->emitted_states, lane->emitted * (pdt_bytes)e->model.hidden_size * 4);
    at = next;
  }
  return at - e->buffers.record;
}

/* Reads one lane's record into it. */
static const char *read_record(pdt_engine *e, pdt_lane *lane, const char *at) {
  lane_record record;
  const char *next = at + pdt_record_bytes(e, lane->room);
  memcpy(&record, at, sizeof record);
  at += sizeof record;
  lane->readiness = record.readiness;
  lane->emitted = record.n_tokens;
  memcpy(lane->tokens, at, (size_t)record.n_tokens * 4);
  at += 4 * (int64_t)lane->room;
  memcpy(lane->coverage, at, (size_t)e->sidecar.config.plan_slots * 4);
  at += 4 * (int64_t)e->sidecar.config.plan_slots;
  lane->emitted_states = e->options.details ? (const float *)(const void *)at : NULL;
  lane->ended = record.n_tokens > 0 && pdt_engine_is_end(e, lane->tokens[record.n_tokens - 1]);
  return next;
}

/* Rank 0 reads what was gathered. Errors: the coordinator's own about a diverged replica; `*failed`
 * tells that a rank will say what it met, which comes first: who failed may well have diverged,
 * too.
 */
static int read_all(pdt_engine *e, bool *failed, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  const char *at = b->records;
  uint64_t expected = 0, found = 0;
  pdt_rank diverged = -1;
  for (pdt_rank r = 0; r < e->place.ranks; r++) {
    rank_header header;
    memcpy(&header, at, sizeof header);
    if (r == 0) expected = header.bus_hash;
    if (header.failed) *failed = true;
    if (header.bus_hash != expected && diverged < 0) {
      diverged = r;
      found = header.bus_hash;
    }
    at += b->record_bytes[r];
  }
  if (*failed) return -1;
  if (diverged >= 0)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "boundary %llu: rank %d's replica of the notes bus has hash %016llx, rank 0's "
                    "%016llx: it diverged (hint: different programs or hardware among the ranks?)",
                    (unsigned long long)e->boundary, diverged, (unsigned long long)found,
                    (unsigned long long)expected);
  at = b->records;
  for (pdt_rank r = 0; r < e->place.ranks; r++) {
    at += sizeof(rank_header);
    for (int32_t i = 0; i < b->n_lanes; i++)
      if (b->lanes[i].owner == r) at = read_record(e, &b->lanes[i], at);
  }
  return 0;
}

/* A lane's block as observers see it. */
static pdt_block_report report_of(const pdt_engine *e, const pdt_lane *lane, int32_t attempt,
                                  pdt_action action) {
  const float *states = e->options.details ? lane->emitted_states : NULL;
  return (pdt_block_report){
      .stream = lane->stream,
      .attempt = attempt,
      .action = action,
      .tokens = lane->tokens,
      .n_tokens = lane->emitted,
      .readiness = lane->readiness,
      .coverage = lane->coverage,
      .note = lane->note,
      .states = states,
      .last_hidden = states ? states + (int64_t)(lane->emitted - 1) * e->model.hidden_size : NULL};
}

/* Lets rank 0's observer look at every block, and say how ready it is. */
static int assess_all(pdt_engine *e, pdt_error *err) {
  const pdt_observer *o = e->observer;
  for (int32_t i = 0; i < e->buffers.n_lanes && o->assess; i++) {
    pdt_lane *lane = &e->buffers.lanes[i];
    int32_t attempt = lane->running->session.streams[lane->stream].attempt;
    pdt_block_report block = report_of(e, lane, attempt, PDT_ACTION_NONE);
    block.note = block.states = block.last_hidden = NULL; /* on their way */
    if (o->assess(o->context, lane->running, &block, &lane->readiness, err)) return -1;
  }
  return 0;
}

/* Gathers all records at rank 0. */
static void gather_records(pdt_engine *e, uint64_t bus_hash) {
  pdt_round_buffers *b = &e->buffers;
  for (pdt_rank r = 0; r < e->place.ranks; r++) b->record_bytes[r] = sizeof(rank_header);
  for (int32_t i = 0; i < b->n_lanes; i++)
    b->record_bytes[b->lanes[i].owner] += pdt_record_bytes(e, b->lanes[i].room);
  pdt_bytes bytes = write_records(e, bus_hash);
  pdt_comm_gather(e->world, b->record, bytes, b->records, b->record_bytes, 0);
}

/* A Decision under construction; everything it points to lives here or in the lanes. */
typedef struct decision_draft {
  Pdt__Decision message;
  Pdt__SessionDecision *sessions;
  Pdt__SessionDecision **session_list;
  Pdt__StreamDecision *streams;
  Pdt__StreamDecision **stream_list;
  pdt_vote *votes;
  pdt_action *actions;
} decision_draft;

static void free_draft(decision_draft *d) {
  free(d->sessions);
  free(d->session_list);
  free(d->streams);
  free(d->stream_list);
  free(d->votes);
  free(d->actions);
}

static int new_draft(decision_draft *d, int32_t n_sessions, int32_t n_lanes, pdt_error *err) {
  *d = (decision_draft){.message = PDT__DECISION__INIT};
  return PDT_NEW(&d->sessions, n_sessions, "decision", err) ||
         PDT_NEW(&d->session_list, n_sessions, "decision", err) ||
         PDT_NEW(&d->streams, n_lanes, "decision", err) ||
         PDT_NEW(&d->stream_list, n_lanes, "decision", err) ||
         PDT_NEW(&d->votes, n_lanes, "decision", err) ||
         PDT_NEW(&d->actions, n_lanes, "decision", err);
}

/* Decides about lanes [first, first + n) of one session. */
static void decide_session(pdt_engine *e, decision_draft *d, const pdt_running *s, int32_t first,
                           int32_t n, Pdt__SessionDecision *out) {
  const pdt_settings *settings = &s->request->settings;
  const pdt_lane *lanes = e->buffers.lanes + first;
  for (int32_t i = 0; i < n; i++)
    d->votes[i] = (pdt_vote){lanes[i].stream, s->session.streams[lanes[i].stream].attempt,
                             lanes[i].readiness};
  pdt__session_decision__init(out);
  out->session = s->request->session;
  out->request = (uint32_t)s->index;
  out->round = (uint32_t)s->session.round;
  out->gate = pdt_decide(d->votes, n, settings->gamma, settings->limits.policy,
                         settings->max_attempts, d->actions);
  out->n_streams = (size_t)n;
  out->streams = d->stream_list + first;
  for (int32_t i = 0; i < n; i++) {
    Pdt__StreamDecision *stream = d->stream_list[first + i] = &d->streams[first + i];
    pdt__stream_decision__init(stream);
    stream->stream = (uint32_t)lanes[i].stream;
    stream->action = (Pdt__Action)d->actions[i];
    stream->attempt = (uint32_t)d->votes[i].attempt;
    stream->readiness = lanes[i].readiness;
    stream->n_tokens = (size_t)lanes[i].emitted;
    stream->tokens = lanes[i].tokens;
    stream->ended = lanes[i].ended;
    stream->n_coverage = (size_t)e->sidecar.config.plan_slots;
    stream->coverage = lanes[i].coverage;
  }
}

/* Makes room for a message of so many bytes. */
static int fit_decision(pdt_engine *e, int64_t bytes, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  if (bytes <= b->decision_bytes) return 0;
  free(b->decision);
  b->decision_bytes = 0;
  if (PDT_NEW(&b->decision, 2 * bytes, "decision", err)) return -1;
  b->decision_bytes = 2 * bytes;
  return 0;
}

/* The coordinator's work: the message in buffers.decision, told to the observer; *bytes of it. */
static int decide_all(pdt_engine *e, uint64_t bus_hash, int64_t *bytes, pdt_error *err) {
  const pdt_round_buffers *b = &e->buffers;
  const pdt_observer *o = e->observer;
  decision_draft d;
  int status = new_draft(&d, e->n_sessions, b->n_lanes, err);
  for (int32_t i = 0, at = 0; i < e->n_sessions && !status; i++) {
    int32_t n = 0;
    while (at + n < b->n_lanes && b->lanes[at + n].running == e->sessions[i]) n++;
    d.session_list[i] = &d.sessions[i];
    decide_session(e, &d, e->sessions[i], at, n, &d.sessions[i]);
    at += n;
  }
  d.message.boundary = e->boundary;
  d.message.bus_hash = bus_hash;
  d.message.n_sessions = (size_t)e->n_sessions;
  d.message.sessions = d.session_list;
  *bytes = status ? 0 : (int64_t)pdt__decision__get_packed_size(&d.message);
  if (!status) status = fit_decision(e, *bytes, err);
  if (!status) pdt__decision__pack(&d.message, b->decision);
  if (!status && o->decided) status = o->decided(o->context, b->decision, *bytes, err);
  free_draft(&d);
  return status ? -1 : 0;
}

/* Rank 0 decides; everybody gets the message: *bytes of buffers.decision. Fails on all ranks alike.
 */
static int decide_and_broadcast(pdt_engine *e, uint64_t bus_hash, int64_t *bytes, pdt_error *err) {
  int64_t room =
      e->buffers.decision_bytes; /* the same on every rank: they have had the same mail */
  bool failed = false;
  *bytes = 0;
  if (e->world->rank == 0 &&
      (read_all(e, &failed, err) || assess_all(e, err) || decide_all(e, bus_hash, bytes, err)))
    *bytes = -1;
  pdt_comm_broadcast(e->world, bytes, sizeof *bytes, 0);
  if (*bytes < 0) { /* every rank says what it met */
    if (e->failure.code != PDT_ERROR_NONE) *err = e->failure;
    pdt_comm_agree(e->world, err);
    return -1;
  }
  if (*bytes > room) {
    fit_decision(e, *bytes, err);
    if (pdt_comm_agree(e->world, err)) return -1;
  }
  pdt_comm_broadcast(e->world, e->buffers.decision, *bytes, 0);
  return 0;
}

/* Reads what a decision says of the blocks of one session, whose lanes are [first, first + n), into
 * e->verdicts. Whether it can have been decided is judged by pdt_session_apply. */
static int read_verdicts(pdt_engine *e, const Pdt__SessionDecision *d, pdt_error *err) {
  for (size_t i = 0; i < d->n_streams; i++) {
    const Pdt__StreamDecision *b = d->streams[i];
    if (b->n_coverage != (size_t)e->sidecar.config.plan_slots || b->n_tokens > INT32_MAX)
      return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %u: coverage of %zu plan slots: expected %d",
                      b->stream, b->n_coverage, e->sidecar.config.plan_slots);
    e->buffers.verdicts[i] = (pdt_block_verdict){.stream = (pdt_stream)b->stream,
                                                 .attempt = (int32_t)b->attempt,
                                                 .readiness = b->readiness,
                                                 .action = (pdt_action)b->action,
                                                 .tokens = b->tokens,
                                                 .n_tokens = (int32_t)b->n_tokens,
                                                 .ended = b->ended,
                                                 .coverage = b->coverage};
  }
  return 0;
}

static void count_block(pdt_run_stats *stats, const pdt_block_verdict *v) {
  int64_t *counts[] = {NULL, &stats->commits, &stats->holds, &stats->rollbacks, &stats->forced};
  if (v->action != PDT_ACTION_NONE) ++*counts[v->action];
  stats->emitted_tokens += v->n_tokens;
}

/* Takes a stream's cache back to its commit point. */
static void roll_back(pdt_engine *e, pdt_running *r, pdt_stream k) {
  if (r->sequences[k].pages)
    pdt_kv_truncate(&r->sequences[k], &e->kv,
                    r->request->n_prompt - 1 + r->request->n_prefix[k] +
                        r->session.streams[k].n_committed);
}

/* Applies one session's part: to the replica, and to the cache. */
static int apply_session(pdt_engine *e, pdt_running *r, const Pdt__SessionDecision *d,
                         pdt_error *err) {
  int64_t committed;
  if (d->request != (uint32_t)r->index || d->n_streams > (size_t)r->request->settings.streams)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "expected the decision about request %d, found request %u with %zu blocks",
                    r->index, d->request, d->n_streams);
  const pdt_session_decision decision = {.round = (pdt_round)d->round,
                                         .gate = d->gate,
                                         .blocks = e->buffers.verdicts,
                                         .n_blocks = (int32_t)d->n_streams};
  if (read_verdicts(e, d, err) || pdt_session_apply(&r->session, &decision, &committed, err))
    return -1;
  for (int32_t i = 0; i < decision.n_blocks; i++) {
    count_block(e->stats, &decision.blocks[i]);
    if (decision.blocks[i].action == PDT_ACTION_ROLLBACK)
      roll_back(e, r, decision.blocks[i].stream);
  }
  e->stats->committed_tokens += committed;
  e->stats->rounds++;
  return 0;
}

/* Every rank, rank 0 included, acts on the message as it was sent. */
static int apply_decision(pdt_engine *e, const Pdt__Decision *d, pdt_error *err) {
  if (!d || d->n_sessions != (size_t)e->n_sessions)
    return pdt_fail(
        err, PDT_ERROR_RUNTIME,
        "boundary %llu: rank %d could not read the decision it was sent (hint: out of memory?)",
        (unsigned long long)e->boundary, e->world->rank);
  for (int32_t i = 0; i < e->n_sessions; i++)
    if (apply_session(e, e->sessions[i], d->sessions[i], err)) {
      char name[PDT_REQUEST_NAME_BYTES];
      pdt_request_name(name, sizeof name, e->sessions[i]->request, e->sessions[i]->index);
      return pdt_fail_in(err, "boundary %llu: rank %d: %s", (unsigned long long)e->boundary,
                         e->world->rank, name);
    }
  return 0;
}

/* Tells rank 0's observer about every session's round. */
static int report_rounds(pdt_engine *e, const Pdt__Decision *d, pdt_error *err) {
  const pdt_observer *o = e->observer;
  const pdt_round_buffers *b = &e->buffers;
  pdt_block_report *blocks;
  if (e->world->rank != 0 || !o->round_done) return 0;
  if (PDT_NEW(&blocks, b->n_lanes, "report", err)) return -1;
  int status = 0;
  for (int32_t i = 0, at = 0; i < e->n_sessions && !status; i++) {
    const Pdt__SessionDecision *sd = d->sessions[i];
    for (size_t j = 0; j < sd->n_streams; j++) {
      const pdt_lane *lane = &b->lanes[at + (int32_t)j];
      blocks[j] =
          report_of(e, lane, (int32_t)sd->streams[j]->attempt, (pdt_action)sd->streams[j]->action);
    }
    const pdt_round_report report = {.running = e->sessions[i],
                                     .round = (pdt_round)sd->round,
                                     .gate = sd->gate,
                                     .blocks = blocks,
                                     .n_blocks = (int32_t)sd->n_streams,
                                     .committed_tokens = e->stats->committed_tokens};
    status = o->round_done(o->context, &report, err);
    at += (int32_t)sd->n_streams;
  }
  free(blocks);
  return status;
}

/* Hash of all buses in flight, over what has arrived. */
static uint64_t hash_buses(const pdt_engine *e) {
  uint64_t hash = 0;
  for (int32_t i = 0; i < e->n_sessions; i++)
    hash = (hash * 0x9E3779B97F4A7C15u) ^ pdt_bus_hash(&e->sessions[i]->session.bus);
  return hash;
}

/* Must the notes of this round be there before the next one? */
static bool notes_are_urgent(const pdt_engine *e) {
  bool urgent = e->options.details;
  for (int32_t i = 0; i < e->n_sessions; i++)
    urgent = urgent || e->sessions[i]->request->settings.reveal_delay == 1;
  return urgent;
}

/* Every rank reads and applies the message, and fails alike: one that cannot would go into the next
 * round with other lanes than the rest. Returns the message, or NULL. */
static Pdt__Decision *take_decision(pdt_engine *e, int64_t bytes, pdt_error *err) {
  Pdt__Decision *decision = pdt__decision__unpack(NULL, (size_t)bytes, e->buffers.decision);
  apply_decision(e, decision, err);
  if (!pdt_comm_agree(e->world, err)) return decision;
  if (decision) pdt__decision__free_unpacked(decision, NULL);
  return NULL;
}

int pdt_boundary(pdt_engine *e, pdt_error *err) {
  int64_t bytes;
  e->boundary++;
  pdt_notes_finish(e);
  double start = pdt_seconds();
  uint64_t bus_hash = hash_buses(e);
  pdt_notes_start(e);
  gather_records(e, bus_hash);
  Pdt__Decision *decision = NULL;
  if (!decide_and_broadcast(e, bus_hash, &bytes, err)) decision = take_decision(e, bytes, err);
  if (decision) {
    pdt_error own = {0};
    if (notes_are_urgent(e)) pdt_notes_finish(e);
    if (report_rounds(e, decision, &own)) pdt_engine_note_failure(e, &own);
    pdt__decision__free_unpacked(decision, NULL);
    e->stats->boundaries++;
  }
  e->stats->boundary_seconds += pdt_seconds() - start;
  return decision ? 0 : -1;
}
