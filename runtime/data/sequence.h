/* An entry as one text, written by one hand from beginning to end: what a trunk is trained on. */
#ifndef PDT_DATA_SEQUENCE_H
#define PDT_DATA_SEQUENCE_H

#include "base/buffer.h"
#include "data/entry.h"
#include "text/tokenizer.h"

/* How much the prediction of a token counts; 1 for tokens that belong to no name. */
typedef struct pdt_sequence_weights {
  double first; /* of a fact's first name in the text: nothing tells it, it is noise */
  double later; /* of its later names, which can be copied */
} pdt_sequence_weights;

/* 0.3 and 3: without them, copying is learned late or never. */
pdt_sequence_weights pdt_sequence_weights_default(void);

/* Appends a line {"ids": [...], "weights": [...]} to `out`, as pdt_corpus_load reads it: the prompt
 * with the tokenizer's special tokens; for every section, in the order order[n_sections], prefix,
 * text and the token `end`; then the token `eos`. Errors: those of pdt_data_tokenize; MEMORY. */
int pdt_sequence_put(const pdt_data_entry *e, const pdt_tokenizer *tokenizer, const int32_t *order,
                     pdt_token end, pdt_token eos, const pdt_sequence_weights *weights,
                     pdt_buffer *out, pdt_error *err);

/* The order of an entry's sections in its text: as in the prompt for one entry in two, else a
 * permutation drawn by seed and index, so that a section is known without those before it. Pure. */
void pdt_sequence_order(uint64_t seed, uint32_t index, int32_t n, int32_t *order);

#endif
