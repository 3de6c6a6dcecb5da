/* What slots of a plan read of the prompt tokens that are marked, in their order (EXTENSIONS.md of
 * tests/oracle), forward and backward. */
#ifndef PDT_TRAIN_NN_ORDERS_H
#define PDT_TRAIN_NN_ORDERS_H

#include "base/arena.h"
#include "train/nn/sidecar.h"

/* Prompts as the planner reads them. */
typedef struct pdt_nn_prompts {
  int64_t n;
  const pdt_real *mean;   /* [n, d] mean states */
  const pdt_real *places; /* [n, P, d] of the first P tokens, zeros behind a prompt's end; read
                             where the sidecar has weights of places */
  /* Where it has orders: the Norm of the residual stream behind the planner's layer, of all tokens
   * of all prompts, T = begin[n] rows; which of them end the name of a section, 1 or 0; and how
   * much it costs to mark others (0: not known). */
  const int32_t *begin;                      /* [n + 1] */
  const pdt_real *read;                      /* [T, d] */
  const pdt_real *mark_target, *mark_weight; /* [T] */
} pdt_nn_prompts;

typedef struct pdt_nn_orders_pass {
  pdt_real *norm;     /* [T, d] Norm of what is read */
  pdt_real *logits;   /* [T] a token is marked by its logit + 1/2, cut to 0 to 1 */
  pdt_real *overlaps; /* [T, R] how much of its mark is the r-th */
  pdt_real *weights;  /* [T, S] by which slots weigh it */
} pdt_nn_orders_pass;

/* x [n, S, d] += what slots read in order. Errors: MEMORY. */
int pdt_nn_orders(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts, pdt_nn_orders_pass *pass,
                  pdt_real *x, pdt_arena *arena, pdt_error *err);

/* What marks cost, weighted; adds to dlogits [T] unless it is NULL. */
double pdt_nn_marks_loss(const pdt_nn_prompts *prompts, const pdt_nn_orders_pass *pass,
                         pdt_real *dlogits);

/* From dx [n, S, d], and from dlogits [T], which holds what else comes back to the logits of marks
 * and is written over. Errors: MEMORY. */
int pdt_nn_orders_back(const pdt_nn_sidecar *s, const pdt_nn_prompts *prompts,
                       const pdt_nn_orders_pass *pass, const pdt_real *dx, pdt_real *dlogits,
                       pdt_arena *arena, pdt_error *err);

#endif
