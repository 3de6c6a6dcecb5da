/* A round and its boundary (3.7): obtain a decision, then apply it. The coordinator's is made of
 * what all ranks gather; a recorded one is known before the round. Decide first, change state
 * second: nothing is committed, published or dropped before the decision has come back, and every
 * rank changes its replicas by the same message. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/run.h"

/* Hash of all buses of sessions that decode, over what has arrived. */
static uint64_t hash_buses(pdt_run *run) {
  uint64_t hash = 0;
  for (int32_t i = 0; i < run->n_decoding; i++) {
    pdt_running *r = run->sessions[i];
    pdt_bus_sum(&r->session.bus); /* only what is new is worked out, however long the session is */
    r->bus_hash = pdt_bus_hash(&r->session.bus);
    hash = pdt_bus_hash_add(hash, r->bus_hash);
  }
  return hash;
}

/* "boundary 7: rank 2: session 9 (request 2)" before a message. */
static int fail_session_in(const pdt_run *run, const pdt_running *r, pdt_error *err) {
  pdt_request_fail_in(err, r->request, r->index);
  return pdt_fail_in(err, "boundary %llu: rank %d", (unsigned long long)run->boundary,
                     run->machine->world->rank);
}

/* ---- obtain: gathered and decided ---- */

pdt_block_report pdt_report_of(const pdt_run *run, const pdt_lane *lane, int32_t attempt,
                               pdt_action action) {
  const float *states = run->details ? lane->told[PDT_TOLD_STATES] : NULL;
  const float *pooled = lane->told[PDT_TOLD_POOLED];
  return (pdt_block_report){.stream = lane->stream,
                            .attempt = attempt,
                            .action = action,
                            .tokens = lane->tokens,
                            .n_tokens = lane->emitted,
                            .readiness = lane->readiness,
                            .coverage = lane->coverage,
                            .note = lane->note,
                            .states = states,
                            .pooled = states && pooled ? pooled : states,
                            .embedded = states ? lane->told[PDT_TOLD_EMBEDDED] : NULL,
                            .logprobs = lane->logprobs,
                            .last_hidden = states ? states + (int64_t)(lane->emitted - 1) *
                                                                 run->loaded->model.hidden_size
                                                  : NULL};
}

/* Lets rank 0's observer look at every block, and say how ready it is. */
static int assess_all(pdt_run *run, pdt_error *err) {
  const pdt_observer *o = &run->setup.observer;
  for (int32_t i = 0; i < run->round.n_lanes && o->assess; i++) {
    pdt_lane *lane = &run->round.lanes[i];
    int32_t attempt = lane->running->session.streams[lane->stream].attempt;
    pdt_block_report block = pdt_report_of(run, lane, attempt, PDT_ACTION_NONE);
    block.note = block.states = block.pooled = block.embedded = block.last_hidden =
        NULL; /* on their way */
    if (lane->fault != PDT_FAULT_NONE) continue;
    if (o->assess(o->context, lane->running, &block, &lane->readiness, err)) return -1;
    if (lane->readiness >= 0 && lane->readiness <= 1) continue;
    pdt_fail(err, PDT_ERROR_RUNTIME, "stream %d: assessed with a readiness of %g: expected 0 to 1",
             lane->stream, (double)lane->readiness);
    return fail_session_in(run, lane->running, err);
  }
  return 0;
}

/* The message of the coordinator's decision in run->mail; *bytes of it. */
static int obtain_live(pdt_run *run, uint64_t bus_hash, int64_t *bytes, pdt_error *err) {
  int64_t room = run->mail.decision_bytes; /* the same on every rank: they have had the same mail */
  bool failed = false;
  *bytes = 0;
  int status = pdt_records_gather(run, bus_hash, &failed, err);
  if (run->machine->world->rank == 0 &&
      (status || failed || assess_all(run, err) || pdt_decision_make(run, bus_hash, bytes, err)))
    *bytes = -1;
  return pdt_decision_share(run, bytes, room, err);
}

/* ---- obtain: recorded ---- */

