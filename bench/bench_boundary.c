/* What a boundary takes: the engine's own gather, decision, broadcast and exchange of notes, for
 * blocks that are made up, beside MPI_Gather, MPI_Bcast and MPI_Allgather of the same sizes in the
 * same run.
 *
 *   mpirun -n P bench_boundary [--sessions S] [--streams K] [--step-us U]
 *
 * Built for a simulated cluster (bench/boundary) a step of the trunk takes --step-us of simulated
 * time; otherwise no time at all. At the end all replicas of all sessions must be the same, with
 * every token committed. */
#include <argp.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef PDT_SIMULATED
#include <smpi/smpi.h>
#endif

#include "base/memory.h"
#include "comm/backend.h"
#include "engine/run.h"
#include "work.h"

typedef struct bench {
  pdt_comm world;
  int32_t sessions, streams, block, delay, slots, notes_dim, rounds;
  double step_seconds;
  bool flat, json, alone;
  pdt_machine machine;
  pdt_loaded loaded;
  pdt_engine_variant variant;
  pdt_run run;
  double *ours, *raw; /* [rounds] seconds */
} bench;

static void compute(double seconds) {
#ifdef PDT_SIMULATED
  if (seconds > 0) smpi_execute_benched(seconds);
#else
  (void)seconds;
#endif
}

/* ---- a run without trunk and sidecar ---- */

static int new_session(bench *b, int32_t i, pdt_error *err) {
  pdt_running *r;
  int32_t tokens = b->block * b->rounds;
  if (PDT_NEW(&r, 1, "session", err)) return -1;
  b->run.sessions[i] = r;
  b->run.n_sessions = b->run.n_decoding = i + 1;
  r->request = &r->own_request;
  r->index = i;
  r->own_request.session = (uint64_t)i;
  r->own_request.settings = (pdt_settings){
      .streams = b->streams,
      .reveal_delay = b->delay,
      .window = 8 * b->streams,
      .max_attempts = 4,
      .max_rounds = b->rounds + 1,
      .gamma = 0.5,
      .limits = {
          .block_tokens = b->block, .horizon = tokens, .max_tokens = tokens, .slots = b->slots}};
  int32_t *ids;
  float *note = NULL;
  int status =
      PDT_NEW(&ids, b->slots, "plan", err) || PDT_NEW(&note, b->notes_dim, "plan", err) ||
      PDT_NEW(&r->sequences, b->streams, "streams", err) ||
      pdt_session_new(&r->session, &r->own_request.settings, b->notes_dim, PDT_ROOM_FOR_ALL, err) ||
      pdt_session_plan(&r->session, ids, note, err);
  free(ids);
  free(note);
  return status ? -1 : 0;
}

static int new_buffers(bench *b, pdt_error *err) {
  pdt_run *run = &b->run;
  pdt_round_buffers *round = &run->round;
  int64_t lanes = (int64_t)b->sessions * b->streams, ranks = b->world.size;
  int64_t record = pdt_record_bytes(run, b->block), own = (lanes + ranks - 1) / ranks * b->sessions;
  run->setup.capacity.load.lanes = lanes;
  return PDT_NEW(&round->lanes, lanes, "round", err) ||
         PDT_NEW(&round->by_owner, lanes, "round", err) ||
         PDT_NEW(&round->owner_begin, ranks + 1, "round", err) ||
         PDT_NEW(&round->tokens, lanes * b->block, "round", err) ||
         PDT_NEW(&round->notes, 2 * lanes * b->notes_dim, "round", err) ||
         PDT_NEW(&round->coverage, lanes * b->slots, "round", err) ||
         PDT_NEW(&round->counts, ranks, "round", err) ||
         PDT_NEW(&run->exchange.targets, lanes, "round", err) ||
         PDT_NEW(&run->sessions, b->sessions, "round", err) ||
         PDT_NEW(&run->mail.record, PDT_RECORD_HEADER_BYTES + own * record + PDT_CARRIED_BYTES,
                 "round", err) ||
         PDT_NEW(&run->mail.records,
                 ranks * PDT_RECORD_HEADER_BYTES + lanes * record + PDT_CARRIED_BYTES, "round",
                 err) ||
         PDT_NEW(&run->mail.letter, PDT_LETTER_BYTES, "round", err) ||
         PDT_NEW(&run->mail.verdicts, lanes, "round", err);
}

static int new_run(bench *b, pdt_error *err) {
  b->machine = (pdt_machine){.world = &b->world,
                             .place = {.rank = b->world.rank,
                                       .ranks = b->world.size,
                                       .group_begin = b->world.rank,
                                       .group_end = b->world.rank + 1}};
  b->loaded.model.vocab_size = 32000;
  b->loaded.sidecar.config.plan_slots = b->slots;
  b->loaded.sidecar.config.notes_dim = b->notes_dim;
  b->variant = (pdt_engine_variant){.n_ends = 1, .ends = {-1}};
  b->run = (pdt_run){.machine = &b->machine, .loaded = &b->loaded, .variant = &b->variant};
  int status = new_buffers(b, err) || PDT_NEW(&b->ours, b->rounds, "times", err) ||
               PDT_NEW(&b->raw, b->rounds, "times", err);
  for (int32_t i = 0; i < b->sessions && !status; i++) status = new_session(b, i, err);
  return status ? -1 : 0;
}

