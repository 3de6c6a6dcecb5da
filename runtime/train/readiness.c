#include "train/readiness.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "train/nn/heads.h"
#include "train/nn/losses.h"
#include "train/order.h"

static const pdt_comm alone = {.rank = 0, .size = 1};

enum { SINCE_READY, SINCE_COVERAGE, SINCE_STEPS, SINCE };

typedef struct run {
  pdt_nn_sidecar *sidecar;
  const pdt_samples *samples;
  const pdt_readiness_options *options;
  pdt_adamw adamw;
  pdt_arena arena;
  pdt_train_order order; /* of samples */
  double since[SINCE];   /* the report before */
} run;

/* The samples of one step, laid out for the heads: block i's rows are begin[i] .. + steps[i], its
 * plan is i, and notes of its window are its own copies' numbers. */
typedef struct batch {
  int32_t n, rows, notes;
  int32_t *begin, *steps, *entry, *plan_ids, *first, *items, *each;
  float *states, *window_notes;
  float *ready, *ready_weight, *coverage, *coverage_weight;
} batch;

static int take_batch(run *r, const pdt_rollout_sample *const *chosen, batch *b, pdt_error *err) {
  const pdt_sidecar_config *c = &r->sidecar->config;
  pdt_arena *arena = &r->arena;
  for (int32_t i = 0; i < b->n; i++) {
    b->rows += chosen[i]->steps;
    b->notes += r->samples->windows[chosen[i]->window].n;
  }
  int64_t slots = (int64_t)b->n * c->plan_slots;
#define TAKE(field, count) PDT_TAKE(arena, &b->field, count, err)
  return TAKE(begin, b->n) || TAKE(steps, b->n) || TAKE(entry, b->n) || TAKE(plan_ids, slots) ||
                 TAKE(first, b->n + 1) || TAKE(items, b->notes) || TAKE(each, b->n + 1) ||
                 TAKE(states, (int64_t)b->rows * c->hidden_size) ||
                 TAKE(window_notes, (int64_t)b->notes * c->notes_dim) || TAKE(ready, b->n) ||
                 TAKE(ready_weight, b->n) || TAKE(coverage, slots) || TAKE(coverage_weight, slots)
             ? -1
             : 0;
#undef TAKE
}

/* Places sample x as block i, behind `rows` rows and `notes` notes. */
static void put_sample(const run *r, const pdt_rollout_sample *x, batch *b, int32_t i, int32_t rows,
                       int32_t notes) {
  const pdt_sidecar_config *c = &r->sidecar->config;
  const pdt_sample_window *w = &r->samples->windows[x->window];
  int64_t S = c->plan_slots, d = c->hidden_size, dn = c->notes_dim;
  b->begin[i] = rows;
  b->steps[i] = x->steps;
  b->entry[i] = b->each[i] = i;
  b->first[i] = notes;
  memcpy(b->states + rows * d, x->states, (size_t)(x->steps * d) * sizeof(float));
  memcpy(b->window_notes + notes * dn, w->notes, (size_t)(w->n * dn) * sizeof(float));
  for (int32_t j = 0; j < w->n; j++) b->items[notes + j] = notes + j;
  memcpy(b->plan_ids + i * S, r->samples->plans[x->plan], (size_t)S * sizeof *b->plan_ids);
  b->ready[i] = r->options->label == PDT_LABEL_READY ? x->ready : x->agrees;
  b->ready_weight[i] = (float)(r->options->ready / b->n);
  int32_t filled = 0;
  for (int64_t j = 0; j < S; j++) filled += b->plan_ids[i * S + j] != 0;
  for (int64_t j = 0; j < S; j++) {
    bool empty = b->plan_ids[i * S + j] == 0;
    b->coverage[i * S + j] = j < PDT_DATA_SLOTS && x->covers >> j & 1 ? 1 : 0;
    b->coverage_weight[i * S + j] = empty ? 0 : (float)(r->options->coverage / b->n / filled);
  }
}

