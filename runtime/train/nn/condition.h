/* Speculative note conditioning and stream adapters inside the trunk (3.1, 3.5), over a batch of
 * sequences of which some rows are conditioned. */
#ifndef PDT_TRAIN_NN_CONDITION_H
#define PDT_TRAIN_NN_CONDITION_H

#include "train/nn/sidecar.h"
#include "train/nn/trunk.h"

/* Which rows of a batch are conditioned, by what. */
typedef struct pdt_nn_conditioning {
  int32_t n_rows;
  const int32_t *rows;          /* [n_rows] rows of the batch, ascending */
  int32_t n_runs;               /* runs of conditioned rows of one stream */
  const int32_t *run_begin;     /* [n_runs+1] over conditioned rows, ascending from 0 */
  const pdt_stream *run_stream; /* [n_runs] */
  pdt_nn_windows windows;       /* over conditioned rows, on the notes of the pass */
  int32_t n_notes;
} pdt_nn_conditioning;

/* One pass of it: hooks for pdt_nn_trunk_forward and what their backward needs. Backward adds to
 * dnotes, [n_notes, dn], unless it is NULL. */
typedef struct pdt_nn_condition {
  const pdt_nn_sidecar *sidecar;
  const pdt_nn_conditioning *what;
  const pdt_real *notes; /* [n_notes, dn] */
  pdt_real *dnotes;
  pdt_arena *arena;
  struct pdt_nn_conditioned *saved; /* [n_instrumented] */
  pdt_nn_hooks hooks;               /* of this very object: it must not move */
} pdt_nn_condition;

/* Borrows its arguments for the time of the pass. Errors: MEMORY. */
int pdt_nn_condition_begin(pdt_nn_condition *c, const pdt_nn_sidecar *sidecar,
                           const pdt_nn_conditioning *what, const pdt_real *notes, pdt_arena *arena,
                           pdt_error *err);

#endif
