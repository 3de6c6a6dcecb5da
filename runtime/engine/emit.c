/* One round's blocks: every active stream emits up to tau tokens under the round's window, then
 * note, coverage and readiness (3.4, steps a to d). Tokens come from the sampler, a step of all
 * streams at a time, or from a recorded decision, whole blocks as rows of one batch: a row's bits
 * do not depend on the batch, so both give the same states. Where it pays, a step begins before the
 * tokens of the one before are known: what streams read beyond their ends is dropped. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/finite.h"
#include "engine/run.h"
#include "protocol/philox.h"

/* ---- lanes ---- */

static pdt_lane lane_of(const pdt_run *run, pdt_running *r, pdt_stream k, int32_t at) {
  return (pdt_lane){.running = r,
                    .stream = k,
                    .owner = pdt_owner_of(k, run->machine->place.ranks),
                    .room = pdt_stream_room(&r->session.streams[k], &r->session.settings.limits),
                    .coverage =
                        run->round.coverage + (int64_t)at * run->loaded->sidecar.config.plan_slots};
}

/* Sorts the lanes by owner: a counting sort, which keeps their order otherwise. */
static void sort_by_owner(pdt_run *run) {
  pdt_round_buffers *b = &run->round;
  pdt_rank ranks = run->machine->place.ranks;
  for (pdt_rank r = 0; r <= ranks; r++) b->owner_begin[r] = 0;
  for (int32_t i = 0; i < b->n_lanes; i++) b->owner_begin[b->lanes[i].owner + 1]++;
  for (pdt_rank r = 0; r < ranks; r++) b->owner_begin[r + 1] += b->owner_begin[r];
  for (int32_t i = 0; i < b->n_lanes; i++)
    b->by_owner[b->owner_begin[b->lanes[i].owner]++] = &b->lanes[i];
  for (pdt_rank r = ranks; r > 0; r--) b->owner_begin[r] = b->owner_begin[r - 1];
  b->owner_begin[0] = 0;
}

/* Gives lanes their places in the buffers of tokens, states and notes. */
static void place_lanes(pdt_run *run) {
  pdt_round_buffers *b = &run->round;
  int32_t own_tokens = 0;
  int64_t tokens = 0, dn = run->loaded->sidecar.config.notes_dim;
  float *notes = pdt_notes_room(run);
  for (int32_t i = 0; i < b->n_lanes; i++) {
    pdt_lane *lane = b->by_owner[i];
    int32_t block = pdt_settings_block(&lane->running->session.settings);
    lane->tokens = b->tokens + tokens;
    lane->note = notes + i * dn;
    tokens += block;
    if (lane->owner != run->machine->place.rank) continue;
    lane->states = own_tokens;
    own_tokens += block;
  }
}

void pdt_round_list(pdt_run *run) {
  pdt_round_buffers *b = &run->round;
  b->n_lanes = 0;
  for (int32_t i = 0; i < run->n_decoding; i++) {
    pdt_running *r = run->sessions[i];
    r->slot = i;
    r->first_lane = b->n_lanes;
    for (pdt_stream k = 0; k < r->session.settings.streams; k++) {
      if (pdt_stream_active(&r->session.streams[k])) {
        b->lanes[b->n_lanes] = lane_of(run, r, k, b->n_lanes);
        b->n_lanes++;
      } else {
        run->stats.stalls += !r->session.streams[k].done;
      }
    }
    r->n_lanes = b->n_lanes - r->first_lane;
  }
  sort_by_owner(run);
  place_lanes(run);
}

/* This group's lanes in by_owner, and this rank's. */
static pdt_range group_lanes(const pdt_run *run) {
  const pdt_place *p = &run->machine->place;
  return (pdt_range){run->round.owner_begin[p->group_begin], run->round.owner_begin[p->group_end]};
}

static pdt_range own_lanes(const pdt_run *run) {
  const int32_t *begin = run->round.owner_begin + run->machine->place.rank;
  return (pdt_range){begin[0], begin[1]};
}