static int lay_out(run *r, batch *b, pdt_error *err) {
  const pdt_rollout_sample **chosen;
  b->n = r->options->batch;
  if (PDT_TAKE(&r->arena, &chosen, b->n, err)) return -1;
  for (int32_t i = 0; i < b->n; i++) {
    int64_t item = pdt_train_order_at(&r->order, r->adamw.step * b->n + i);
    chosen[i] = &r->samples->items[item];
  }
  if (take_batch(r, chosen, b, err)) return -1;
  int32_t rows = 0, notes = 0;
  for (int32_t i = 0; i < b->n; i++) {
    put_sample(r, chosen[i], b, i, rows, notes);
    rows += chosen[i]->steps;
    notes += r->samples->windows[chosen[i]->window].n;
  }
  b->first[b->n] = notes;
  b->each[b->n] = b->n;
  return 0;
}

/* Both losses of a batch, and the heads' gradients. */
static int learn(run *r, const batch *b, double *ready, double *coverage, pdt_error *err) {
  const pdt_nn_sidecar *s = r->sidecar;
  const pdt_nn_blocks blocks = {b->n, b->begin, b->steps, b->entry};
  const pdt_nn_plans plans = {b->n, b->plan_ids};
  const pdt_nn_windows windows = {b->n, b->each, b->first, b->items};
  int64_t slots = (int64_t)b->n * s->config.plan_slots;
  pdt_nn_pool_pass pool;
  pdt_nn_note_pass note;
  pdt_nn_coverage_pass cover;
  pdt_nn_agree_pass agree;
  float *dcover, *dready;
  if (pdt_nn_pool(s, &blocks, b->states, b->rows, &pool, &r->arena, err) ||
      pdt_nn_speculate(s, b->n, pool.pooled, &note, &r->arena, err) ||
      pdt_nn_coverage(s, &blocks, &plans, pool.pooled, &cover, &r->arena, err) ||
      PDT_TAKE(&r->arena, &dcover, slots, err) || PDT_TAKE(&r->arena, &dready, b->n, err))
    return -1;
  memset(dcover, 0, (size_t)slots * sizeof *dcover);
  memset(dready, 0, (size_t)b->n * sizeof *dready);
  const pdt_nn_agree_input in = {.blocks = &blocks,
                                 .plans = &plans,
                                 .windows = &windows,
                                 .states = b->states,
                                 .pooled = pool.pooled,
                                 .note = note.note,
                                 .coverage = cover.logits,
                                 .notes = b->window_notes,
                                 .n_notes = b->notes,
                                 .dcoverage = dcover};
  if (pdt_nn_agree(s, &in, &agree, &r->arena, err)) return -1;
  *coverage = pdt_nn_bce(cover.logits, b->coverage, b->coverage_weight, slots, dcover);
  *ready = pdt_nn_bce(agree.logits, b->ready, b->ready_weight, b->n, dready);
  return pdt_nn_agree_back(s, &in, &agree, dready, &r->arena, err) ||
                 pdt_nn_coverage_back(s, &blocks, &plans, pool.pooled, &cover, dcover, NULL,
                                      &r->arena, err)
             ? -1
             : 0;
}

static pdt_train_identity identity_of(const run *r, char text[512]) {
  const pdt_readiness_options *o = r->options;
  snprintf(text, 512,
           "steps %" PRId64 ", warmup %" PRId64
           ", batch %d, rate %.9g, floor %.9g, label %d, ready "
           "%.9g, coverage %.9g, seed %" PRIu64 ", decay %.9g, clip %.9g",
           o->steps, o->warmup, o->batch, o->rate, o->floor, (int)o->label, o->ready, o->coverage,
           o->seed, o->adamw.weight_decay, o->adamw.clip);
  return (pdt_train_identity){"rollouts", text, r->samples->fingerprint};
}

