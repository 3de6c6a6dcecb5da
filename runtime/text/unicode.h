/* The properties of characters that tokenizers ask for.
 *
 * tokenizer.json means what Hugging Face's `tokenizers` does, and that library takes its tables
 * from several places, each of another version of Unicode: regular expressions from 16, numbers and
 * lowercase from 17, normal forms from 9, punctuation from 8. The libraries here (utf8proc, PCRE2)
 * are of 14 or 15 or later. The tables in unicode.c hold the differences. */
#ifndef PDT_TEXT_UNICODE_H
#define PDT_TEXT_UNICODE_H

#include "base/buffer.h"
#include "base/utf8.h"

/* Properties. Pure. */
bool pdt_is_white_space(int32_t c);    /* White_Space */
bool pdt_is_numeric(int32_t c);        /* general category N */
bool pdt_is_punctuation(int32_t c);    /* P, or ASCII that is no letter, digit, space, control */
bool pdt_is_combining_mark(int32_t c); /* M */

/* Lowercase of one character alone: 1 or 2 characters in out; returns how many. */
int pdt_lowercase(int32_t c, int32_t out[2]);

/* A character that older tables know, with the same general category, the same script where there
 * is one, and as long in UTF-8, to stand for one that was assigned in Unicode 15 or 16 (of those
 * the nearest); c itself otherwise. */
int32_t pdt_stand_in(int32_t c);

/* The byte-level alphabet of GPT-2: every byte a printable character. Back: -1 for a character that
 * is not in it. */
int32_t pdt_byte_to_char(unsigned char byte);
int pdt_char_to_byte(int32_t c);

typedef enum pdt_normal_form { PDT_NFC, PDT_NFD, PDT_NFKC, PDT_NFKD } pdt_normal_form;

/* Appends a normal form of valid UTF-8 to `out`. *leading, a number of bytes at the start of the
 * text (whole characters), becomes the number of bytes of the result that Hugging Face's library
 * says stem from them. Errors: MEMORY, INPUT (2 GiB or more). */
int pdt_normalize(pdt_normal_form form, const char *text, size_t bytes, size_t *leading,
                  pdt_buffer *out, pdt_error *err);

#endif
