/* The page of a finished run, in one file: what pdt serve shows of a run that goes on. */
#ifndef PDT_RUN_VIEW_H
#define PDT_RUN_VIEW_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_view_options {
  const char *path;  /* a journal, or a trace of pdt decode */
  const char *out;   /* file; "-": standard output */
  const char *model; /* whose tokenizer makes the texts; NULL: token ids stand in their place */
  double gamma;      /* of a trace, which does not tell it; negative: not given */
  int64_t request;   /* its alone; -1: all */
} pdt_view_options;

/* Writes the page. A session without an end is shown as far as it goes, and a torn end of a journal
 * is no error. Errors: USAGE, INPUT (damaged, neither of the two, another model's), IO, MEMORY;
 * nothing is then written to a regular file. */
int pdt_view(const pdt_view_options *options, pdt_error *err);

#endif
