/* One round's blocks: every active stream emits up to tau tokens under the round's window, then
 * note, coverage and readiness (3.4, steps a to d). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/finite.h"
#include "engine/internal.h"
#include "protocol/philox.h"

/* Lists the lanes: all of the world, this group's by owner, and this rank's. */
static void list_lanes(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  int64_t tokens = 0; /* room handed out */
  int32_t own_tokens = 0;
  b->n_lanes = b->n_group = b->n_own = 0;
  for (int32_t i = 0; i < e->n_sessions; i++) {
    pdt_running *s = e->sessions[i];
    for (pdt_stream k = 0; k < s->request->settings.streams; k++) {
      if (!pdt_stream_active(&s->session.streams[k])) {
        e->stats->stalls += !s->session.streams[k].done;
        continue;
      }
      int32_t at = b->n_lanes++;
      b->lanes[at] = (pdt_lane){
          .running = s,
          .stream = k,
          .owner = pdt_owner_of(k, e->place.ranks),
          .room = pdt_stream_room(&s->session.streams[k], &s->request->settings.limits),
          .tokens = b->tokens + tokens,
          .coverage = b->coverage + (int64_t)at * e->sidecar.config.plan_slots,
      };
      tokens += pdt_settings_block(&s->request->settings);
    }
  }
  for (pdt_rank owner = e->place.group_begin; owner < e->place.group_end; owner++) {
    if (owner == e->place.rank) b->own = b->group + b->n_group;
    for (int32_t i = 0; i < b->n_lanes; i++) {
      if (b->lanes[i].owner != owner) continue;
      if (owner == e->place.rank) {
        b->lanes[i].states = own_tokens;
        own_tokens += pdt_settings_block(&b->lanes[i].running->request->settings);
        b->n_own++;
      }
      b->group[b->n_group++] = &b->lanes[i];
    }
  }
}

/* The round's window of every session: which notes, and on ranks that own a stream their
 * projections. */
static void open_windows(pdt_engine *e) {
  size_t note_bytes = (size_t)e->sidecar.config.notes_dim * sizeof(float);
  double start = pdt_seconds();
  for (int32_t i = 0; i < e->n_sessions; i++) {
    pdt_running *s = e->sessions[i];
    s->n_window = pdt_bus_window(&s->session.bus, s->session.round, s->window_notes);
    for (int32_t j = 0; j < s->n_window; j++) {
      const pdt_note *note = &s->session.bus.notes[s->window_notes[j]];
      s->window_names[j] = note->name;
    }
    if (!s->owns) continue;
    for (int32_t j = 0; j < s->n_window; j++)
      memcpy((char *)s->window.notes + (size_t)j * note_bytes,
             s->session.bus.notes[s->window_notes[j]].vector, note_bytes);
    pdt_window_project(&s->window, &e->sidecar, s->n_window);
  }
  e->stats->sidecar_seconds += pdt_seconds() - start;
}

static void condition_attention(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_engine *e = context;
  (void)rows;
  pdt_sidecar_snc(&e->sidecar, layer, h);
}

static void condition_ffn(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  pdt_engine *e = context;
  (void)rows;
  pdt_sidecar_adapter(&e->sidecar, layer, h);
}

/* Runs rows 0 .. n-1 of the buffers, whose lanes are row_lanes (by owner), under their
 * conditioning; this rank's hidden states go to `hidden`, unless none. */
static int run_rows(pdt_engine *e, int32_t n, pdt_array hidden, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  int32_t at = 0, own = 0;
  for (pdt_rank t = 0; t < e->group.size; t++) {
    b->begin[t] = at;
    for (; at < n && b->row_lanes[at]->owner == e->place.group_begin + t; at++)
      if (t == e->group.rank)
        b->conditioning[own++] =
            (pdt_conditioning){&b->row_lanes[at]->running->window, b->row_lanes[at]->stream};
  }
  b->begin[e->group.size] = n;
  const pdt_engine_variant *v = &e->variant;
  const pdt_trunk_hooks hooks = {e, v->no_snc ? NULL : condition_attention, condition_ffn};
  const pdt_trunk_batch batch = {b->rows, b->begin};
  if (!v->plain) pdt_sidecar_condition(&e->sidecar, b->conditioning, own);
  return pdt_trunk_forward(&e->trunk, &batch, v->plain ? NULL : &hooks, hidden, err);
}

