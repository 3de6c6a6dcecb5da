/* Notes on their way from their owners to every replica of the bus. They are sent as soon as they
 * exist and needed only when a window shows them: with a reveal delay of two rounds or more, their
 * exchange overlaps the next block. */
#include <stdlib.h>

#include "base/clock.h"
#include "engine/internal.h"

/* Half of the notes buffer that the coming exchange uses. */
static float *notes_half(const pdt_engine *e, int which) {
  return e->buffers.notes + (int64_t)which * e->buffers.max_lanes * e->sidecar.config.notes_dim;
}

void pdt_notes_place(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  pdt_notes_exchange *x = &e->exchange;
  int64_t dn = e->sidecar.config.notes_dim;
  int which = x->under_way ? 1 - x->which : x->which;
  int32_t at = 0;
  for (pdt_rank owner = 0; owner < e->place.ranks; owner++)
    for (int32_t i = 0; i < b->n_lanes; i++)
      if (b->lanes[i].owner == owner) b->lanes[i].note = notes_half(e, which) + at++ * dn;
}

void pdt_notes_start(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  pdt_notes_exchange *x = &e->exchange;
  pdt_bytes note_bytes = e->sidecar.config.notes_dim * (pdt_bytes)sizeof(float);
  float *all = notes_half(e, x->which), *own = all;
  x->n = 0;
  for (pdt_rank owner = 0; owner < e->place.ranks; owner++) {
    int32_t before = x->n;
    if (owner == e->place.rank) own = all + before * (int64_t)e->sidecar.config.notes_dim;
    for (int32_t i = 0; i < b->n_lanes; i++) {
      const pdt_lane *lane = &b->lanes[i];
      if (lane->owner != owner) continue;
      x->targets[x->n++] = (struct pdt_note_target){lane->running->index,
                                                    lane->running->session.round, lane->stream};
    }
    b->note_bytes[owner] = (x->n - before) * note_bytes;
  }
  pdt_comm_all_gather_start(e->world, own, all, b->note_bytes, &x->request);
  x->under_way = true;
}

/* The session in flight of a request; NULL when it has ended. */
static pdt_running *running_of(const pdt_engine *e, int32_t request) {
  for (int32_t i = 0; i < e->n_sessions; i++)
    if (e->sessions[i]->index == request) return e->sessions[i];
  return NULL;
}

void pdt_notes_finish(pdt_engine *e) {
  pdt_notes_exchange *x = &e->exchange;
  if (!x->under_way) return;
  double start = pdt_seconds();
  pdt_comm_wait(e->world, &x->request);
  for (int32_t i = 0; i < x->n; i++) {
    pdt_running *s = running_of(e, x->targets[i].request);
    const float *note = notes_half(e, x->which) + (int64_t)i * e->sidecar.config.notes_dim;
    /* The session may have ended or the note been withdrawn while it travelled: then drop it. */
    if (s) pdt_bus_fill(&s->session.bus, x->targets[i].round, x->targets[i].stream, note);
  }
  x->under_way = false;
  x->which = 1 - x->which;
  e->stats->boundary_seconds += pdt_seconds() - start;
}
