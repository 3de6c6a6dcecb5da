/* SentencePiece's BPE as a list of merges. */
#ifndef PDT_TEXT_GGUF_MERGES_H
#define PDT_TEXT_GGUF_MERGES_H

#include <jansson.h>

#include "store/gguf.h"

/* Pieces by id, all borrowed. */
typedef struct pdt_gguf_pieces {
  const pdt_gguf_text *tokens; /* [n] of UTF-8 */
  const int32_t *types;        /* [n], as in gguf_tokenizer.h; NULL: all are normal */
  const float *scores;         /* [n] */
  size_t n;
  const json_t *ids; /* {token: id} */
  const char *where; /* for errors */
} pdt_gguf_pieces;

/* All ways to put a normal or user-defined piece together of two, ["a", "b"], by falling scores of
 * what they make, those of one piece by the ids of their parts: the merges that Hugging Face's
 * converter makes of SentencePiece's scores. Sets *out, dropped by the caller. Errors: INPUT (a
 * score that is no number, a piece that is too long), MEMORY. */
int pdt_gguf_merges(json_t **out, const pdt_gguf_pieces *p, pdt_error *err);

#endif
