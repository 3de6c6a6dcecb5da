/* Pretraining of a trunk on text (PROTOCOL.md, "Training", comes after it): cross-entropy of the
 * next token. Every rank holds the whole model and corpus. */
#ifndef PDT_TRAIN_PRETRAIN_H
#define PDT_TRAIN_PRETRAIN_H

#include "train/corpus.h"
#include "train/loop.h"
#include "train/nn/trunk.h"

typedef struct pdt_pretrain_options {
  pdt_train_schedule schedule; /* of pieces of text */
  double rate;                 /* the largest */
  int32_t context;             /* most predictions of a piece */
  int threads;                 /* of the matrix products */
  pdt_dtype dtype;             /* of the model that is written */
  const char *model;           /* file that checkpoints write beside the state: the weights alone */
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
 * but for seconds. Collective over world, blocking; all ranks fail alike. Errors: those of
 * pdt_train_run_task. */
int pdt_pretrain(pdt_nn_trunk *trunk, const pdt_corpus *corpus, const pdt_corpus *valid,
                 const pdt_pretrain_options *options, const pdt_comm *world,
                 const pdt_train_observer *observer, pdt_error *err);

#endif
