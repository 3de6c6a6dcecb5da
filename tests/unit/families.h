/* The recorded tokenizers of tests/data/tokenizers, by the family they are like. */
#ifndef PDT_TESTS_FAMILIES_H
#define PDT_TESTS_FAMILIES_H

#include <stdio.h>

#include "text/tokenizer.h"

#define FOLDER "tests/data/tokenizers/"

/* Fails the test where it cannot be loaded; freed by the caller. */
static inline pdt_tokenizer *load(const char *family) {
  char path[256];
  pdt_error err = {0};
  pdt_tokenizer *t;
  snprintf(path, sizeof path, FOLDER "%s/tokenizer.json", family);
  if (pdt_tokenizer_load(&t, path, &err)) fail_msg("%s", err.message);
  return t;
}

#endif
