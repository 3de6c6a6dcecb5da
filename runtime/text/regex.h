/* Regular expressions of tokenizer.json. They are written for Oniguruma and run by PCRE2: what the
 * two read differently is rewritten, and what cannot be is refused by name. */
#ifndef PDT_TEXT_REGEX_H
#define PDT_TEXT_REGEX_H

#include "text/pieces.h"

/* One compiled pattern. Immutable: any number of threads may match with it at once. */
typedef struct pdt_regex pdt_regex;

/* Compiles `pattern`, in Oniguruma's Ruby syntax; or, with literal, text that stands for itself.
 * `where` names it in errors. Errors: INPUT (what PCRE2 says, at which character; or what this
 * translation does not know), MEMORY. */
int pdt_regex_new(pdt_regex **out, const char *pattern, size_t bytes, bool literal,
                  const char *where, pdt_error *err);

/* Compiles a pattern of ours, in PCRE2's syntax. */
int pdt_regex_new_native(pdt_regex **out, const char *pattern, const char *where, pdt_error *err);

void pdt_regex_free(pdt_regex *re);

/* Appends to `cuts` all matches in valid UTF-8, from left to right, and the spans between them. An
 * empty match right behind another match is left out. No cuts for an empty text. Errors: MEMORY;
 * INPUT when the pattern backtracks beyond PCRE2's limits. */
int pdt_regex_cut(const pdt_regex *re, const char *text, size_t bytes, pdt_cuts *cuts,
                  pdt_error *err);

/* Does the pattern match at the very start of the text? Errors as above; the answer is in *out. */
int pdt_regex_matches(const pdt_regex *re, const char *text, size_t bytes, bool *out,
                      pdt_error *err);

#endif