static pdt_train_run state_of(run *r) {
  return (pdt_train_run){&r->sidecar->parameters, &r->adamw, r->since, SINCE};
}

static int checkpoint(run *r, pdt_error *err) {
  char settings[512];
  const pdt_train_identity identity = identity_of(r, settings);
  const pdt_train_run state = state_of(r);
  char *config = pdt_sidecar_config_text(&r->sidecar->config);
  const pdt_metadata metadata = {"config", config};
  int rc = config ? pdt_train_export(r->options->sidecar, &r->sidecar->parameters,
                                     r->options->dtype, &metadata, 1, err)
                  : pdt_fail(err, PDT_ERROR_MEMORY, "%s: config: no memory", r->options->sidecar);
  free(config);
  return rc ? rc : pdt_train_state_write(r->options->state, &identity, &state, err);
}

static int one_step(run *r, double *norm, double *rate, pdt_error *err) {
  const pdt_readiness_options *o = r->options;
  double ready, coverage, rates[PDT_TRAIN_GROUPS] = {0};
  batch b = {0};
  pdt_arena_reset(&r->arena);
  if (lay_out(r, &b, err) || learn(r, &b, &ready, &coverage, err)) return -1;
  if (!isfinite(ready + coverage))
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "step %lld: the loss is not a finite number (hint: a lower rate)",
                    (long long)r->adamw.step + 1);
  *rate = rates[PDT_NN_CLOSE] = o->rate * pdt_rate_at(r->adamw.step, o->warmup, o->steps, o->floor);
  r->since[SINCE_READY] += ready;
  r->since[SINCE_COVERAGE] += coverage;
  r->since[SINCE_STEPS]++;
  return pdt_adamw_step(&r->adamw, &r->sidecar->parameters, rates, norm, err);
}

static int report(run *r, double norm, double rate, const pdt_train_observer *observer,
                  pdt_error *err) {
  const pdt_readiness_report out = {.step = r->adamw.step,
                                    .steps = r->options->steps,
                                    .ready = r->since[SINCE_READY] / r->since[SINCE_STEPS],
                                    .coverage = r->since[SINCE_COVERAGE] / r->since[SINCE_STEPS],
                                    .norm = norm,
                                    .rate = rate};
  memset(r->since, 0, sizeof r->since);
  return pdt_train_report(&alone, observer, &out, err);
}

static int loop(run *r, const pdt_train_observer *observer, pdt_error *err) {
  const pdt_readiness_options *o = r->options;
  char settings[512];
  const pdt_train_identity identity = identity_of(r, settings);
  const pdt_train_run state = state_of(r);
  if (pdt_train_begin(&alone, o->resume, o->state, &identity, &state, observer, err)) return -1;
  while (r->adamw.step < o->steps) {
    double norm = 0, rate = 0;
    if (one_step(r, &norm, &rate, err)) return -1;
    if (pdt_train_is_due(o->log_every, r->adamw.step, o->steps) &&
        report(r, norm, rate, observer, err))
      return -1;
    if (pdt_train_is_due(o->checkpoint_every, r->adamw.step, o->steps) && checkpoint(r, err))
      return -1;
  }
  return 0;
}

int pdt_readiness_train(pdt_nn_sidecar *s, const pdt_samples *samples,
                        const pdt_readiness_options *options, const pdt_train_observer *observer,
                        pdt_error *err) {
  run r = {.sidecar = s, .samples = samples, .options = options};
  if (samples->n < 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "rollouts: expected at least one block, found none");
  int rc = pdt_train_order_new(&r.order, samples->n, options->seed, err) ||
           pdt_adamw_new(&r.adamw, &options->adamw, &s->parameters, err);
  if (!rc) rc = loop(&r, observer, err);
  pdt_train_order_free(&r.order);
  pdt_adamw_free(&r.adamw);
  pdt_arena_free(&r.arena);
  return rc ? -1 : 0;
}
