/* A session's start: prompt, plan, snapshot 0 (3.8, steps 1 to 3). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/internal.h"

/* Lets the planner read the hidden states of a batch of prompt tokens from `first` on, position by
 * position, so that its sums do not depend on who owned which row. */
static void add_states(pdt_engine *e, const float *own, int32_t first, const int32_t *begin,
                       float *all, double *sums) {
  int64_t d = e->model.hidden_size;
  pdt_bytes *bytes = e->buffers.note_bytes;
  for (pdt_rank t = 0; t < e->group.size; t++)
    bytes[t] = (begin[t + 1] - begin[t]) * d * (pdt_bytes)sizeof(float);
  pdt_comm_all_gather(&e->group, own, all, bytes);
  for (int32_t r = 0; r < begin[e->group.size]; r++)
    pdt_plan_read(&e->sidecar, first + r, all + r * d, sums);
}

/* Runs prompt tokens 0 .. n-1 through the plain trunk; the planner reads their states unless
 * sums is NULL.
 */
static int encode(pdt_engine *e, pdt_session *s, int32_t n, double *sums, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  pdt_rank T = e->group.size;
  float *all;
  if (PDT_NEW(&all, (int64_t)PDT_PROMPT_ROWS * e->model.hidden_size, "prompt", err)) return -1;
  int status = 0;
  for (int32_t first = 0; first < n && !status; first += PDT_PROMPT_ROWS) {
    int32_t rows = n - first < PDT_PROMPT_ROWS ? n - first : PDT_PROMPT_ROWS;
    for (int32_t r = 0; r < rows; r++)
      b->rows[r] = (pdt_trunk_row){&s->prompt, first + r, s->request->prompt[first + r]};
    for (pdt_rank t = 0; t <= T; t++) b->begin[t] = (int32_t)((int64_t)rows * t / T);
    pdt_trunk_batch batch = {b->rows, b->begin};
    status = pdt_trunk_forward(&e->trunk, &batch, NULL, b->hidden, err);
    if (!status && sums) add_states(e, b->hidden, first, b->begin, all, sums);
  }
  free(all);
  return status;
}

/* The planner's slots from its inputs, which rank 0 has: the vocabulary is shared among all ranks
 * of the world. */
static int plan(pdt_engine *e, pdt_session *s, float *inputs, pdt_error *err) {
  int32_t S = e->sidecar.config.plan_slots;
  pdt_bytes bytes =
      pdt_plan_inputs(&e->sidecar) * (pdt_bytes)e->model.hidden_size * (pdt_bytes)sizeof(float);
  pdt_plan_vote *votes;
  pdt_comm_broadcast(e->world, inputs, bytes, 0);
  if (!PDT_NEW(&votes, (int64_t)(e->world->size + 1) * S, "planner", err))
    pdt_plan_vote_share(&e->sidecar, inputs, votes + (int64_t)e->world->size * S, err);
  int status = pdt_comm_agree(e->world, err);
  if (!status) {
    for (pdt_rank r = 0; r < e->world->size; r++)
      e->buffers.note_bytes[r] = S * (pdt_bytes)sizeof *votes;
    pdt_comm_all_gather(e->world, votes + (int64_t)e->world->size * S, votes,
                        e->buffers.note_bytes);
    status = pdt_plan_count(votes, e->world->size, S, s->plan.ids, err);
  }
  free(votes);
  return status;
}

/* The prompt's states as far as this group needs them: group 0, which always has stream 0, works
 * out what the planner reads of the whole prompt; the others only fill their caches, which end one
 * token earlier. */
static int read_prompt(pdt_engine *e, pdt_session *s, float *inputs, pdt_error *err) {
  int32_t n = s->request->n_prompt;
  bool plans = e->place.group_begin == 0;
  double *sums;
  if (PDT_NEW(&sums, (int64_t)pdt_plan_sums(&e->sidecar) * e->model.hidden_size, "prompt", err))
    return -1;
  int status = encode(e, s, plans ? n : n - 1, plans ? sums : NULL, err);
  pdt_plan_finish(&e->sidecar, sums, n, inputs);
  pdt_kv_truncate(&s->prompt, &e->kv, n - 1);
  free(sums);
  return status;
}

int pdt_session_begin(pdt_engine *e, pdt_session *s, pdt_error *err) {
  const pdt_request *r = s->request;
  double start = pdt_seconds();
  int64_t elems = (int64_t)pdt_plan_inputs(&e->sidecar) * e->model.hidden_size;
  float *inputs;
  if (!PDT_NEW(&inputs, elems, "prompt", err) && s->computes) read_prompt(e, s, inputs, err);
  int status = pdt_comm_agree(e->world, err);
  if (!status && r->plan_ids)
    memcpy(s->plan.ids, r->plan_ids, (size_t)e->sidecar.config.plan_slots * sizeof *r->plan_ids);
  else if (!status)
    status = plan(e, s, inputs, err);
  if (!status) status = pdt_plan_embed(&s->plan, &e->sidecar, err);
  if (!status) status = pdt_bus_publish(&s->bus, 0, PDT_PLANNER, err);
  if (!status) pdt_bus_fill(&s->bus, 0, PDT_PLANNER, s->plan.note);
  free(inputs);
  e->stats->prompt_tokens += r->n_prompt;
  e->stats->prompt_seconds += pdt_seconds() - start;
  return pdt_comm_agree(e->world, err);
}
