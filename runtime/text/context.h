/* A text whose continuations are read: the prompt of several sections. */
#ifndef PDT_TEXT_CONTEXT_H
#define PDT_TEXT_CONTEXT_H

#include "text/tokenizer.h"

/* Immutable: any number of threads may read with one at once. */
typedef struct pdt_text_context pdt_text_context;

/* A context of `bytes` bytes of text. The tokenizer must outlive it, the text need not. Sets *out,
 * freed by pdt_text_context_free. Takes about three times as long as encoding the text. Errors:
 * those of pdt_tokenizer_encode. */
int pdt_text_context_new(pdt_text_context **out, const pdt_tokenizer *t, const char *text,
                         size_t bytes, pdt_error *err);

/* A context that is known by its n ids only. Those of an empty text with its special tokens are an
 * empty text, and behind an added token a text is read as behind that token's content. Otherwise
 * every text is read as in the middle of a text. Errors: as above. */
int pdt_text_context_from_ids(pdt_text_context **out, const pdt_tokenizer *t, const pdt_token *ids,
                              int32_t n, pdt_error *err);

void pdt_text_context_free(pdt_text_context *c);

/* Encodes a text that goes on with the context, as if the two were one: *ids are those of the
 * joined text behind those of the context. Where a token of the joined text spans the border (its
 * ids do not begin with the context's), the text is read as in the middle of a text
 * (pdt_tokenizer_encode_middle). No special tokens are put around it. Time goes with the length of
 * the text, not of the context, whenever the context has a space or line break between words, or a
 * stop between ideographs, some kilobytes before its end. Sets *ids and *n as pdt_tokenizer_encode
 * does. Errors: as there. */
int pdt_text_context_encode(const pdt_text_context *c, const char *text, size_t bytes,
                            pdt_token **ids, int32_t *n, pdt_error *err);

/* The last id of the context's text; -1 when the text is empty or not known. */
pdt_token pdt_text_context_last(const pdt_text_context *c);

#endif
