#include "train/curriculum.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "train/distill.h"
#include "train/vocabulary.h"

pdt_train_stage pdt_train_stage_of(int32_t stage, double rate) {
  static const char *const names[PDT_TRAIN_STAGES] = {"plan", "condition", "speculate", "close",
                                                      "all"};
  const bool all = stage == 4, closes = stage == 3;
  pdt_train_stage out = {.name = names[stage],
                         .losses = {.use = 1, .later = 1, .unseen = 1, .quiet = 1}};
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
  } all[] = {{"plan", &l->plan},     {"notes", &l->notes}, {"speculation", &l->speculation},
             {"tokens", &l->ce},     {"kd", &l->kd},       {"coverage", &l->coverage},
             {"ready", &l->ready},   {"use", &l->use},     {"later", &l->later},
             {"unseen", &l->unseen}, {"quiet", &l->quiet}};
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

/* What ranks add up: seven losses, slots that are right, of every kind of token how many there were
 * and how many were right, slots that L_plan asked for, and steps. */
enum {
  LOSSES = 7,
  SLOTS_RIGHT = LOSSES,
  TOKENS,
  RIGHT = TOKENS + PDT_NN_KINDS,
  SLOTS = RIGHT + PDT_NN_KINDS,
  STEPS,
  SUMS
};

typedef struct run {
  const pdt_nn_trunk *trunk;
  pdt_nn_sidecar *sidecar;
  const pdt_train_entry *const *entries;
  const pdt_curriculum_options *options;
  const pdt_train_observer *observer;
  uint64_t trunk_hash;
  pdt_train_vocabulary *vocabulary; /* NULL: the softmax goes over all ids */
} run;

static uint64_t hash_of(const pdt_nn_parameters *p) {
  return XXH3_64bits(p->value, (size_t)p->n_elems * sizeof *p->value);
}

/* This rank's entries of a step. */
typedef struct chosen {
  int32_t n;
  const pdt_train_entry **entries; /* [n] */
  uint64_t *numbers;               /* [n]: their places in the order */
} chosen;

/* Rows that go through the layers: every stream reads the prompt. */
static int64_t count_rows(const pdt_train_entry *e) {
  int64_t rows = 0;
  for (int32_t k = 0; k < e->n_streams; k++)
    rows += e->n_prompt + e->streams[k].n_prefix + e->streams[k].n_tokens;
  return rows;
}

static int choose_entries(const run *r, pdt_train_loop *l, chosen *mine, pdt_train_totals *totals,
                          pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  int32_t size = l->schedule->batch;
  const pdt_train_entry **all;
  int64_t *rows;
  bool *is_mine;
  *mine = (chosen){0};
  if (PDT_TAKE(&l->arena, &all, size, err) || PDT_TAKE(&l->arena, &rows, size, err) ||
      PDT_TAKE(&l->arena, &mine->entries, size, err) ||
      PDT_TAKE(&l->arena, &mine->numbers, size, err))
    return -1;
  for (int32_t i = 0; i < size; i++) {
    all[i] = r->entries[pdt_train_item(l, i)];
    rows[i] = count_rows(all[i]);
    pdt_train_count(all[i], o->rounds.block_tokens, r->sidecar->config.plan_slots, &o->stage.losses,
                    totals);
  }
  if (pdt_train_deal(l, rows, &is_mine, err)) return -1;
  for (int32_t i = 0; i < size; i++) {
    if (!is_mine[i]) continue;
    mine->entries[mine->n] = all[i];
    mine->numbers[mine->n++] = (uint64_t)pdt_train_place(l, i);
  }
  return 0;
}

/* Every part may be at rest: then there are no gradients, and the losses are only measured. */
static bool learns(const run *r) {
  return r->sidecar->parameters.grad != NULL;
}

/* What siblings read of notes, whose numbers *context counts. */
static void erase(void *context, const pdt_real *notes, pdt_real *altered) {
  (void)notes;
  memset(altered, 0, (size_t) * (const int64_t *)context * sizeof *altered);
}

