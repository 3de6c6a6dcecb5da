/* The worlds of the Atlas: what an encyclopedia entry about an invented place can say, and in which
 * words. Twelve types of facts, two for each of six sections; for every type a list of names of its
 * own, and sentences that state a fact or use it. A world is the same in every run: what varies are
 * the entries drawn from it (generate.h).
 *
 * There are two. That of syllables has invented names and few sentences: a small trunk is trained
 * on it. That of words has common English words for names and more sentences, for trunks that know
 * English already. */
#ifndef PDT_ATLAS_WORLD_H
#define PDT_ATLAS_WORLD_H

#include "data/entry.h"

typedef enum pdt_atlas_kind {
  PDT_ATLAS_SYLLABLES, /* the default */
  PDT_ATLAS_WORDS,
  PDT_ATLAS_KINDS
} pdt_atlas_kind;

/* "atlas-2", "words-1": as the headers of data files say it; "atlas", "words": as --world does. */
const char *pdt_atlas_kind_name(pdt_atlas_kind kind);
const char *pdt_atlas_kind_option(pdt_atlas_kind kind);

/* The world of that name, or of that word of --world; false when there is none. */
bool pdt_atlas_kind_named(const char *name, pdt_atlas_kind *out);
bool pdt_atlas_kind_parse(const char *option, pdt_atlas_kind *out);

enum {
  PDT_ATLAS_SECTIONS = 6,
  PDT_ATLAS_TYPES = 12,         /* type t belongs to section t / 2 */
  PDT_ATLAS_MOST_VALUES = 512,  /* most names of a type */
  PDT_ATLAS_MOST_TOWNS = 256,   /* most places that entries are about */
  PDT_ATLAS_MOST_FORMS = 8,     /* most sentences of a type and kind */
  PDT_ATLAS_MOST_FILLERS = 32,  /* most that say nothing: sets of them are bits of a word */
  PDT_ATLAS_UNLISTED_WORDS = 3, /* most words of a name that no list has */
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

enum {
  PDT_ATLAS_MOST_PATTERNS =
      PDT_ATLAS_TYPES * 2 * (PDT_ATLAS_MOST_FORMS + 1) + PDT_ATLAS_MOST_FILLERS
};

/* The first word of a prompt, by which the two kinds of entries are asked for: "Describe" or
 * "Sketch". */
const char *pdt_atlas_verb(bool hard);

/* Immutable once made. Word ids are ranks in the sorted list of all words of section texts. Names
 * [0, n_ones) of a type are those of one token, in the tokenizers that the world is for; the others
 * are for hard entries. */
typedef struct pdt_atlas_world {
  pdt_atlas_kind kind;
  bool tangled;    /* hard entries also state two facts in one sentence, and wait in circles */
  bool pretrained; /* for trunks that know more words than these: names that their tokenizer cuts to
                      pieces are left out, and names that are not listed are names too */
  int32_t held_out; /* one name in so many is held out of training; 0: none */
  int32_t n_words;
  char (*words)[PDT_ATLAS_NAME_BYTES]; /* [n_words], ascending */
  int32_t n_ones[PDT_ATLAS_TYPES], n_values[PDT_ATLAS_TYPES];
  char names[PDT_ATLAS_TYPES][PDT_ATLAS_MOST_VALUES][PDT_ATLAS_NAME_BYTES];
  int32_t name_words[PDT_ATLAS_TYPES][PDT_ATLAS_MOST_VALUES][2]; /* second -1: of one word */
  int32_t n_towns;
  char towns[PDT_ATLAS_MOST_TOWNS][PDT_ATLAS_NAME_BYTES];
  int32_t town_words[PDT_ATLAS_MOST_TOWNS]; /* ascending */
  /* Type t, kind k, form f is pattern (t * 2 + k) * n_forms + f. In a tangled world follow, from
   * `terse` on, the statements of a sentence that states two facts, "Founder _;" and "founder _.":
   * terse + 2 * t is the first half, + 1 the second. From `filler` on: those that say nothing. */
  int32_t n_forms, n_fillers, terse, filler, n_patterns;
  pdt_atlas_pattern patterns[PDT_ATLAS_MOST_PATTERNS];
} pdt_atlas_world;

/* Makes a world: always the same. Freed by the caller. Errors: MEMORY. */
int pdt_atlas_world_new(pdt_atlas_world **out, pdt_atlas_kind kind, pdt_error *err);
void pdt_atlas_world_free(pdt_atlas_world *world);

/* Is a name held out of training? Pure. */
bool pdt_atlas_is_held_out(const pdt_atlas_world *world, int32_t value);

/* "founder", "year", ... and "history", ...; type, section in range. Sections are those of every
 * world. */
const char *pdt_atlas_type_name(const pdt_atlas_world *world, int32_t type);
const char *pdt_atlas_section_name(int32_t section);

/* "\nHistory:", ...: what stands before a section's text. */
enum { PDT_ATLAS_HEADING_BYTES = PDT_ATLAS_NAME_BYTES + 4 };
void pdt_atlas_heading(int32_t section, char heading[PDT_ATLAS_HEADING_BYTES]);

/* The type, section or town of that name, -1 when there is none. */
int32_t pdt_atlas_type(const pdt_atlas_world *world, const char *name);
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