/* What every own stream of a session reads where a variant alters its siblings' notes. */
static int open_altered(pdt_run *run, pdt_running *r, pdt_error *err) {
  const pdt_engine_variant *v = run->variant;
  const pdt_bus *bus = &r->session.bus;
  int64_t dn = run->loaded->sidecar.config.notes_dim;
  size_t bytes = (size_t)dn * sizeof(float);
  for (int32_t j = 0; j < r->n_window; j++)
    memcpy(r->altered_notes + j * dn, bus->notes[r->window_notes[j]].vector, bytes);
  if (v->alter(v->alter_context, r, r->altered_notes, err)) return -1;
  for (pdt_stream k = 0; k < r->session.settings.streams; k++) {
    pdt_window *w = &r->altered[k];
    if (!w->device) continue; /* another rank's */
    for (int32_t j = 0; j < r->n_window; j++) {
      pdt_stream from = r->window_names[j].stream;
      const float *plain = bus->notes[r->window_notes[j]].vector;
      bool kept = from == k || from == PDT_PLANNER;
      memcpy(w->notes + j * dn, kept ? plain : r->altered_notes + j * dn, bytes);
    }
    pdt_window_project(w, &run->loaded->sidecar, r->n_window);
  }
  return 0;
}

/* The round's window of every session: which notes, and on ranks that own a stream their
 * projections. Fails alike on all ranks of the group, and only where notes are altered. */
static int open_windows(pdt_run *run, pdt_error *err) {
  size_t note_bytes = (size_t)run->loaded->sidecar.config.notes_dim * sizeof(float);
  double start = pdt_seconds();
  for (int32_t i = 0; i < run->n_decoding; i++) {
    pdt_running *r = run->sessions[i];
    const pdt_bus *bus = &r->session.bus;
    r->n_window = pdt_bus_window(bus, r->session.round, r->window_notes);
    for (int32_t j = 0; j < r->n_window; j++)
      r->window_names[j] = bus->notes[r->window_notes[j]].name;
    if (r->altered && err->code == PDT_ERROR_NONE) open_altered(run, r, err);
    if (!r->owns || r->altered) continue;
    for (int32_t j = 0; j < r->n_window; j++)
      memcpy((char *)r->window.notes + (size_t)j * note_bytes,
             bus->notes[r->window_notes[j]].vector, note_bytes);
    pdt_window_project(&r->window, &run->loaded->sidecar, r->n_window);
  }
  run->stats.sidecar_seconds += pdt_seconds() - start;
  return run->variant->alter ? pdt_comm_agree(&run->machine->group, err) : 0;
}

/* ---- rows ---- */

/* What the pool's copies mix of these rows. */
static void keep_embedded(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_run *run = context;
  pdt_device *dev = &run->machine->device;
  (void)layer;
  dev->ops->norm_rows(dev, h, (pdt_array){0}, 1e-6f, rows, run->loaded->sidecar.config.hidden_size,
                      run->round.inner_embedded);
}

static void condition_attention(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_run *run = context;
  (void)rows;
  pdt_sidecar_snc(&run->loaded->sidecar, layer, h);
}

static void condition_ffn(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_run *run = context;
  pdt_sidecar *s = &run->loaded->sidecar;
  pdt_device *dev = &run->machine->device;
  if (!run->variant->plain) pdt_sidecar_adapter(s, layer, h);
  if (layer + 1 == s->config.pool_layers)
    dev->ops->norm_rows(dev, h, (pdt_array){0}, 1e-6f, rows, s->config.hidden_size,
                        run->round.inner);
}

static pdt_conditioning conditioning_of(const pdt_lane *lane) {
  return (pdt_conditioning){pdt_running_window(lane->running, lane->stream), lane->stream};
}

/* Runs rows 0 .. n-1 of the buffers, whose lanes are row_lanes (by owner), under their
 * conditioning; `reads`: their tokens are at these places of round.ahead, unless NULL. This rank's
 * hidden states go to `hidden`, unless none. */
