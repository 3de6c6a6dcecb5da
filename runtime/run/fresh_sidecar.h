/* A sidecar that has not been trained, for a model. */
#ifndef PDT_RUN_FRESH_SIDECAR_H
#define PDT_RUN_FRESH_SIDECAR_H

#include "sidecar/init.h"

/* What it is made with. Of the config, what the model says is left open: the width and the
 * instrumented layers; and a window or a horizon of 0 means the usual one. */
typedef struct pdt_fresh_sidecar {
  const char *model;      /* directory */
  const char *out;        /* file */
  const char *layers;     /* "8,10,12": those that are instrumented; NULL: four of the upper half */
  const char *scale_text; /* file with text on which their scales are measured; NULL: all 1 */
  int32_t read_codes; /* layers, the last ones, whose SNC begins with reading the teacher's codes */
  int32_t pool_layer; /* whose output the pool reads; -1: the final states */
  bool gate_given;    /* else gates of a random sidecar are at 0 */
  bool overwrite;
  pdt_sidecar_config config; /* becomes complete; freed by the caller */
  pdt_sidecar_init_options init;
} pdt_fresh_sidecar;

/* Completes the config (with scale_text by running the model over the text's first 512 tokens, in
 * float), writes the sidecar, and says on standard output how much it is. Errors: USAGE (a horizon
 * or layers that cannot be; a file that is there), INPUT, IO, MEMORY. */
int pdt_fresh_sidecar_write(pdt_fresh_sidecar *sidecar, pdt_error *err);

#endif
