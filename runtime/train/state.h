/* What training needs to go on where it stopped: one safetensors file, written atomically, with
 * every trained parameter, the optimizer's moments, the step, sums that wait for a report, and what
 * the run was started with.
 * Random numbers and the order of data follow from seed and step alone, so nothing of them is kept.
 */
#ifndef PDT_TRAIN_STATE_H
#define PDT_TRAIN_STATE_H

#include "train/nn/sidecar.h"
#include "train/optimizer.h"

/* What must be the same for a run to be the same. */
typedef struct pdt_train_identity {
  const char *stage;    /* "trunk" */
  const char *settings; /* everything that changes the numbers, as one line of text */
  uint64_t data;        /* the corpus's fingerprint */
} pdt_train_identity;

/* What a run has come to. */
typedef struct pdt_train_run {
  pdt_nn_parameters *parameters;
  pdt_adamw *adamw;
  double *since; /* [n_since]: sums since the last report, so that the next one is of all steps */
  int32_t n_since;
} pdt_train_run;

/* Writes path. Errors: IO, MEMORY; `path` is then as it was. One rank does it. */
int pdt_train_state_write(const char *path, const pdt_train_identity *identity,
                          const pdt_train_run *run, pdt_error *err);

/* Reads it back: values, moments, step, sums. Errors: INPUT when the file is no such state or was
 * made by a run with another identity, naming the difference; IO, MEMORY. */
int pdt_train_state_read(const char *path, const pdt_train_identity *identity,
                         const pdt_train_run *run, pdt_error *err);

/* Writes the parameters alone under their own names, in dtype, with the given metadata. Errors: IO,
 * MEMORY. */
int pdt_train_export(const char *path, const pdt_nn_parameters *p, pdt_dtype dtype,
                     const pdt_metadata *metadata, int32_t n_metadata, pdt_error *err);

/* The same of a sidecar, with its config. */
int pdt_train_export_sidecar(const char *path, const pdt_nn_sidecar *sidecar, pdt_dtype dtype,
                             pdt_error *err);

#endif