static int run_rows(pdt_run *run, int32_t n, const int32_t *reads, pdt_array hidden,
                    pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  const pdt_comm *group = &run->machine->group;
  const pdt_engine_variant *v = run->variant;
  int32_t at = 0, own = 0;
  for (pdt_rank t = 0; t < group->size; t++) {
    b->begin[t] = at;
    for (; at < n && b->row_lanes[at]->owner == run->machine->place.group_begin + t; at++)
      if (t == group->rank) b->conditioning[own++] = conditioning_of(b->row_lanes[at]);
  }
  b->begin[group->size] = n;
  const pdt_trunk_hooks hooks = {.context = run,
                                 .after_embedding = b->embedded.at ? keep_embedded : NULL,
                                 .after_attention =
                                     v->plain || v->no_snc ? NULL : condition_attention,
                                 .after_ffn = condition_ffn};
  const pdt_trunk_batch batch = {
      .rows = b->rows, .begin = b->begin, .chosen = reads ? b->ahead : NULL, .from = reads};
  if (!v->plain) pdt_sidecar_condition(&run->loaded->sidecar, b->conditioning, own);
  return pdt_trunk_forward(&run->trunk, &batch, &hooks, hidden, err);
}

/* Keeps the hidden states of this rank's rows of a batch with their blocks, at state_rows. */
static void keep_states(pdt_run *run) {
  const pdt_round_buffers *b = &run->round;
  pdt_device *dev = &run->machine->device;
  pdt_rank t = run->machine->group.rank;
  int32_t rows = b->begin[t + 1] - b->begin[t], d = run->loaded->model.hidden_size;
  const int32_t *to = b->state_rows + b->begin[t];
  dev->ops->move_rows(dev, b->states, to, b->hidden, NULL, rows, d);
  if (b->pooled.at) dev->ops->move_rows(dev, b->pooled, to, b->inner, NULL, rows, d);
  if (b->embedded.at) dev->ops->move_rows(dev, b->embedded, to, b->inner_embedded, NULL, rows, d);
}

/* Token j of what a stream reads before it writes: the last prompt token, then its prefix. */
static pdt_token lead_token(const pdt_request *r, pdt_stream k, int32_t j) {
  return j == 0 ? r->prompt[r->n_prompt - 1] : r->prefix[k][j - 1];
}

int32_t pdt_lane_position(const pdt_lane *lane, int32_t i) {
  const pdt_running *r = lane->running;
  return r->request->n_prompt - 1 + r->request->n_prefix[lane->stream] +
         r->session.streams[lane->stream].n_tokens + i;
}

pdt_token pdt_lane_token_at(const pdt_lane *lane, int32_t position) {
  const pdt_running *r = lane->running;
  const pdt_stream_state *stream = &r->session.streams[lane->stream];
  int32_t lead = position - (r->request->n_prompt - 1);
  int32_t written = lead - r->request->n_prefix[lane->stream] - 1;
  if (written < 0) return lead_token(r->request, lane->stream, lead);
  return written < stream->n_tokens ? stream->tokens[written]
                                    : lane->tokens[written - stream->n_tokens];
}

/* The row of a lane's next step: it reads the token before the one that the step emits, if that is
 * known. */
static pdt_trunk_row step_row(const pdt_lane *lane) {
  int32_t position = pdt_lane_position(lane, lane->begun);
  bool known = lane->begun <= lane->emitted + lane->drafted;
  return (pdt_trunk_row){&lane->running->sequences[lane->stream], position,
                         known ? pdt_lane_token_at(lane, position) : 0};
}

/* In a session's first round its streams read all but the last token of their leads, many rows at
 * once. */
