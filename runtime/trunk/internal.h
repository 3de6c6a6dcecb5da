/* What trunk.c and logits.c share; private to trunk/. */
#ifndef PDT_TRUNK_INTERNAL_H
#define PDT_TRUNK_INTERNAL_H

#include "protocol/sample.h"
#include "trunk/trunk.h"

/* Room for one batch. With M rows at most, R of them wanting logits, T ranks, and this rank's share
 * of heads (h, kv), columns (f) and vocabulary (v). */
struct pdt_trunk_scratch {
  float *residual;  /* [M, d] own rows */
  float *gathered;  /* [M, d] normed rows of the whole group */
  float *qkv;       /* [M, (h + 2 kv) hd] */
  float *attended;  /* [M, h hd] */
  float *gate_up;   /* [M, 2 f] */
  float *partial;   /* [M, d] this rank's part of every row's sum */
  float *received;  /* [T, M, d] the other ranks' parts of own rows; T == 1: none */
  float *rope;      /* [M, 2, hd/2] cosines and sines */
  float *attention; /* [threads, attention_elems] */
  float *logits;    /* [R, v] of all rows */
  float
      *arrived; /* [R, vocab] logits of own rows as they come in, sender by sender; T == 1: none */
  float *whole; /* [R, vocab] the same, row by row; T == 1: none */
  pdt_candidate *best;         /* [R] the best of this rank's logits of every row */
  pdt_candidate *best_arrived; /* [T, R] those of own rows, sender by sender */
  int64_t attention_elems;
  const float **parts;                                    /* [T] */
  pdt_bytes *send_bytes, *send_at, *recv_bytes, *recv_at; /* [T] */
  pdt_bytes *row_bytes;                                   /* [T] */
};

#endif
