/* Pretraining of a trunk on text (PROTOCOL.md, "Training", comes after it): cross-entropy of the
 * next token, AdamW, data-parallel over all ranks. Every rank holds the whole model and corpus and
 * takes every size-th piece of a batch; gradients are added over ranks in a fixed order, so equal
 * ranks give equal bits, and other numbers of ranks agree within rounding. */
#ifndef PDT_TRAIN_PRETRAIN_H
#define PDT_TRAIN_PRETRAIN_H

#include "train/corpus.h"
#include "train/frame.h"
#include "train/nn/trunk.h"

typedef struct pdt_pretrain_options {
  uint64_t seed;      /* of the order of data */
  int64_t steps;      /* in all, those before a resume included */
  int64_t warmup;     /* of them */
  double rate, floor; /* largest rate; the last one as a share of it */
  pdt_adamw_settings adamw;
  int32_t batch;                                    /* pieces of a step, over all ranks */
  int32_t context;                                  /* most predictions of a piece */
  int64_t log_every, valid_every, checkpoint_every; /* steps; 0: at the end only */
  int threads;                                      /* of the matrix products */
  pdt_dtype dtype;                                  /* of the model that is written */
  bool resume;                                      /* from `state`, where there is one */
  const char *state, *model; /* files that checkpoints write: everything; the weights alone */
} pdt_pretrain_options;

/* What happened since the report before. */
typedef struct pdt_pretrain_report {
  int64_t step, steps;
  double loss, accuracy; /* weighted mean cross-entropy in nats; share of right predictions */
  double valid_loss, valid_accuracy; /* NaN when they were not measured */
  double rate, norm;                 /* of the last step; norm before clipping */
  int64_t tokens;                    /* predictions, over all ranks */
  double seconds;
} pdt_pretrain_report;

/* Trains. valid may be NULL. Reports are pdt_pretrain_report, with the same numbers on every rank,
 * but for seconds. Writes checkpoints on rank 0; at each, all ranks compare their parameters.
 * Collective over world, blocking; all ranks fail alike. Errors: RUNTIME for a loss or gradient
 * that is not finite (the last checkpoint stays), or a replica that diverged; INPUT for a state of
 * another run; IO, MEMORY; those of the observer. */
int pdt_pretrain(pdt_nn_trunk *trunk, const pdt_corpus *corpus, const pdt_corpus *valid,
                 const pdt_pretrain_options *options, const pdt_comm *world,
                 const pdt_train_observer *observer, pdt_error *err);

#endif
