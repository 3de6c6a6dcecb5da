/* What the files of sidecar/ share. */
#ifndef PDT_SIDECAR_INTERNAL_H
#define PDT_SIDECAR_INTERNAL_H

#include "sidecar/sidecar.h"

/* Room for one batch of M rows. */
struct pdt_sidecar_scratch {
  pdt_array normed;           /* [M, d] */
  pdt_array query;            /* [M, q] */
  pdt_array context;          /* [M, q] */
  pdt_array delta;            /* [M, d] */
  pdt_array adapted;          /* [M, a + d] */
  pdt_row_condition *rows;    /* [M] */
  int32_t n_rows;             /* that condition the forward pass under way */
  pdt_conditions *conditions; /* the same, as the device has them */
  pdt_array keys, values;     /* [budget, q] of window_project, grown to the largest budget */
  int32_t budget;
};

void pdt_sidecar_scratch_free(pdt_sidecar *s);

#endif
