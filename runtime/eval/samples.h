/* Blocks that a system wrote by itself, as a readiness head sees them, with what the parser says of
 * them: what a head learns from that is to judge its own system and no teacher's text. */
#ifndef PDT_EVAL_SAMPLES_H
#define PDT_EVAL_SAMPLES_H

#include "base/arena.h"
#include "eval/eval.h"

/* Which blocks count as ready. */
typedef enum pdt_sample_label {
  PDT_LABEL_READY,  /* every sibling's fact that it uses was visible */
  PDT_LABEL_AGREES, /* and is told as its owner states it */
} pdt_sample_label;

/* One block; pointers last as long as the samples. */
typedef struct pdt_rollout_sample {
  const float *states;   /* [steps, d] final-norm states of its steps */
  const float *pooled;   /* [steps, d] what the pool read of them; may be the states */
  const float *embedded; /* [steps, d] what its copies mixed; NULL: it has none */
  float readiness;       /* as it was decoded */
  int32_t steps;
  int32_t window, plan; /* numbers of both */
  bool ready, agrees;
  uint64_t covers; /* slots of its plan that it states */
} pdt_rollout_sample;

typedef struct pdt_sample_window {
  const float *notes; /* [n, dn] */
  int32_t n;
} pdt_sample_window;

typedef struct pdt_samples {
  pdt_arena arena;
  int32_t n, n_windows, n_plans;
  size_t room, windows_room, plans_room;
  pdt_rollout_sample *items;
  pdt_sample_window *windows; /* one a session and round, shared by its blocks */
  const int32_t **plans;      /* each [S]: slot ids of a session */
  uint64_t fingerprint;       /* of states, windows and labels, in order */
} pdt_samples;

/* Decodes every entry of eval->data by the system under these settings, and keeps every block,
 * those that are rolled back included. The engine must give details. Samples are kept on rank 0
 * alone, and added to those that are there; freed by the caller, after an error too. Collective
 * over the world, blocking; all ranks fail alike. Errors: those of pdt_eval_run. */
int pdt_samples_collect(pdt_samples *s, const pdt_eval *eval, const json_t *settings,
                        pdt_eval_figures *figures, pdt_error *err);
void pdt_samples_free(pdt_samples *s);

#endif
