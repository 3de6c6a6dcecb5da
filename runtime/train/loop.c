#include "train/loop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/memory.h"

int64_t pdt_train_place(const pdt_train_loop *l, int32_t i) {
  return l->adamw.step * l->schedule->batch + i;
}

int64_t pdt_train_item(pdt_train_loop *l, int32_t i) {
  return pdt_train_order_at(&l->order, pdt_train_place(l, i));
}

/* The rank with the least work, of equals the first. */
static pdt_rank least_of(const int64_t *work, pdt_rank size) {
  pdt_rank least = 0;
  for (pdt_rank q = 1; q < size; q++)
    if (work[q] < work[least]) least = q;
  return least;
}

/* Of the items that are not dealt, the one with the most work, of equals the first. */
static int32_t most_of(const int64_t *work, const bool *dealt, int32_t n) {
  int32_t most = -1;
  for (int32_t i = 0; i < n; i++)
    if (!dealt[i] && (most < 0 || work[i] > work[most])) most = i;
  return most;
}

int pdt_train_deal(pdt_train_loop *l, const int64_t *work, bool **mine, pdt_error *err) {
  int32_t n = l->schedule->batch;
  bool *dealt;
  int64_t *ranks;
  if (PDT_TAKE_ZEROS(&l->arena, mine, n, err) || PDT_TAKE_ZEROS(&l->arena, &dealt, n, err) ||
      PDT_TAKE_ZEROS(&l->arena, &ranks, l->world->size, err))
    return -1;
  for (int32_t k = 0; k < n; k++) {
    int32_t i = most_of(work, dealt, n);
    pdt_rank q = least_of(ranks, l->world->size);
    dealt[i] = true;
    ranks[q] += work[i];
    (*mine)[i] = q == l->world->rank;
  }
  return 0;
}

void pdt_train_sum(pdt_train_loop *l, double *total) {
  int32_t n = l->task->n_sums;
  pdt_comm_all_gather(l->world, l->own, l->all, l->counts);
  memset(total, 0, (size_t)n * sizeof *total);
  for (pdt_rank q = 0; q < l->world->size; q++)
    for (int32_t i = 0; i < n; i++) total[i] += l->all[(int64_t)q * n + i];
}

/* ---- a step ---- */

static int check_losses(const pdt_train_loop *l, const double *total, pdt_error *err) {
  double sum = 0;
  for (int32_t i = 0; i < l->task->n_losses; i++) sum += total[i];
  if (isfinite(sum)) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "step %lld: the loss is not a finite number (hint: a lower --rate, or a longer "
                  "--warmup)",
                  (long long)l->adamw.step + 1);
}

static int one_step(pdt_train_loop *l, double *total, pdt_error *err) {
  const pdt_train_task *task = l->task;
  const pdt_train_schedule *s = l->schedule;
  pdt_nn_parameters *p = task->parameters;
  double rates[PDT_TRAIN_GROUPS];
  pdt_arena_reset(&l->arena);
  memset(l->own, 0, (size_t)task->n_sums * sizeof *l->own);
  task->learn(task->context, l, l->own, err);
  if (pdt_comm_agree(l->world, err)) return -1;
  if (p->grad) pdt_comm_all_reduce_f32(l->world, &l->reducer, p->grad, p->n_elems);
  pdt_train_sum(l, total);
  if (check_losses(l, total, err)) return -1;
  l->share = pdt_rate_at(l->adamw.step, s->warmup, s->steps, s->floor);
  for (int i = 0; i < PDT_TRAIN_GROUPS; i++) rates[i] = task->rates[i] * l->share;
  if (pdt_adamw_step(&l->adamw, p, rates, &l->norm, err)) return -1;
  for (int32_t i = 0; i < task->n_sums; i++) l->since[i] += total[i];
  return 0;
}

/* ---- around steps ---- */

/* Every so many steps (0: never), and at the last one. */
static bool is_due(const pdt_train_loop *l, int64_t every) {
  int64_t step = l->adamw.step;
  return step == l->schedule->steps || (every > 0 && step % every == 0);
}

static int report(pdt_train_loop *l, pdt_error *err) {
  const pdt_train_task *task = l->task;
  bool measures = task->measure && is_due(l, l->schedule->valid_every);
  if (!measures && !is_due(l, l->schedule->log_every)) return 0;
  if (measures && task->measure(task->context, l, err)) return -1;
  task->report(task->context, l, measures, err);
  memset(l->since, 0, (size_t)task->n_sums * sizeof *l->since);
  l->started = pdt_seconds();
  return pdt_comm_agree(l->world, err);
}