static void free_run(bench *b) {
  pdt_run *run = &b->run;
  for (int32_t i = 0; i < run->n_sessions; i++) {
    pdt_session_free(&run->sessions[i]->session);
    free(run->sessions[i]->sequences);
    free(run->sessions[i]);
  }
  void *all[] = {run->round.lanes,
                 run->round.by_owner,
                 run->round.owner_begin,
                 run->round.tokens,
                 run->round.notes,
                 run->round.coverage,
                 run->round.counts,
                 run->exchange.targets,
                 run->sessions,
                 run->mail.record,
                 run->mail.records,
                 run->mail.letter,
                 run->mail.decision,
                 run->mail.verdicts,
                 b->ours,
                 b->raw};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  pdt_arena_free(&run->mail.draft);
  pdt_arena_free(&run->mail.read);
}

/* Blocks as if they had been decoded: those of this rank. */
static void emit(bench *b) {
  pdt_round_list(&b->run);
  for (int32_t i = 0; i < b->run.round.n_lanes; i++) {
    pdt_lane *lane = &b->run.round.lanes[i];
    if (lane->owner != b->world.rank) continue;
    lane->emitted = lane->room;
    lane->finished = true;
    lane->readiness = 0.75f;
    for (int32_t t = 0; t < lane->emitted; t++)
      lane->tokens[t] = (pdt_token)((i * 7919 + t * 104729 + (int32_t)b->run.boundary) % 32000);
    for (int32_t j = 0; j < b->notes_dim; j++) lane->note[j] = (float)(i + j) * 0.001f;
    for (int32_t s = 0; s < b->slots; s++) lane->coverage[s] = 0.5f;
  }
}

/* ---- the same by bare MPI ---- */

typedef struct bare {
  int records, decision, notes; /* bytes of a rank; of the message; of a rank */
  char *send, *recv;
} bare;

static int new_bare(const bench *b, bare *m, pdt_error *err) {
  int64_t lanes = (int64_t)b->sessions * b->streams, ranks = b->world.size;
  int64_t own = (lanes + ranks - 1) / ranks;
  m->records = (int)(PDT_RECORD_HEADER_BYTES + own * pdt_record_bytes(&b->run, b->block));
  m->decision = (int)(lanes * (24 + 3 * b->block + 4 * b->slots));
  m->notes = (int)(own * b->notes_dim * 4);
  int64_t most = m->records > m->notes ? m->records : m->notes;
  int64_t all = most * ranks > m->decision ? most * ranks : m->decision;
  m->send = NULL;
  return PDT_NEW(&m->recv, all, "bare", err) || PDT_NEW(&m->send, most, "bare", err);
}

static void bare_boundary(const bare *m) {
  MPI_Gather(m->send, m->records, MPI_BYTE, m->recv, m->records, MPI_BYTE, 0, MPI_COMM_WORLD);
  MPI_Bcast(m->recv, m->decision, MPI_BYTE, 0, MPI_COMM_WORLD);
  MPI_Allgather(m->send, m->notes, MPI_BYTE, m->recv, m->notes, MPI_BYTE, MPI_COMM_WORLD);
}

/* ---- the run ---- */

static int measure(bench *b, pdt_error *err) {
  bare m;
  int status = new_bare(b, &m, err);
  if (pdt_comm_agree(&b->world, err)) status = -1;
  for (int32_t i = 0; i < b->rounds && !status; i++) {
    compute(b->step_seconds * b->block);
    emit(b);
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    b->run.boundary++;
    status = pdt_run_settle(&b->run, err);
    b->ours[i] = MPI_Wtime() - start;
    if (b->alone) continue;
    MPI_Barrier(MPI_COMM_WORLD);
    start = MPI_Wtime();
    bare_boundary(&m);
    b->raw[i] = MPI_Wtime() - start;
  }
  if (!status) pdt_notes_finish(&b->run);
  free(m.send);
  free(m.recv);
  return status;
}

static int check(const bench *b, pdt_error *err) {
  uint64_t hash = 0;
  int64_t committed = 0, expected = (int64_t)b->sessions * b->streams * b->block * b->rounds;
  for (int32_t i = 0; i < b->sessions; i++) {
    const pdt_session *s = &b->run.sessions[i]->session;
    hash = hash * 31 + pdt_session_hash(s);
    for (int32_t k = 0; k < b->streams; k++) committed += s->streams[k].n_committed;
  }
  bool same = pdt_comm_is_same(&b->world, hash);
  if (same && committed == expected) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "%lld tokens committed of %lld; replicas %s",
                  (long long)committed, (long long)expected, same ? "equal" : "differ");
}

