/* The plan of an entry before it is text: what its sections say, sentence by sentence (private to
 * runtime/atlas). */
#ifndef PDT_ATLAS_DRAFT_H
#define PDT_ATLAS_DRAFT_H

#include "atlas/any_words.h"
#include "atlas/generate.h"

enum {
  PDT_DRAFT_FACTS = 2 * PDT_ATLAS_SECTIONS,
  PDT_DRAFT_USES = 4,                     /* most of a section */
  PDT_DRAFT_PENDING = 4 + PDT_DRAFT_USES, /* two statements, and both again */
  PDT_DRAFT_ITEMS = 20,                   /* most sentences of a section */
  PDT_DRAFT_FILLERS = 10,                 /* of them those that say nothing */
};

/* Numbers by Philox: a counter of (block, entry, attempt, purpose) under the seed. */
typedef struct pdt_draws {
  uint32_t counter[4], key[2], block[4];
  int used; /* of block */
} pdt_draws;

/* A number in [0, n), n >= 1. */
int32_t pdt_draw(pdt_draws *d, int32_t n);

/* A name, and its tokens by the generator's costs. */
typedef struct pdt_draft_name {
  const char *text;
  int32_t tokens;
} pdt_draft_name;

typedef struct pdt_draft_item {
  int32_t fact;          /* -1: says nothing */
  pdt_mention_kind kind; /* of the sentence: states or uses */
  pdt_draft_name name;   /* zeroed: says nothing */
  bool misread;          /* the name is not the fact's */
  int32_t pattern;
  int32_t name_begin, name_end, length; /* tokens, by the generator's costs */
} pdt_draft_item;

typedef struct pdt_draft_section {
  int32_t section;
  int32_t n_pending, n_items, n_fillers;
  pdt_draft_item pending[PDT_DRAFT_PENDING]; /* to be placed */
  pdt_draft_item items[PDT_DRAFT_ITEMS];     /* in order of the text */
  uint32_t fillers_used;                     /* bits of patterns */
  int32_t tokens;
  int32_t clock;     /* tokens, and those it waited for others */
  int32_t last_name; /* where the name of the last statement ended; far below 0 at first */
} pdt_draft_section;

typedef struct pdt_draft {
  const pdt_atlas_world *world;
  const pdt_atlas_pool (*pools)[2]; /* [PDT_ATLAS_TYPES]: names of one token, and the others */
  const int32_t *costs;             /* of words */
  bool hard;                        /* as pdt_atlas_options has it */
  bool tangled;                     /* order and uses are those of a tangled world's hard entries */
  int32_t gap;                      /* default: least tokens between the ends of two statements */
  double any_names;                 /* chance that a fact's name is any word, one of these */
  const pdt_atlas_any *any;
  double again;    /* chance that a section tells a fact of its own again */
  double misreads; /* chance that what a section uses has another's name */
  bool untitled;   /* headings are part of the texts */
  pdt_draws draws;
  int32_t n, n_facts, town, wording;
  int32_t types[PDT_DRAFT_FACTS];    /* facts 2k and 2k + 1 are section k's */
  int32_t values[PDT_DRAFT_FACTS];   /* which of its type's names a fact has; -1: */
  const char *word[PDT_DRAFT_FACTS]; /* this one, which is one token */
  int32_t known_at[PDT_DRAFT_FACTS]; /* clock when a fact stated is taken to be visible; -1 */
  pdt_draft_section sections[PDT_ATLAS_SECTIONS];
} pdt_draft;

/* The name of a fact. Pure. */
pdt_draft_name pdt_draft_name_of(const pdt_draft *d, int32_t fact);

/* Chooses sections, town, facts. */
void pdt_draft_choose(pdt_draft *d, int32_t min_sections, int32_t max_sections);

/* Chooses who uses what and in which words, and puts all of it in order, at least min_tokens a
 * section. False when a section got too long. */
bool pdt_draft_arrange(pdt_draft *d, int32_t min_tokens, int32_t max_tokens);

#endif
