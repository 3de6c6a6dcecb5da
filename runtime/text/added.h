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
  char *pattern; /* what is looked for: the content, normalized when `normalized` says so */
  size_t pattern_bytes;
  pdt_token id;
  bool single_word, lstrip, rstrip, normalized, special;
  bool skipped; /* left out by a decoder that skips special tokens */
} pdt_added_token;

/* The tokens that are looked for together, by pattern. */
typedef struct pdt_added_set {
  const pdt_added_token **sorted;
  size_t n;
} pdt_added_set;

/* Immutable once loaded. */
typedef struct pdt_added {
  pdt_added_token *tokens; /* by id */
  size_t n;
  const pdt_added_token **by_content;
  pdt_added_set raw, normalized; /* looked for before and after normalization */
  pdt_regex *word;               /* one word character */
} pdt_added;

/* Fills a zeroed pdt_added from the value of "added_tokens", which may be NULL. A token's id is
 * that of the model's vocabulary or, for those it lacks, the next after the vocabulary's size, in
 * the order of the file, whatever id the file says. Errors: INPUT (the same content, pattern or id
 * twice), MEMORY. Freed by the caller, after an error too. */
int pdt_added_load(pdt_added *a, const json_t *array, const pdt_vocabulary *vocabulary,
                   const pdt_normalizer *normalizer, const char *where, pdt_error *err);

void pdt_added_free(pdt_added *a);

/* The token of an id, NULL when it is none of these. */
const pdt_added_token *pdt_added_by_id(const pdt_added *a, pdt_token id);

/* The id of a content, -1 when it is none of these. */
pdt_token pdt_added_id(const pdt_added *a, const char *content, size_t bytes);

/* Appends to `out` the pieces of valid UTF-8: tokens of the set (of those that start first the
 * longest, from left to right) and the text between them. `origin` is that of the text, and
 * `before` the character before it, -1 without: a token that is a single word does not go on with
 * another. Errors: MEMORY. */
int pdt_added_extract(const pdt_added *a, const pdt_added_set *set, const char *text, size_t bytes,
                      pdt_origin origin, int32_t before, pdt_pieces *out, pdt_error *err);

#endif
