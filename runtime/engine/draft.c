#include "engine/draft.h"

#include <stdlib.h>

#include "base/memory.h"
#include "engine/run.h"

/* ---- of a run ---- */

int pdt_draft_new(pdt_draft *d, const pdt_bare_model *model, pdt_machine *machine, int32_t tokens,
                  int32_t lanes, const pdt_trunk_limits *limits, pdt_error *err) {
  pdt_device *dev = &machine->device;
  d->tokens = tokens;
  d->max_rows = limits->max_rows > 2 * lanes ? limits->max_rows : 2 * lanes;
  const pdt_trunk_limits own = {d->max_rows, 2 * lanes, limits->max_tokens};
  return dev->ops->alloc(dev, (int64_t)d->max_rows * model->config.hidden_size, "draft", &d->hidden,
                         err) ||
                 PDT_NEW(&d->rows, d->max_rows, "draft", err) ||
                 PDT_NEW(&d->lanes, d->max_rows, "draft", err) ||
                 PDT_NEW(&d->begin, machine->group.size + 1, "draft", err) ||
                 PDT_NEW(&d->counts, machine->group.size, "draft", err) ||
                 PDT_NEW(&d->draws, d->max_rows, "draft", err) ||
                 PDT_NEW(&d->chosen, d->max_rows, "draft", err) ||
                 pdt_trunk_new(&d->trunk, &model->weights, &machine->group, &d->kv, &own, err)
             ? -1
             : 0;
}

void pdt_draft_free(pdt_draft *d, pdt_device *device) {
  void *all[] = {d->rows, (void *)d->lanes, d->begin, d->counts, d->draws, d->chosen};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  device->ops->release(device, d->hidden);
  pdt_trunk_free(&d->trunk);
  pdt_kv_free(&d->kv);
  *d = (pdt_draft){0};
}

/* ---- proposing ---- */

/* Tokens that are worth drafting for a lane: the trunk's step emits one more by itself. */
static int32_t wanted(const pdt_draft *d, const pdt_lane *lane) {
  int32_t most = lane->finished ? 0 : lane->room - lane->emitted - 1;
  return most < d->tokens ? most : d->tokens;
}

static pdt_kv_sequence *sequence_of(const pdt_lane *lane) {
  return &lane->running->drafts[lane->stream];
}

static void add_row(pdt_draft *d, pdt_lane *lane, int32_t position, int32_t *n) {
  d->lanes[*n] = lane;
  d->rows[(*n)++] = (pdt_trunk_row){sequence_of(lane), position, pdt_lane_token_at(lane, position)};
}

/* Runs rows 0 .. n-1, by owner, through the draft; hidden: none where they are only read. */
static int run_rows(pdt_run *run, int32_t n, pdt_array hidden, pdt_error *err) {
  pdt_draft *d = &run->draft;
  const pdt_comm *group = &run->machine->group;
  int32_t at = 0;
  for (pdt_rank t = 0; t < group->size; t++) {
    d->begin[t] = at;
    while (at < n && d->lanes[at]->owner == run->machine->place.group_begin + t) at++;
  }
  d->begin[group->size] = n;
  const pdt_trunk_batch batch = {.rows = d->rows, .begin = d->begin};
  return pdt_trunk_forward(&d->trunk, &batch, NULL, hidden, err);
}

/* Lets the draft read what streams have, but for the last two tokens: those that a step needs. Most
 * often nothing: all but the first blocks of a session, and rounds that were recorded. */
static int catch_up(pdt_run *run, pdt_range lanes, pdt_error *err) {
  static const pdt_array none = {0};
  pdt_draft *d = &run->draft;
  int32_t n = 0;
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = run->round.by_owner[i];
    int32_t position = pdt_lane_position(lane, lane->emitted);
    if (wanted(d, lane) == 0) continue;
    for (int32_t p = pdt_kv_length(sequence_of(lane)); p < position - 1; p++) {
      add_row(d, lane, p, &n);
      if (n < d->max_rows) continue;
      if (run_rows(run, n, none, err)) return -1;
      n = 0;
    }
  }
  return n > 0 ? run_rows(run, n, none, err) : 0;
}

/* Puts what the last row of every lane gave behind its tokens. */
static void take_tokens(pdt_draft *d, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    pdt_lane *lane = d->lanes[i];
    if (i + 1 < n && d->lanes[i + 1] == lane) continue;
    pdt_token token = d->chosen[i];
    lane->tokens[lane->emitted + lane->drafted++] = token < 0 ? 0 : token;
  }
}

/* Does a lane want a draft of token number i of this step? Behind an end there is nothing. */
static bool goes_on(const pdt_run *run, const pdt_lane *lane, int32_t i) {
  if (i >= wanted(&run->draft, lane) || i > lane->drafted) return false;
  int32_t last = lane->emitted + i - 1;
  return i == 0 || !pdt_run_ends(run, lane->running, lane->stream, last, lane->tokens[last]);
}

/* Token number `i` of every lane that wants so many; how many rows that took, or -1. */
static int32_t draft_one(pdt_run *run, pdt_range lanes, int32_t i, pdt_error *err) {
  pdt_draft *d = &run->draft;
  const pdt_comm *group = &run->machine->group;
  int32_t n = 0;
  for (int32_t l = lanes.begin; l < lanes.end; l++) {
    pdt_lane *lane = run->round.by_owner[l];
    int32_t position = pdt_lane_position(lane, lane->emitted + i);
    if (!goes_on(run, lane, i)) continue;
    for (int32_t p = pdt_kv_length(sequence_of(lane)); p < position; p++) add_row(d, lane, p, &n);
    add_row(d, lane, position, &n);
  }
  if (n == 0) return 0;
  if (run_rows(run, n, d->hidden, err)) return -1;
  for (int32_t r = 0; r < n; r++)
    d->draws[r] = pdt_lane_draw(d->lanes[r], d->lanes[r]->emitted + i);
  pdt_token *own = d->chosen + d->begin[group->rank];
  pdt_trunk_choose(&d->trunk, d->begin, d->hidden, d->draws, own);
  for (pdt_rank t = 0; t < group->size; t++)
    d->counts[t] = (d->begin[t + 1] - d->begin[t]) * (pdt_bytes)sizeof *d->chosen;
  pdt_comm_all_gather(group, own, d->chosen, d->counts);
  take_tokens(d, n);
  return n;
}

int pdt_draft_propose(pdt_run *run, pdt_error *err) {
  const pdt_place *place = &run->machine->place;
  const int32_t *begin = run->round.owner_begin;
  const pdt_range lanes = {begin[place->group_begin], begin[place->group_end]};
  int32_t n = catch_up(run, lanes, err) ? -1 : 1;
  for (int32_t i = 0; n > 0 && i < run->draft.tokens; i++) n = draft_one(run, lanes, i, err);
  return n < 0 ? -1 : 0;
}
