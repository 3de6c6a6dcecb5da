#include "train/pretrain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/memory.h"
#include "train/nn/losses.h"
#include "train/order.h"

/* Sums that ranks add up. */
typedef struct sums {
  double loss, weight;   /* loss is weighted and not divided */
  int64_t right, tokens; /* of predictions that count */
} sums;

enum { SINCE = 4 }; /* of them */

typedef struct run {
  pdt_nn_trunk *trunk;
  const pdt_corpus *corpus, *valid;
  const pdt_pretrain_options *options;
  const pdt_comm *world;
  const pdt_train_observer *observer;
  pdt_adamw adamw;
  pdt_arena arena;
  pdt_comm_reducer reducer;
  pdt_train_order order; /* of pieces */
  sums *all;             /* [size] */
  pdt_bytes *counts;     /* [size] */
  sums since;            /* the report before */
  double started;
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

static int choose_batch(run *r, int64_t step, batch *b, pdt_error *err) {
  int32_t size = r->options->batch;
  *b = (batch){0};
  if (PDT_TAKE(&r->arena, &b->pieces, size, err)) return -1;
  for (int32_t i = 0; i < size; i++) {
    int64_t item = pdt_train_order_at(&r->order, step * size + i);
    const struct pdt_piece *piece = &r->corpus->pieces[item];
    b->weight += weight_of(r->corpus, piece);
    if (i % r->world->size == r->world->rank) b->pieces[b->n++] = piece;
  }
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
static int run_batch(run *r, const pdt_corpus *c, const batch *b, bool learn, sums *seen,
                     pdt_error *err) {
  input in;
  pdt_nn_pass pass;
  pdt_nn_head_sums head;
  const pdt_model_config *config = &r->trunk->config;
  float *dhidden = NULL;
  double scale = learn ? (b->weight > 0 ? 1 / b->weight : 0) : 1;
  pdt_nn_weight weight = {r->trunk->head.w, learn ? r->trunk->head.g : NULL};
  if (lay_out(c, b, scale, &in, &r->arena, err) ||
      pdt_nn_trunk_forward(r->trunk, &pass, &in.sequences, in.tokens, NULL, learn, &r->arena, err))
    return -1;
  int64_t elems = (int64_t)pass.rows * config->hidden_size;
  if (learn && PDT_TAKE(&r->arena, &dhidden, elems, err)) return -1;
  if (learn) memset(dhidden, 0, (size_t)elems * sizeof *dhidden);
  if (pdt_nn_head_loss(weight, config->vocab_size, config->hidden_size, pass.hidden, &in.targets,
                       dhidden, &head, &r->arena, err))
    return -1;
  seen->loss += learn ? head.ce * b->weight : head.ce;
  seen->right += head.right[PDT_NN_OTHER];
  seen->tokens += in.targets.n;
  return learn ? pdt_nn_trunk_backward(r->trunk, &pass, dhidden, &r->arena, err) : 0;
}

/* Adds up over ranks, in order: the same bits everywhere. */
static sums sum_ranks(run *r, const sums *own) {
  sums total = {0};
  pdt_comm_all_gather(r->world, own, r->all, r->counts);
  for (pdt_rank q = 0; q < r->world->size; q++) {
    total.loss += r->all[q].loss;
    total.weight += r->all[q].weight;
    total.right += r->all[q].right;
    total.tokens += r->all[q].tokens;
  }
  return total;
}

/* ---- the loop ---- */

static int one_step(run *r, double *rate, double *norm, pdt_error *err) {
  const pdt_pretrain_options *o = r->options;
  int64_t step = r->adamw.step;
  batch b;
  sums own = {0};
  pdt_arena_reset(&r->arena);
  if (!choose_batch(r, step, &b, err)) run_batch(r, r->corpus, &b, true, &own, err);
  if (pdt_comm_agree(r->world, err)) return -1;
  pdt_comm_all_reduce_f32(r->world, &r->reducer, r->trunk->parameters.grad,
                          r->trunk->parameters.n_elems);
  sums total = sum_ranks(r, &own);
  if (!isfinite(total.loss))
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "step %lld: the loss is not a finite number (hint: a lower --rate, or a longer "
                    "--warmup)",
                    (long long)step + 1);
  *rate = o->rate * pdt_rate_at(step, o->warmup, o->steps, o->floor);
  const double rates[PDT_TRAIN_GROUPS] = {*rate};
  if (pdt_adamw_step(&r->adamw, &r->trunk->parameters, rates, norm, err)) return -1;
  r->since.loss += total.loss;
  r->since.weight += b.weight;
  r->since.right += total.right;
  r->since.tokens += total.tokens;
  return 0;
}

/* Weighted mean loss and share of right predictions over held-out text. */
static int validate(run *r, double *loss, double *accuracy, pdt_error *err) {
  const pdt_corpus *c = r->valid;
  sums own = {0};
  pdt_rank size = r->world->size;
  int32_t most = r->options->batch / size > 0 ? r->options->batch / size : 1;
  int rc = 0;
  for (int64_t i = r->world->rank; i < c->n_pieces && !rc;) {
    batch b = {0};
    pdt_arena_reset(&r->arena);
    rc = PDT_TAKE(&r->arena, &b.pieces, most, err);
    for (; !rc && b.n < most && i < c->n_pieces; i += size) {
      b.pieces[b.n++] = &c->pieces[i];
      own.weight += weight_of(c, &c->pieces[i]);
    }
    if (!rc) rc = run_batch(r, c, &b, false, &own, err);
  }
  if (pdt_comm_agree(r->world, err)) return -1;
  sums total = sum_ranks(r, &own);
  *loss = total.weight > 0 ? total.loss / total.weight : 0;
  *accuracy = total.tokens > 0 ? (double)total.right / (double)total.tokens : 0;
  return 0;
}

/* Sums that wait for a report, and back. */
static void sums_to_numbers(const run *r, double numbers[SINCE]) {
  const double all[SINCE] = {r->since.loss, r->since.weight, (double)r->since.right,
                             (double)r->since.tokens};
  memcpy(numbers, all, sizeof all);
}

static void numbers_to_sums(run *r, const double numbers[SINCE]) {
  r->since = (sums){numbers[0], numbers[1], (int64_t)numbers[2], (int64_t)numbers[3]};
}

/* As text, so that a difference can be shown. */
static pdt_train_identity identity_of(const run *r, char settings[512]) {
  const pdt_pretrain_options *o = r->options;
  const pdt_adamw_settings *a = &o->adamw;
  snprintf(settings, 512,
           "seed %" PRIu64 ", steps %" PRId64 ", warmup %" PRId64 ", rate %.9g, floor %.9g, "
           "batch %d, context %d, betas %.9g %.9g, epsilon %.9g, decay %.9g, clip %.9g",
           o->seed, o->steps, o->warmup, o->rate, o->floor, o->batch, o->context, a->beta1,
           a->beta2, a->epsilon, a->weight_decay, a->clip);
  return (pdt_train_identity){"trunk", settings, r->corpus->fingerprint};
}

/* The state comes last: who resumes finds a model at least as new. */
static int checkpoint(run *r, pdt_error *err) {
  char settings[512];
  pdt_train_identity identity = identity_of(r, settings);
  const pdt_metadata format = {"format", "pt"};
  double since[SINCE];
  const pdt_train_run state = {&r->trunk->parameters, &r->adamw, since, SINCE};
  sums_to_numbers(r, since);
  if (pdt_train_compare_replicas(r->world, &r->trunk->parameters, r->adamw.step, err)) return -1;
  if (r->world->rank == 0 && !pdt_train_export(r->options->model, &r->trunk->parameters,
                                               r->options->dtype, &format, 1, err))
    pdt_train_state_write(r->options->state, &identity, &state, err);
  return pdt_comm_agree(r->world, err);
}

static int report(run *r, double rate, double norm, pdt_error *err) {
  const pdt_pretrain_options *o = r->options;
  int64_t step = r->adamw.step;
  bool validates = r->valid && pdt_train_is_due(o->valid_every, step, o->steps);
  if (!pdt_train_is_due(o->log_every, step, o->steps) && !validates) return 0;
  pdt_pretrain_report out = {
      .step = step,
      .steps = o->steps,
      .loss = r->since.weight > 0 ? r->since.loss / r->since.weight : 0,
      .accuracy = r->since.tokens > 0 ? (double)r->since.right / (double)r->since.tokens : 0,
      .valid_loss = NAN,
      .valid_accuracy = NAN,
      .rate = rate,
      .norm = norm,
      .tokens = r->since.tokens,
      .seconds = pdt_seconds() - r->started};
  if (validates && validate(r, &out.valid_loss, &out.valid_accuracy, err)) return -1;
  r->since = (sums){0};
  r->started = pdt_seconds();
  return pdt_train_report(r->world, r->observer, &out, err);
}

/* Every rank reads the state itself. */
static int begin(run *r, pdt_error *err) {
  char settings[512];
  pdt_train_identity identity = identity_of(r, settings);
  double since[SINCE] = {0};
  const pdt_train_run state = {&r->trunk->parameters, &r->adamw, since, SINCE};
  if (pdt_train_begin(r->world, r->options->resume, r->options->state, &identity, &state,
                      r->observer, err))
    return -1;
  numbers_to_sums(r, since);
  return 0;
}

static int loop(run *r, pdt_error *err) {
  const pdt_pretrain_options *o = r->options;
  if (begin(r, err)) return -1;
  r->started = pdt_seconds();
  while (r->adamw.step < o->steps) {
    double rate = 0, norm = 0;
    if (one_step(r, &rate, &norm, err) || report(r, rate, norm, err)) return -1;
    if (pdt_train_is_due(o->checkpoint_every, r->adamw.step, o->steps) && checkpoint(r, err))
      return -1;
  }
  return 0;
}

static void make_room(run *r, pdt_error *err) {
  pdt_rank size = r->world->size;
  if (pdt_train_order_new(&r->order, r->corpus->n_pieces, r->options->seed, err) ||
      PDT_NEW(&r->all, size, "sums", err) || PDT_NEW(&r->counts, size, "sums", err) ||
      pdt_comm_reducer_new(&r->reducer, r->world, err) ||
      pdt_adamw_new(&r->adamw, &r->options->adamw, &r->trunk->parameters, err))
    return;
  for (pdt_rank q = 0; q < size; q++) r->counts[q] = sizeof(sums);
}

int pdt_pretrain(pdt_nn_trunk *trunk, const pdt_corpus *corpus, const pdt_corpus *valid,
                 const pdt_pretrain_options *options, const pdt_comm *world,
                 const pdt_train_observer *observer, pdt_error *err) {
  run r = {.trunk = trunk,
           .corpus = corpus,
           .valid = valid,
           .options = options,
           .world = world,
           .observer = observer};
  pdt_nn_set_threads(options->threads);
  make_room(&r, err);
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
