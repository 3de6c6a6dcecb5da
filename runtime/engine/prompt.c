/* A session's start: prompt, plan, snapshot 0 (3.8, steps 1 to 3). Prompts are read in pieces, so
 * that sessions which decode already do not wait for another's long prompt. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/run.h"

/* ---- reading ---- */

/* Lets the planner read the hidden states of a batch of prompt tokens from `first` on, position by
 * position, so that its sums do not depend on who owned which row. */
static void add_states(pdt_run *run, pdt_running *r, int32_t first) {
  const pdt_comm *group = &run->machine->group;
  pdt_round_buffers *b = &run->round;
  int64_t *elems = b->counts;
  for (pdt_rank t = 0; t < group->size; t++)
    elems[t] = (b->begin[t + 1] - b->begin[t]) * (int64_t)run->loaded->model.hidden_size;
  pdt_link_all_gather(&run->trunk.link, b->hidden, b->prompt_states, elems);
  if (b->prompt_read.at)
    pdt_link_all_gather(&run->trunk.link, b->prompt_inner, b->prompt_read, elems);
  pdt_plan_read(&run->loaded->sidecar, b->prompt_states, b->prompt_read, b->begin[group->size],
                first, r->sums);
}

/* Keeps what the planner reads in order: this rank's rows behind the planner's layer. */
static void keep_layer(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_run *run = context;
  pdt_device *dev = &run->machine->device;
  const pdt_sidecar_config *c = &run->loaded->sidecar.config;
  if (layer == c->plan_layer)
    dev->ops->norm_rows(dev, h, (pdt_array){0}, 1e-6f, rows, c->hidden_size,
                        run->round.prompt_inner);
}

/* Runs prompt tokens first .. first + n - 1 through the plain trunk. Other groups than the first
 * encode one token less: each stream reads the last prompt token itself. Group 0, which always has
 * stream 0, encodes all, for the planner. Fails alike on all ranks of the group. */
static int encode(pdt_run *run, pdt_running *r, int32_t first, int32_t n, pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  pdt_rank T = run->machine->group.size;
  bool plans = run->machine->place.group_begin == 0;
  int32_t end = plans ? r->request->n_prompt : r->request->n_prompt - 1;
  int32_t rows = end - first < n ? end - first : n;
  if (rows <= 0) return 0;
  for (int32_t i = 0; i < rows; i++)
    b->rows[i] = (pdt_trunk_row){&r->prompt, first + i, r->request->prompt[first + i]};
  for (pdt_rank t = 0; t <= T; t++) b->begin[t] = (int32_t)((int64_t)rows * t / T);
  const pdt_trunk_batch batch = {.rows = b->rows, .begin = b->begin, .bulk = true};
  const pdt_trunk_hooks keep = {.context = run, .after_ffn = keep_layer};
  if (pdt_trunk_forward(&run->trunk, &batch, plans && b->prompt_read.at ? &keep : NULL,
                        plans ? b->hidden : (pdt_array){0}, err))
    return -1;
  if (plans) add_states(run, r, first);
  if (run->draft.tokens > 0) {
    for (int32_t i = 0; i < rows; i++) b->rows[i].sequence = &r->draft_prompt;
    if (pdt_trunk_forward(&run->draft.trunk, &batch, NULL, (pdt_array){0}, err)) return -1;
  }
  return pdt_machine_sync(run->machine, err);
}

/* ---- planning ---- */

/* What planning needs. */
typedef struct plan_room {
  float *inputs;        /* [pdt_plan_inputs, d]: what the planner reads */
  pdt_plan_vote *votes; /* [P + 1, S]: every rank's, and this one's */
  float *embedded;      /* [3, S, de] of the plan: by slot; by rank; this rank's */
} plan_room;

