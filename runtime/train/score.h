/* What coordination buys on a data file's own text: the cross-entropy of its tokens, those that
 * siblings decide apart from the others, read under notes and without them. */
#ifndef PDT_TRAIN_SCORE_H
#define PDT_TRAIN_SCORE_H

#include "sidecar/config.h"
#include "text/tokenizer.h"
#include "train/nn/sidecar.h"
#include "train/nn/trunk.h"

/* What a token is to its entry. */
typedef enum pdt_score_kind {
  PDT_SCORE_TOLD,   /* of a sibling's fact whose note is in the window, for the first time here */
  PDT_SCORE_AGAIN,  /* of a sibling's fact that the section has named before, in the same tokens */
  PDT_SCORE_UNTOLD, /* of a sibling's fact that no note in the window tells */
  PDT_SCORE_OTHER,
  PDT_SCORE_KINDS
} pdt_score_kind;

/* What it is read under. */
typedef enum pdt_score_arm {
  PDT_SCORE_NOTES, /* the notes that the streams themselves write, and the plan's */
  PDT_SCORE_PLAN,  /* the plan's note alone */
  PDT_SCORE_BLIND, /* none */
  PDT_SCORE_ARMS
} pdt_score_arm;

/* Of the tokens of one kind. */
typedef struct pdt_score_figures {
  int64_t tokens;
  double loss[PDT_SCORE_ARMS];   /* nats a token; 0 without tokens */
  int64_t right[PDT_SCORE_ARMS]; /* the likeliest token is the file's */
  double saved[PDT_SCORE_ARMS];  /* loss of an arm above that under notes */
  double error[PDT_SCORE_ARMS];  /* its standard error, entries being drawn; 0 for fewer than two */
} pdt_score_figures;

typedef struct pdt_score {
  int64_t entries;
  pdt_score_figures kinds[PDT_SCORE_KINDS], all;
} pdt_score;

/* What is scored; everything is borrowed. */
typedef struct pdt_score_use {
  const char *data; /* file */
  int64_t most;     /* entries */
  const pdt_nn_trunk *trunk;
  const pdt_nn_sidecar *sidecar;
  const pdt_tokenizer *tokenizer;
  int threads;
  void *context; /* of `shown`, which is told after every entry; it may be NULL */
  void (*shown)(void *context, int64_t done, int64_t all);
} pdt_score_use;

/* Reads the file's entries in lockstep, as its labels have them. Not collective. Errors: those of
 * pdt_dataset_load; MEMORY. */
int pdt_score_read(const pdt_score_use *use, pdt_score *out, pdt_error *err);

#endif