static void report(bench *b) {
  work_spread ours = work_spread_of(b->ours, b->rounds), raw = work_spread_of(b->raw, b->rounds);
  double round = b->step_seconds * b->block + ours.p50;
  if (!b->json) {
    printf("%6d ranks %5d lanes, %s gather: boundary %9.1f us (p90 %.1f), bare MPI %9.1f us (p90 "
           "%.1f), %.2f times\n",
           b->world.size, b->sessions * b->streams, b->flat ? "flat" : "tree", ours.p50 * 1e6,
           ours.p90 * 1e6, raw.p50 * 1e6, raw.p90 * 1e6, b->alone ? 0 : ours.p50 / raw.p50);
    return;
  }
  json_t *out =
      json_pack("{s:i,s:i,s:i,s:i,s:i,s:s,s:f,s:f,s:f,s:f,s:f,s:f}", "ranks", b->world.size,
                "sessions", b->sessions, "streams", b->streams, "block_tokens", b->block,
                "reveal_delay", b->delay, "gather", b->flat ? "flat" : "tree", "step_seconds",
                b->step_seconds, "boundary_seconds", ours.p50, "boundary_p90", ours.p90,
                "bare_seconds", raw.p50, "bare_p90", raw.p90, "round_seconds", round);
  if (out) json_dumpf(out, stdout, JSON_COMPACT);
  printf("\n");
  json_decref(out);
}

enum { SESSIONS = 256, STREAMS, BLOCK, DELAY, SLOTS, NOTES, ROUNDS, STEP, FLAT, ALONE, JSON };

static const struct argp_option words[] = {
    {"sessions", SESSIONS, "N", 0, "Sessions in flight (1)", 0},
    {"streams", STREAMS, "K", 0, "Streams of each (8)", 0},
    {"block-tokens", BLOCK, "N", 0, "Tokens of a block (16)", 0},
    {"reveal-delay", DELAY, "N", 0, "Rounds until others see a note (1)", 0},
    {"slots", SLOTS, "N", 0, "Slots of a plan (16)", 0},
    {"notes-dim", NOTES, "N", 0, "Width of a note (256)", 0},
    {"rounds", ROUNDS, "N", 0, "Rounds (200)", 0},
    {"step-us", STEP, "U", 0, "Microseconds of a step of the trunk, in a simulation (0)", 0},
    {"flat", FLAT, NULL, 0, "Gather and all-gather by MPI's own calls", 0},
    {"no-bare", ALONE, NULL, 0, "Leave out the bare MPI calls", 0},
    {"json", JSON, NULL, 0, "One JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
  bench *b = state->input;
  int32_t *numbers[] = {&b->sessions, &b->streams,   &b->block, &b->delay,
                        &b->slots,    &b->notes_dim, &b->rounds};
  char *end = NULL;
  switch (key) {
  case FLAT:
    b->flat = true;
    return 0;
  case ALONE:
    b->alone = true;
    return 0;
  case JSON:
    b->json = true;
    return 0;
  case STEP:
    b->step_seconds = strtod(arg, &end) * 1e-6;
    if (*end || end == arg || !(b->step_seconds >= 0)) argp_error(state, "--step-us: '%s'", arg);
    return 0;
  default:
    if (key < SESSIONS || key > ROUNDS) return ARGP_ERR_UNKNOWN;
    long n = strtol(arg, &end, 10);
    if (*end || end == arg || n < 1 || n > 1 << 20)
      argp_error(state, "expected a count, '%s'", arg);
    numbers[key - SESSIONS][0] = (int32_t)n;
    return 0;
  }
}

int main(int argc, char **argv) {
  static const struct argp argp = {
      words, parse, NULL, "Times a boundary beside bare MPI calls of the same sizes.",
      NULL,  NULL,  NULL};
  bench b = {.sessions = 1,
             .streams = 8,
             .block = 16,
             .delay = 1,
             .slots = 16,
             .notes_dim = 256,
             .rounds = 200};
  pdt_error err = {0};
  if (pdt_comm_mpi_start(&b.world, &argc, &argv, &err)) {
    fprintf(stderr, "bench_boundary: %s\n", err.message);
    return 1;
  }
  argp_parse(&argp, argc, argv, 0, NULL, &b);
  if (b.flat) pdt_comm_mpi_gather_flat(&b.world);
  new_run(&b, &err);
  int status = pdt_comm_agree(&b.world, &err);
  if (!status) status = measure(&b, &err);
  if (!status && check(&b, &err)) status = -1;
  if (!status && b.world.rank == 0) report(&b);
  if (status && b.world.rank == 0) fprintf(stderr, "bench_boundary: %s\n", err.message);
  free_run(&b);
  b.world.backend->finish(&b.world);
  return status ? 1 : 0;
}
