#include "train/curriculum.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/memory.h"
#include "train/distill.h"
#include "train/order.h"

pdt_train_stage pdt_train_stage_of(int32_t stage, double rate) {
  static const char *const names[PDT_TRAIN_STAGES] = {"plan", "condition", "speculate", "close",
                                                      "all"};
  const bool all = stage == 4, closes = stage == 3;
  pdt_train_stage out = {.name = names[stage], .losses = {.use = 1, .later = 1, .unseen = 1}};
  if (closes || all) {
    out.losses.coverage = out.losses.ready = 1;
    out.rates[PDT_NN_CLOSE] = rate;
    out.step = (pdt_nn_step_options){.student_notes = true};
  }
  if (closes) return out;
  out.losses.plan = out.losses.notes = 1;
  out.rates[PDT_NN_PLAN] = rate;
  if (stage == 0) return out;
  out.losses.ce = 1;
  out.rates[PDT_NN_CONDITION] = rate;
  out.step.through_trunk = true;
  if (stage == 1) return out;
  out.losses.speculation = 0.5;
  out.rates[PDT_NN_POOL] = out.rates[PDT_NN_SPECULATION] = rate;
  out.step.student_notes = true;
  out.step.close_reaches = all;
  return out;
}

double *pdt_train_loss_share(pdt_train_losses *l, const char *name) {
  const struct {
    const char *name;
    double *share;
  } all[] = {{"plan", &l->plan},    {"notes", &l->notes}, {"speculation", &l->speculation},
             {"tokens", &l->ce},    {"kd", &l->kd},       {"coverage", &l->coverage},
             {"ready", &l->ready},  {"use", &l->use},     {"later", &l->later},
             {"unseen", &l->unseen}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (strcmp(name, all[i].name) == 0) return all[i].share;
  return NULL;
}

int32_t pdt_train_part(const char *name) {
  static const char *const names[PDT_NN_PARTS] = {[PDT_NN_PLAN] = "plan",
                                                  [PDT_NN_CONDITION] = "condition",
                                                  [PDT_NN_POOL] = "pool",
                                                  [PDT_NN_SPECULATION] = "speculation",
                                                  [PDT_NN_CLOSE] = "close"};
  for (int32_t i = 0; i < PDT_NN_PARTS; i++)
    if (strcmp(name, names[i]) == 0) return i;
  return -1;
}

/* What ranks add up, all as double so that one sum serves: seven losses, slots that are right, and
 * of every kind of token how many there were and how many were right. */
enum {
  LOSSES = 7,
  SLOTS_RIGHT = LOSSES,
  TOKENS,
  RIGHT = TOKENS + PDT_NN_KINDS,
  SUMS = RIGHT + PDT_NN_KINDS
};

/* Behind the sums since a report: slots that L_plan asked for, and steps. */
enum { SINCE_SLOTS = SUMS, SINCE_STEPS, SINCE };

typedef struct run {
  const pdt_nn_trunk *trunk;
  pdt_nn_sidecar *sidecar;
  const pdt_train_entry *const *entries;
  int64_t n_entries;
  const pdt_curriculum_options *options;
  const pdt_comm *world;
  const pdt_train_observer *observer;
  pdt_adamw adamw;
  pdt_arena arena;
  pdt_comm_reducer reducer;
  pdt_train_order order; /* of entries */
  double *all;           /* [size, SUMS] */
  pdt_bytes *counts;     /* [size] */
  double since[SINCE];   /* the report before */
  double started;
  uint64_t trunk_hash;
} run;

static uint64_t hash_of(const pdt_nn_parameters *p) {
  return XXH3_64bits(p->value, (size_t)p->n_elems * sizeof *p->value);
}

/* Every part may be at rest: then there are no gradients, and the losses are only measured. */
static bool learns(const run *r) {
  return r->sidecar->parameters.grad != NULL;
}

/* This rank's part of a step: gradients, and sums whose loss weights are 1 / the whole batch's. */
static int run_batch(run *r, double own[SUMS], pdt_train_totals *totals, pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  const pdt_sidecar_config *config = &r->sidecar->config;
  const pdt_train_entry **mine;
  uint64_t *number;
  pdt_nn_sidecar_batch batch;
  pdt_nn_step_sums s;
  int32_t n = 0;
  if (PDT_TAKE(&r->arena, &mine, o->batch, err) || PDT_TAKE(&r->arena, &number, o->batch, err))
    return -1;
  for (int32_t i = 0; i < o->batch; i++) {
    int64_t place = r->adamw.step * o->batch + i;
    const pdt_train_entry *entry = r->entries[pdt_train_order_at(&r->order, place)];
    pdt_train_count(entry, o->rounds.block_tokens, config->plan_slots, &o->stage.losses, totals);
    if (i % r->world->size != r->world->rank) continue;
    mine[n] = entry;
    number[n++] = (uint64_t)place;
  }
  if (n == 0) return 0;
  if (pdt_train_batch(&batch, mine, number, n, config, &o->rounds, &o->stage.losses, totals,
                      &r->arena, err) ||
      (o->stage.losses.kd > 0 &&
       pdt_train_distill(r->trunk, mine, n, o->stage.losses.kd, totals, &batch, &r->arena, err)) ||
      pdt_nn_sidecar_step(r->trunk, r->sidecar, &batch, &o->stage.step, learns(r), &s, NULL,
                          &r->arena, err))
    return -1;
  const double losses[LOSSES] = {s.plan, s.notes, s.speculation, s.ce, s.kd, s.coverage, s.ready};
  memcpy(own, losses, sizeof losses);
  own[SLOTS_RIGHT] = (double)s.slots_right;
  for (int i = 0; i < PDT_NN_KINDS; i++) {
    own[TOKENS + i] = (double)s.tokens[i];
    own[RIGHT + i] = (double)s.right[i];
  }
  return 0;
}

static void sum_ranks(run *r, const double own[SUMS], double total[SUMS]) {
  pdt_comm_all_gather(r->world, own, r->all, r->counts);
  memset(total, 0, SUMS * sizeof *total);
  for (pdt_rank q = 0; q < r->world->size; q++)
    for (int i = 0; i < SUMS; i++) total[i] += r->all[q * SUMS + i];
}

static int one_step(run *r, double *share, double *norm, pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  pdt_nn_parameters *p = &r->sidecar->parameters;
  double own[SUMS] = {0}, total[SUMS], rates[PDT_TRAIN_GROUPS];
  pdt_train_totals totals = {0};
  pdt_arena_reset(&r->arena);
  run_batch(r, own, &totals, err);
  if (pdt_comm_agree(r->world, err)) return -1;
  if (learns(r)) pdt_comm_all_reduce_f32(r->world, &r->reducer, p->grad, p->n_elems);
  sum_ranks(r, own, total);
  double sum = 0;
  for (int i = 0; i < LOSSES; i++) sum += total[i];
  if (!isfinite(sum))
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "step %lld: the loss is not a finite number (hint: a lower rate, or a longer "
                    "warm-up)",
                    (long long)r->adamw.step + 1);
  *share = pdt_rate_at(r->adamw.step, o->warmup, o->steps, o->floor);
  for (int i = 0; i < PDT_TRAIN_GROUPS; i++) rates[i] = o->stage.rates[i] * *share;
  if (pdt_adamw_step(&r->adamw, p, rates, norm, err)) return -1;
  for (int i = 0; i < SUMS; i++) r->since[i] += total[i];
  r->since[SINCE_SLOTS] += (double)totals.slots;
  r->since[SINCE_STEPS]++;
  return 0;
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

static int give_report(run *r, double share, double norm, pdt_error *err) {
  const double n = r->since[SINCE_STEPS], *s = r->since;
  pdt_curriculum_report out = {
      .step = r->adamw.step,
      .steps = r->options->steps,
      .losses = {s[0] / n, s[1] / n, s[2] / n, s[3] / n, s[4] / n, s[5] / n, s[6] / n},
      .slot_accuracy = ratio(s[SLOTS_RIGHT], s[SINCE_SLOTS]),
      .norm = norm,
      .rate = share,
      .seconds = pdt_seconds() - r->started};
  double tokens = 0, right = 0;
  for (int i = 0; i < PDT_NN_KINDS; i++) {
    out.of_kind[i] = ratio(s[RIGHT + i], s[TOKENS + i]);
    out.losses.tokens[i] = (int64_t)s[TOKENS + i];
    out.losses.right[i] = (int64_t)s[RIGHT + i];
    tokens += s[TOKENS + i];
    right += s[RIGHT + i];
  }
  out.accuracy = ratio(right, tokens);
  out.tokens = (int64_t)tokens;
  memset(r->since, 0, sizeof r->since);
  r->started = pdt_seconds();
  return pdt_train_report(r->world, r->observer, &out, err);
}

/* Everything that changes the numbers, as text. */
static pdt_train_identity identity_of(const run *r, char text[1024]) {
  const pdt_curriculum_options *o = r->options;
  const pdt_train_losses *l = &o->stage.losses;
  const double *x = o->stage.rates;
  snprintf(text, 1024,
           "trunk %016" PRIx64 ", steps %" PRId64 ", warmup %" PRId64 ", floor %.9g, batch %d, "
           "seed %" PRIu64 ", tau %d, delta %d, window %d, lockstep %.9g, wait %.9g, losses %.9g "
           "%.9g %.9g %.9g %.9g %.9g %.9g, use %.9g %.9g %.9g, empty %d, rates %.9g %.9g %.9g %.9g "
           "%.9g, passes %d, decay %.9g, clip "
           "%.9g, betas %.9g %.9g",
           r->trunk_hash, o->steps, o->warmup, o->floor, o->batch, o->rounds.seed,
           o->rounds.block_tokens, o->rounds.reveal_delay, o->rounds.window, o->rounds.lockstep,
           o->rounds.wait, l->plan, l->notes, l->speculation, l->ce, l->kd, l->coverage, l->ready,
           l->use, l->later, l->unseen, l->empty, x[0], x[1], x[2], x[3], x[4],
           o->stage.step.student_notes ? 2 : 1, o->adamw.weight_decay, o->adamw.clip,
           o->adamw.beta1, o->adamw.beta2);
  return (pdt_train_identity){o->stage.name, text, o->data};
}

/* Replicas are equal, and the trunk is what it was. */
static int check_replicas(run *r, pdt_error *err) {
  pdt_train_compare_replicas(r->world, &r->sidecar->parameters, r->adamw.step, err);
  if (err->code == PDT_ERROR_NONE && hash_of(&r->trunk->parameters) != r->trunk_hash)
    pdt_fail(err, PDT_ERROR_RUNTIME, "step %lld: the frozen trunk has changed",
             (long long)r->adamw.step);
  return pdt_comm_agree(r->world, err);
}

static pdt_train_run state_of(run *r) {
  return (pdt_train_run){&r->sidecar->parameters, &r->adamw, r->since, SINCE};
}

static int checkpoint(run *r, pdt_error *err) {
  char text[1024];
  pdt_train_identity identity = identity_of(r, text);
  const pdt_train_run state = state_of(r);
  if (check_replicas(r, err)) return -1;
  if (r->world->rank == 0) {
    char *config = pdt_sidecar_config_text(&r->sidecar->config);
    const pdt_metadata metadata = {"config", config};
    if (!config)
      pdt_fail(err, PDT_ERROR_MEMORY, "%s: config: no memory", r->options->sidecar);
    else if (!pdt_train_export(r->options->sidecar, &r->sidecar->parameters, r->options->dtype,
                               &metadata, 1, err))
      pdt_train_state_write(r->options->state, &identity, &state, err);
    free(config);
  }
  return pdt_comm_agree(r->world, err);
}

static int loop(run *r, pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  char text[1024];
  const pdt_train_identity identity = identity_of(r, text);
  const pdt_train_run state = state_of(r);
  if (pdt_train_begin(r->world, o->resume, o->state, &identity, &state, r->observer, err))
    return -1;
  r->started = pdt_seconds();
  while (r->adamw.step < o->steps) {
    double share = 0, norm = 0;
    if (one_step(r, &share, &norm, err)) return -1;
    if (pdt_train_is_due(o->log_every, r->adamw.step, o->steps) && give_report(r, share, norm, err))
      return -1;
    if (pdt_train_is_due(o->checkpoint_every, r->adamw.step, o->steps) && checkpoint(r, err))
      return -1;
  }
  return 0;
}

static int make_room(run *r, pdt_error *err) {
  pdt_rank size = r->world->size;
  if (pdt_train_order_new(&r->order, r->n_entries, r->options->rounds.seed, err) ||
      PDT_NEW(&r->all, (int64_t)size * SUMS, "sums", err) ||
      PDT_NEW(&r->counts, size, "sums", err) || pdt_comm_reducer_new(&r->reducer, r->world, err) ||
      pdt_adamw_new(&r->adamw, &r->options->adamw, &r->sidecar->parameters, err))
    return -1;
  for (pdt_rank q = 0; q < size; q++) r->counts[q] = SUMS * sizeof(double);
  return 0;
}

int pdt_curriculum(const pdt_nn_trunk *trunk, pdt_nn_sidecar *s,
                   const pdt_train_entry *const *entries, int64_t n_entries,
                   const pdt_curriculum_options *options, const pdt_comm *world,
                   const pdt_train_observer *observer, pdt_error *err) {
  run r = {.trunk = trunk,
           .sidecar = s,
           .entries = entries,
           .n_entries = n_entries,
           .options = options,
           .world = world,
           .observer = observer,
           .trunk_hash = hash_of(&trunk->parameters)};
  pdt_nn_set_threads(options->threads);
  if (n_entries < 1) pdt_fail(err, PDT_ERROR_INPUT, "expected at least one entry, found none");
  if (trunk->parameters.grad)
    pdt_fail(err, PDT_ERROR_RUNTIME, "the trunk under a sidecar must be frozen");
  if (err->code == PDT_ERROR_NONE) make_room(&r, err);
  int rc = pdt_comm_agree(world, err);
  if (!rc) rc = loop(&r, err);
  pdt_train_order_free(&r.order);
  free(r.all);
  free(r.counts);
  pdt_comm_reducer_free(&r.reducer);
  pdt_adamw_free(&r.adamw);
  pdt_arena_free(&r.arena);
  return rc;
}
