/* Answers from a journal: what decode --out and --json would have written. */
#ifndef PDT_RUN_ANSWERS_H
#define PDT_RUN_ANSWERS_H

#include "base/error.h"
#include "base/types.h"
#include "text/tokenizer.h"

typedef struct pdt_answers_options {
  const char *journal;
  const char *model; /* directory, for texts; NULL: they are left empty */
  const char *out;   /* file; "-": standard output */
  bool json;         /* lines in place of protobuf */
} pdt_answers_options;

/* Writes the records of every session that ended, in the order of requests, and names those that
 * did not end on standard error, as behind a crash: a torn end is no error. Errors: INPUT (a
 * damaged journal, another model than the one it was written with), IO, MEMORY; nothing is then
 * written to a regular file. */
int pdt_answers_write(const pdt_answers_options *options, pdt_error *err);

/* The tokenizer of the model that a journal was written with, whose fingerprint its header has;
 * NULL where that model has none. Sets *tokenizer. Errors: INPUT (another model), IO, MEMORY. */
int pdt_answers_tokenizer(pdt_tokenizer **tokenizer, const char *journal, uint64_t recorded,
                          const char *model, pdt_error *err);

#endif
