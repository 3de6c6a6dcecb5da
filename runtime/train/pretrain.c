#include "train/pretrain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "train/nn/losses.h"

/* What ranks add up: the loss, weighted and not divided; the weight of predictions; how many
 * predictions count, and how many of them were right. */
enum { LOSS, WEIGHT, RIGHT, TOKENS, SUMS };

typedef struct run {
  pdt_nn_trunk *trunk;
  const pdt_corpus *corpus, *valid;
  const pdt_pretrain_options *options;
  const pdt_train_observer *observer;
  double valid_loss, valid_accuracy;
} run;

/* ---- batches ---- */

/* This rank's pieces of a batch. */
typedef struct batch {
  int32_t n;
  const struct pdt_piece **pieces; /* [n] */
  double weight;                   /* of all ranks' predictions */
} batch;

static double weight_of(const pdt_corpus *c, const struct pdt_piece *piece) {
  double sum = 0;
  for (int32_t i = 1; i <= piece->rows; i++) sum += (double)c->weights[piece->first + i];
  return sum;
}

static int choose_batch(const run *r, pdt_train_loop *l, batch *b, pdt_error *err) {
  int32_t size = l->schedule->batch;
  int64_t *rows;
  bool *mine;
  *b = (batch){0};
  if (PDT_TAKE(&l->arena, &b->pieces, size, err) || PDT_TAKE(&l->arena, &rows, size, err))
    return -1;
  for (int32_t i = 0; i < size; i++) {
    b->pieces[i] = &r->corpus->pieces[pdt_train_item(l, i)];
    rows[i] = b->pieces[i]->rows;
    b->weight += weight_of(r->corpus, b->pieces[i]);
  }
  if (pdt_train_deal(l, rows, &mine, err)) return -1;
  for (int32_t i = 0; i < size; i++)
    if (mine[i]) b->pieces[b->n++] = b->pieces[i];
  return 0;
}

/* A batch as the trunk and the head read it. */
typedef struct input {
  pdt_nn_sequences sequences;
  pdt_token *tokens;
  pdt_nn_targets targets;
} input;

static int lay_out(const pdt_corpus *c, const batch *b, double scale, input *in, pdt_arena *arena,
                   pdt_error *err) {
  int64_t rows = 0;
  int32_t *begin, *target_rows;
  pdt_token *next;
  float *weights;
  for (int32_t i = 0; i < b->n; i++) rows += b->pieces[i]->rows;
  if (rows > INT32_MAX / 2)
    return pdt_fail(err, PDT_ERROR_USAGE, "a batch of %lld tokens a rank (hint: a smaller one)",
                    (long long)rows);
  if (PDT_TAKE(arena, &begin, b->n + 1, err) || PDT_TAKE(arena, &in->tokens, rows, err) ||
      PDT_TAKE(arena, &target_rows, rows, err) || PDT_TAKE(arena, &next, rows, err) ||
      PDT_TAKE(arena, &weights, rows, err))
    return -1;
  int32_t row = 0, n = 0;
  for (int32_t i = 0; i < b->n; i++) {
    begin[i] = row;
    for (int32_t j = 0; j < b->pieces[i]->rows; j++, row++) {
      int64_t at = b->pieces[i]->first + j;
      in->tokens[row] = c->tokens[at];
      if (c->weights[at + 1] == 0) continue;
      target_rows[n] = row;
      next[n] = c->tokens[at + 1];
      weights[n++] = (float)((double)c->weights[at + 1] * scale);
    }
  }
  begin[b->n] = row;
  in->sequences = (pdt_nn_sequences){b->n, begin};
  in->targets = (pdt_nn_targets){.n = n, .rows = target_rows, .tokens = next, .ce_weight = weights};
  return 0;
}

/* Forward, and backward unless the batch is only looked at; adds what the head saw. */
static int run_batch(run *r, pdt_train_loop *l, const pdt_corpus *c, const batch *b, bool learn,
                     double *seen, pdt_error *err) {
  input in;
  pdt_nn_pass pass;
  pdt_nn_head_sums head;
  const pdt_model_config *config = &r->trunk->config;
  float *dhidden = NULL;
  double scale = learn ? (b->weight > 0 ? 1 / b->weight : 0) : 1;
  pdt_nn_weight weight = {r->trunk->head.w, learn ? r->trunk->head.g : NULL};
  if (lay_out(c, b, scale, &in, &l->arena, err) ||
      pdt_nn_trunk_forward(r->trunk, &pass, &in.sequences, in.tokens, NULL, learn, &l->arena, err))
    return -1;
  int64_t elems = (int64_t)pass.rows * config->hidden_size;
  if (learn && PDT_TAKE(&l->arena, &dhidden, elems, err)) return -1;
  if (learn) memset(dhidden, 0, (size_t)elems * sizeof *dhidden);
  if (pdt_nn_head_loss(weight, config->vocab_size, config->hidden_size, pass.hidden, &in.targets,
                       dhidden, &head, &l->arena, err))
    return -1;
  seen[LOSS] += learn ? head.ce * b->weight : head.ce;
  seen[RIGHT] += (double)head.right[PDT_NN_OTHER];
  seen[TOKENS] += in.targets.n;
  return learn ? pdt_nn_trunk_backward(r->trunk, &pass, dhidden, &l->arena, err) : 0;
}