/* The next recorded message in run->mail; *bytes is 0 after the last. */
static int obtain_recorded(pdt_run *run, int64_t *bytes, pdt_error *err) {
  const pdt_decision_source *s = &run->setup.decisions;
  const void *packed = NULL;
  pdt_bytes n = 0;
  int64_t room = run->mail.decision_bytes;
  *bytes = 0;
  if (run->machine->world->rank == 0) {
    run->stopped = pdt_run_asked(run);
    int there = run->failure.code != PDT_ERROR_NONE ? -1 : s->next(s->context, &packed, &n, err);
    *bytes = there > 0 ? n : there;
    if (there > 0 && pdt_decision_fit(run, n, err)) *bytes = -1;
    if (*bytes > 0) memcpy(run->mail.decision, packed, (size_t)*bytes);
  }
  return pdt_decision_share(run, bytes, room, err);
}

int pdt_run_look_ahead(pdt_run *run, pdt_error *err) {
  int64_t bytes;
  if (!run->recorded || run->next) return 0;
  if (obtain_recorded(run, &bytes, err)) return -1;
  run->recorded = bytes > 0;
  if (!run->recorded) return 0;
  run->next = pdt__decision__unpack(NULL, (size_t)bytes, run->mail.decision);
  if (!run->next)
    pdt_fail(err, PDT_ERROR_INPUT,
             "boundary %llu: rank %d: the recorded bytes are no decision (hint: out of memory?)",
             (unsigned long long)run->boundary + 1, run->machine->world->rank);
  return pdt_comm_agree(run->machine->world, err);
}

void pdt_run_forget_next(pdt_run *run) {
  if (run->next) pdt__decision__free_unpacked(run->next, NULL);
  run->next = NULL;
}

/* Can the recorded message have been decided about the sessions as they are? Known before anybody
 * computes by it. Fails alike on all ranks. */
static int check_recorded(pdt_run *run, const Pdt__Decision *d, pdt_error *err) {
  pdt_session_decision decision;
  if (d->n_sessions != (size_t)run->n_decoding || d->boundary != run->boundary)
    pdt_fail(
        err, PDT_ERROR_INPUT,
        "boundary %llu with %d sessions: the record has boundary %llu with %zu sessions (hint: "
        "other requests, or less room for them, than it was written with?)",
        (unsigned long long)run->boundary, run->n_decoding, (unsigned long long)d->boundary,
        d->n_sessions);
  for (int32_t i = 0; i < run->n_decoding && err->code == PDT_ERROR_NONE; i++) {
    pdt_running *r = run->sessions[i];
    if (pdt_decision_read(run, r, d->sessions[i], &decision, err) ||
        (d->sessions[i]->fault == PDT__FAULT__FAULT_NONE &&
         pdt_session_check(&r->session, &decision, err))) {
      if (err->code == PDT_ERROR_RUNTIME) err->code = PDT_ERROR_INPUT; /* it was written so */
      fail_session_in(run, r, err);
    }
  }
  return pdt_comm_agree(run->machine->world, err);
}

/* ---- apply ---- */

static void count_block(pdt_run_stats *stats, const pdt_block_verdict *v) {
  int64_t *counts[] = {NULL, &stats->commits, &stats->holds, &stats->rollbacks, &stats->forced};
  if (v->action != PDT_ACTION_NONE) ++*counts[v->action];
  stats->emitted_tokens += v->n_tokens;
}

/* Takes a stream's caches back to its commit point. */
static void roll_back(pdt_run *run, pdt_running *r, pdt_stream k) {
  int32_t length =
      r->request->n_prompt - 1 + r->request->n_prefix[k] + r->session.streams[k].n_committed;
  if (r->sequences[k].pages) pdt_kv_truncate(&r->sequences[k], &run->kv, length);
  if (r->drafts[k].pages) pdt_kv_truncate(&r->drafts[k], &run->draft.kv, length);
}

