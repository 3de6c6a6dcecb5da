/* How the heads do on a data file's own text, read as training reads it: the figures that training
 * can reach, to stand beside those of text that the system wrote itself. */
#ifndef PDT_TRAIN_TEACHER_FORCED_H
#define PDT_TRAIN_TEACHER_FORCED_H

#include "comm/comm.h"
#include "eval/entries.h"
#include "eval/judge.h"
#include "model/config.h"
#include "sidecar/config.h"
#include "store/checkpoint.h"
#include "train/altered.h"
#include "train/nn/losses.h"

typedef struct pdt_teacher_forced {
  int64_t entries, blocks, ready;
  double auc;                   /* of readiness; NaN when all blocks are alike */
  pdt_judge_retrieval coverage; /* filled slots of all blocks */
  int64_t slots, slots_right;   /* of the planner */
  int64_t tokens[PDT_NN_KINDS], right[PDT_NN_KINDS]; /* predicted; the likeliest is the file's */
  pdt_altered altered[PDT_ALTER_MODES];              /* of the modes that were asked for */
} pdt_teacher_forced;

/* What is read; everything is borrowed. */
typedef struct pdt_teacher_forced_use {
  const char *data; /* file */
  int64_t most;     /* entries */
  const pdt_model_config *model;
  const pdt_checkpoint *checkpoint;
  const pdt_sidecar_config *config;
  const pdt_safetensors *sidecar;
  const pdt_tokenizer *tokenizer;
  uint64_t seed; /* of the rounds in which blocks are emitted, drawn as in training */
  bool altered[PDT_ALTER_MODES];   /* what altered notes do is asked for */
  const pdt_eval_entries *entries; /* then: those of the file, and */
  const pdt_atlas_world *world;    /* what they are of */
  int threads;                     /* of a rank */
} pdt_teacher_forced_use;

/* Reads trunk, sidecar and file, and the entries in two passes, the second under the notes that the
 * first one wrote. Ranks share the entries; *out is the same on all of them, and of any number of
 * them. Collective over comm, blocking; all ranks fail alike. Errors: those of pdt_dataset_load;
 * MEMORY. */
int pdt_teacher_forced_read(const pdt_comm *comm, const pdt_teacher_forced_use *use,
                            pdt_teacher_forced *out, pdt_error *err);

#endif
