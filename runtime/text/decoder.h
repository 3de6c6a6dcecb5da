/* The "decoder" of tokenizer.json: from token strings back to text, as they come. */
#ifndef PDT_TEXT_DECODER_H
#define PDT_TEXT_DECODER_H

#include "base/buffer.h"
#include "base/json.h"

/* The steps. Immutable once loaded. */
typedef struct pdt_decoder pdt_decoder;

/* Reads the value of "decoder"; null gives one that puts a space between tokens. Knows Sequence,
 * ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace. Errors: INPUT (others, by name),
 * MEMORY.
 */
int pdt_decoder_load(pdt_decoder **out, const json_t *value, const char *where, pdt_error *err);

void pdt_decoder_free(pdt_decoder *d);

/* One text in the making. */
typedef struct pdt_decoding pdt_decoding;

/* Starts a text. The decoder must outlive it. Errors: MEMORY. */
int pdt_decoding_new(pdt_decoding **out, const pdt_decoder *d, pdt_error *err);

void pdt_decoding_free(pdt_decoding *d);

/* Takes the next token and appends to `out` what no later token can change: what ends inside a
 * character, a run of byte tokens, or what a step needs the whole text for, is held back. What is
 * appended is whole characters. Errors: INPUT (a pattern beyond its limits), MEMORY. */
int pdt_decoding_push(pdt_decoding *d, const char *token, size_t bytes, pdt_buffer *out,
                      pdt_error *err);

/* Ends the text: appends what was held back. Errors: as above. */
int pdt_decoding_finish(pdt_decoding *d, pdt_buffer *out, pdt_error *err);

#endif
