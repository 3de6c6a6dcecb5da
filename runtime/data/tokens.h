/* Places of tokens in texts. */
#ifndef PDT_DATA_TOKENS_H
#define PDT_DATA_TOKENS_H

#include "data/blocks.h"
#include "text/context.h"

/* Where the tokens of `text` end, when it follows `prefix` as a stream's output does, and that goes
 * on with `after`, the prompt (NULL: it stands alone): the ids of both together begin with those of
 * the prefix. A character that is spread over tokens belongs to the one that completes it. *out is
 * freed by the caller (ends). ids (may be NULL): also the ids, freed by the caller. Errors: INPUT
 * when a token spans prefix and text, or the tokens' text is not the text; those of
 * pdt_tokenizer_encode. */
int pdt_data_tokenize(const pdt_tokenizer *tokenizer, const pdt_text_context *after,
                      const char *prefix, const char *text, pdt_data_tokens *out, pdt_token **ids,
                      pdt_error *err);

/* All sections of an entry behind its prompt, one after another: *out is an array of n_sections,
 * freed by pdt_data_tokens_free. */
int pdt_data_tokenize_entry(const pdt_tokenizer *tokenizer, const pdt_data_entry *e,
                            pdt_data_tokens **out, pdt_error *err);
void pdt_data_tokens_free(pdt_data_tokens *tokens, int32_t n);

#endif