/* Gradients, and sums whose loss weights are 1 / the whole batch's. */
static int run_batch(const run *r, pdt_train_loop *l, const chosen *mine, pdt_train_totals *totals,
                     pdt_nn_step_sums *out, pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  const pdt_train_losses *losses = &o->stage.losses;
  pdt_nn_sidecar_batch batch;
  if (pdt_train_batch(&batch, mine->entries, mine->numbers, mine->n, &r->sidecar->config,
                      &o->rounds, losses, totals, &l->arena, err) ||
      (losses->kd > 0 && pdt_train_distill(r->trunk, mine->entries, mine->n, losses->kd, totals,
                                           &batch, &l->arena, err)))
    return -1;
  pdt_nn_subset subset;
  if (r->vocabulary) {
    if (pdt_train_vocabulary_draw(r->vocabulary, o->schedule.seed, l->adamw.step, &subset,
                                  &l->arena, err))
      return -1;
    batch.targets.subset = &subset;
  }
  pdt_nn_step_options step = o->stage.step;
  int64_t numbers = batch.blocks.n * (int64_t)r->sidecar->config.notes_dim;
  int32_t *sequences;
  if (o->own_notes) {
    step.alter = erase;
    step.alter_context = &numbers;
    step.alter_always = true;
    if (pdt_train_number_altered(&batch, &sequences, &l->arena, err)) return -1;
  }
  return pdt_nn_sidecar_step(r->trunk, r->sidecar, &batch, &step, learns(r), out, NULL, &l->arena,
                             err);
}

static int learn(void *context, pdt_train_loop *l, double *sums, pdt_error *err) {
  const run *r = context;
  chosen mine;
  pdt_train_totals totals = {0};
  pdt_nn_step_sums s;
  if (choose_entries(r, l, &mine, &totals, err)) return -1;
  if (l->world->rank == 0) { /* all ranks know them alike */
    sums[SLOTS] = (double)totals.slots;
    sums[STEPS] = 1;
  }
  if (mine.n == 0) return 0;
  if (run_batch(r, l, &mine, &totals, &s, err)) return -1;
  const double losses[LOSSES] = {s.plan, s.notes, s.speculation, s.ce, s.kd, s.coverage, s.ready};
  memcpy(sums, losses, sizeof losses);
  sums[SLOTS_RIGHT] = (double)s.slots_right;
  for (int i = 0; i < PDT_NN_KINDS; i++) {
    sums[TOKENS + i] = (double)s.tokens[i];
    sums[RIGHT + i] = (double)s.right[i];
  }
  return 0;
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

static int report(void *context, const pdt_train_loop *l, bool measured, pdt_error *err) {
  (void)measured;
  const run *r = context;
  const double *s = l->since, n = s[STEPS];
  pdt_curriculum_report out = {.step = l->adamw.step,
                               .steps = l->schedule->steps,
                               .losses = {.plan = s[0] / n,
                                          .notes = s[1] / n,
                                          .speculation = s[2] / n,
                                          .ce = s[3] / n,
                                          .kd = s[4] / n,
                                          .coverage = s[5] / n,
                                          .ready = s[6] / n},
                               .slot_accuracy = ratio(s[SLOTS_RIGHT], s[SLOTS]),
                               .norm = l->norm,
                               .rate = l->share,
                               .seconds = pdt_seconds() - l->started};
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
  return r->observer->report(r->observer->context, &out, err);
}

/* The trunk is what it was. */
static int check_trunk(void *context, const pdt_train_loop *l, pdt_error *err) {
  const run *r = context;
  if (hash_of(&r->trunk->parameters) == r->trunk_hash) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "step %lld: the frozen trunk has changed",
                  (long long)l->adamw.step);
}

static int write_sidecar(void *context, pdt_error *err) {
  const run *r = context;
  return pdt_train_export_sidecar(r->options->sidecar, r->sidecar, r->options->dtype, err);
}

