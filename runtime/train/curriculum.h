/* The sidecar's stages on a frozen trunk (PROTOCOL.md, "Training"): which parts learn, by which
 * losses, at which rates; data-parallel over all ranks as pretraining is. */
#ifndef PDT_TRAIN_CURRICULUM_H
#define PDT_TRAIN_CURRICULUM_H

#include "train/entry.h"
#include "train/loop.h"

typedef struct pdt_train_stage {
  const char *name;
  pdt_train_losses losses;
  double rates[PDT_TRAIN_GROUPS]; /* largest rate of every pdt_nn_part; 0: at rest */
  pdt_nn_step_options step;
} pdt_train_stage;

enum { PDT_TRAIN_STAGES = 5 };

/* The losses by name, in the order of pdt_train_losses: plan, notes, speculation, tokens, kd,
 * coverage, ready, use, later, unseen, quiet. Where NAME's share is, NULL for another name. Pure.
 */
double *pdt_train_loss_share(pdt_train_losses *losses, const char *name);

/* The part called NAME (plan, condition, pool, speculation, close), -1 for another name. Pure. */
int32_t pdt_train_part(const char *name);

/* Stage 0 to 4 with every rate that is not 0 set to `rate`: 0 planner, plan embedding,
 * plan-to-notes and notes head; 1 + SNC and adapters on teacher notes; 2 + pool and speculation
 * head, in two passes; 3 coverage and agreement heads alone, on what the sidecar itself writes; 4
 * everything at once, which is no stage of the curriculum but what it is compared with. L_spec
 * counts half, the others whole, L_KD not at all. Pure. */
pdt_train_stage pdt_train_stage_of(int32_t stage, double rate);

typedef struct pdt_curriculum_options {
  pdt_train_schedule schedule; /* of entries */
  pdt_train_stage stage;
  pdt_train_rounds rounds;
  int threads;
  pdt_dtype dtype;     /* of the sidecar that is written */
  const char *sidecar; /* file that checkpoints write beside the state */
  uint64_t data;       /* fingerprint of the entries */
  int32_t sample;      /* ids in the softmax beside those that occur (vocabulary.h); 0: all */
  bool own_notes;      /* streams read siblings' notes as zeros: to compare with */
} pdt_curriculum_options;

/* Means since the report before, each divided by its own total and times its share in L; `right`
 * and `tokens` of predictions that count. */
typedef struct pdt_curriculum_report {
  int64_t step, steps;
  pdt_nn_step_sums losses;
  double accuracy;              /* of all tokens; 0 without any, as are the next */
  double of_kind[PDT_NN_KINDS]; /* of those of a kind */
  double slot_accuracy;         /* of slots that L_plan asks for */
  double norm, rate;            /* rate: share of the largest ones */
  int64_t tokens;
  double seconds;
} pdt_curriculum_report;

/* Trains s for one stage. Every rank has the same entries. The trunk must be frozen, and is checked
 * to be what it was at every checkpoint. Reports are pdt_curriculum_report. Collective over world,
 * blocking; all ranks fail alike. Errors: those of pdt_train_run_task; RUNTIME for a trunk that
 * changed; INPUT without entries. */
int pdt_curriculum(const pdt_nn_trunk *trunk, pdt_nn_sidecar *s,
                   const pdt_train_entry *const *entries, int64_t n_entries,
                   const pdt_curriculum_options *options, const pdt_comm *world,
                   const pdt_train_observer *observer, pdt_error *err);

#endif
