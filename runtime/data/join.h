/* An entry whose sections one stream writes, one after another: what a stream that need not ask its
 * siblings is trained on, to compare with. */
#ifndef PDT_DATA_JOIN_H
#define PDT_DATA_JOIN_H

#include "data/blocks.h"
#include "text/tokenizer.h"

/* Makes one section of all: its prefix is empty, its text every section's prefix and text in their
 * order; facts are its own, and there is no plan. Blocks are cut anew. Errors: those of
 * pdt_data_tokenize_entry and pdt_data_label; the entry must then be freed. */
int pdt_data_join(pdt_data_entry *e, const pdt_tokenizer *tokenizer, const pdt_data_rounds *rounds,
                  pdt_error *err);

#endif
