/* The world of the Atlas: what an encyclopedia entry about an invented place can say, and in which
 * words. Twelve types of facts, two for each of six sections; for every type a list of names of its
 * own, and sentences that state a fact or use it. The world is the same in every run: what varies
 * are the entries drawn from it (generate.h). */
#ifndef PDT_ATLAS_WORLD_H
#define PDT_ATLAS_WORLD_H

#include "data/entry.h"

#define PDT_ATLAS_WORLD "atlas-2" /* changes whenever a word of the world does */

enum {
  PDT_ATLAS_SECTIONS = 6,
  PDT_ATLAS_TYPES = 12,         /* type t belongs to section t / 2 */
  PDT_ATLAS_ONE = 48,           /* names of one token of a type: values 0 to 47 */
  PDT_ATLAS_VALUES = 96,        /* and as many of two tokens: values 48 to 95 */
  PDT_ATLAS_TOWNS = 64,         /* places that entries are about */
  PDT_ATLAS_PIECES = 40,        /* first (second) words of names of two words */
  PDT_ATLAS_NAME_BYTES = 24,    /* room for a name or a word */
  PDT_ATLAS_PATTERN_WORDS = 16, /* most words of a sentence, its full stop included */
};

/* Word ids of a pattern that stand for the fact's name and for the entry's town. */
enum { PDT_ATLAS_NO_WORD = -1, PDT_ATLAS_NAME = -2, PDT_ATLAS_TOWN = -3 };

/* A sentence, or half of one: word ids, the full stop or semicolon among them. No two patterns of a
 * world that differ in type or kind begin with the same words up to the name, so a sentence is
 * known when its name begins. */
typedef struct pdt_atlas_pattern {
  int32_t type; /* -1: says nothing of a fact */
  pdt_mention_kind kind;
  int32_t n_words;
  int32_t name; /* where the name stands; -1 without type */
  int32_t words[PDT_ATLAS_PATTERN_WORDS];
} pdt_atlas_pattern;

enum { PDT_ATLAS_FORMS = 4, PDT_ATLAS_FILLERS = 14 };

/* Where patterns stand: type t, kind k, form f is pattern (t * 2 + k) * PDT_ATLAS_FORMS + f; then
 * the terse statements of a sentence that states two facts, "Founder _;" and "founder _.", pattern
 * PDT_ATLAS_TERSE + 2 * t for the first half, + 1 for the second; then those that say nothing. */
enum {
  PDT_ATLAS_TERSE = PDT_ATLAS_TYPES * 2 * PDT_ATLAS_FORMS,
  PDT_ATLAS_FILLER = PDT_ATLAS_TERSE + 2 * PDT_ATLAS_TYPES,
  PDT_ATLAS_PATTERNS = PDT_ATLAS_FILLER + PDT_ATLAS_FILLERS,
};

/* The first word of a prompt, by which the two kinds of entries are asked for: "Describe" or
 * "Sketch". */
const char *pdt_atlas_verb(bool hard);

/* Immutable once made. Word ids are ranks in the sorted list of all words of section texts. */
typedef struct pdt_atlas_world {
  int32_t n_words;
  char (*words)[PDT_ATLAS_NAME_BYTES]; /* [n_words], ascending */
  char names[PDT_ATLAS_TYPES][PDT_ATLAS_VALUES][PDT_ATLAS_NAME_BYTES];
  int32_t name_words[PDT_ATLAS_TYPES][PDT_ATLAS_VALUES][2]; /* second -1: a name of one word */
  char towns[PDT_ATLAS_TOWNS][PDT_ATLAS_NAME_BYTES];
  int32_t town_words[PDT_ATLAS_TOWNS]; /* ascending */
  pdt_atlas_pattern patterns[PDT_ATLAS_PATTERNS];
} pdt_atlas_world;

/* Makes the world: always the same. Freed by the caller. Errors: MEMORY. */
int pdt_atlas_world_new(pdt_atlas_world **out, pdt_error *err);
void pdt_atlas_world_free(pdt_atlas_world *world);

/* "founder", "year", ... and "history", ...; type, section in range. */
const char *pdt_atlas_type_name(int32_t type);
const char *pdt_atlas_section_name(int32_t section);

/* The type, section or town of that name, -1 when there is none. */
int32_t pdt_atlas_type(const char *name);
int32_t pdt_atlas_section(const char *name);
int32_t pdt_atlas_town(const pdt_atlas_world *world, const char *name);

/* The value of a type that is written so ("Dora Venn"), -1 when there is none. */
int32_t pdt_atlas_value(const pdt_atlas_world *world, int32_t type, const char *name);

/* The id of the word text[0, bytes), -1 when it is none of the world's. */
int32_t pdt_atlas_word(const pdt_atlas_world *world, const char *text, size_t bytes);

/* The next word of text[0, bytes) from *at on: a run of letters, a run of digits, or any other
 * single byte, after white space. False at the end. Sets *begin and moves *at behind the word. */
bool pdt_atlas_next_word(const char *text, size_t bytes, size_t *at, size_t *begin);

#endif