static int read_leads(pdt_run *run, pdt_error *err) {
  static const pdt_array none = {0};
  pdt_round_buffers *b = &run->round;
  pdt_range lanes = group_lanes(run);
  int32_t n = 0;
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = b->by_owner[i];
    pdt_running *r = lane->running;
    int32_t leads = r->session.round == 1 ? r->request->n_prefix[lane->stream] : 0;
    for (int32_t j = 0; j < leads; j++) {
      b->row_lanes[n] = lane;
      b->rows[n++] = (pdt_trunk_row){&r->sequences[lane->stream], r->request->n_prompt - 1 + j,
                                     lead_token(r->request, lane->stream, j)};
      if (n < b->max_rows) continue;
      if (run_rows(run, n, NULL, none, err)) return -1;
      n = 0;
    }
  }
  return n > 0 ? run_rows(run, n, NULL, none, err) : 0;
}

/* The row of a lane's next step in the batch of *n: it reads the token before the one that the step
 * emits. */
static void add_step(pdt_run *run, pdt_lane *lane, int32_t *n) {
  pdt_round_buffers *b = &run->round;
  b->row_lanes[*n] = lane;
  b->state_rows[*n] = lane->states + lane->begun;
  b->reads[*n] = lane->states + lane->begun - 1;
  b->steps[*n] = lane->begun;
  b->rows[(*n)++] = step_row(lane);
  lane->begun++;
}

/* ---- tokens from the sampler ---- */

pdt_row_draw pdt_lane_draw(const pdt_lane *lane, int32_t i) {
  const pdt_settings *settings = &lane->running->session.settings;
  const pdt_stream_state *stream = &lane->running->session.streams[lane->stream];
  pdt_row_draw draw = {.how = settings->sampling};
  if (stream->attempt > 0 && settings->retry_temperature != 0)
    draw.how.temperature = settings->retry_temperature;
  if (draw.how.temperature != 0)
    draw.u = pdt_uniform(settings->seed, (uint32_t)(stream->n_tokens + i), lane->stream,
                         stream->attempt, lane->running->request->session);
  return draw;
}

/* Next tokens of this rank's rows of a step: chosen[own]. */
static void choose_all(pdt_run *run, int32_t n) {
  pdt_round_buffers *b = &run->round;
  for (int32_t i = 0; i < n; i++) b->draws[i] = pdt_lane_draw(b->row_lanes[i], b->steps[i]);
  pdt_trunk_choose(&run->trunk, b->begin, b->hidden, b->draws,
                   b->chosen + b->begin[run->machine->group.rank]);
}

/* Takes the next of a lane's drafted tokens, where there is one, for right or wrong. */
static void compare_draft(pdt_run *run, pdt_lane *lane, pdt_token token) {
  if (lane->drafted == 0) return;
  bool right = lane->tokens[lane->emitted] == token;
  lane->drafted--;
  lane->missed = !right || pdt_run_ends(run, lane->running, lane->stream, lane->emitted, token);
  run->stats.drafts_right += right;
}

/* Puts a step's tokens into their lanes, as far as those before them were drafted right; the same
 * on every rank of the group. A lane without one goes on with any token until the boundary tells of
 * it. */
static void append_tokens(pdt_run *run, int32_t n) {
  const pdt_round_buffers *b = &run->round;
  for (int32_t i = 0; i < n; i++) {
    pdt_lane *lane = b->row_lanes[i];
    pdt_token token = b->chosen[i];
    if (lane->missed) continue;
    if (token < 0) {
      lane->fault = PDT_FAULT_LOGITS;
      token = 0;
    }
    compare_draft(run, lane, token);
    lane->ended = pdt_run_ends(run, lane->running, lane->stream, lane->emitted, token);
    lane->tokens[lane->emitted++] = token;
    lane->finished = lane->ended || lane->emitted == lane->room;
  }
}

/* Drops what lanes computed of tokens that were not drafted right: caches end where they would have
 * ended without a draft. */
static void drop_misses(pdt_run *run) {
  pdt_range lanes = group_lanes(run);
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = run->round.by_owner[i];
    pdt_running *r = lane->running;
    int32_t length = pdt_lane_position(lane, lane->emitted);
    lane->begun = lane->emitted;
    lane->drafted = 0;
    lane->missed = false;
    pdt_kv_truncate(&r->sequences[lane->stream], &run->kv, length);
    pdt_kv_truncate(&r->drafts[lane->stream], &run->draft.kv, length);
  }
}