/* Token j of what a stream reads before it writes: the last prompt token, then its prefix. */
static pdt_token lead_token(const pdt_request *r, pdt_stream k, int32_t j) {
  return j == 0 ? r->prompt[r->n_prompt - 1] : r->prefix[k][j - 1];
}

/* In a session's first round its streams read all but the last token of their leads, many rows at
 * once. */
static int read_leads(pdt_engine *e, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  int32_t n = 0;
  for (int32_t i = 0; i < b->n_group; i++) {
    pdt_lane *lane = b->group[i];
    pdt_running *s = lane->running;
    int32_t leads = s->session.round == 1 ? s->request->n_prefix[lane->stream] : 0;
    for (int32_t j = 0; j < leads; j++) {
      b->row_lanes[n] = lane;
      b->rows[n++] = (pdt_trunk_row){&s->sequences[lane->stream], s->request->n_prompt - 1 + j,
                                     lead_token(s->request, lane->stream, j)};
      if (n < e->trunk.limits.max_rows) continue;
      if (run_rows(e, n, (pdt_array){0}, err)) return -1;
      n = 0;
    }
  }
  return n > 0 ? run_rows(e, n, (pdt_array){0}, err) : 0;
}

/* Sets up the decode step of one lane: it consumes the token before the one it emits. */
static pdt_trunk_row step_row(const pdt_lane *lane) {
  pdt_running *s = lane->running;
  const pdt_request *r = s->request;
  const pdt_stream_state *stream = &s->session.streams[lane->stream];
  int32_t leads = r->n_prefix[lane->stream], have = stream->n_tokens + lane->emitted;
  pdt_token token = lane->emitted > 0      ? lane->tokens[lane->emitted - 1]
                    : stream->n_tokens > 0 ? stream->tokens[stream->n_tokens - 1]
                                           : lead_token(r, lane->stream, leads);
  return (pdt_trunk_row){&s->sequences[lane->stream], r->n_prompt - 1 + leads + have, token};
}

/* How the next token of a lane is drawn. */
static pdt_row_draw draw_of(const pdt_lane *lane) {
  const pdt_settings *settings = &lane->running->request->settings;
  const pdt_stream_state *stream = &lane->running->session.streams[lane->stream];
  pdt_row_draw draw = {.how = settings->sampling};
  if (draw.how.temperature != 0)
    draw.u = pdt_uniform(settings->seed, (uint32_t)(stream->n_tokens + lane->emitted), lane->stream,
                         stream->attempt, lane->running->request->session);
  return draw;
}

/* Next tokens of this rank's rows of a step: chosen[own]. */
static void choose_all(pdt_engine *e, int32_t n) {
  pdt_round_buffers *b = &e->buffers;
  for (int32_t i = 0; i < n; i++) b->draws[i] = draw_of(b->row_lanes[i]);
  pdt_trunk_choose(&e->trunk, b->begin, b->hidden, b->draws, b->chosen + b->begin[e->group.rank]);
}

/* Something a lane computed is no number: told at the boundary, and the group goes on alike until
 * then. */
static void fail_lane(pdt_engine *e, const pdt_lane *lane, const char *what, const char *hint) {
  pdt_error err = {0};
  const pdt_running *s = lane->running;
  char name[PDT_REQUEST_NAME_BYTES];
  pdt_request_name(name, sizeof name, s->request, s->index);
  pdt_fail(&err, PDT_ERROR_RUNTIME,
           "%s, round %d, stream %d: %s: expected finite numbers, found NaN or infinity (hint: %s)",
           name, s->session.round, lane->stream, what, hint);
  pdt_engine_note_failure(e, &err);
}

/* Keeps the hidden states of this rank's rows of a step with their blocks. */
static void keep_states(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  int32_t first = b->begin[e->group.rank], own = b->begin[e->group.rank + 1] - first;
  for (int32_t i = 0; i < own; i++)
    b->state_rows[i] = b->row_lanes[first + i]->states + b->row_lanes[first + i]->emitted;
  e->device.ops->move_rows(&e->device, b->states, b->state_rows, b->hidden, NULL, own,
                           e->model.hidden_size);
}

