/* Texts to token ids and back, line by line. */
#ifndef PDT_RUN_TOKENIZE_H
#define PDT_RUN_TOKENIZE_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_tokenize_options {
  const char *model; /* directory with tokenizer.json */
  bool decode;       /* from arrays of ids to strings */
  bool no_special;   /* without the special tokens that the post-processor adds */
} pdt_tokenize_options;

/* Turns every JSON value on standard input, one a line, into one on standard output. Errors: those
 * of pdt_tokenizer_load_folder; INPUT naming the line, IO, MEMORY. */
int pdt_tokenize(const pdt_tokenize_options *options, pdt_error *err);

#endif