/* One decode step of all lanes of the group that are not finished, of one token each and those that
 * were drafted; how many rows that were, or -1. */
static int32_t step(pdt_run *run, pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  const pdt_comm *group = &run->machine->group;
  pdt_range lanes = group_lanes(run);
  int32_t n = 0;
  if (run->draft.tokens > 0 && pdt_draft_propose(run, err)) return -1;
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = b->by_owner[i];
    int32_t steps = lane->finished ? 0 : 1 + lane->drafted;
    run->stats.draft_steps += steps > 0;
    run->stats.drafted += lane->drafted;
    for (int32_t j = 0; j < steps; j++) add_step(run, lane, &n);
  }
  if (n == 0) return 0;
  if (run_rows(run, n, NULL, b->hidden, err)) return -1;
  keep_states(run);
  choose_all(run, n);
  for (pdt_rank t = 0; t < group->size; t++)
    b->counts[t] = (b->begin[t + 1] - b->begin[t]) * (pdt_bytes)sizeof *b->chosen;
  pdt_comm_all_gather(group, b->chosen + b->begin[group->rank], b->chosen, b->counts);
  append_tokens(run, n);
  if (run->draft.tokens > 0) drop_misses(run);
  return n;
}

/* ---- the same, ahead of the tokens ---- */

/* Begins a step of all of this rank's lanes that have room and are not known to be finished; how
 * many there were, or -1. But for a block's first step, tokens are read where they were chosen. */
static int32_t begin_step(pdt_run *run, pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  pdt_range lanes = own_lanes(run);
  int32_t n = 0;
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = b->by_owner[i];
    if (!lane->finished && lane->begun < lane->room) add_step(run, lane, &n);
  }
  if (n == 0) return 0;
  bool first = b->row_lanes[0]->begun == 1;
  if (run_rows(run, n, first ? NULL : b->reads, b->hidden, err)) return -1;
  keep_states(run);
  for (int32_t i = 0; i < n; i++) b->draws[i] = pdt_lane_draw(b->row_lanes[i], b->steps[i]);
  pdt_trunk_choose_ahead(&run->trunk, n, b->hidden, b->draws, b->state_rows, b->ahead);
  return n;
}

/* Puts one more token into each lane that has begun more steps: of the step before the one that was
 * begun last, or of the last. */
static void end_step(pdt_run *run, bool but_last) {
  pdt_round_buffers *b = &run->round;
  pdt_device *dev = &run->machine->device;
  pdt_range lanes = own_lanes(run);
  int32_t n = 0;
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    pdt_lane *lane = b->by_owner[i];
    if (lane->finished || lane->emitted == lane->begun) continue;
    b->row_lanes[n] = lane;
    b->reads[n++] = lane->states + lane->emitted;
  }
  dev->ops->chosen_read(dev, b->ahead, b->reads, n, but_last, b->chosen);
  append_tokens(run, n);
}

/* Whole blocks. What a lane read beyond its end is dropped: no one sees the states, and its cache
 * ends where it would have ended. */
static int emit_ahead(pdt_run *run, pdt_error *err) {
  const pdt_round_buffers *b = &run->round;
  pdt_range lanes = own_lanes(run);
  int32_t begun = 0, n;
  while ((n = begin_step(run, err)) > 0)
    if (++begun > 1) end_step(run, true);
  if (n < 0) return -1;
  end_step(run, false);
  for (int32_t i = lanes.begin; i < lanes.end; i++) {
    const pdt_lane *lane = b->by_owner[i];
    pdt_kv_truncate(&lane->running->sequences[lane->stream], &run->kv,
                    pdt_lane_position(lane, lane->emitted));
  }
  return 0;
}

/* ---- tokens from a recorded decision ---- */

