/* What a sidecar was trained with, and settings that were chosen afterwards. */
#ifndef PDT_RUN_DESCRIBE_H
#define PDT_RUN_DESCRIBE_H

#include "base/error.h"
#include "base/types.h"

enum { PDT_DESCRIBE_DATA = 16 }; /* most data files */

typedef struct pdt_describe_options {
  const char *model, *sidecar, *out; /* a directory, two files */
  const char *data[PDT_DESCRIBE_DATA];
  int32_t n_data;     /* 0: what it was trained with stays as it is told */
  const char *stages; /* "0,1,2" */
  bool overwrite;
  double temperature; /* of the rollouts; below 0: not given */
  double gamma;       /* below 0: as it is */
  int32_t part_slots; /* below 0: as it is */
} pdt_describe_options;

/* Writes the sidecar to `out`, its tensors as they were, with what the data files teach and those
 * settings in its config, and says so on standard output. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_describe(const pdt_describe_options *options, pdt_error *err);

#endif
