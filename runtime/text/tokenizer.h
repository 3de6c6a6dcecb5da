/* Text to ids and back, by a Hugging Face tokenizer.json with a BPE model: byte-level (GPT-2, Llama
 * 3, Qwen, SmolLM2) or with byte fallback (Llama 2). Ids and text are those of Hugging Face's
 * `tokenizers`, its truncation and padding aside, which are not applied. What a file asks for and
 * this does not know is refused by name. Nothing here is collective. */
#ifndef PDT_TEXT_TOKENIZER_H
#define PDT_TEXT_TOKENIZER_H

#include "base/error.h"
#include "base/types.h"

/* Immutable: any number of threads may use one at once. */
typedef struct pdt_tokenizer pdt_tokenizer;

/* Loads the tokenizer of a model: DIRECTORY/tokenizer.json with the tokens that only
 * tokenizer_config.json, special_tokens_map.json or added_tokens.json beside it know, under the ids
 * that transformers' AutoTokenizer gives them (text/folder.c says how). *fingerprint (may be NULL)
 * is XXH3-64 of tokenizer.json, with those tokens mixed in where they change anything. Of a GGUF
 * file (`directory` is its path) it is the tokenizer in the metadata (gguf_tokenizer.h), whose
 * fingerprint is that of the tokenizer.json that `pdt model convert` writes of it. Sets *out,
 * freed by pdt_tokenizer_free. Errors: IO (a file that is there and cannot be read, a link that
 * leads nowhere), INPUT, MEMORY. */
int pdt_tokenizer_load_folder(pdt_tokenizer **out, const char *directory, uint64_t *fingerprint,
                              pdt_error *err);

/* The same for a model that may have no tokenizer.json, as one that serves requests in ids alone:
 * *out is then NULL. */
int pdt_tokenizer_load_if_any(pdt_tokenizer **out, const char *directory, pdt_error *err);

/* XXH3-64 of a tokenizer.json: which tokenizer a data file's blocks were cut by. Pure. */
uint64_t pdt_tokenizer_fingerprint(const char *text, size_t bytes);

/* The names of those files beside tokenizer.json. */
enum { PDT_TOKEN_FILES = 3 };
extern const char *const pdt_token_files[PDT_TOKEN_FILES];

/* Loads one tokenizer.json of at most 512 MiB, whatever lies beside it. Sets *out, freed by
 * pdt_tokenizer_free. Errors: IO, INPUT, MEMORY. */
int pdt_tokenizer_load(pdt_tokenizer **out, const char *path, pdt_error *err);

/* The same from `bytes` bytes of memory (no terminating zero needed); `name` is what errors call
 * it.
 */
int pdt_tokenizer_parse(pdt_tokenizer **out, const char *json, size_t bytes, const char *name,
                        pdt_error *err);

void pdt_tokenizer_free(pdt_tokenizer *t);

/* 1 + the largest id of the vocabulary and the added tokens. */
int32_t pdt_tokenizer_size(const pdt_tokenizer *t);

/* Encodes `bytes` bytes of UTF-8, zero bytes included; with add_special the post-processor's
 * special tokens are put around them. Special tokens that are spelled out in the text become their
 * ids in any case. Sets *ids (from malloc, never NULL on success) and *n. Errors: INPUT (no UTF-8,
 * with the offset of the first bad byte; a piece too large; a pattern beyond its limits), MEMORY.
 */
int pdt_tokenizer_encode(const pdt_tokenizer *t, const char *text, size_t bytes, bool add_special,
                         pdt_token **ids, int32_t *n, pdt_error *err);

/* The same for text in the middle of a text, as in "in the" behind "Once ": no Prepend, prefix
 * space or mark of Metaspace in front, no Strip on the left, no special tokens around it. `before`
 * is the character before it, which an added token that is a single word may not go on with; -1:
 * not known. What would be merged across the border is not. See text/context.h for texts that are
 * known from their beginning. */
int pdt_tokenizer_encode_middle(const pdt_tokenizer *t, int32_t before, const char *text,
                                size_t bytes, pdt_token **ids, int32_t *n, pdt_error *err);

/* Decodes n ids to UTF-8; ids that there are none of are passed over, special tokens too with
 * skip_special. Sets *text (from malloc, zero-terminated, which *bytes does not count). Errors:
 * INPUT (a pattern beyond its limits), MEMORY. */
int pdt_tokenizer_decode(const pdt_tokenizer *t, const pdt_token *ids, int32_t n, bool skip_special,
                         char **text, size_t *bytes, pdt_error *err);

/* The same for ids that follow the id `before`, whose text is left out: what a decoder does at the
 * start of a text is not done to theirs. Special tokens are passed over. Errors: as above. */
int pdt_tokenizer_decode_after(const pdt_tokenizer *t, pdt_token before, const pdt_token *ids,
                               int32_t n, char **text, size_t *bytes, pdt_error *err);

/* Is this an added token that is special: one that skip_special leaves out? */
bool pdt_tokenizer_is_special(const pdt_tokenizer *t, pdt_token id);

/* The content of an added token, zero-terminated, borrowed; NULL when the id is none. *bytes gets
 * its length. */
const char *pdt_tokenizer_added(const pdt_tokenizer *t, pdt_token id, size_t *bytes);

/* The id of a token by its string, added tokens first; -1 when there is none. */
pdt_token pdt_tokenizer_token_id(const pdt_tokenizer *t, const char *content);

/* The text of ids that come one by one, as for printing while decoding. */
typedef struct pdt_text_stream pdt_text_stream;

/* Starts a text. The tokenizer must outlive it. Sets *out, freed by pdt_text_stream_free. Errors:
 * MEMORY. */
int pdt_text_stream_new(pdt_text_stream **out, const pdt_tokenizer *t, bool skip_special,
                        pdt_error *err);

void pdt_text_stream_free(pdt_text_stream *s);

/* Takes the next id. *text gets what is now final and was not handed out yet: whole characters,
 * often none (a character may be spread over ids, and a run of byte tokens is text only once it has
 * ended). It is zero-terminated, borrowed until the next call. All that pushes and the flush hand
 * out is together what pdt_tokenizer_decode makes of all ids. Errors: as there. */
int pdt_text_stream_push(pdt_text_stream *s, pdt_token id, const char **text, size_t *bytes,
                         pdt_error *err);

/* Ends the text: *text gets the rest of it, borrowed until the next call. The stream then stands at
 * the start of a new text. */
int pdt_text_stream_flush(pdt_text_stream *s, const char **text, size_t *bytes, pdt_error *err);

#endif