/* What the decision says of a lane; NULL where its session ends here. */
static const Pdt__StreamDecision *recorded_block(const pdt_run *run, const Pdt__Decision *d,
                                                 const pdt_lane *lane) {
  const Pdt__SessionDecision *s = d->sessions[lane->running->slot];
  int64_t at = lane - (run->round.lanes + lane->running->first_lane);
  return s->fault == PDT__FAULT__FAULT_NONE ? s->streams[at] : NULL;
}

/* Is a lane's block needed: not recorded, or kept by what was recorded? */
static bool is_kept(const pdt_run *run, const Pdt__Decision *recorded, const pdt_lane *lane) {
  if (!recorded) return true;
  const Pdt__StreamDecision *block = recorded_block(run, recorded, lane);
  return block && block->action != PDT__ACTION__ACTION_ROLLBACK;
}

/* Runs the *n steps of a batch. */
static int run_steps(pdt_run *run, int32_t *n, pdt_error *err) {
  if (*n > 0 && run_rows(run, *n, NULL, run->round.hidden, err)) return -1;
  if (*n > 0) keep_states(run);
  *n = 0;
  return 0;
}

/* All tokens of the group's blocks as rows; those of blocks that will be dropped are not needed. */
static int replay_blocks(pdt_run *run, const Pdt__Decision *d, pdt_error *err) {
  int32_t n = 0;
  for (int32_t i = 0; i < run->round.n_lanes; i++) {
    pdt_lane *lane = run->round.by_owner[i];
    const Pdt__StreamDecision *block = recorded_block(run, d, lane);
    if (!block) continue;
    bool computed = is_kept(run, d, lane) && lane->owner >= run->machine->place.group_begin &&
                    lane->owner < run->machine->place.group_end;
    lane->ended = block->ended;
    lane->finished = true;
    for (size_t j = 0; j < block->n_tokens; j++) {
      if (computed) add_step(run, lane, &n);
      lane->tokens[lane->emitted++] = block->tokens[j];
      if (n == run->round.max_rows && run_steps(run, &n, err)) return -1;
    }
  }
  return run_steps(run, &n, err);
}

/* ---- closing ---- */

/* What the heads gave must be numbers: a coverage of infinity could still make a readiness. */
static pdt_fault fault_of(const pdt_sidecar_config *c, const pdt_lane *lane) {
  if (lane->fault != PDT_FAULT_NONE) return lane->fault;
  if (!isfinite(lane->readiness)) return PDT_FAULT_READINESS;
  if (!pdt_all_finite(PDT_F32, lane->note, c->notes_dim)) return PDT_FAULT_NOTE;
  return pdt_all_finite(PDT_F32, lane->coverage, c->plan_slots) ? PDT_FAULT_NONE
                                                                : PDT_FAULT_COVERAGE;
}

/* With details, brings what is told of the steps of one of this rank's blocks to the host. */
static void tell_steps(pdt_run *run, pdt_lane *lane) {
  const pdt_round_buffers *b = &run->round;
  const pdt_array from[PDT_TOLD] = {b->states, b->pooled, b->embedded};
  pdt_device *dev = &run->machine->device;
  int64_t d = run->loaded->model.hidden_size, at = lane->states * d;
  float *to = b->told + at;
  for (pdt_told t = 0; t < PDT_TOLD && run->details; t++) {
    if (!pdt_run_tells(run, t)) continue;
    dev->ops->download(dev, to, pdt_array_at(from[t], at), lane->emitted * d);
    lane->told[t] = to;
    to += run->setup.capacity.load.own_tokens * d;
  }
}

