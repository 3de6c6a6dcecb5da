/* Words that any fact may be named by, whatever its type (private to runtime/atlas): those that a
 * tokenizer has whole. Whoever reads names drawn from tens of thousands learns how a note tells a
 * word, where a type's two hundred names can be learned by heart. */
#ifndef PDT_ATLAS_ANY_WORDS_H
#define PDT_ATLAS_ANY_WORDS_H

#include "atlas/world.h"
#include "text/tokenizer.h"

/* Zeroed: none. */
typedef struct pdt_atlas_any {
  char (*words[2])[PDT_ATLAS_NAME_BYTES]; /* in small letters; with a capital one first */
  int32_t n[2];
} pdt_atlas_any;

/* Fills a zeroed *any with the words of three letters or more that are one token behind a space. A
 * tenth of them is held out of training, and so are the world's own names that are: either these
 * alone or the others. Freed by the caller, after an error too. Errors: INPUT (a tokenizer that has
 * too few), MEMORY, those of the tokenizer. */
int pdt_atlas_any_new(pdt_atlas_any *any, const pdt_atlas_world *world,
                      const pdt_tokenizer *tokenizer, bool held_out, pdt_error *err);
void pdt_atlas_any_free(pdt_atlas_any *any);

/* Do names of a type begin with a capital letter? Pure. */
bool pdt_atlas_any_capital(const pdt_atlas_world *world, int32_t type);

/* Can a fact have this name: a word of letters, as the type's begin? Pure. */
bool pdt_atlas_any_is_word(const pdt_atlas_world *world, int32_t type, const char *name);

#endif
