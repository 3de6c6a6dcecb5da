/* Losses of PROTOCOL.md, "Training". Each returns its value and, where a gradient pointer is not
 * NULL, ADDS the gradient of exactly that value. Weights come in scaled: who wants a mean divides
 * the weights by their sum over all ranks. */
#ifndef PDT_TRAIN_NN_LOSSES_H
#define PDT_TRAIN_NN_LOSSES_H

#include "base/arena.h"
#include "train/nn/ops.h"
#include "train/nn/real.h"

/* What a predicted token is to its entry: told apart in reports. */
typedef enum pdt_nn_kind {
  PDT_NN_OTHER,  /* no name, or a fact's statement */
  PDT_NN_USE,    /* first token of a sibling's fact that is in the window */
  PDT_NN_LATER,  /* a later token of one that is in the window */
  PDT_NN_UNSEEN, /* a token of one that is not: nothing tells it */
  PDT_NN_KINDS
} pdt_nn_kind;

/* Ids that a softmax goes over in place of the whole vocabulary. */
typedef struct pdt_nn_subset {
  int32_t n;
  const int32_t *ids; /* [n] */
  const pdt_real
      *shift; /* [n] added to their logits: the logarithm of how many ids one stands for */
  const int32_t *place; /* [vocab] where an id is among them; that of every target is >= 0 */
} pdt_nn_subset;

/* What chosen rows of a batch are asked to predict. */
typedef struct pdt_nn_targets {
  int32_t n;
  const int32_t *rows;         /* [n] rows of the hidden states */
  const pdt_token *tokens;     /* [n] the next token of each, for cross-entropy */
  const pdt_real *ce_weight;   /* [n] */
  const pdt_real *kd_weight;   /* [n], or NULL: no distillation */
  const pdt_real *teacher;     /* [n, d] the teacher's final-norm states; NULL: no distillation */
  const uint8_t *kinds;        /* [n] pdt_nn_kind, or NULL: all PDT_NN_OTHER */
  const pdt_nn_subset *subset; /* NULL: the whole vocabulary; none where there is distillation, or
                                  where the head learns */
} pdt_nn_targets;

typedef struct pdt_nn_head_sums {
  double ce;                   /* sum of ce_weight * -log p(token) */
  double kd;                   /* sum of kd_weight * KL(student || teacher) */
  int64_t right[PDT_NN_KINDS]; /* rows whose largest logit is the token's (the lowest on ties); of
                                  a subset, shifts included */
  int64_t rows[PDT_NN_KINDS];
  double nats[PDT_NN_KINDS]; /* sum of -log p(token), whatever the weights */
} pdt_nn_head_sums;

/* Head and both token losses at once, a bounded number of rows at a time: logits = hidden W^T, for
 * the teacher too. hidden [rows, d]; head [vocab, d]; dhidden as hidden, or NULL. head.g gets the
 * student's gradient only. Errors: MEMORY. */
int pdt_nn_head_loss(pdt_nn_weight head, int32_t vocab, int32_t d, const pdt_real *hidden,
                     const pdt_nn_targets *targets, pdt_real *dhidden, pdt_nn_head_sums *sums,
                     pdt_arena *arena, pdt_error *err);

/* Sum over rows of weight[row] * mean over the width of (x - y)^2; dx [rows, width]. Rows of weight
 * 0 are not looked at. */
double pdt_nn_mse(const pdt_real *x, const pdt_real *y, const pdt_real *weight, int64_t rows,
                  int64_t width, pdt_real *dx);

/* Sum of weight * binary cross-entropy of sigmoid(logit) against target in [0, 1]. Elements of
 * weight 0 are not looked at. */
double pdt_nn_bce(const pdt_real *logits, const pdt_real *target, const pdt_real *weight, int64_t n,
                  pdt_real *dlogits);

/* Sum over rows of weight * -log softmax(logits[row])[target[row]]; rows with a negative target are
 * ignored. right (may be NULL): rows not ignored whose largest logit is the target's. Logits become
 * probabilities in place of being copied, or gradients where `gradient` is set. */
double pdt_nn_softmax_ce(pdt_real *logits, const int32_t *target, int64_t rows, int64_t n,
                         pdt_real weight, bool gradient, int64_t *right);

#endif
