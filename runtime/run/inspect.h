/* What a file or directory holds: a model, a sidecar, a journal or the output of decoding. */
#ifndef PDT_RUN_INSPECT_H
#define PDT_RUN_INSPECT_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_inspect_options {
  const char *path;
  const char *model; /* directory: what a sidecar must fit, or where answers have their texts from;
                        may be NULL */
  const char *out;   /* of the answers; NULL: standard output */
  bool json;         /* JSON in place of tables */
  bool tensors;      /* list them */
  bool full;         /* read every byte: look for NaN, fingerprint all */
  bool answers;      /* of a journal: what decode would have written, in place of a report */
} pdt_inspect_options;

/* Prints a report on standard output, by what the file begins with and not by its name. What is not
 * sound is shown as far as it can be, and is the error. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_inspect(const pdt_inspect_options *options, pdt_error *err);

#endif
