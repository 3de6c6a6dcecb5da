/* The "normalizer" of tokenizer.json: changes to the text before it is split. */
#ifndef PDT_TEXT_NORMALIZER_H
#define PDT_TEXT_NORMALIZER_H

#include "base/json.h"
#include "text/pieces.h"

typedef struct pdt_normalizer pdt_normalizer;

/* Reads the value of "normalizer"; null gives one that changes nothing. Knows Sequence, Prepend,
 * Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, ByteLevel. Errors: INPUT (others,
 * by name), MEMORY. */
int pdt_normalizer_load(pdt_normalizer **out, const json_t *value, const char *where,
                        pdt_error *err);

void pdt_normalizer_free(pdt_normalizer *n);

/* Appends to `out` what becomes of valid UTF-8; *origin, that of the text, becomes that of the
 * result. (Hugging Face's library writes what a Replace inserts at the very start twice, when it
 * matches nothing there; this does not.) Errors: INPUT (a pattern beyond its limits), MEMORY. */
int pdt_normalizer_apply(const pdt_normalizer *n, const char *text, size_t bytes,
                         pdt_origin *origin, pdt_buffer *out, pdt_error *err);

#endif