/* ---- the task ---- */

static int learn(void *context, pdt_train_loop *l, double *sums, pdt_error *err) {
  run *r = context;
  batch b;
  if (choose_batch(r, l, &b, err)) return -1;
  if (l->world->rank == 0) sums[WEIGHT] = b.weight; /* of all ranks' pieces */
  return run_batch(r, l, r->corpus, &b, true, sums, err);
}

/* This rank's pieces of the held-out text. */
static int read_valid(run *r, pdt_train_loop *l, pdt_error *err) {
  const pdt_corpus *c = r->valid;
  pdt_rank size = l->world->size;
  int32_t most = l->schedule->batch / size > 0 ? l->schedule->batch / size : 1;
  memset(l->own, 0, SUMS * sizeof *l->own);
  for (int64_t i = l->world->rank; i < c->n_pieces;) {
    batch b = {0};
    pdt_arena_reset(&l->arena);
    if (PDT_TAKE(&l->arena, &b.pieces, most, err)) return -1;
    for (; b.n < most && i < c->n_pieces; i += size) {
      b.pieces[b.n++] = &c->pieces[i];
      l->own[WEIGHT] += weight_of(c, &c->pieces[i]);
    }
    if (run_batch(r, l, c, &b, false, l->own, err)) return -1;
  }
  return 0;
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

/* Weighted mean loss and share of right predictions over held-out text. */
static int validate(void *context, pdt_train_loop *l, pdt_error *err) {
  run *r = context;
  double total[SUMS];
  read_valid(r, l, err);
  if (pdt_comm_agree(l->world, err)) return -1;
  pdt_train_sum(l, total);
  r->valid_loss = ratio(total[LOSS], total[WEIGHT]);
  r->valid_accuracy = ratio(total[RIGHT], total[TOKENS]);
  return 0;
}

static int report(void *context, const pdt_train_loop *l, bool measured, pdt_error *err) {
  const run *r = context;
  const double *s = l->since;
  const pdt_pretrain_report out = {.step = l->adamw.step,
                                   .steps = l->schedule->steps,
                                   .loss = ratio(s[LOSS], s[WEIGHT]),
                                   .accuracy = ratio(s[RIGHT], s[TOKENS]),
                                   .valid_loss = measured ? r->valid_loss : NAN,
                                   .valid_accuracy = measured ? r->valid_accuracy : NAN,
                                   .rate = r->options->rate * l->share,
                                   .norm = l->norm,
                                   .tokens = (int64_t)s[TOKENS],
                                   .seconds = pdt_seconds() - l->started};
  return r->observer->report(r->observer->context, &out, err);
}

static int write_model(void *context, pdt_error *err) {
  const run *r = context;
  const pdt_metadata format = {"format", "pt"};
  return pdt_train_export(r->options->model, &r->trunk->parameters, r->options->dtype, &format, 1,
                          err);
}

/* Everything that changes the numbers, as text, so that a difference can be shown. */
static void describe(const pdt_pretrain_options *o, char settings[512]) {
  const pdt_train_schedule *s = &o->schedule;
  const pdt_adamw_settings *a = &s->adamw;
  snprintf(settings, 512,
           "seed %" PRIu64 ", steps %" PRId64 ", warmup %" PRId64 ", rate %.9g, floor %.9g, "
           "batch %d, context %d, betas %.9g %.9g, epsilon %.9g, decay %.9g, clip %.9g",
           s->seed, s->steps, s->warmup, o->rate, s->floor, s->batch, o->context, a->beta1,
           a->beta2, a->epsilon, a->weight_decay, a->clip);
}

int pdt_pretrain(pdt_nn_trunk *trunk, const pdt_corpus *corpus, const pdt_corpus *valid,
                 const pdt_pretrain_options *options, const pdt_comm *world,
                 const pdt_train_observer *observer, pdt_error *err) {
  char settings[512];
  run r = {
      .trunk = trunk, .corpus = corpus, .valid = valid, .options = options, .observer = observer};
  const pdt_train_task task = {.context = &r,
                               .parameters = &trunk->parameters,
                               .identity = {"trunk", settings, corpus->fingerprint},
                               .rates = {[PDT_NN_TRUNK_GROUP] = options->rate},
                               .n_items = corpus->n_pieces,
                               .n_losses = 1,
                               .n_sums = SUMS,
                               .learn = learn,
                               .measure = valid ? validate : NULL,
                               .report = report,
                               .write = write_model};
  describe(options, settings);
  pdt_nn_set_threads(options->threads);
  return pdt_train_run_task(&task, &options->schedule, world, observer, err);
}