/* Puts a step's tokens into their lanes; the same on every rank of the group. */
static void append_tokens(pdt_engine *e, int32_t n) {
  pdt_round_buffers *b = &e->buffers;
  for (int32_t i = 0; i < n; i++) {
    pdt_lane *lane = b->row_lanes[i];
    pdt_token token = b->chosen[i];
    if (token < 0) {
      fail_lane(e, lane, "the logits", "do the activations overflow?");
      token = 0;
    }
    lane->tokens[lane->emitted++] = token;
    lane->ended = pdt_engine_is_end(e, token);
    lane->finished = lane->ended || lane->emitted == lane->room;
  }
}

/* One decode step of all lanes of the group that are not finished; how many there were, or -1. */
static int32_t step(pdt_engine *e, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  int32_t n = 0;
  for (int32_t i = 0; i < b->n_group; i++) {
    if (b->group[i]->finished) continue;
    b->row_lanes[n] = b->group[i];
    b->rows[n++] = step_row(b->group[i]);
  }
  if (n == 0) return 0;
  if (run_rows(e, n, b->hidden, err)) return -1;
  choose_all(e, n);
  for (pdt_rank t = 0; t < e->group.size; t++)
    b->note_bytes[t] = (b->begin[t + 1] - b->begin[t]) * (pdt_bytes)sizeof *b->chosen;
  pdt_comm_all_gather(&e->group, b->chosen + b->begin[e->group.rank], b->chosen, b->note_bytes);
  keep_states(e);
  append_tokens(e, n);
  return n;
}

/* What the heads gave must be numbers: a coverage of infinity could still make a readiness. */
static void check_blocks(pdt_engine *e) {
  const pdt_round_buffers *b = &e->buffers;
  const pdt_sidecar_config *c = &e->sidecar.config;
  for (int32_t i = 0; i < b->n_own; i++) {
    const pdt_lane *lane = b->own[i];
    const char *what = !isfinite(lane->readiness)                                ? "readiness"
                       : !pdt_all_finite(PDT_F32, lane->note, c->notes_dim)      ? "the note"
                       : !pdt_all_finite(PDT_F32, lane->coverage, c->plan_slots) ? "coverage"
                                                                                 : NULL;
    if (what) fail_lane(e, lane, what, "does the sidecar belong to this model?");
  }
}

/* With details, brings the states of this rank's blocks to the host. */
static void tell_states(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  int64_t d = e->model.hidden_size;
  for (int32_t i = 0; i < b->n_own && e->options.details; i++) {
    pdt_lane *lane = b->own[i];
    float *told = b->told_states + lane->states * d;
    e->device.ops->download(&e->device, told, pdt_array_at(b->states, lane->states * d),
                            lane->emitted * d);
    lane->emitted_states = told;
  }
}

/* Note, coverage and readiness of this rank's blocks. */
static void close_blocks(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  double start = pdt_seconds();
  for (int32_t i = 0; i < b->n_own; i++) {
    pdt_lane *lane = b->own[i];
    pdt_block *block = &b->blocks[i];
    *block = pdt_sidecar_block(&lane->running->window, &lane->running->plan);
    block->states = pdt_array_at(b->states, (int64_t)lane->states * e->model.hidden_size);
    block->n_states = lane->emitted;
    block->note = lane->note;
    block->coverage = lane->coverage;
    block->readiness = &lane->readiness;
  }
  pdt_sidecar_close_blocks(&e->sidecar, b->blocks, b->n_own);
  tell_states(e);
  check_blocks(e);
  e->stats->sidecar_seconds += pdt_seconds() - start;
}

void pdt_round_emit(pdt_engine *e) {
  pdt_error err = {0};
  list_lanes(e);
  pdt_notes_place(e);
  open_windows(e);
  int32_t n = read_leads(e, &err) ? -1 : 1;
  while (n > 0) n = step(e, &err);
  if (n < 0) { /* alike on every rank of the group, before anything was sent */
    pdt_engine_note_failure(e, &err);
    return;
  }
  close_blocks(e);
  if (e->device.ops->sync(&e->device, &err)) pdt_engine_note_failure(e, &err);
}
