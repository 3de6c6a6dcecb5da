/* Training from files to files: what a run is asked for, and the three kinds of runs. */
#ifndef PDT_RUN_TRAIN_H
#define PDT_RUN_TRAIN_H

#include <stdio.h>

#include "comm/comm.h"
#include "eval/samples.h"
#include "train/curriculum.h"
#include "train/dataset.h"
#include "train/pretrain.h"

enum { PDT_TRAIN_DATA = 8 }; /* most data files */

typedef struct pdt_train_args {
  const char *data[PDT_TRAIN_DATA];
  int32_t n_data;
  const char *stage, *valid, *config, *model, *tokenizer, *sidecar, *out;
  const char *states; /* file of states of the trunk, made where it is not there; NULL: none */
  pdt_pretrain_options run; /* of a sidecar's stage: steps, batch, seed and the like */
  int64_t context;          /* 0: what the model has, 512 at most */
  /* of a sidecar's stage */
  int32_t number;       /* of the stage */
  pdt_train_stage plan; /* what it trains */
  int32_t passes;       /* 0: the stage's own */
  double lockstep, wait;
  pdt_teacher teacher;
  double stated, heading;
  int32_t sample; /* ids in the softmax beside those that occur; 0: all */
  bool own_notes; /* siblings' notes are read as zeros */
  /* of the rollouts */
  int64_t count, max_attempts; /* entries of a file; attempts at a block */
  double temperature;
  pdt_sample_label label;
} pdt_train_args;

/* Trains a trunk; one stage of a sidecar; its heads on rollouts, which all ranks decode and rank 0
 * learns from. `name` is what messages call the program. Collective over world, blocking; all ranks
 * fail alike. */
int pdt_train_trunk(const pdt_comm *world, const char *name, const pdt_train_args *args,
                    pdt_error *err);
int pdt_train_rollouts(const pdt_comm *world, const char *name, const pdt_train_args *args,
                       pdt_error *err);
int pdt_train_sidecar(const pdt_comm *world, const char *name, const pdt_train_args *args,
                      pdt_error *err);

/* Nothing that the run would write in --out may be what it reads; a config or tokenizer that lies
 * there already is copied onto itself. On rank 0, before anything is written. Errors: USAGE,
 * MEMORY. */
int pdt_train_check_outputs(const pdt_train_args *args, pdt_error *err);

/* Files in --out. */
typedef struct pdt_train_paths {
  char *state, *result, *log; /* checkpoint.safetensors, what is trained, log.jsonl */
} pdt_train_paths;

/* Freed by the caller, after an error too. Errors: MEMORY. */
int pdt_train_paths_make(pdt_train_paths *p, const char *out, const char *result, pdt_error *err);
void pdt_train_paths_free(pdt_train_paths *p);

/* Reads a model's config and weights, to train it or frozen; what there is to hear goes to
 * `notices`. The trunk is freed by the caller, after an error too. Not collective. Errors: IO,
 * INPUT, MEMORY. */
int pdt_train_load_trunk(pdt_nn_trunk *trunk, pdt_model_config *config, const char *model,
                         bool frozen, pdt_notices *notices, pdt_error *err);

/* The log of a run, on rank 0: JSON objects, a line each. When a run goes on from a checkpoint, its
 * log is cut where that stands, so that no step is in it twice; `path` is borrowed. */
typedef struct pdt_train_log {
  FILE *file; /* NULL: on the other ranks */
  const char *path;
  bool resumes, on_terminal; /* on_terminal: somebody watches standard error */
  bool begun;                /* the step that the run starts at is known */
  char *kept, *held;         /* what was in the log already; lines that wait for the start */
} pdt_train_log;

/* Makes --out, removes what killed runs have left beside the results, and opens the log. Unless
 * resuming, neither the state nor the result, a `what`, may be there yet. The paths are borrowed.
 * Closed by the caller, after an error too. Errors: IO. */
int pdt_train_open_log(pdt_train_log *log, const pdt_train_args *args, const char *what,
                       const pdt_train_paths *paths, pdt_error *err);
void pdt_train_close_log(pdt_train_log *log);

/* The run is over: what was written lasts. Errors: IO. */
int pdt_train_finish_log(pdt_train_log *log, pdt_error *err);

/* The run starts at this step. Errors: IO, MEMORY. */
int pdt_train_log_begin(pdt_train_log *log, int64_t step, pdt_error *err);

/* A line about the start of a run, which a log that has it already does not get again; and one of a
 * step. Both go to standard output too where nobody watches. Errors: IO, as when the disk is full;
 * MEMORY. */
int pdt_train_log_head(pdt_train_log *log, const char *line, pdt_error *err);
int pdt_train_log_line(pdt_train_log *log, const char *line, pdt_error *err);

#endif
