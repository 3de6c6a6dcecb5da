/* A part of Jinja, the language of chat templates: from a text to a tree, and from a tree and
 * variables to a text. It is what jinja2 makes of the text with the settings of transformers
 * (trim_blocks and lstrip_blocks, loop controls, a sandbox in which nothing but a namespace can be
 * changed), and whatever it leaves out is refused by name and line:
 *
 * - statements: for (targets, a filter by `if`, else), if, elif, else, set (names, an attribute of
 *   a namespace, a block), break, continue, macro, generation; comments; - and + beside tags.
 * - expressions: literals, lists, tuples, dicts, names, attributes, subscripts and slices, calls,
 *   + - * / // % ~, comparisons, in, not in, and, or, not, `a if b else c`, filters, tests.
 * - filters: capitalize, count, d, default, first, indent, int, items, join, last, length, list,
 *   lower, map, reject, rejectattr, replace, reverse, select, selectattr, string, tojson, trim,
 *   upper.
 * - tests: those for types and numbers, defined, in, sameas, and comparisons by word or sign.
 * - methods of strings: capitalize, count, endswith, find, join, lower, lstrip, replace, rsplit,
 *   rstrip, split, startswith, strip, title, upper; of dicts: get, items, keys, values.
 * - functions: dict, namespace, raise_exception, range, strftime_now; of a loop: its numbers,
 *   first, last, previtem, nextitem.
 *
 * Lists, dicts and the like are printed by tojson alone; letters beyond ASCII have their case
 * changed by nothing; what map, select and the like go through is made at once, so that what fails
 * in it fails there. A template is a file from outside: nesting, size, memory and work have limits
 * (below), and a template that goes beyond one is refused. */
#ifndef PDT_TEXT_JINJA_JINJA_H
#define PDT_TEXT_JINJA_JINJA_H

#include <jansson.h>
#include <time.h>

#include "base/error.h"
#include "base/types.h"

enum {
  PDT_JINJA_SOURCE_BYTES = 1 << 18, /* of a template */
  PDT_JINJA_NESTING = 100,          /* of statements and parentheses */
  PDT_JINJA_DEPTH = 500,            /* of the tree: terms of a sum are nested to the left */
  PDT_JINJA_CALLS = 1500,           /* parts of the tree, one in the other, over macros */
  PDT_JINJA_MACROS = 20,            /* that call each other */
  PDT_JINJA_DATA_NESTING = 100,     /* of the variables */
  PDT_JINJA_RANGE = 100000,         /* elements of range(), as in jinja2's sandbox */
};

/* A template. Immutable: any number of threads may render one at once. */
typedef struct pdt_jinja pdt_jinja;

/* Parses `bytes` bytes of UTF-8; `name` is what errors call them. Sets *out, freed by
 * pdt_jinja_free. Errors: INPUT, with the line of what is wrong or left out; MEMORY. */
int pdt_jinja_parse(pdt_jinja **out, const char *text, size_t bytes, const char *name,
                    pdt_error *err);
void pdt_jinja_free(pdt_jinja *t);

/* Renders with an object of variables. now (may be NULL: the function is then not defined): what
 * strftime_now tells. Memory taken and work done grow with the bytes of the variables at most
 * linearly, beyond a fixed share. Sets *out, from malloc and zero-terminated, which *bytes does not
 * count. Errors: INPUT, with the line: what the template itself refuses (raise_exception), an
 * operation that cannot be, a limit; MEMORY. */
int pdt_jinja_render(const pdt_jinja *t, const json_t *variables, const struct tm *now, char **out,
                     size_t *bytes, pdt_error *err);

#endif
