/* One training step of a sidecar on a frozen trunk: every loss of PROTOCOL.md, "Training", and
 * every gradient, of a batch of teacher-forced entries. */
#ifndef PDT_TRAIN_NN_STEP_H
#define PDT_TRAIN_NN_STEP_H

#include "train/nn/condition.h"
#include "train/nn/losses.h"
#include "train/nn/planner.h"

/* A batch. An entry is one prompt with its streams; a sequence is one stream's: prompt, prefix and
 * section, of which the rows from the last prompt token on are conditioned. Window i of the
 * conditioning is what the rows of block i read (the last prompt token and the prefix read the
 * first block's). Notes are numbered: plan note of entry e is note e, note of block b is note
 * n_entries + b. Weights are scaled by their loss's share in L and by 1 / their sum over all ranks;
 * NULL weights switch a loss off. */
typedef struct pdt_nn_sidecar_batch {
  pdt_nn_sequences sequences;
  const pdt_token *tokens; /* [R] */
  const pdt_real *lower;   /* [R, d] the plain trunk behind its first pdt_nn_lower_layers layers;
                              NULL: not known, and computed where it is needed */
  pdt_nn_conditioning conditioning;
  pdt_nn_blocks blocks;
  pdt_nn_plans plans;            /* the entries' plans as decoding would have them */
  pdt_nn_prompts prompts;        /* [entries] final-norm prompt states of the plain trunk */
  const int32_t *slot_targets;   /* [entries, S], < 0: padded, ignored */
  pdt_real slot_weight;          /* of every slot that is not ignored; 0: no L_plan */
  const pdt_real *teacher_notes; /* [Nb, dn] */
  const pdt_real *notes_weight;  /* [Nb] L_notes */
  const pdt_real *spec_weight;   /* [Nb] L_spec */
  pdt_nn_targets targets;        /* L_LM-CE and L_KD; n 0: neither */
  const pdt_real *coverage_target, *coverage_weight; /* [Nb, S] L_cov */
  const pdt_real *ready_target, *ready_weight;       /* [Nb] L_ready */
} pdt_nn_sidecar_batch;

typedef struct pdt_nn_step_options {
  bool student_notes; /* stage 2: a second pass reads the notes that the first one writes; where
                         notes do not depend on what is read, one pass reads its own */
  bool through_trunk; /* gradients go back through the trunk: SNC, adapters, plan notes */
  bool close_reaches; /* L_cov and L_ready also teach what their heads read */
  /* Not NULL: the batch has 2 Nb notes of blocks, of which it numbers the second half, from
   * n_entries + Nb on, as what siblings read. With student_notes the last pass reads there what
   * this makes of the notes that were written, [Nb, dn] both; other passes read notes as they are,
   * unless always altered. Gradients end at what it makes. */
  void (*alter)(void *context, const pdt_real *notes, pdt_real *altered);
  void *alter_context;
  bool alter_always; /* what teachers wrote, too */
} pdt_nn_step_options;

typedef struct pdt_nn_step_sums {
  double plan, notes, speculation, ce, kd, coverage, ready; /* weighted as the batch says */
  int64_t right[PDT_NN_KINDS], tokens[PDT_NN_KINDS]; /* tokens predicted, as pdt_nn_head_sums */
  double nats[PDT_NN_KINDS];                         /* likewise */
  int64_t slots_right;                               /* slots whose largest logit is the target's */
} pdt_nn_step_sums;

/* What a step can show beside the sums; lives in the arena. */
typedef struct pdt_nn_step_results {
  const pdt_real *states;   /* [R, d] of the last pass */
  const pdt_real *note;     /* [Nb, dn] speculated in the last pass */
  const pdt_real *coverage; /* [Nb, S] logits, NULL without coverage_weight and ready_weight */
  const pdt_real *ready;    /* [Nb] logits, NULL without ready_weight */
} pdt_nn_step_results;

/* Layers of the trunk whose states depend neither on the sidecar nor on what it reads and that a
 * step can begin behind: those below its first instrumented layer, or fewer, where the pool reads
 * earlier ones. 0: none. Pure. */
int32_t pdt_nn_lower_layers(const pdt_sidecar_config *config);

/* Sum of all losses. backward: add their gradients to the sidecar's. results may be NULL. Errors:
 * MEMORY. */
int pdt_nn_sidecar_step(const pdt_nn_trunk *trunk, const pdt_nn_sidecar *sidecar,
                        const pdt_nn_sidecar_batch *batch, const pdt_nn_step_options *options,
                        bool backward, pdt_nn_step_sums *sums, pdt_nn_step_results *results,
                        pdt_arena *arena, pdt_error *err);

#endif
