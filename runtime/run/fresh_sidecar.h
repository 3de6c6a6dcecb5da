/* A sidecar that has not been trained, for a model. */
#ifndef PDT_RUN_FRESH_SIDECAR_H
#define PDT_RUN_FRESH_SIDECAR_H

#include "sidecar/init.h"

/* What it is made with. Of the config, what the model says is left open: the width and the
 * instrumented layers; and a window or a horizon of 0 means the usual one. */
typedef struct pdt_fresh_sidecar {
  const char *model;  /* directory */
  const char *out;    /* file */
  const char *layers; /* "8,10,12": those that are instrumented; NULL: four of the upper half */
  bool gate_given;    /* else gates of a random sidecar are at 0 */
  bool overwrite;
  pdt_sidecar_config config; /* becomes complete; freed by the caller */
  pdt_sidecar_init_options init;
} pdt_fresh_sidecar;

/* Completes the config, writes the sidecar, and says on standard output how much it is. Errors:
 * USAGE (a horizon or layers that cannot be; a file that is there), INPUT, IO, MEMORY. */
int pdt_fresh_sidecar_write(pdt_fresh_sidecar *sidecar, pdt_error *err);

#endif