/* Applies one session's part: to the replica, and to the cache. */
static int apply_session(pdt_run *run, pdt_running *r, const Pdt__SessionDecision *d,
                         pdt_error *err) {
  int64_t committed;
  pdt_session_decision decision;
  if (pdt_decision_read(run, r, d, &decision, err)) return -1;
  if (d->fault != PDT__FAULT__FAULT_NONE) {
    r->fault = (pdt_fault)d->fault;
    r->fault_stream = (pdt_stream)d->fault_stream;
    return 0;
  }
  if (pdt_session_apply(&r->session, &decision, &committed, err)) return -1;
  for (int32_t i = 0; i < decision.n_blocks; i++) {
    count_block(&run->stats, &decision.blocks[i]);
    if (decision.blocks[i].action == PDT_ACTION_ROLLBACK)
      roll_back(run, r, decision.blocks[i].stream);
  }
  run->stats.committed_tokens += committed;
  run->stats.rounds++;
  return 0;
}

/* Every rank, rank 0 included, acts on the message as it was sent. */
static int apply_all(pdt_run *run, const Pdt__Decision *d, pdt_error *err) {
  if (!d || d->n_sessions != (size_t)run->n_decoding)
    return pdt_fail(
        err, PDT_ERROR_RUNTIME,
        "boundary %llu: rank %d could not read the decision it was sent (hint: out of memory?)",
        (unsigned long long)run->boundary, run->machine->world->rank);
  for (int32_t i = 0; i < run->n_decoding; i++)
    if (apply_session(run, run->sessions[i], d->sessions[i], err))
      return fail_session_in(run, run->sessions[i], err);
  return 0;
}

/* ---- tell ---- */

/* Tells rank 0's observer about every session's round. */
static int report_rounds(pdt_run *run, const Pdt__Decision *d, pdt_error *err) {
  const pdt_observer *o = &run->setup.observer;
  pdt_block_report *blocks;
  if (run->machine->world->rank != 0 || !o->round_done) return 0;
  if (PDT_NEW(&blocks, run->round.n_lanes, "report", err)) return -1;
  int status = 0;
  for (int32_t i = 0; i < run->n_decoding && !status; i++) {
    const pdt_running *r = run->sessions[i];
    const Pdt__SessionDecision *sd = d->sessions[i];
    if (sd->fault != PDT__FAULT__FAULT_NONE) continue;
    for (size_t j = 0; j < sd->n_streams; j++)
      blocks[j] =
          pdt_report_of(run, &run->round.lanes[r->first_lane + (int32_t)j],
                        (int32_t)sd->streams[j]->attempt, (pdt_action)sd->streams[j]->action);
    const pdt_round_report report = {.running = r,
                                     .round = (pdt_round)sd->round,
                                     .gate = sd->gate,
                                     .blocks = blocks,
                                     .n_blocks = (int32_t)sd->n_streams,
                                     .committed_tokens = run->stats.committed_tokens};
    status = o->round_done(o->context, &report, err);
  }
  free(blocks);
  return status;
}

/* Sessions that a fault ends leave, each with an error that says what and where. */
static void dismiss_faulty(pdt_run *run) {
  for (int32_t i = 0; i < run->n_decoding;) {
    const pdt_running *r = run->sessions[i];
    pdt_error why = {0};
    if (r->fault == PDT_FAULT_NONE) {
      i++;
      continue;
    }
    pdt_request_fault(&why, r->request, r->index, r->session.round, r->fault_stream, r->fault);
    pdt_run_fail_session(run, i, &why);
  }
}

/* Must the notes of this round be there before the next one? */
static bool notes_are_urgent(const pdt_run *run) {
  bool urgent = run->details;
  for (int32_t i = 0; i < run->n_decoding; i++)
    urgent = urgent || run->sessions[i]->session.settings.reveal_delay == 1;
  return urgent;
}

/* Everybody acts on the message in the mail, for which there is room. A rank that cannot all the
 * same would go into the next round with other lanes than the rest: all end with its error. */
static void act(pdt_run *run, const Pdt__Decision *decision) {
  pdt_error own = {0};
  if (apply_all(run, decision, &own)) pdt_comm_abort(run->machine->world, &own);
  if (notes_are_urgent(run)) pdt_notes_finish(run);
  if (report_rounds(run, decision, &own)) pdt_run_note_failure(run, &own);
  dismiss_faulty(run);
  run->stats.boundaries++;
}

