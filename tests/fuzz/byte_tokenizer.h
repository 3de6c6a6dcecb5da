/* A small tokenizer for fuzz targets that need texts to become tokens. */
#ifndef PDT_FUZZ_BYTE_TOKENIZER_H
#define PDT_FUZZ_BYTE_TOKENIZER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

/* Knows a, b, ab, and as its last id, which may lie behind the model's vocabulary, z. Freed by the
 * caller. */
static inline pdt_tokenizer *byte_tokenizer(int last_id) {
  char text[512];
  pdt_tokenizer *tokenizer;
  snprintf(text, sizeof text,
           "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
           "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\","
           "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"z\":%d},\"merges\":[\"a b\"]}}",
           last_id);
  if (pdt_tokenizer_parse(&tokenizer, text, strlen(text), "fuzz", NULL)) abort();
  return tokenizer;
}

#endif