static int new_room(plan_room *room, const pdt_run *run, pdt_error *err) {
  const pdt_sidecar *s = &run->loaded->sidecar;
  int64_t d = run->loaded->model.hidden_size, S = s->config.plan_slots;
  *room = (plan_room){0};
  return PDT_NEW(&room->inputs, pdt_plan_inputs(s) * d, "prompt", err) ||
         PDT_NEW(&room->votes, (run->machine->world->size + 1) * S, "prompt", err) ||
         PDT_NEW(&room->embedded, 3 * S * s->config.plan_dim, "prompt", err);
}

static void free_room(plan_room *room) {
  free(room->inputs);
  free(room->votes);
  free(room->embedded);
}

/* The planner's slots from its inputs, which rank 0 has: the vocabulary is shared among all ranks
 * of the world. */
static int make_plan(pdt_run *run, pdt_running *r, const plan_room *room, pdt_error *err) {
  const pdt_sidecar *s = &run->loaded->sidecar;
  const pdt_comm *world = run->machine->world;
  int32_t S = s->config.plan_slots;
  pdt_bytes bytes =
      pdt_plan_inputs(s) * (pdt_bytes)run->loaded->model.hidden_size * (pdt_bytes)sizeof(float);
  pdt_plan_vote *votes = room->votes, *own = votes + (int64_t)world->size * S;
  pdt_comm_broadcast(world, room->inputs, bytes, 0);
  pdt_plan_vote_share(s, room->inputs, own, err);
  if (pdt_comm_agree(world, err)) return -1;
  for (pdt_rank q = 0; q < world->size; q++) run->round.counts[q] = S * (pdt_bytes)sizeof *votes;
  pdt_comm_all_gather(world, own, votes, run->round.counts);
  return pdt_plan_count(votes, world->size, S, r->plan.ids, err);
}

/* The embeddings of the plan's ids, whose rows are shared among all ranks, onto every one of them.
 */
static const float *embed_plan(pdt_run *run, const pdt_running *r, const plan_room *room) {
  const pdt_sidecar *s = &run->loaded->sidecar;
  const pdt_comm *world = run->machine->world;
  int64_t S = s->config.plan_slots, de = s->config.plan_dim;
  float *slots = room->embedded, *arrived = slots + S * de, *own = arrived + S * de;
  pdt_bytes *counts = run->round.counts, row_bytes = de * (pdt_bytes)sizeof(float);
  memset(counts, 0, (size_t)world->size * sizeof *counts);
  for (int64_t i = 0; i < S; i++) counts[pdt_plan_owner(s, r->plan.ids[i])] += row_bytes;
  pdt_plan_own_rows(s, r->plan.ids, own);
  pdt_comm_all_gather(world, own, arrived, counts);
  for (pdt_rank q = 0; q < world->size; q++)
    for (int64_t i = 0; i < S; i++)
      if (pdt_plan_owner(s, r->plan.ids[i]) == q) {
        memcpy(slots + i * de, arrived, (size_t)row_bytes);
        arrived += de;
      }
  return slots;
}

/* The plan of a session whose prompt has been read, and snapshot 0. Fails alike on all ranks. */
static int plan(pdt_run *run, pdt_running *r, pdt_error *err) {
  const pdt_sidecar *s = &run->loaded->sidecar;
  const pdt_request *request = r->request;
  plan_room room;
  new_room(&room, run, err);
  int status = pdt_comm_agree(run->machine->world, err);
  if (!status && r->sums) pdt_plan_finish(s, r->sums, request->n_prompt, room.inputs);
  if (!status && request->plan_ids)
    memcpy(r->plan.ids, request->plan_ids, (size_t)s->config.plan_slots * sizeof *r->plan.ids);
  else if (!status)
    status = make_plan(run, r, &room, err);
  if (!status) status = pdt_plan_embed(&r->plan, s, embed_plan(run, r, &room), err);
  if (!status) pdt_session_plan(&r->session, r->plan.ids, r->plan.note, err);
  free_room(&room);
  return pdt_comm_agree(run->machine->world, err);
}

/* ---- sessions ---- */

/* The session whose prompt was read last, sessions[n_decoding], gets its plan and joins, or ends by
 * itself. Fails alike on all ranks, where a device has failed: what it planned is nothing then. */
