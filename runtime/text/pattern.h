/* Patterns as Oniguruma reads them (Ruby's syntax), rewritten as PCRE2 reads them. */
#ifndef PDT_TEXT_PATTERN_H
#define PDT_TEXT_PATTERN_H

#include "base/buffer.h"

/* Appends to `out` a pattern for PCRE2 with UTF, UCP and MULTILINE that matches what `pattern` does
 * in Oniguruma: white space, word characters and scripts are spelled out, \h is a hexadecimal
 * digit,
 * (?m) lets a dot match a newline, an interval's + repeats it, nested sets are joined. Errors:
 * INPUT for constructs it does not know (back-references, set intersection, subroutines, comments,
 * ...), named with the character where they stand; MEMORY. */
int pdt_pattern_translate(pdt_buffer *out, const char *pattern, size_t bytes, const char *where,
                          pdt_error *err);

#endif
