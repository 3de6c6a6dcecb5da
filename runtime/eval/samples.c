#include "eval/samples.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/buffer.h"

/* What is under way. */
typedef struct collecting {
  pdt_samples *s;
  const pdt_eval *eval;
  int32_t index; /* of the request, and the round, of the newest window; round 0: none yet */
  pdt_round round;
} collecting;

static void fingerprint(pdt_samples *s, const void *data, size_t bytes) {
  s->fingerprint = XXH3_64bits_withSeed(data, bytes, s->fingerprint);
}

static int keep(pdt_samples *s, const float *x, int64_t n, const float **out, pdt_error *err) {
  float *kept;
  if (PDT_TAKE(&s->arena, &kept, n, err)) return -1;
  memcpy(kept, x, (size_t)n * sizeof *x);
  fingerprint(s, x, (size_t)n * sizeof *x);
  *out = kept;
  return 0;
}

/* The window and plan of a session's round, once. */
static int keep_round(collecting *c, const pdt_running *running, pdt_error *err) {
  pdt_samples *s = c->s;
  const pdt_sidecar_config *config = &pdt_engine_loaded(c->eval->engine)->sidecar.config;
  int32_t *ids;
  if (c->round == running->session.round && c->index == running->index) return 0;
  c->index = running->index;
  c->round = running->session.round;
  if (PDT_GROW(&s->windows, (size_t)s->n_windows, &s->windows_room, err) ||
      PDT_GROW(&s->plans, (size_t)s->n_plans, &s->plans_room, err) ||
      PDT_TAKE(&s->arena, &ids, config->plan_slots, err))
    return -1;
  pdt_sample_window *w = &s->windows[s->n_windows];
  *w = (pdt_sample_window){.n = running->window.n};
  if (keep(s, running->window.notes, (int64_t)w->n * config->notes_dim, &w->notes, err)) return -1;
  memcpy(ids, running->plan.ids, (size_t)config->plan_slots * sizeof *ids);
  s->plans[s->n_plans++] = ids;
  s->n_windows++;
  return 0;
}

/* Slots of the session's plan that a block states: where the plan has the true item. */
static uint64_t covered_by(const collecting *c, const pdt_eval_heard *heard) {
  const pdt_sidecar_config *config = &pdt_engine_loaded(c->eval->engine)->sidecar.config;
  const pdt_judge_plan plan = pdt_judge_plan_of(c->eval->atlas, heard->entry, heard->owners,
                                                heard->running->plan.ids, config->plan_slots);
  uint64_t slots = 0;
  for (int t = 0; t < PDT_ATLAS_TYPES; t++)
    if (heard->block->stated >> t & 1) slots |= plan.slots[t];
  return slots & plan.right;
}

static int on_block(void *context, const pdt_eval_heard *heard, pdt_error *err) {
  collecting *c = context;
  pdt_samples *s = c->s;
  const pdt_block_report *b = heard->report;
  int64_t d = pdt_engine_loaded(c->eval->engine)->sidecar.config.hidden_size;
  if (keep_round(c, heard->running, err) || PDT_GROW(&s->items, (size_t)s->n, &s->room, err))
    return -1;
  pdt_rollout_sample *x = &s->items[s->n];
  *x = (pdt_rollout_sample){.steps = b->n_tokens,
                            .window = s->n_windows - 1,
                            .plan = s->n_plans - 1,
                            .readiness = b->readiness,
                            .ready = heard->block->ready,
                            .agrees = heard->block->ready && heard->block->agrees,
                            .covers = covered_by(c, heard)};
  if (keep(s, b->states, b->n_tokens * d, &x->states, err)) return -1;
  x->pooled = x->states;
  if (b->pooled != b->states && keep(s, b->pooled, b->n_tokens * d, &x->pooled, err)) return -1;
  if (b->embedded && keep(s, b->embedded, b->n_tokens * d, &x->embedded, err)) return -1;
  const uint64_t labels[] = {x->ready, x->agrees, x->covers};
  fingerprint(s, labels, sizeof labels);
  s->n++;
  return 0;
}

int pdt_samples_collect(pdt_samples *s, const pdt_eval *eval, const json_t *settings,
                        pdt_eval_figures *figures, pdt_error *err) {
  collecting c = {.s = s, .eval = eval};
  pdt_eval listening = *eval;
  listening.listen = on_block;
  listening.context = &c;
  const pdt_eval_setup setup = {.arm = PDT_EVAL_SYSTEM, .settings = settings};
  return pdt_eval_run(&listening, &setup, figures, err);
}

void pdt_samples_free(pdt_samples *s) {
  pdt_arena_free(&s->arena);
  free(s->items);
  free(s->windows);
  free(s->plans);
  *s = (pdt_samples){0};
}