/* A hash of parameters is the same on every rank. */
static int compare_replicas(const pdt_train_loop *l, pdt_error *err) {
  const pdt_nn_parameters *p = l->task->parameters;
  uint64_t hash = XXH3_64bits(p->value, (size_t)p->n_elems * sizeof *p->value);
  if (pdt_comm_is_same(l->world, hash)) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "step %lld: the ranks' parameters have diverged (hint: are all machines of one "
                  "kind?)",
                  (long long)l->adamw.step);
}

static pdt_train_run state_of(pdt_train_loop *l) {
  return (pdt_train_run){l->task->parameters, &l->adamw, l->since, l->task->n_sums};
}

static int checkpoint(pdt_train_loop *l, pdt_error *err) {
  const pdt_train_task *task = l->task;
  const pdt_train_run state = state_of(l);
  if (!compare_replicas(l, err) && task->check) task->check(task->context, l, err);
  if (pdt_comm_agree(l->world, err)) return -1;
  if (l->world->rank == 0 && !task->write(task->context, err))
    pdt_train_state_write(l->schedule->state, &task->identity, &state, err);
  return pdt_comm_agree(l->world, err);
}

/* In builds that check: all ranks are about to train the same in the same way. */
static void check_same(const pdt_train_loop *l) {
  (void)l;
  PDT_CHECK_SAME(l->world, l->task->parameters->n_elems);
  PDT_CHECK_SAME(l->world, l->task->n_items);
  PDT_CHECK_SAME(l->world, l->task->n_losses);
  PDT_CHECK_SAME(l->world, l->task->n_sums);
  PDT_CHECK_SAME(l->world, l->schedule->steps);
  PDT_CHECK_SAME(l->world, l->schedule->batch);
  PDT_CHECK_SAME(l->world, l->schedule->seed);
}

/* Goes on from the state where one is wanted and there; every rank reads it itself. */
static int begin(pdt_train_loop *l, pdt_error *err) {
  const pdt_train_schedule *s = l->schedule;
  const pdt_train_run state = state_of(l);
  int64_t there = s->resume && access(s->state, F_OK) == 0;
  pdt_comm_all_reduce_i64(l->world, &there, 1, PDT_COMM_MAX); /* then a rank without it says so */
  if (there) pdt_train_state_read(s->state, &l->task->identity, &state, err);
  if (pdt_comm_agree(l->world, err)) return -1;
  l->observer->begin(l->observer->context, l->adamw.step, err);
  return pdt_comm_agree(l->world, err);
}

static int run(pdt_train_loop *l, double *total, pdt_error *err) {
  if (begin(l, err)) return -1;
  l->started = pdt_seconds();
  while (l->adamw.step < l->schedule->steps) {
    if (one_step(l, total, err) || report(l, err)) return -1;
    if (is_due(l, l->schedule->checkpoint_every) && checkpoint(l, err)) return -1;
  }
  return 0;
}

static int make_room(pdt_train_loop *l, double **total, pdt_error *err) {
  int64_t size = l->world->size, n = l->task->n_sums;
  if (pdt_train_order_new(&l->order, l->task->n_items, l->schedule->seed, err) ||
      PDT_NEW(&l->since, n, "sums", err) || PDT_NEW(&l->own, n, "sums", err) ||
      PDT_NEW(total, n, "sums", err) || PDT_NEW(&l->all, size * n, "sums", err) ||
      PDT_NEW(&l->counts, size, "sums", err) || pdt_comm_reducer_new(&l->reducer, l->world, err) ||
      pdt_adamw_new(&l->adamw, &l->schedule->adamw, l->task->parameters, err))
    return -1;
  for (int64_t q = 0; q < size; q++) l->counts[q] = n * (pdt_bytes)sizeof *l->own;
  return 0;
}

int pdt_train_run_task(const pdt_train_task *task, const pdt_train_schedule *schedule,
                       const pdt_comm *world, const pdt_train_observer *observer, pdt_error *err) {
  pdt_train_loop l = {.task = task, .schedule = schedule, .world = world, .observer = observer};
  double *total = NULL;
  make_room(&l, &total, err);
  int rc = pdt_comm_agree(world, err);
  check_same(&l);
  const pdt_comm_deadlines usual = {.exchange_seconds = PDT_USUAL_EXCHANGE_SECONDS};
  pdt_comm_arm(world, &usual);
  if (!rc) rc = run(&l, total, err);
  pdt_comm_disarm(world);
  pdt_train_order_free(&l.order);
  free(l.since);
  free(l.own);
  free(l.all);
  free(l.counts);
  free(total);
  pdt_comm_reducer_free(&l.reducer);
  pdt_adamw_free(&l.adamw);
  pdt_arena_free(&l.arena);
  return rc;
}
