/* The planner and what a plan becomes, forward and backward (3.2). */
#ifndef PDT_TRAIN_NN_PLANNER_H
#define PDT_TRAIN_NN_PLANNER_H

#include "train/nn/heads.h"
#include "train/nn/orders.h"

typedef struct pdt_nn_planner_pass {
  pdt_real *inputs; /* [n, S, d] what each slot reads; NULL where all read the mean */
  pdt_real *slots;  /* [n, S de] of the tied planner */
  pdt_real *logits; /* [n, S, Vp] */
  pdt_nn_orders_pass orders;
  pdt_real *dmarks; /* [T] zeros, for what comes back to the logits of marks */
} pdt_nn_planner_pass;

/* Slot logits (eq. 2): slot i reads the mean, and as the sidecar has them sum over places t of
 * a[i, t] state[t], a the weights of places, and what it reads in order (orders.h). Errors: MEMORY.
 */
int pdt_nn_planner(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                   pdt_nn_planner_pass *pass, pdt_arena *arena, pdt_error *err);
/* From dlogits [n, S, Vp], and pass->dmarks, which is written over. The prompt's states are the
 * frozen trunk's: they get none. Errors: MEMORY. */
int pdt_nn_planner_back(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                        const pdt_nn_planner_pass *pass, const pdt_real *dlogits, pdt_arena *arena,
                        pdt_error *err);

typedef struct pdt_nn_plan_note_pass {
  int32_t *filled; /* [n] slots that are not empty */
  pdt_real *mean;  /* [n, de] mean embedding of those; zeros when there are none */
  pdt_real *raw;   /* [n, dn] before the norm */
} pdt_nn_plan_note_pass;

/* Snapshot 0 of every plan (eq. 3), notes [n, dn]; zeros when all slots are empty. The map is
 * linear, so it is applied to the mean. Errors: MEMORY. */
int pdt_nn_plan_notes(const pdt_nn_sidecar *s, const pdt_nn_plans *plans,
                      pdt_nn_plan_note_pass *pass, pdt_real *notes, pdt_arena *arena,
                      pdt_error *err);
int pdt_nn_plan_notes_back(const pdt_nn_sidecar *s, const pdt_nn_plans *plans,
                           const pdt_nn_plan_note_pass *pass, const pdt_real *dnotes,
                           pdt_arena *arena, pdt_error *err);

#endif
