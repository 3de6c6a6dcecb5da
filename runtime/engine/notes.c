/* Notes on their way from their owners to every replica of the bus. They are sent as soon as they
 * exist and needed only when a window shows them: with a reveal delay of two rounds or more, their
 * exchange overlaps the next block. Few of them travel with records and decision instead. */
#include "base/clock.h"
#include "engine/run.h"

/* A half of the notes buffer. */
static float *half(const pdt_run *run, int which) {
  return run->round.notes +
         (int64_t)which * run->setup.capacity.load.lanes * run->loaded->sidecar.config.notes_dim;
}

float *pdt_notes_room(const pdt_run *run) {
  const pdt_notes_exchange *x = &run->exchange;
  return half(run, x->under_way ? 1 - x->which : x->which);
}

float *pdt_notes_under_way(const pdt_run *run) {
  return half(run, run->exchange.which);
}

pdt_bytes pdt_notes_bytes(const pdt_run *run) {
  return run->exchange.n * (pdt_bytes)sizeof(float) * run->loaded->sidecar.config.notes_dim;
}

void pdt_notes_start(pdt_run *run, bool may_be_carried) {
  const pdt_round_buffers *b = &run->round;
  pdt_notes_exchange *x = &run->exchange;
  int64_t dn = run->loaded->sidecar.config.notes_dim;
  float *all = half(run, x->which), *own = all + b->owner_begin[run->machine->place.rank] * dn;
  x->n = b->n_lanes;
  for (int32_t i = 0; i < b->n_lanes; i++) {
    const pdt_lane *lane = b->by_owner[i];
    x->targets[i] = (struct pdt_note_target){lane->running->index,
                                             {lane->running->session.round, lane->stream}};
  }
  x->request = (pdt_comm_request){0};
  x->under_way = true;
  x->carried =
      may_be_carried && run->machine->place.ranks > 1 && pdt_notes_bytes(run) <= PDT_CARRIED_BYTES;
  if (x->carried) return;
  for (pdt_rank r = 0; r < run->machine->place.ranks; r++)
    b->counts[r] = (b->owner_begin[r + 1] - b->owner_begin[r]) * dn * (pdt_bytes)sizeof(float);
  pdt_comm_all_gather_start(run->machine->world, own, all, b->counts, &x->request);
}

/* The session in flight of a request; NULL when it has ended. */
static pdt_running *running_of(const pdt_run *run, int32_t request) {
  int32_t low = 0, high = run->n_decoding; /* they stand in the order of requests */
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (run->sessions[middle]->index < request)
      low = middle + 1;
    else
      high = middle;
  }
  return low < run->n_decoding && run->sessions[low]->index == request ? run->sessions[low] : NULL;
}

void pdt_notes_finish(pdt_run *run) {
  pdt_notes_exchange *x = &run->exchange;
  int64_t dn = run->loaded->sidecar.config.notes_dim;
  if (!x->under_way) return;
  double start = pdt_seconds();
  pdt_comm_wait(run->machine->world, &x->request);
  for (int32_t i = 0; i < x->n; i++) {
    pdt_running *r = running_of(run, x->targets[i].request);
    pdt_note_name name = x->targets[i].name;
    /* The session may have ended or the note been withdrawn while it travelled: then drop it. */
    if (r) pdt_bus_fill(&r->session.bus, name.round, name.stream, half(run, x->which) + i * dn);
  }
  x->under_way = false;
  x->which = 1 - x->which;
  run->stats.boundary_seconds += pdt_seconds() - start;
}
