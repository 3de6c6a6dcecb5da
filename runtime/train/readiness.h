/* The last part of training: coverage and readiness heads on the system's own rollouts, labelled by
 * the parser. Everything that the heads read is as the system computed it and stays as it is. */
#ifndef PDT_TRAIN_READINESS_H
#define PDT_TRAIN_READINESS_H

#include "eval/samples.h"
#include "train/frame.h"
#include "train/nn/sidecar.h"

typedef struct pdt_readiness_options {
  pdt_sample_label label;
  int64_t steps, warmup;
  int32_t batch; /* blocks of a step */
  double rate, floor;
  double ready, coverage; /* shares of the two losses */
  uint64_t seed;          /* of the order of blocks */
  pdt_adamw_settings adamw;
  int64_t log_every, checkpoint_every; /* steps; 0: at the end only */
  pdt_dtype dtype;                     /* of the sidecar that is written */
  bool resume;
  const char *state, *sidecar; /* files that checkpoints write */
} pdt_readiness_options;

/* Means since the report before. */
typedef struct pdt_readiness_report {
  int64_t step, steps;
  double ready, coverage, norm, rate;
} pdt_readiness_report;

/* Trains s's coverage and agreement heads (PDT_NN_CLOSE alone may have gradients). One process;
 * ranks beside it have nothing to do. Errors: INPUT without samples, or for a state of another run;
 * RUNTIME for a loss or gradient that is not finite, the last checkpoint then stays; IO, MEMORY;
 * those of the observer, whose reports are pdt_readiness_report. */
int pdt_readiness_train(pdt_nn_sidecar *s, const pdt_samples *samples,
                        const pdt_readiness_options *options, const pdt_train_observer *observer,
                        pdt_error *err);

#endif
