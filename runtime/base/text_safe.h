/* Text of others on its way to a person or into JSON. Names, prompts and answers may hold what
 * steers a terminal (escape sequences, of one byte too: U+009B) or makes it show another text than
 * there is (U+202E turns the direction, U+200B is not seen). Everything that is printed goes
 * through here. */
#ifndef PDT_BASE_TEXT_SAFE_H
#define PDT_BASE_TEXT_SAFE_H

#include <jansson.h>
#include <stdio.h>

#include "base/types.h"

/* Names and excerpts in messages and tables: such characters, and bytes that are no UTF-8, are
 * spelled out, as in \x1b, \u202e and \xff; line breaks and tabs too, unless `lines`. */
void pdt_put_escaped(FILE *out, const char *text, size_t bytes, bool lines);

/* A name spelled so, for a place in a table; freed by the caller, NULL without memory. */
char *pdt_escaped(const char *text);

/* Text for a person's terminal: the same characters become U+FFFD, but for line breaks, tabs, and
 * what belongs to the text (joiners, soft hyphens). False when the stream refuses. */
bool pdt_put_shown(FILE *out, const char *text, size_t bytes);

/* One line for a person: printf, escaped as pdt_put_escaped does, and a line break. Written at
 * once. */
void pdt_say(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* json_dumps and json_dumpf (-1: the stream refuses, or there is no memory), with the characters
 * above as \uXXXX: the same value for who reads it. */
char *pdt_json_text(const json_t *json, size_t flags);
int pdt_json_print(const json_t *json, FILE *out, size_t flags);

#endif