static int start_session(pdt_run *run, pdt_error *err) {
  pdt_running *r = run->sessions[run->n_decoding];
  const pdt_observer *o = &run->setup.observer;
  pdt_error own = {0};
  run->stats.prompt_tokens += r->request->n_prompt;
  int status = plan(run, r, &own);
  pdt_machine_sync(run->machine, err);
  if (pdt_comm_agree(run->machine->world, err)) return -1;
  if (status) {
    pdt_request_fail_in(&own, r->request, r->index);
    pdt_run_fail_session(run, run->n_decoding, &own);
    return 0;
  }
  free(r->sums);
  r->sums = NULL;
  run->n_decoding++;
  if (run->machine->world->rank == 0 && o->session_started &&
      o->session_started(o->context, r, &own))
    pdt_run_note_failure(run, &own);
  return 0;
}

/* Reads the next n tokens of a prompt. Fails alike on all ranks. */
static int read_piece(pdt_run *run, pdt_running *r, int32_t n, pdt_error *err) {
  if (r->computes) encode(run, r, r->n_encoded, n, err);
  if (pdt_comm_agree(run->machine->world, err))
    return pdt_request_fail_in(err, r->request, r->index);
  r->n_encoded += n;
  if (r->n_encoded == r->request->n_prompt && r->computes) {
    pdt_kv_truncate(&r->prompt, &run->kv, r->request->n_prompt - 1);
    pdt_kv_truncate(&r->draft_prompt, &run->draft.kv, r->request->n_prompt - 1);
  }
  return 0;
}

/* How many tokens of the next prompt are read now, when so many rows are left until the next round:
 * 0 when it has to wait. A session that a recorded round has is read to its end, and one that it
 * does not have yet almost: it joins when it did. */
static int32_t next_piece(const pdt_run *run, int32_t rows) {
  const pdt_running *r = run->sessions[run->n_decoding];
  int32_t left = r->request->n_prompt - r->n_encoded;
  int32_t most = run->round.prompt_rows, n = left < most ? left : most;
  if (run->next && run->n_decoding < (int64_t)run->next->n_sessions) return n;
  if (n > rows) n = rows;
  return run->next && n == left ? 0 : n;
}

/* Does nobody want the session any more whose prompt is to be read next? Then it leaves. Asked
 * where prompts are read live, before each piece. Collective over the world. */
static bool leaves(pdt_run *run) {
  const pdt_observer *o = &run->setup.observer;
  const pdt_running *r = run->sessions[run->n_decoding];
  pdt_error why = {0};
  if (!run->withdraws || run->next) return false;
  int32_t withdrawn = run->machine->world->rank == 0 && o->withdrawn(o->context, r->index);
  pdt_comm_broadcast(run->machine->world, &withdrawn, sizeof withdrawn, 0);
  if (!withdrawn) return false;
  pdt_fail(&why, PDT_ERROR_RUNTIME, "it was withdrawn while its prompt was read");
  pdt_request_fail_in(&why, r->request, r->index);
  pdt_run_fail_session(run, run->n_decoding, &why);
  return true;
}

int pdt_run_prompts(pdt_run *run, pdt_error *err) {
  double start = pdt_seconds();
  int32_t bulk = run->machine->device.bulk_rows, n, rows = INT32_MAX;
  if (run->n_decoding > 0) rows = bulk < PDT_ROWS_BETWEEN_ROUNDS ? bulk : PDT_ROWS_BETWEEN_ROUNDS;
  int status = 0;
  while (!status && run->n_decoding < run->n_sessions && (n = next_piece(run, rows)) > 0) {
    pdt_running *r = run->sessions[run->n_decoding];
    if (leaves(run)) continue;
    status = read_piece(run, r, n, err);
    rows = n < rows ? rows - n : 0;
    if (!status && r->n_encoded == r->request->n_prompt) status = start_session(run, err);
  }
  run->stats.prompt_seconds += pdt_seconds() - start;
  return status;
}
