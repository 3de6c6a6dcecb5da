/* How likely tokens were, for answers that tell it. A block's states are there when it is emitted:
 * the head is applied to them once more, in the layout of any choice of tokens, so that logits have
 * the bits that tokens were chosen by. The owner's device makes of a row what was asked for, and
 * rank 0 gets it with the round. */
#include <stdlib.h>

#include "base/memory.h"
#include "engine/run.h"

enum { ROWS = 16, MOST = 1 + PDT_MOST_LOGPROBS };

int pdt_logprobs_new(pdt_run *run, pdt_error *err) {
  pdt_logprob_room *room = &run->logprobs;
  const pdt_load *l = &run->setup.capacity.load;
  int64_t rows = l->group_lanes < ROWS ? l->group_lanes : ROWS;
  if (!run->tells_logprobs) return 0;
  room->rows = (int32_t)rows;
  return PDT_NEW(&room->own, l->own_tokens * MOST, "logprobs", err) ||
         PDT_NEW(&room->all, run->machine->place.rank == 0 ? l->tokens * MOST : 0, "logprobs", err);
}

void pdt_logprobs_free(pdt_run *run) {
  free(run->logprobs.own);
  free(run->logprobs.all);
}

/* What a lane's block takes at most: how much it emitted is known in its group alone. */
static int64_t items_of(const pdt_lane *lane) {
  return lane->room * (int64_t)lane->running->logprobs;
}

/* Rows [from, to) of a lane's block. Collective over the group. */
static void score_rows(pdt_run *run, const pdt_lane *lane, int32_t from, int32_t to,
                       pdt_logprob *out) {
  const pdt_place *place = &run->machine->place;
  int32_t *begin = run->round.begin, wanted = lane->running->logprobs;
  pdt_rank owner = lane->owner - place->group_begin;
  for (pdt_rank t = 0; t <= run->machine->group.size; t++) begin[t] = t > owner ? to - from : 0;
  pdt_array states = lane->owner == place->rank
                         ? pdt_array_at(run->round.states, (lane->states + (int64_t)from) *
                                                               run->loaded->model.hidden_size)
                         : run->round.hidden;
  pdt_trunk_logprobs(&run->trunk, begin, states, lane->tokens + from, wanted - 1,
                     out + from * (int64_t)wanted);
}

/* Those of this rank's lanes, one behind the other: bytes of it. Collective over the group. */
static pdt_bytes score_lanes(pdt_run *run) {
  const pdt_place *place = &run->machine->place;
  const int32_t *owners = run->round.owner_begin;
  pdt_logprob *out = run->logprobs.own;
  for (int32_t i = owners[place->group_begin]; i < owners[place->group_end]; i++) {
    const pdt_lane *lane = run->round.by_owner[i];
    for (int32_t at = 0; lane->running->logprobs > 0 && at < lane->emitted;) {
      int32_t left = lane->emitted - at, n = left < run->logprobs.rows ? left : run->logprobs.rows;
      score_rows(run, lane, at, at + n, out);
      at += n;
    }
    if (lane->owner == place->rank) out += items_of(lane);
  }
  return (out - run->logprobs.own) * (pdt_bytes)sizeof *out;
}

void pdt_logprobs_tell(pdt_run *run) {
  const pdt_round_buffers *b = &run->round;
  const pdt_place *place = &run->machine->place;
  bool wanted = false;
  for (int32_t i = 0; i < run->n_decoding; i++) wanted = wanted || run->sessions[i]->logprobs > 0;
  if (!wanted) return;
  pdt_error err = {0};
  pdt_bytes own = score_lanes(run);
  /* a device that failed made zeros of them: the boundary tells, and nobody gets them */
  if (pdt_machine_sync(run->machine, &err)) pdt_run_note_failure(run, &err);
  for (pdt_rank r = 0; r < place->ranks; r++) {
    b->counts[r] = 0;
    for (int32_t i = b->owner_begin[r]; i < b->owner_begin[r + 1]; i++)
      b->counts[r] += items_of(b->by_owner[i]) * (pdt_bytes)sizeof *run->logprobs.own;
  }
  pdt_comm_gather(run->machine->world, run->logprobs.own, own, run->logprobs.all, b->counts, 0);
  if (place->rank != 0) return;
  const pdt_logprob *at = run->logprobs.all;
  for (int32_t i = 0; i < b->n_lanes; i++) {
    if (items_of(b->by_owner[i]) > 0) b->by_owner[i]->logprobs = at;
    at += items_of(b->by_owner[i]);
  }
}