/* Everything that changes the numbers, as text. */
static void describe(const run *r, char text[1024]) {
  const pdt_curriculum_options *o = r->options;
  const pdt_train_schedule *s = &o->schedule;
  const pdt_train_losses *l = &o->stage.losses;
  const double *x = o->stage.rates;
  snprintf(text, 1024,
           "trunk %016" PRIx64 ", steps %" PRId64 ", warmup %" PRId64 ", floor %.9g, batch %d, "
           "seed %" PRIu64 ", tau %d, delta %d, window %d, lockstep %.9g, wait %.9g, losses %.9g "
           "%.9g %.9g %.9g %.9g %.9g %.9g, use %.9g %.9g %.9g, empty %d, rates %.9g %.9g %.9g %.9g "
           "%.9g, passes %d, decay %.9g, clip "
           "%.9g, betas %.9g %.9g",
           r->trunk_hash, s->steps, s->warmup, s->floor, s->batch, o->rounds.seed,
           o->rounds.block_tokens, o->rounds.reveal_delay, o->rounds.window, o->rounds.lockstep,
           o->rounds.wait, l->plan, l->notes, l->speculation, l->ce, l->kd, l->coverage, l->ready,
           l->use, l->later, l->unseen, l->empty, x[0], x[1], x[2], x[3], x[4],
           o->stage.step.student_notes ? 2 : 1, s->adamw.weight_decay, s->adamw.clip,
           s->adamw.beta1, s->adamw.beta2);
  size_t at = strlen(text);
  if (o->sample > 0) at += (size_t)snprintf(text + at, 1024 - at, ", sample %d", o->sample);
  if (l->quiet != 1) at += (size_t)snprintf(text + at, 1024 - at, ", quiet %.9g", l->quiet);
  if (o->own_notes) at += (size_t)snprintf(text + at, 1024 - at, ", own notes");
  if (r->entries[0]->lower) snprintf(text + at, 1024 - at, ", texts from kept states");
}

/* Runs the task with a softmax over all ids, or over a part of them. */
static int run_task(run *r, const pdt_train_task *task, const pdt_comm *world, pdt_error *err) {
  const pdt_curriculum_options *o = r->options;
  pdt_train_vocabulary vocabulary = {0};
  if (o->sample > 0) {
    r->vocabulary = &vocabulary;
    pdt_train_vocabulary_new(&vocabulary, r->trunk->config.vocab_size, o->sample, r->entries,
                             task->n_items, err);
  }
  int rc = pdt_comm_agree(world, err)
               ? -1
               : pdt_train_run_task(task, &o->schedule, world, r->observer, err);
  pdt_train_vocabulary_free(&vocabulary);
  r->vocabulary = NULL;
  return rc;
}

int pdt_curriculum(const pdt_nn_trunk *trunk, pdt_nn_sidecar *s,
                   const pdt_train_entry *const *entries, int64_t n_entries,
                   const pdt_curriculum_options *options, const pdt_comm *world,
                   const pdt_train_observer *observer, pdt_error *err) {
  char settings[1024];
  run r = {.trunk = trunk,
           .sidecar = s,
           .entries = entries,
           .options = options,
           .observer = observer,
           .trunk_hash = hash_of(&trunk->parameters)};
  pdt_train_task task = {.context = &r,
                         .parameters = &s->parameters,
                         .identity = {options->stage.name, settings, options->data},
                         .n_items = n_entries,
                         .n_losses = LOSSES,
                         .n_sums = SUMS,
                         .learn = learn,
                         .report = report,
                         .check = check_trunk,
                         .write = write_sidecar};
  memcpy(task.rates, options->stage.rates, sizeof task.rates);
  pdt_nn_set_threads(options->threads);
  if (n_entries < 1) pdt_fail(err, PDT_ERROR_INPUT, "expected at least one entry, found none");
  if (trunk->parameters.grad)
    pdt_fail(err, PDT_ERROR_RUNTIME, "the trunk under a sidecar must be frozen");
  if (pdt_comm_agree(world, err)) return -1;
  describe(&r, settings);
  return run_task(&r, &task, world, err);
}