/* Room to read a message of so many bytes into, about the lanes that are listed: what protobuf-c
 * takes for a message, a session and a stream, each piece on a line of its own. Fails alike on all
 * ranks. */
static int make_room(pdt_run *run, int64_t bytes, pdt_error *err) {
  enum { MESSAGE = 4096, SESSION = 512, LANE = 512 };
  pdt_mail *m = &run->mail;
  pdt_bytes wanted = MESSAGE + SESSION * (pdt_bytes)run->n_decoding +
                     LANE * (pdt_bytes)run->round.n_lanes + 8 * bytes;
  void *room;
  if (wanted <= m->read_bytes) return 0;
  pdt_arena_free(&m->read);
  m->read_bytes = pdt_arena_take(&m->read, &room, 2 * wanted, 1, err) ? 0 : 2 * wanted;
  pdt_arena_reset(&m->read);
  return pdt_comm_agree(run->machine->world, err);
}

static void *take(void *arena, size_t bytes) {
  void *out = NULL;
  pdt_error err = {0};
  return pdt_arena_take(arena, &out, (int64_t)bytes, 1, &err) ? NULL : out;
}

static void leave(void *arena, void *memory) {
  (void)arena; /* goes when all go */
  (void)memory;
}

/* ---- a round ---- */

int pdt_run_settle(pdt_run *run, pdt_error *err) {
  int64_t bytes;
  pdt_notes_finish(run);
  double start = pdt_seconds();
  uint64_t bus_hash = hash_buses(run);
  pdt_notes_start(run, true);
  int status = obtain_live(run, bus_hash, &bytes, err);
  if (!status) status = make_room(run, bytes, err);
  if (!status) {
    ProtobufCAllocator arena = {take, leave, &run->mail.read};
    act(run, pdt__decision__unpack(&arena, (size_t)bytes, run->mail.decision));
    pdt_arena_reset(&run->mail.read);
  }
  run->stats.boundary_seconds += pdt_seconds() - start;
  return status;
}

/* A round whose decision the coordinator makes. */
static int live_round(pdt_run *run, pdt_error *err) {
  pdt_round_emit(run, NULL);
  pdt_logprobs_tell(run);
  return pdt_run_settle(run, err);
}

/* The replica's notes are those of the run that was recorded. Fails alike on all ranks. */
static int compare_hash(pdt_run *run, const Pdt__Decision *d, pdt_error *err) {
  uint64_t own = hash_buses(run);
  if (run->failure.code != PDT_ERROR_NONE)
    *err = run->failure;
  else if (own != d->bus_hash)
    pdt_fail(err, PDT_ERROR_INPUT,
             "boundary %llu: rank %d's notes have hash %016llx, those of the record %016llx (hint: "
             "another model, sidecar, layout of ranks or machine than it was written with?)",
             (unsigned long long)run->boundary, run->machine->world->rank, (unsigned long long)own,
             (unsigned long long)d->bus_hash);
  return pdt_comm_agree(run->machine->world, err);
}

/* A round whose decision is known: its tokens are computed as rows of one batch. */
static int recorded_round(pdt_run *run, pdt_error *err) {
  if (check_recorded(run, run->next, err)) return -1;
  pdt_round_emit(run, run->next);
  pdt_notes_finish(run);
  if (compare_hash(run, run->next, err)) return -1;
  double start = pdt_seconds();
  pdt_notes_start(run, false);
  act(run, run->next);
  run->stats.boundary_seconds += pdt_seconds() - start;
  pdt_run_forget_next(run);
  return 0;
}

int pdt_run_round(pdt_run *run, pdt_error *err) {
  run->boundary++;
  pdt_comm_enter_round(run->machine->world, run->boundary);
  int status = run->next ? recorded_round(run, err) : live_round(run, err);
  pdt_comm_enter_round(run->machine->world, 0);
  return status;
}
