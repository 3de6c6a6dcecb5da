/* One entry of training or test data, as a line of a data file says it
 * (tests/data/atlas/FORMAT.md): a prompt, sections that streams write at the same time, the facts
 * they share, the plan, and what every block of tau tokens does with them. */
#ifndef PDT_DATA_ENTRY_H
#define PDT_DATA_ENTRY_H

#include "base/error.h"
#include "base/types.h"

enum {
  PDT_DATA_FACTS = 64,    /* most facts of an entry: sets of them are bits of a word */
  PDT_DATA_SLOTS = 64,    /* most plan items */
  PDT_DATA_SECTIONS = 64, /* most sections, one a stream */
};

/* What a sentence does with its fact. */
typedef enum pdt_mention_kind {
  PDT_STATES,
  PDT_USES,
  PDT_MISREADS, /* uses it by a name that is not its own */
} pdt_mention_kind;

/* "states", "uses" or "misreads". */
const char *pdt_mention_kind_name(pdt_mention_kind kind);
bool pdt_mention_kind_parse(const char *name, pdt_mention_kind *out);

/* A fact's name in a section's text, or what stands in its place. */
typedef struct pdt_data_mention {
  int32_t fact; /* index into the entry's facts */
  pdt_mention_kind kind;
  int32_t begin, end; /* bytes of the text, the space before the name not included */
} pdt_data_mention;

/* A block: tau steps of a stream, step u reading token u - 1 of its output (the last one of its
 * prefix for u = 0) and emitting token u. Sets are masks of bits. */
typedef struct pdt_data_block {
  uint64_t stated;   /* facts whose statement's last token the block reads */
  uint64_t used;     /* facts of other streams of whose name it emits a token */
  uint64_t misread;  /* facts of whose wrong name it emits a token */
  uint64_t coverage; /* plan slots it covers: the targets of the coverage head */
  bool ready;        /* nothing is misread, and all of `used` was visible in its window */
  int64_t note;      /* row of the teacher's note in the side file; -1 without */
} pdt_data_block;

typedef struct pdt_data_section {
  char *name;
  char *prefix;     /* what the stream reads after the prompt */
  char *text;       /* what it writes, the end-of-text token not included */
  int32_t n_tokens; /* of the text with its end-of-text token */
  int32_t n_mentions, n_blocks;
  pdt_data_mention *mentions; /* by place */
  pdt_data_block *blocks;     /* ceil(n_tokens / tau) */
} pdt_data_section;

typedef struct pdt_data_fact {
  char *type, *value;
  bool any;          /* the value is any word, and not one of `type` */
  pdt_stream stream; /* whose section states it */
} pdt_data_fact;

typedef struct pdt_data_plan_item {
  pdt_stream stream;
  char *text;
  int32_t id; /* pdt_plan_hash of both */
} pdt_data_plan_item;

/* Owns everything in it. A zeroed one is empty. */
typedef struct pdt_data_entry {
  char *id, *prompt;
  int32_t n_sections, n_facts, n_plan;
  pdt_data_section *sections;
  pdt_data_fact *facts;
  pdt_data_plan_item *plan; /* slot i */
} pdt_data_entry;

/* Frees what the entry owns; it is then empty. */
void pdt_data_entry_free(pdt_data_entry *e);

/* A copy of a string, freed by the caller. Errors: MEMORY. */
int pdt_data_copy(char **out, const char *text, pdt_error *err);

#endif
