/* Between the files of the tokenizer. */
#ifndef PDT_TEXT_INTERNAL_H
#define PDT_TEXT_INTERNAL_H

#include "text/added.h"
#include "text/tokenizer.h"

/* What other files of a folder add to a tokenizer.json. A zeroed one adds nothing. */
typedef struct pdt_tokenizer_extras {
  pdt_added_spec *tokens; /* [n], to be added in this order, contents borrowed */
  size_t n, room;
  bool split_special; /* special tokens that are spelled out in a text are read as any text is */
} pdt_tokenizer_extras;

/* Builds a tokenizer from the value of a tokenizer.json, called `name` in errors. extras may be
 * NULL; *changed (may be NULL) tells whether they changed anything. Errors: INPUT, MEMORY. */
int pdt_tokenizer_build(pdt_tokenizer **out, const json_t *root, const char *name,
                        const pdt_tokenizer_extras *extras, bool *changed, pdt_error *err);

#endif
