/* The last part of training: coverage and readiness heads on the system's own rollouts, labelled by
 * the parser. Everything that the heads read is as the system computed it and stays as it is. */
#ifndef PDT_TRAIN_READINESS_H
#define PDT_TRAIN_READINESS_H

#include "eval/samples.h"
#include "train/loop.h"
#include "train/nn/sidecar.h"

typedef struct pdt_readiness_options {
  pdt_train_schedule schedule; /* of blocks */
  pdt_sample_label label;
  double rate;            /* the largest */
  double ready, coverage; /* shares of the two losses */
  pdt_dtype dtype;        /* of the sidecar that is written */
  const char *sidecar;    /* file that checkpoints write beside the state */
} pdt_readiness_options;

/* Means since the report before. */
typedef struct pdt_readiness_report {
  int64_t step, steps;
  double ready, coverage, norm, rate;
} pdt_readiness_report;

/* Trains s's coverage and agreement heads (PDT_NN_CLOSE alone may have gradients). One process;
 * ranks beside it have nothing to do. Reports are pdt_readiness_report. Errors: those of
 * pdt_train_run_task; INPUT without samples. */
int pdt_readiness_train(pdt_nn_sidecar *s, const pdt_samples *samples,
                        const pdt_readiness_options *options, const pdt_train_observer *observer,
                        pdt_error *err);

#endif
