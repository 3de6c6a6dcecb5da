/* What coordination buys on data of any kind. */
#ifndef PDT_RUN_SCORE_H
#define PDT_RUN_SCORE_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_score_options {
  const char *model, *sidecar, *data;
  int64_t count; /* most entries */
  int64_t threads;
  bool json;
} pdt_score_options;

/* Reads everything and prints a table, or JSON, on standard output; progress on a terminal. `name`
 * is what messages call the program. Errors: INPUT, IO, MEMORY. */
int pdt_score_report(const char *name, const pdt_score_options *options, pdt_error *err);

#endif
