/* What every trainer does around its steps: reports to somebody, checkpoints, going on from one. */
#ifndef PDT_TRAIN_FRAME_H
#define PDT_TRAIN_FRAME_H

#include "comm/comm.h"
#include "train/state.h"

/* Who is told of a run. `report` gets the trainer's own kind of report. Both are called on every
 * rank, at the same steps; failing on one rank ends the run on all. */
typedef struct pdt_train_observer {
  void *context;
  /* Training starts at this step: 0, or where the checkpoint stood. */
  int (*begin)(void *context, int64_t step, pdt_error *err);
  int (*report)(void *context, const void *report, pdt_error *err);
} pdt_train_observer;

/* Every so many steps (0: never), and at the last one. Pure. */
bool pdt_train_is_due(int64_t every, int64_t step, int64_t steps);

/* Goes on from the state at `path` where `resumes` and one is there, and tells the observer where
 * the run starts. since[n_since]: sums that have not been reported yet. Collective over world,
 * blocking; all ranks fail alike. Errors: those of pdt_train_state_read and of the observer. */
int pdt_train_begin(const pdt_comm *world, bool resumes, const char *path,
                    const pdt_train_identity *identity, const pdt_train_run *run,
                    const pdt_train_observer *observer, pdt_error *err);

/* Tells the observer. Collective over world, blocking; all ranks fail alike. */
int pdt_train_report(const pdt_comm *world, const pdt_train_observer *observer, const void *report,
                     pdt_error *err);

/* Fails when a hash of parameters is not the same on every rank. Collective over world, blocking;
 * all ranks fail alike. Errors: RUNTIME. */
int pdt_train_compare_replicas(const pdt_comm *world, const pdt_nn_parameters *p, int64_t step,
                               pdt_error *err);

#endif
