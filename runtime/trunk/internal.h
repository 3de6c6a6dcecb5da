/* What trunk.c and logits.c share; private to trunk/. */
#ifndef PDT_TRUNK_INTERNAL_H
#define PDT_TRUNK_INTERNAL_H

#include "trunk/trunk.h"

/* Room for one batch. With M rows at most, R of them wanting logits, T ranks, and this rank's share
 * of heads (h, kv), columns (f) and vocabulary (v). */
struct pdt_trunk_scratch {
  pdt_array residual; /* [M, d] own rows */
  pdt_array gathered; /* [M, d] normed rows of the whole group */
  pdt_array qkv;      /* [M, (h + 2 kv) hd] */
  pdt_array attended; /* [M, h hd] */
  pdt_array gate_up;  /* [M, 2 f] */
  pdt_array aside;    /* [M, widest] of products whose rows are a part of qkv's or gate_up's */
  pdt_array partial;  /* [M, d] this rank's part of every row's sum */
  pdt_array received; /* [T, M, d] the other ranks' parts of own rows; T == 1: none */
  pdt_array logits;   /* [R, v] of all rows */
  pdt_array arrived;  /* [R, vocab] logits of own rows as they come in, sender by sender; T == 1:
                         none */
  pdt_array whole;    /* [R, vocab] the same, row by row, and before that what is sent; likewise */
  pdt_batch *batch;
  double *inv_freq;       /* [hd / 2] of the rotary embedding */
  pdt_row_place *places;  /* [M] */
  int32_t *ids, *holders; /* [M] of embedding rows: those this rank holds; who holds own rows */
  pdt_array *parts;       /* [T] */
  pdt_range *vocab;       /* [T] every rank's part of the vocabulary */
  pdt_link_side out, in;  /* of one exchange */
  int64_t *next;          /* [T] */
  int32_t *picked;        /* [R] rows of the batch that are chosen in one way */
  int32_t *counts;        /* [T + 1] how many of them are each rank's, summed up */
  pdt_candidate *best;    /* [R] the best of this rank's logits of every picked row */
  pdt_candidate *best_arrived; /* [T, R] those of own rows, sender by sender */
  pdt_bytes *bytes;            /* [4, T] of an exchange of them */
  pdt_row_draw *draws;         /* [R] of picked own rows */
  pdt_token *tokens;           /* [R] chosen for them */
};

#endif
