/* How likely the tokens of an answer were, as OpenAI's clients read it. In the threads of HTTP
 * alone. */
#ifndef PDT_SERVE_LIKELY_H
#define PDT_SERVE_LIKELY_H

#include <stdio.h>

#include "serve/job.h"
#include "text/tokenizer.h"

/* A token of a stream's part of an answer. */
typedef struct pdt_likely_token {
  const pdt_logprob *logprobs; /* the job's: its own, then those of the likeliest; borrowed */
  pdt_token before;            /* the one before it; -1: it begins a text */
  size_t byte;                 /* of the part's text at which what it writes begins, */
  int64_t character;           /* and, once it has its place in a text, of that one */
} pdt_likely_token;

typedef struct pdt_likely {
  const pdt_job *job;             /* borrowed, as the next one */
  const pdt_tokenizer *tokenizer; /* NULL: tokens have no texts */
  pdt_likely_token *tokens;       /* [n] */
  size_t n, room;
} pdt_likely;

/* Appends tokens [from, to) of stream k's part, whose text begins behind so many characters.
 * Errors: MEMORY, those of pdt_text_stream_push. */
int pdt_likely_add(pdt_likely *l, pdt_stream k, int32_t from, int32_t to, int64_t characters,
                   pdt_error *err);
void pdt_likely_free(pdt_likely *l);

/* Leaves tokens out that begin at that byte of their part or behind it, of those from index
 * `first` on: they are the last of a part. */
void pdt_likely_cut(pdt_likely *l, size_t first, size_t byte);

/* Writes them as an object: lists, or with `chat` one list of objects. False without memory, or
 * where a text cannot be written. */
bool pdt_likely_put(const pdt_likely *l, bool chat, FILE *out);

/* Characters of a text in UTF-8. Pure. */
int64_t pdt_likely_characters(const char *text, size_t bytes);

#endif
