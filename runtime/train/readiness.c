#include "train/readiness.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/nn/heads.h"
#include "train/nn/losses.h"

static const pdt_comm alone = {.rank = 0, .size = 1};

enum { READY, COVERAGE, STEPS, SUMS, LOSSES = STEPS };

typedef struct run {
  pdt_nn_sidecar *sidecar;
  const pdt_samples *samples;
  const pdt_readiness_options *options;
  const pdt_train_observer *observer;
} run;

/* The samples of one step, laid out for the heads: block i's rows are begin[i] .. + steps[i], its
 * plan is i, and notes of its window are its own copies' numbers. */
typedef struct batch {
  int32_t n, rows, notes;
  int32_t *begin, *steps, *entry, *plan_ids, *first, *items, *each;
  float *states, *window_notes;
  float *pooled, *embedded; /* what the pool reads, and its copies mix; NULL: it has none */
  float *told;              /* readiness as it was decoded */
  float *ready, *ready_weight, *coverage, *coverage_weight;
} batch;

static int take_batch(const run *r, pdt_arena *arena, const pdt_rollout_sample *const *chosen,
                      batch *b, pdt_error *err) {
  const pdt_sidecar_config *c = &r->sidecar->config;
  for (int32_t i = 0; i < b->n; i++) {
    b->rows += chosen[i]->steps;
    b->notes += r->samples->windows[chosen[i]->window].n;
  }
  int64_t slots = (int64_t)b->n * c->plan_slots;
#define TAKE(field, count) PDT_TAKE(arena, &b->field, count, err)
  return TAKE(begin, b->n) || TAKE(steps, b->n) || TAKE(entry, b->n) || TAKE(plan_ids, slots) ||
                 TAKE(first, b->n + 1) || TAKE(items, b->notes) || TAKE(each, b->n + 1) ||
                 TAKE(states, (int64_t)b->rows * c->hidden_size) ||
                 TAKE(pooled, (int64_t)b->rows * c->hidden_size) || TAKE(told, b->n) ||
                 (c->pool_copies > 0 && TAKE(embedded, (int64_t)b->rows * c->hidden_size)) ||
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
  memcpy(b->pooled + rows * d, x->pooled, (size_t)(x->steps * d) * sizeof(float));
  if (b->embedded)
    memcpy(b->embedded + rows * d, x->embedded, (size_t)(x->steps * d) * sizeof(float));
  memcpy(b->window_notes + notes * dn, w->notes, (size_t)(w->n * dn) * sizeof(float));
  for (int32_t j = 0; j < w->n; j++) b->items[notes + j] = notes + j;
  memcpy(b->plan_ids + i * S, r->samples->plans[x->plan], (size_t)S * sizeof *b->plan_ids);
  b->told[i] = x->readiness;
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

static int lay_out(const run *r, pdt_train_loop *l, batch *b, pdt_error *err) {
  const pdt_rollout_sample **chosen;
  b->n = l->schedule->batch;
  if (PDT_TAKE(&l->arena, &chosen, b->n, err)) return -1;
  for (int32_t i = 0; i < b->n; i++) chosen[i] = &r->samples->items[pdt_train_item(l, i)];
  if (take_batch(r, &l->arena, chosen, b, err)) return -1;
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

/* Before anything was learned, heads must find what was decoded: else they are taught by inputs
 * that they will never get. Backends differ within rounding, a GPU's most. */
static int check_told(const batch *b, const pdt_real *logits, pdt_error *err) {
  for (int32_t i = 0; i < b->n; i++) {
    double found = (double)pdt_nn_sigmoid(logits[i]);
    if (fabs(found - (double)b->told[i]) > 0.02)
      return pdt_fail(err, PDT_ERROR_RUNTIME,
                      "rollouts: a block was decoded with a readiness of %.4f, and training finds "
                      "%.4f: they do not compute the same",
                      (double)b->told[i], found);
  }
  return 0;
}

/* Both losses of a batch, and the heads' gradients. fresh: they are as they were decoded with. */
static int run_heads(const run *r, pdt_arena *arena, const batch *b, bool fresh, double *sums,
                     pdt_error *err) {
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
  const pdt_nn_pool_input read = {b->pooled, b->embedded};
  if (pdt_nn_pool(s, &blocks, &read, b->rows, &pool, arena, err) ||
      pdt_nn_speculate(s, b->n, pool.pooled, &note, arena, err) ||
      pdt_nn_coverage(s, &blocks, &plans, pool.pooled, &cover, arena, err) ||
      PDT_TAKE_ZEROS(arena, &dcover, slots, err) || PDT_TAKE_ZEROS(arena, &dready, b->n, err))
    return -1;
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
  if (pdt_nn_agree(s, &in, &agree, arena, err) || (fresh && check_told(b, agree.logits, err)))
    return -1;
  sums[COVERAGE] = pdt_nn_bce(cover.logits, b->coverage, b->coverage_weight, slots, dcover);
  sums[READY] = pdt_nn_bce(agree.logits, b->ready, b->ready_weight, b->n, dready);
  return pdt_nn_agree_back(s, &in, &agree, dready, arena, err) ||
                 pdt_nn_coverage_back(s, &blocks, &plans, pool.pooled, &cover, dcover, NULL, arena,
                                      err)
             ? -1
             : 0;
}

static int learn(void *context, pdt_train_loop *l, double *sums, pdt_error *err) {
  const run *r = context;
  batch b = {0};
  sums[STEPS] = 1;
  if (lay_out(r, l, &b, err)) return -1;
  return run_heads(r, &l->arena, &b, l->adamw.step == 0, sums, err);
}

static int report(void *context, const pdt_train_loop *l, bool measured, pdt_error *err) {
  (void)measured;
  const run *r = context;
  const pdt_readiness_report out = {.step = l->adamw.step,
                                    .steps = l->schedule->steps,
                                    .ready = l->since[READY] / l->since[STEPS],
                                    .coverage = l->since[COVERAGE] / l->since[STEPS],
                                    .norm = l->norm,
                                    .rate = r->options->rate * l->share};
  return r->observer->report(r->observer->context, &out, err);
}

static int write_sidecar(void *context, pdt_error *err) {
  const run *r = context;
  return pdt_train_export_sidecar(r->options->sidecar, r->sidecar, r->options->dtype, err);
}

/* Everything that changes the numbers, as text. */
static void describe(const pdt_readiness_options *o, char text[512]) {
  const pdt_train_schedule *s = &o->schedule;
  snprintf(text, 512,
           "steps %" PRId64 ", warmup %" PRId64
           ", batch %d, rate %.9g, floor %.9g, label %d, ready "
           "%.9g, coverage %.9g, seed %" PRIu64 ", decay %.9g, clip %.9g",
           s->steps, s->warmup, s->batch, o->rate, s->floor, (int)o->label, o->ready, o->coverage,
           s->seed, s->adamw.weight_decay, s->adamw.clip);
}

int pdt_readiness_train(pdt_nn_sidecar *s, const pdt_samples *samples,
                        const pdt_readiness_options *options, const pdt_train_observer *observer,
                        pdt_error *err) {
  char settings[512];
  run r = {.sidecar = s, .samples = samples, .options = options, .observer = observer};
  const pdt_train_task task = {.context = &r,
                               .parameters = &s->parameters,
                               .identity = {"rollouts", settings, samples->fingerprint},
                               .rates = {[PDT_NN_CLOSE] = options->rate},
                               .n_items = samples->n,
                               .n_losses = LOSSES,
                               .n_sums = SUMS,
                               .learn = learn,
                               .report = report,
                               .write = write_sidecar};
  if (samples->n < 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "rollouts: expected at least one block, found none");
  describe(options, settings);
  return pdt_train_run_task(&task, &options->schedule, &alone, observer, err);
}
