/* What ranks say at a boundary of themselves and of the blocks that they own. */
#include <string.h>

#include "engine/run.h"

/* What a rank says of itself, before the records of its lanes. */
typedef struct rank_header {
  uint64_t bus_hash;
  int32_t failed;
  int32_t stops; /* a signal came: this round is to be the last */
} rank_header;
_Static_assert(sizeof(rank_header) == PDT_RECORD_HEADER_BYTES, "a rank's header has its size");

/* What an owner says of one block; then tokens [room], coverage [S], with details [room, d] of each
 * thing that is told of its steps, and a note that is carried [dn]. */
typedef struct lane_record {
  float readiness;
  int32_t n_tokens;
  int32_t fault;
} lane_record;

bool pdt_run_tells(const pdt_run *run, pdt_told what) {
  const pdt_sidecar_config *c = &run->loaded->sidecar.config;
  if (what == PDT_TOLD_STATES) return true;
  return what == PDT_TOLD_POOLED ? c->pool_layers > 0 : c->pool_copies > 0;
}

int64_t pdt_run_told_width(const pdt_run *run) {
  int64_t width = 0;
  for (pdt_told t = 0; t < PDT_TOLD; t++)
    width += pdt_run_tells(run, t) ? run->loaded->model.hidden_size : 0;
  return width;
}

pdt_bytes pdt_record_bytes(const pdt_run *run, int32_t room) {
  int64_t words = (int64_t)room + run->loaded->sidecar.config.plan_slots;
  if (run->details) words += (int64_t)room * pdt_run_told_width(run);
  return (pdt_bytes)sizeof(lane_record) + 4 * words;
}

static pdt_bytes note_bytes(const pdt_run *run) {
  return run->exchange.carried ? run->loaded->sidecar.config.notes_dim * (pdt_bytes)sizeof(float)
                               : 0;
}

static pdt_bytes lane_bytes(const pdt_run *run, const pdt_lane *lane) {
  return pdt_record_bytes(run, lane->room) + note_bytes(run);
}

static void *put(void *to, const void *from, pdt_bytes bytes) {
  memcpy(to, from, (size_t)bytes);
  return (char *)to + bytes;
}

static char *write_record(const pdt_run *run, const pdt_lane *lane, char *at) {
  const lane_record record = {lane->readiness, lane->emitted, (int32_t)lane->fault};
  pdt_bytes slots = run->loaded->sidecar.config.plan_slots * 4;
  char *next = at + lane_bytes(run, lane), *note = next - note_bytes(run);
  put(note, lane->note, note_bytes(run));
  at = put(at, &record, sizeof record);
  put(at, lane->tokens, lane->emitted * 4);
  at = put(at + 4 * (int64_t)lane->room, lane->coverage, slots);
  pdt_bytes state = (pdt_bytes)run->loaded->model.hidden_size * 4;
  for (pdt_told t = 0; t < PDT_TOLD; t++) {
    if (!lane->told[t]) continue;
    put(at, lane->told[t], lane->emitted * state);
    at += lane->room * state;
  }
  return next;
}

static const char *read_record(const pdt_run *run, pdt_lane *lane, const char *at) {
  lane_record record;
  pdt_bytes slots = run->loaded->sidecar.config.plan_slots * 4;
  const char *next = at + lane_bytes(run, lane);
  memcpy(lane->note, next - note_bytes(run), (size_t)note_bytes(run));
  memcpy(&record, at, sizeof record);
  at += sizeof record;
  lane->readiness = record.readiness;
  lane->emitted = record.n_tokens;
  lane->fault = (pdt_fault)record.fault;
  memcpy(lane->tokens, at, (size_t)record.n_tokens * 4);
  at += 4 * (int64_t)lane->room;
  memcpy(lane->coverage, at, (size_t)slots);
  const float *told = (const float *)(const void *)(at + slots);
  for (pdt_told t = 0; t < PDT_TOLD && run->details; t++) {
    if (!pdt_run_tells(run, t)) continue;
    lane->told[t] = told;
    told += (int64_t)lane->room * run->loaded->model.hidden_size;
  }
  int32_t last = record.n_tokens - 1;
  lane->ended =
      last >= 0 && pdt_run_ends(run, lane->running, lane->stream, last, lane->tokens[last]);
  return next;
}

/* Names the rank whose replica is not as the others' are. */
static int fail_diverged(const pdt_run *run, pdt_rank rank, uint64_t found, uint64_t expected,
                         pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "boundary %llu: gather: rank %d on %s diverged: its replica of the notes bus has "
                  "hash %016llx, others' %016llx (hint: different programs or hardware among the "
                  "ranks? A journal has all that was decided)",
                  (unsigned long long)run->boundary, rank, pdt_comm_host(run->machine->world, rank),
                  (unsigned long long)found, (unsigned long long)expected);
}

/* Rank 0 looks at the headers: whoever failed comes first, for it may well have diverged, too. */
static int read_headers(pdt_run *run, bool *failed, pdt_error *err) {
  const char *at = run->mail.records;
  uint64_t first = 0, found = 0;
  pdt_rank ranks = run->machine->place.ranks, n_found = 0, n_first = 0, diverged = 0;
  for (pdt_rank r = 0; r < ranks; r++) {
    rank_header header;
    memcpy(&header, at, sizeof header);
    if (r == 0) first = header.bus_hash;
    if (header.failed) *failed = true;
    if (header.stops) run->stopped = true;
    if (header.bus_hash != first && n_found == 0) {
      diverged = r;
      found = header.bus_hash;
    }
    n_first += header.bus_hash == first;
    n_found += n_first < r + 1 && header.bus_hash == found;
    at += run->round.counts[r];
  }
  if (*failed || n_first == ranks) return 0;
  return fail_diverged(run, n_found > n_first ? 0 : diverged, n_found > n_first ? first : found,
                       n_found > n_first ? found : first, err);
}

int pdt_records_gather(pdt_run *run, uint64_t bus_hash, bool *failed, pdt_error *err) {
  const pdt_round_buffers *b = &run->round;
  const pdt_place *place = &run->machine->place;
  const rank_header header = {bus_hash, run->failure.code != PDT_ERROR_NONE, pdt_run_asked(run)};
  char *at = put(run->mail.record, &header, sizeof header);
  for (pdt_rank r = 0; r < place->ranks; r++) {
    b->counts[r] = sizeof header;
    for (int32_t i = b->owner_begin[r]; i < b->owner_begin[r + 1]; i++) {
      b->counts[r] += lane_bytes(run, b->by_owner[i]);
      if (r == place->rank) at = write_record(run, b->by_owner[i], at);
    }
  }
  *failed = false;
  pdt_comm_gather(run->machine->world, run->mail.record, at - run->mail.record, run->mail.records,
                  b->counts, 0);
  if (place->rank != 0) return 0;
  if (read_headers(run, failed, err)) return -1;
  const char *from = run->mail.records;
  for (pdt_rank r = 0; r < place->ranks && !*failed; r++) {
    from += sizeof header;
    for (int32_t i = b->owner_begin[r]; i < b->owner_begin[r + 1]; i++)
      from = read_record(run, b->by_owner[i], from);
  }
  return 0;
}
