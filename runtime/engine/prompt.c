/* A session's start: prompt, plan, snapshot 0 (3.8, steps 1 to 3). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/internal.h"

/* What encoding and planning need beside the round's buffers. */
typedef struct prompt_room {
  float *inputs;        /* [pdt_plan_inputs, d]: what the planner reads */
  double *sums;         /* [pdt_plan_sums, d] on their way to it */
  pdt_array states;     /* [PDT_PROMPT_ROWS, d]: a batch's, of all owners */
  pdt_plan_vote *votes; /* [P + 1, S]: every rank's, and this one's */
  float *embedded;      /* [3, S, de] of the plan: by slot; by rank; this rank's */
} prompt_room;

static int new_room(prompt_room *room, pdt_engine *e, pdt_error *err) {
  int64_t d = e->model.hidden_size, S = e->sidecar.config.plan_slots;
  return PDT_NEW(&room->inputs, pdt_plan_inputs(&e->sidecar) * d, "prompt", err) ||
         PDT_NEW(&room->sums, pdt_plan_sums(&e->sidecar) * d, "prompt", err) ||
         e->device.ops->alloc(&e->device, PDT_PROMPT_ROWS * d, "prompt", &room->states, err) ||
         PDT_NEW(&room->votes, (e->world->size + 1) * S, "prompt", err) ||
         PDT_NEW(&room->embedded, 3 * S * e->sidecar.config.plan_dim, "prompt", err);
}

static void free_room(prompt_room *room, pdt_engine *e) {
  free(room->inputs);
  free(room->sums);
  e->device.ops->release(&e->device, room->states);
  free(room->votes);
  free(room->embedded);
}

/* Lets the planner read the hidden states of a batch of prompt tokens from `first` on, position by
 * position, so that its sums do not depend on who owned which row. */
static void add_states(pdt_engine *e, int32_t first, const prompt_room *room) {
  const int32_t *begin = e->buffers.begin;
  int64_t *elems = e->buffers.note_bytes;
  for (pdt_rank t = 0; t < e->group.size; t++)
    elems[t] = (begin[t + 1] - begin[t]) * (int64_t)e->model.hidden_size;
  pdt_link_all_gather(&e->trunk.link, e->buffers.hidden, room->states, elems);
  pdt_plan_read(&e->sidecar, room->states, begin[e->group.size], first, room->sums);
}

/* Runs prompt tokens 0 .. n-1 through the plain trunk; the planner reads their states if it
 * `plans`. Fails alike on all ranks of the group. */
static int encode(pdt_engine *e, pdt_running *s, int32_t n, bool plans, const prompt_room *room,
                  pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  pdt_rank T = e->group.size;
  int status = 0;
  for (int32_t first = 0; first < n && !status; first += PDT_PROMPT_ROWS) {
    int32_t rows = n - first < PDT_PROMPT_ROWS ? n - first : PDT_PROMPT_ROWS;
    for (int32_t r = 0; r < rows; r++)
      b->rows[r] = (pdt_trunk_row){&s->prompt, first + r, s->request->prompt[first + r]};
    for (pdt_rank t = 0; t <= T; t++) b->begin[t] = (int32_t)((int64_t)rows * t / T);
    pdt_trunk_batch batch = {b->rows, b->begin};
    status = pdt_trunk_forward(&e->trunk, &batch, NULL, plans ? b->hidden : (pdt_array){0}, err);
    if (!status && plans) add_states(e, first, room);
  }
  return status;
}

/* The planner's slots from its inputs, which rank 0 has: the vocabulary is shared among all ranks
 * of the world. */
static int plan(pdt_engine *e, pdt_running *s, const prompt_room *room, pdt_error *err) {
  int32_t S = e->sidecar.config.plan_slots;
  pdt_bytes bytes =
      pdt_plan_inputs(&e->sidecar) * (pdt_bytes)e->model.hidden_size * (pdt_bytes)sizeof(float);
  pdt_plan_vote *votes = room->votes, *own = votes + (int64_t)e->world->size * S;
  pdt_comm_broadcast(e->world, room->inputs, bytes, 0);
  pdt_plan_vote_share(&e->sidecar, room->inputs, own, err);
  if (pdt_comm_agree(e->world, err)) return -1;
  for (pdt_rank r = 0; r < e->world->size; r++)
    e->buffers.note_bytes[r] = S * (pdt_bytes)sizeof *votes;
  pdt_comm_all_gather(e->world, own, votes, e->buffers.note_bytes);
  return pdt_plan_count(votes, e->world->size, S, s->plan.ids, err);
}

/* The embeddings of the plan's ids, whose rows are shared among all ranks, onto every one of them.
 */
static const float *embed_plan(pdt_engine *e, const pdt_running *s, const prompt_room *room) {
  int64_t S = e->sidecar.config.plan_slots, de = e->sidecar.config.plan_dim;
  float *slots = room->embedded, *arrived = slots + S * de, *own = arrived + S * de;
  pdt_bytes *counts = e->buffers.note_bytes, row_bytes = de * (pdt_bytes)sizeof(float);
  memset(counts, 0, (size_t)e->world->size * sizeof *counts);
  for (int64_t i = 0; i < S; i++) counts[pdt_plan_owner(&e->sidecar, s->plan.ids[i])] += row_bytes;
  pdt_plan_own_rows(&e->sidecar, s->plan.ids, own);
  pdt_comm_all_gather(e->world, own, arrived, counts);
  for (pdt_rank r = 0; r < e->world->size; r++)
    for (int64_t i = 0; i < S; i++)
      if (pdt_plan_owner(&e->sidecar, s->plan.ids[i]) == r) {
        memcpy(slots + i * de, arrived, (size_t)row_bytes);
        arrived += de;
      }
  return slots;
}

/* The prompt's states as far as this group needs them: group 0, which always has stream 0, works
 * out what the planner reads of the whole prompt; the others only fill their caches, which end one
 * token earlier. */
static int read_prompt(pdt_engine *e, pdt_running *s, const prompt_room *room, pdt_error *err) {
  int32_t n = s->request->n_prompt;
  bool plans = e->place.group_begin == 0;
  if (encode(e, s, plans ? n : n - 1, plans, room, err) || e->device.ops->sync(&e->device, err))
    return -1;
  pdt_plan_finish(&e->sidecar, room->sums, n, room->inputs);
  pdt_kv_truncate(&s->prompt, &e->kv, n - 1);
  return 0;
}

int pdt_running_begin(pdt_engine *e, pdt_running *s, pdt_error *err) {
  const pdt_request *r = s->request;
  double start = pdt_seconds();
  prompt_room room = {0};
  new_room(&room, e, err);
  int status =
      pdt_comm_agree(e->world, err); /* before the groups' exchanges: none may be missing */
  if (!status) {
    if (s->computes) read_prompt(e, s, &room, err);
    status = pdt_comm_agree(e->world, err);
  }
  if (!status && r->plan_ids)
    memcpy(s->plan.ids, r->plan_ids, (size_t)e->sidecar.config.plan_slots * sizeof *r->plan_ids);
  else if (!status)
    status = plan(e, s, &room, err);
  if (!status) status = pdt_plan_embed(&s->plan, &e->sidecar, embed_plan(e, s, &room), err);
  if (!status) status = pdt_session_plan(&s->session, s->plan.ids, s->plan.note, err);
  free_room(&room, e);
  e->stats->prompt_tokens += r->n_prompt;
  e->stats->prompt_seconds += pdt_seconds() - start;
  return pdt_comm_agree(e->world, err);
}
