/* What the files of sidecar/ share. */
#ifndef PDT_SIDECAR_INTERNAL_H
#define PDT_SIDECAR_INTERNAL_H

#include "sidecar/sidecar.h"

/* Room for one batch of M rows. */
struct pdt_sidecar_scratch {
  float *normed;    /* [M, d] */
  float *query;     /* [M, q] */
  float *context;   /* [M, q] */
  float *delta;     /* [M, d] */
  float *hidden;    /* [M, a] */
  int32_t *runs;    /* [M + 1] first rows of runs of one stream */
  float *attention; /* [threads, attention_elems], grown to the largest budget of a window */
  int64_t attention_elems;
  float *projected; /* [budget, q] of window_project, grown likewise */
  int32_t budget;
};

void pdt_sidecar_scratch_free(pdt_sidecar *s);

/* Makes the scratch fit windows of `budget` notes. */
int pdt_sidecar_scratch_fit(pdt_sidecar *s, int32_t budget, pdt_error *err);

/* Floats of one page of a window's kv. */
int64_t pdt_window_page_elems(const pdt_sidecar_config *config);

#endif
