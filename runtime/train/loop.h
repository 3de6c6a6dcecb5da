/* The loop that every training is: batches from an endless order, gradients and sums added over
 * ranks, steps of AdamW, reports, checkpoints from which it goes on bit for bit. What is trained,
 * and on what, is a task's. Every rank holds all parameters and takes items of a batch that make up
 * its part of the work; sums are made in a fixed order, so equal ranks give equal bits, and other
 * numbers of ranks agree within rounding. */
#ifndef PDT_TRAIN_LOOP_H
#define PDT_TRAIN_LOOP_H

#include "base/arena.h"
#include "comm/comm.h"
#include "train/order.h"
#include "train/state.h"

typedef struct pdt_train_schedule {
  int64_t steps;  /* in all, those before a resume included */
  int64_t warmup; /* of them */
  double floor;   /* last rate as a share of the largest */
  pdt_adamw_settings adamw;
  int32_t batch;                                    /* items of a step, over all ranks */
  uint64_t seed;                                    /* of the order of items */
  int64_t log_every, valid_every, checkpoint_every; /* steps; 0: at the end only */
  bool resume;                                      /* from `state`, where there is one */
  const char *state;                                /* file with everything, of checkpoints */
} pdt_train_schedule;

/* Who is told of a run. `report` gets the task's own kind of report. Both are called on every rank,
 * at the same steps; failing on one rank ends the run on all. */
typedef struct pdt_train_observer {
  void *context;
  /* Training starts at this step: 0, or where the checkpoint stood. */
  int (*begin)(void *context, int64_t step, pdt_error *err);
  int (*report)(void *context, const void *report, pdt_error *err);
} pdt_train_observer;

typedef struct pdt_train_loop pdt_train_loop;

/* What is trained. The functions get `context`, on every rank and at the same steps unless said
 * otherwise; a rank's error ends the run on all. */
typedef struct pdt_train_task {
  void *context;
  pdt_nn_parameters *parameters; /* without gradients nothing learns, and losses are measured */
  pdt_train_identity identity;
  double rates[PDT_TRAIN_GROUPS]; /* the largest of every group; 0: at rest */
  int64_t n_items;                /* that steps choose from, at least 1 */
  int32_t n_losses;               /* the first of the sums: what must stay finite */
  int32_t n_sums;
  /* This rank's part of a step: adds gradients, and puts what the ranks add up into sums[n_sums],
   * which are zero. What all ranks know alike is put in by one of them. */
  int (*learn)(void *context, pdt_train_loop *loop, double *sums, pdt_error *err);
  /* Measures on something else, before the report of some steps (valid_every). NULL: nothing. */
  int (*measure)(void *context, pdt_train_loop *loop, pdt_error *err);
  /* Tells the observer what came since the report before (pdt_train_since). */
  int (*report)(void *context, const pdt_train_loop *loop, bool measured, pdt_error *err);
  /* What else must hold at a checkpoint. NULL: nothing. */
  int (*check)(void *context, const pdt_train_loop *loop, pdt_error *err);
  /* Writes the results, on rank 0. The state is written behind them: who goes on from that finds
   * results at least as new. */
  int (*write)(void *context, pdt_error *err);
} pdt_train_task;

/* A run under way, as the task's functions see it. */
struct pdt_train_loop {
  const pdt_train_task *task;
  const pdt_train_schedule *schedule;
  const pdt_comm *world;
  const pdt_train_observer *observer;
  pdt_adamw adamw;       /* its step: how many were made */
  pdt_arena arena;       /* memory of a step */
  pdt_train_order order; /* of items */
  double *since;         /* [n_sums] over all ranks, since the report before */
  double *own;           /* [n_sums] */
  double *all;           /* [size, n_sums] */
  pdt_bytes *counts;     /* [size] */
  pdt_comm_reducer reducer;
  double share, norm; /* of the last step: of the largest rates; before clipping */
  double started;     /* pdt_seconds() of the report before */
};

/* Item i of the batch that the step at hand takes, i < schedule->batch; and its place in the
 * endless order, which no other item has. */
int64_t pdt_train_item(pdt_train_loop *loop, int32_t i);
int64_t pdt_train_place(const pdt_train_loop *loop, int32_t i);

/* Deals the batch's items out to ranks, by work[batch] >= 0 in any unit: the one with the most goes
 * first, each to the rank that has the least so far, so that none waits long for another. *mine:
 * [batch] which ones are this rank's, in the arena of the step. Errors: MEMORY. */
int pdt_train_deal(pdt_train_loop *loop, const int64_t *work, bool **mine, pdt_error *err);

/* Adds loop->own up over ranks, in order, into total[n_sums]: the same bits everywhere. Collective,
 * blocking. */
void pdt_train_sum(pdt_train_loop *loop, double *total);

/* Runs the task to its end. Checkpoints are written on rank 0; at each, all ranks compare their
 * parameters. Collective over world, blocking; all ranks fail alike. Errors: RUNTIME for a loss or
 * gradient that is not finite (the last checkpoint stays), or a replica that diverged; INPUT for a
 * state of another run; IO, MEMORY; those of task and observer. */
int pdt_train_run_task(const pdt_train_task *task, const pdt_train_schedule *schedule,
                       const pdt_comm *world, const pdt_train_observer *observer, pdt_error *err);

#endif
