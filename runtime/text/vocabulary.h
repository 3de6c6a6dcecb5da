/* Token strings and their ids. */
#ifndef PDT_TEXT_VOCABULARY_H
#define PDT_TEXT_VOCABULARY_H

#include <jansson.h>

#include "base/buffer.h"

#define PDT_MAX_TOKEN_ID ((pdt_token)(1 << 23)) /* what a file may ask for; tables go by id */

/* A hash table from strings to ids, and a table back. Strings are unique; an id has one string. */
typedef struct pdt_vocabulary {
  char *text; /* all strings, each zero-terminated */
  struct pdt_vocabulary_entry {
    uint32_t at, bytes; /* in text */
    pdt_token id;       /* -1 in a free slot */
  } * slots;
  uint32_t mask;   /* number of slots - 1 */
  uint32_t *by_id; /* slot of an id, UINT32_MAX when it has none; n_ids elements */
  int32_t n_ids;   /* 1 + the largest id */
  int32_t n;       /* number of strings */
} pdt_vocabulary;

/* Fills a zeroed vocabulary from a JSON object of string: id. Errors: INPUT (an id that is no
 * integer from 0 to PDT_MAX_TOKEN_ID, an id twice), MEMORY. Freed by the caller, after an error
 * too. */
int pdt_vocabulary_load(pdt_vocabulary *v, const json_t *object, const char *where, pdt_error *err);

void pdt_vocabulary_free(pdt_vocabulary *v);

/* The id of a string, -1 when it has none. */
pdt_token pdt_vocabulary_id(const pdt_vocabulary *v, const char *text, size_t bytes);

/* The string of an id, zero-terminated, borrowed; NULL when there is none. *bytes gets its length.
 */
const char *pdt_vocabulary_text(const pdt_vocabulary *v, pdt_token id, size_t *bytes);

#endif
