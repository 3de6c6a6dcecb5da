/* What closes a block, forward and backward (3.6, 3.7): summary, note, coverage, readiness. With
 * Nb blocks, R rows of final-norm states in the batch. Backward functions ADD to every gradient
 * they are given; NULL: not wanted. */
#ifndef PDT_TRAIN_NN_HEADS_H
#define PDT_TRAIN_NN_HEADS_H

#include "train/nn/attention.h"
#include "train/nn/sidecar.h"

/* Blocks of a batch: block i is the steps[i] >= 1 rows from begin[i] on. */
typedef struct pdt_nn_blocks {
  int32_t n;
  const int32_t *begin, *steps; /* [n] */
  const int32_t *entry;         /* [n] the plan it is covered against */
} pdt_nn_blocks;

/* Plans of a batch's entries. */
typedef struct pdt_nn_plans {
  int32_t n;
  const int32_t *ids; /* [n, S], 0: empty */
} pdt_nn_plans;

typedef struct pdt_nn_pool_pass {
  pdt_real *p;      /* [R, ph] probabilities within a block; rows of no block: 0 */
  pdt_real *mixed;  /* [Nb, ph, d] */
  pdt_real *pooled; /* [Nb, p] */
} pdt_nn_pool_pass;

/* What the pool reads, all [R, d]. */
typedef struct pdt_nn_pool_input {
  const pdt_real *states;
  const pdt_real *embedded; /* what its copies mix; NULL where the sidecar has none */
} pdt_nn_pool_input;

/* Summaries of all blocks. Errors: MEMORY. */
int pdt_nn_pool(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks, const pdt_nn_pool_input *in,
                int64_t rows, pdt_nn_pool_pass *pass, pdt_arena *arena, pdt_error *err);
/* dstates [R, d]. Errors: MEMORY. */
int pdt_nn_pool_back(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks,
                     const pdt_nn_pool_input *in, int64_t rows, const pdt_nn_pool_pass *pass,
                     const pdt_real *dpooled, pdt_real *dstates, pdt_arena *arena, pdt_error *err);

typedef struct pdt_nn_note_pass {
  const pdt_nn_affine *linear, *hidden, *out; /* hidden, out NULL: linear alone */
  pdt_real *inner, *active;                   /* [Nb, h] */
  pdt_real *raw;                              /* [Nb, dn] before the norm */
  pdt_real *note;                             /* [Nb, dn] */
} pdt_nn_note_pass;

/* Notes from summaries pooled [Nb, p]: by the speculation head, with its hidden layer where it has
 * one (eq. 8). Errors: MEMORY. */
int pdt_nn_speculate(const pdt_nn_sidecar *s, int64_t n, const pdt_real *pooled,
                     pdt_nn_note_pass *pass, pdt_arena *arena, pdt_error *err);
/* The same by the notes head, which only training has: Norm(W p + b). */
int pdt_nn_notes(const pdt_nn_sidecar *s, int64_t n, const pdt_real *pooled, pdt_nn_note_pass *pass,
                 pdt_arena *arena, pdt_error *err);
/* Of either. dpooled [Nb, p]. Errors: MEMORY. */
int pdt_nn_note_back(int64_t n, const pdt_real *pooled, const pdt_nn_note_pass *pass,
                     const pdt_real *dnote, pdt_real *dpooled, pdt_arena *arena, pdt_error *err);

typedef struct pdt_nn_coverage_pass {
  pdt_real *embedded; /* [plans S, de] */
  pdt_real *item;     /* [plans S, dc] */
  pdt_real *block;    /* [Nb, dc] */
  pdt_real *logits;   /* [Nb, S], 0 for empty slots */
} pdt_nn_coverage_pass;

/* Coverage logits (eq. 9). Errors: MEMORY. */
int pdt_nn_coverage(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks, const pdt_nn_plans *plans,
                    const pdt_real *pooled, pdt_nn_coverage_pass *pass, pdt_arena *arena,
                    pdt_error *err);
/* From dlogits [Nb, S], whose elements at empty slots are not looked at. Errors: MEMORY. */
int pdt_nn_coverage_back(const pdt_nn_sidecar *s, const pdt_nn_blocks *blocks,
                         const pdt_nn_plans *plans, const pdt_real *pooled,
                         const pdt_nn_coverage_pass *pass, const pdt_real *dlogits,
                         pdt_real *dpooled, pdt_arena *arena, pdt_error *err);

/* What readiness is computed from, and where its gradients go. windows: one a block, over `notes`
 * [n_notes, dn]; their row ranges are not looked at. */
typedef struct pdt_nn_agree_input {
  const pdt_nn_blocks *blocks;
  const pdt_nn_plans *plans;
  const pdt_nn_windows *windows;
  const pdt_real *states, *pooled, *note, *coverage; /* [R, d], [Nb, p], [Nb, dn], [Nb, S] */
  const pdt_real *notes;
  int32_t n_notes;
  pdt_real *dstates, *dpooled, *dnote, *dcoverage, *dnotes;
} pdt_nn_agree_input;

typedef struct pdt_nn_agree_pass {
  int32_t *last;                 /* [Nb] row of each block's last state */
  int32_t *each;                 /* [Nb + 1] 0, 1, 2 ..: a window has one row, its block */
  pdt_real *state;               /* [Nb, d] */
  pdt_real *covered;             /* [Nb, S] sigmoid of coverage, 0 for empty slots */
  pdt_real *query, *key, *value; /* [Nb, da], [n_notes, da] twice */
  pdt_real *context;             /* [Nb, da] */
  pdt_real *sum, *active;        /* [Nb, da] */
  pdt_real *logits;              /* [Nb] readiness before the sigmoid */
} pdt_nn_agree_pass;

/* Readiness (eq. 10) before its sigmoid. Errors: MEMORY. */
int pdt_nn_agree(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in, pdt_nn_agree_pass *pass,
                 pdt_arena *arena, pdt_error *err);
/* From dlogits [Nb]. Errors: MEMORY. */
int pdt_nn_agree_back(const pdt_nn_sidecar *s, const pdt_nn_agree_input *in,
                      const pdt_nn_agree_pass *pass, const pdt_real *dlogits, pdt_arena *arena,
                      pdt_error *err);

#endif
