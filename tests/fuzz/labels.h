/* Entries labelled as if tokens were three bytes each: what every label promises. */
#ifndef PDT_FUZZ_LABELS_H
#define PDT_FUZZ_LABELS_H

#include <stdlib.h>
#include <string.h>

#include "data/blocks.h"

static void label_by_bytes(pdt_data_entry *e, const pdt_data_rounds *rounds) {
  pdt_data_tokens tokens[PDT_DATA_SECTIONS] = {{0}};
  pdt_data_shape shape;
  pdt_error err = {0};
  for (int32_t k = 0; k < e->n_sections; k++) {
    int32_t length = (int32_t)strlen(e->sections[k].text);
    tokens[k].n = (length + 2) / 3;
    tokens[k].ends = calloc((size_t)tokens[k].n + 1, sizeof *tokens[k].ends);
    if (!tokens[k].ends) abort();
    for (int32_t i = 0; i < tokens[k].n; i++)
      tokens[k].ends[i] = 3 * i + 3 < length ? 3 * i + 3 : length;
  }
  if (pdt_data_label(e, tokens, rounds, &err) || pdt_data_shape_of(e, rounds, &shape, &err))
    abort();
  if (shape.crowded > shape.blocks || shape.unseen > shape.uses) abort();
  for (int32_t k = 0; k < e->n_sections; k++) free(tokens[k].ends);
}

#endif
