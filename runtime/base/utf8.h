/* UTF-8, character by character. Pure. */
#ifndef PDT_BASE_UTF8_H
#define PDT_BASE_UTF8_H

#include <stddef.h>

#include "base/types.h"

/* Length of the longest prefix of `text` that is valid UTF-8: `bytes` when all of it is. U+0000 is
 * a character as any other. */
size_t pdt_utf8_valid(const char *text, size_t bytes);

/* Is all of it valid UTF-8? */
bool pdt_is_utf8(const char *text, size_t bytes);

/* The character at *at in valid UTF-8, with *at moved behind it. */
int32_t pdt_utf8_next(const char *text, size_t *at);

/* The start of the character that ends before `end` > 0 in valid UTF-8. */
size_t pdt_utf8_back(const char *text, size_t end);

/* Writes a character; returns its length, 1 to 4. */
size_t pdt_utf8_encode(int32_t c, char out[4]);

#endif
