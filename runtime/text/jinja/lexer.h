/* From the text of a template to tokens, white space controlled on the way. */
#ifndef PDT_TEXT_JINJA_LEXER_H
#define PDT_TEXT_JINJA_LEXER_H

#include "base/error.h"
#include "text/jinja/arena.h"
#include "text/jinja/value.h"

typedef enum pdt_jinja_token_kind {
  PDT_TOKEN_DATA, /* text between tags, never empty */
  PDT_TOKEN_BLOCK_BEGIN,
  PDT_TOKEN_BLOCK_END,
  PDT_TOKEN_VARIABLE_BEGIN,
  PDT_TOKEN_VARIABLE_END,
  PDT_TOKEN_NAME,
  PDT_TOKEN_STRING, /* its text has no escapes any more */
  PDT_TOKEN_INTEGER,
  PDT_TOKEN_REAL,
  PDT_TOKEN_OPERATOR,
  PDT_TOKEN_END,
} pdt_jinja_token_kind;

typedef struct pdt_jinja_token {
  pdt_jinja_token_kind kind;
  int line;
  pdt_jinja_text text;
  union {
    int64_t integer;
    double real;
  };
} pdt_jinja_token;

typedef struct pdt_jinja_tokens {
  pdt_jinja_token *items; /* [n], the last one an END; freed by the caller */
  size_t n, room;
} pdt_jinja_tokens;

/* Cuts valid UTF-8 into tokens, whose texts lie in it or in the arena. *text changes: line breaks
 * become "\n", and one at its end goes. Errors: INPUT with the line, MEMORY. */
int pdt_jinja_lex(pdt_jinja_tokens *out, char *text, size_t bytes, const char *name,
                  pdt_jinja_arena *arena, pdt_error *err);

#endif
