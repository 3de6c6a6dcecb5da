/* The tokenizer in a GGUF file's metadata, as the tokenizer.json of the same model would have it.
 */
#ifndef PDT_TEXT_GGUF_TOKENIZER_H
#define PDT_TEXT_GGUF_TOKENIZER_H

#include <jansson.h>

#include "store/gguf.h"

/* Does the file have a tokenizer? */
bool pdt_gguf_has_tokenizer(const pdt_gguf *g);

/* The tokenizer.json in tokenizer.huggingface.json where the file has that, or else one for
 * tokenizer.ggml.model "gpt2" (byte-level BPE, whose `pre` names how texts are split before) or
 * "llama" (SentencePiece's BPE: of neighbors the pair goes first whose union has the highest
 * score). Control tokens are special, user-defined ones are not; bos and eos are put around a text
 * where add_bos_token and add_eos_token say so, or else as the kind has it. Sets *out, dropped by
 * the caller, and *text (may be NULL), freed by the caller: the same as a file would have it.
 * Errors: INPUT, naming a model, a `pre` or an option that is not known; MEMORY. */
int pdt_gguf_tokenizer(json_t **out, char **text, const pdt_gguf *g, pdt_error *err);

/* GGUF's name for the way in which a byte-level tokenizer.json splits texts; NULL when it has none.
 */
const char *pdt_gguf_pre_of(const json_t *tokenizer);

/* Is it SentencePiece's BPE, with bytes for what it does not know? *prefix: a text gets a space in
 * front. */
bool pdt_gguf_is_sentencepiece(const json_t *tokenizer, bool *prefix);

/* tokenizer.ggml.token_type. */
enum {
  PDT_GGUF_TOKEN_NORMAL = 1,
  PDT_GGUF_TOKEN_UNKNOWN,
  PDT_GGUF_TOKEN_CONTROL,
  PDT_GGUF_TOKEN_USER_DEFINED,
  PDT_GGUF_TOKEN_UNUSED,
  PDT_GGUF_TOKEN_BYTE
};

#endif