/* Note, coverage and readiness of this rank's blocks; of recorded ones, those that are kept. */
static void close_blocks(pdt_run *run, const Pdt__Decision *recorded) {
  pdt_round_buffers *b = &run->round;
  pdt_sidecar *s = &run->loaded->sidecar;
  pdt_range own = own_lanes(run);
  int64_t d = run->loaded->model.hidden_size;
  int32_t n = 0;
  double start = pdt_seconds();
  for (int32_t i = own.begin; i < own.end; i++) {
    pdt_lane *lane = b->by_owner[i];
    if (!is_kept(run, recorded, lane)) continue;
    b->blocks[n] =
        pdt_sidecar_block(pdt_running_window(lane->running, lane->stream), &lane->running->plan);
    b->blocks[n].states = pdt_array_at(b->states, lane->states * d);
    if (b->pooled.at) b->blocks[n].pooled = pdt_array_at(b->pooled, lane->states * d);
    if (b->embedded.at) b->blocks[n].embedded = pdt_array_at(b->embedded, lane->states * d);
    b->blocks[n].n_states = lane->emitted;
    b->blocks[n].note = lane->note;
    b->blocks[n].coverage = lane->coverage;
    b->blocks[n++].readiness = &lane->readiness;
    tell_steps(run, lane);
  }
  pdt_sidecar_close_blocks(s, b->blocks, n);
  for (int32_t i = own.begin; i < own.end; i++)
    if (is_kept(run, recorded, b->by_owner[i]))
      b->by_owner[i]->fault = fault_of(&s->config, b->by_owner[i]);
  run->stats.sidecar_seconds += pdt_seconds() - start;
}

/* A fault where the recorded run had none is this rank's failure. */
static void note_faults(pdt_run *run) {
  pdt_range own = own_lanes(run);
  for (int32_t i = own.begin; i < own.end; i++) {
    const pdt_lane *lane = run->round.by_owner[i];
    pdt_error err = {0};
    if (lane->fault == PDT_FAULT_NONE) continue;
    pdt_fail(&err, PDT_ERROR_RUNTIME,
             "request %d, stream %d: expected finite numbers, as in the recorded run, found NaN or "
             "infinity",
             lane->running->index, lane->stream);
    pdt_run_note_failure(run, &err);
  }
}

/* Coverage that this rank has computed must be the recorded one. */
static void compare_coverage(pdt_run *run, const pdt_lane *lane, const Pdt__StreamDecision *block) {
  pdt_error err = {0};
  if (memcmp(lane->coverage, block->coverage, block->n_coverage * sizeof *block->coverage) == 0)
    return;
  pdt_fail(&err, PDT_ERROR_INPUT,
           "boundary %llu: request %d, stream %d: its coverage is not the recorded one (hint: "
           "another model, sidecar, layout of ranks or machine than it was written with?)",
           (unsigned long long)run->boundary, lane->running->index, lane->stream);
  pdt_run_note_failure(run, &err);
}

/* Coverage and readiness are what was recorded: readiness an observer may have changed then. A
 * block that is dropped has no note. */
static void take_recorded(pdt_run *run, const Pdt__Decision *d) {
  for (int32_t i = 0; i < run->round.n_lanes; i++) {
    pdt_lane *lane = &run->round.lanes[i];
    const Pdt__StreamDecision *block = recorded_block(run, d, lane);
    if (!block) continue;
    if (!is_kept(run, d, lane))
      lane->note = NULL;
    else if (lane->owner == run->machine->place.rank)
      compare_coverage(run, lane, block);
    lane->readiness = block->readiness;
    memcpy(lane->coverage, block->coverage, block->n_coverage * sizeof *block->coverage);
  }
}

void pdt_round_emit(pdt_run *run, const Pdt__Decision *recorded) {
  pdt_error err = {0};
  pdt_round_list(run);
  int32_t n = open_windows(run, &err) || read_leads(run, &err) ? -1 : 1;
  if (n > 0 && recorded)
    n = replay_blocks(run, recorded, &err) ? -1 : 0;
  else if (n > 0 && run->round.ahead)
    n = emit_ahead(run, &err);
  else
    while (n > 0) n = step(run, &err);
  if (n == 0) close_blocks(run, recorded);
  if (n == 0 && recorded) {
    note_faults(run);
    take_recorded(run, recorded);
  }
  /* a failure before is alike on every rank of the group, and nothing was sent */
  if (n < 0 || pdt_machine_sync(run->machine, &err)) pdt_run_note_failure(run, &err);
}
