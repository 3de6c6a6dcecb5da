/* The "pre_tokenizer" of tokenizer.json: splits text into pieces, each of which is encoded alone.
 */
#ifndef PDT_TEXT_PRETOKENIZER_H
#define PDT_TEXT_PRETOKENIZER_H

#include "base/json.h"
#include "text/pieces.h"

typedef struct pdt_pretokenizer pdt_pretokenizer;

/* Reads the value of "pre_tokenizer"; null gives one that splits nothing. Knows Sequence, Split,
 * ByteLevel, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation. Errors: INPUT (others, by
 * name), MEMORY. */
int pdt_pretokenizer_load(pdt_pretokenizer **out, const json_t *value, const char *where,
                          pdt_error *err);

void pdt_pretokenizer_free(pdt_pretokenizer *p);

/* Splits every piece of text (added tokens stay) and changes it as ByteLevel and Metaspace do.
 * Errors: INPUT (a pattern beyond its limits), MEMORY. */
int pdt_pretokenizer_apply(const pdt_pretokenizer *p, pdt_pieces *pieces, pdt_error *err);

#endif
