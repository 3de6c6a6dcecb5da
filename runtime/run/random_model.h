/* A model directory with random weights. */
#ifndef PDT_RUN_RANDOM_MODEL_H
#define PDT_RUN_RANDOM_MODEL_H

#include "model/random.h"

typedef struct pdt_random_model {
  const char *config, *preset; /* a config.json, or a known shape: one of the two */
  const char *tokenizer;       /* tokenizer.json to copy; NULL: one is made */
  const char *out;             /* directory, made if it is not there */
  pdt_random_options random;
} pdt_random_model;

/* Writes weights, tokenizer and config, and says on standard output how much it is. A directory
 * that has a model already is left as it is; nothing stays of a model that failed. Errors: USAGE,
 * INPUT, IO, MEMORY. */
int pdt_random_model_write(const pdt_random_model *model, pdt_error *err);

#endif
