/* The "added_tokens" of tokenizer.json: strings that are found in the text as a whole, before or
 * after it is normalized, and become one id. */
#ifndef PDT_TEXT_ADDED_H
#define PDT_TEXT_ADDED_H

#include "base/json.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/vocabulary.h"

typedef struct pdt_added_token {
  char *content; /* zero-terminated */
  size_t bytes;
  char *normal; /* the content, normalized; NULL when it was never asked for */
  size_t normal_bytes;
  const char *pattern; /* what is looked for: the content, normalized when `normalized` says so */
  size_t pattern_bytes;
  const char *spelling; /* what a decoder is given */
  size_t spelling_bytes;
  size_t order; /* in which they were added */
  pdt_token id;
  bool single_word, lstrip, rstrip, normalized, special;
  bool skipped; /* left out by a decoder that skips special tokens */
} pdt_added_token;

/* A token to add: `bytes` bytes of content, borrowed. */
typedef struct pdt_added_spec {
  const char *content;
  size_t bytes;
  bool single_word, lstrip, rstrip, normalized, special;
} pdt_added_spec;

/* The tokens that are looked for together, by pattern. */
typedef struct pdt_added_set {
  const pdt_added_token **sorted;
  size_t n;
  const pdt_added_token *nothing; /* one of which normalization leaves nothing; NULL without */
} pdt_added_set;

/* Filled by pdt_added_add, immutable once finished. A zeroed one is empty. */
typedef struct pdt_added {
  pdt_added_token *tokens; /* in the order in which they came; once finished, by id */
  size_t n, room;
  bool changed;       /* by a token that was added */
  bool split_special; /* special tokens are not looked for */
  pdt_token next;     /* the id of the next token that has none */
  uint32_t *slots;    /* while they are added: 1 + the index of a content's token, 0 when free */
  uint32_t mask;      /* number of slots - 1 */
  const pdt_added_token **by_content;
  pdt_added_set raw, normalized; /* looked for before and after normalization */
  pdt_regex *word;               /* one word character */
} pdt_added;

/* Starts a list of tokens to add: ids of new tokens go on behind the vocabulary's size and all ids
 * so far. */
void pdt_added_begin(pdt_added *a, const pdt_vocabulary *vocabulary);

/* Adds a token; one without content is passed over. Its id is the one that its content has already,
 * as an added token or in the model's vocabulary, else the next free one. Listed again, a content
 * keeps its id, takes the new flags, and stays special if it ever was. Errors: INPUT (too many),
 * MEMORY. */
int pdt_added_add(pdt_added *a, const pdt_added_spec *spec, const pdt_vocabulary *vocabulary,
                  const pdt_normalizer *normalizer, pdt_error *err);

/* Adds the tokens of "added_tokens" in their order; `array` may be NULL. The ids that the file says
 * are not used, as Hugging Face's library does not. Errors: INPUT, MEMORY. */
int pdt_added_load(pdt_added *a, const json_t *array, const pdt_vocabulary *vocabulary,
                   const pdt_normalizer *normalizer, const char *where, pdt_error *err);

/* Ends adding. Of tokens of one id (in a vocabulary with gaps) the last one stays; of those
 * that are the same in a text, the one with the lowest id is found. Errors: MEMORY. */
int pdt_added_finish(pdt_added *a, const char *where, pdt_error *err);

/* Frees what was added; after an error too. */
void pdt_added_free(pdt_added *a);

/* The token of an id, NULL when it is none of these. */
const pdt_added_token *pdt_added_by_id(const pdt_added *a, pdt_token id);

/* The id of a content, -1 when it is none of these. */
pdt_token pdt_added_id(const pdt_added *a, const char *content, size_t bytes);

/* Appends to `out` the pieces of valid UTF-8: tokens of the set (of those that start first the
 * longest, from left to right; one of which normalization leaves nothing stands between all
 * characters) and the text between them. `origin` is that of the text, and
 * `before` the character before it, -1 without: a token that is a single word does not go on with
 * another. Errors: MEMORY. */
int pdt_added_extract(const pdt_added *a, const pdt_added_set *set, const char *text, size_t bytes,
                      pdt_origin origin, int32_t before, pdt_pieces *out, pdt_error *err);

#endif
