/* What do notes carry? Interventions: what is done to notes between the stream that wrote them and
 * its siblings, who read what is left of them. */
#ifndef PDT_EVAL_ALTER_H
#define PDT_EVAL_ALTER_H

#include "eval/rollout.h"

typedef enum pdt_alter_mode {
  PDT_ALTER_NONE,    /* as they were written */
  PDT_ALTER_ZERO,    /* zeroed */
  PDT_ALTER_SIGN,    /* scrambled, norms kept: random signs, */
  PDT_ALTER_PERMUTE, /* a random order of their numbers, */
  PDT_ALTER_ROTATE,  /* a random rotation; each one and the same for a whole run */
  PDT_ALTER_SWAP,    /* those of one stream are the same stream's of another entry */
  PDT_ALTER_ONE, /* one note, which tells a fact, is one of another entry that tells it otherwise */
  PDT_ALTER_MODES
} pdt_alter_mode;

/* "plain", "zero", "sign", "permute", "rotate", "swap", "one"; and back, false when unknown. */
const char *pdt_alter_name(pdt_alter_mode mode);
bool pdt_alter_parse(const char *name, pdt_alter_mode *out);

/* Is it one that takes notes of another entry? */
bool pdt_alter_borrows(pdt_alter_mode mode);

/* ---- zeroed and scrambled ---- */

/* What such a mode makes of a note: a matrix, that of 0 or an orthogonal one. */
typedef struct pdt_scramble {
  int32_t dim;
  float *matrix; /* [dim, dim] */
} pdt_scramble;

/* Of a mode that does not borrow; the same for a seed on every machine. Freed by the caller, after
 * an error too. Errors: MEMORY. */
int pdt_scramble_new(pdt_scramble *s, pdt_alter_mode mode, int32_t dim, uint64_t seed,
                     pdt_error *err);
void pdt_scramble_free(pdt_scramble *s);

/* out[dim], which must not be the note, becomes what is left of note[dim]. Pure. */
void pdt_scramble_note(const pdt_scramble *s, const float *note, float *out);

/* ---- borrowed ---- */

/* What an entry's streams state of their own facts, and where. Streams of the entry that takes no
 * part state nothing. */
typedef struct pdt_alter_facts {
  int32_t value[PDT_ATLAS_TYPES]; /* the first there; -1: none, or no listed name */
  int32_t block[PDT_ATLAS_TYPES]; /* of the stream's, from 0: the one that tells it */
} pdt_alter_facts;

/* Nothing stated. */
pdt_alter_facts pdt_alter_no_facts(void);

/* Of an entry's own text, by its labels. Pure. */
pdt_alter_facts pdt_alter_facts_of_entry(const pdt_atlas_world *world, const pdt_data_entry *e);

/* Adds what stream k's text states, cut into blocks of tau tokens. Pure. */
void pdt_alter_add_facts(pdt_alter_facts *facts, const pdt_rollout_owners *owners, pdt_stream k,
                         const pdt_rollout_text *text, int32_t tau);

/* Entries as pairs are made of them. */
typedef struct pdt_alter_entries {
  int64_t n;
  const pdt_rollout_owners *owners; /* [n] */
  const pdt_alter_facts *facts;     /* [n] */
} pdt_alter_entries;

/* Whose notes take whose place. */
typedef struct pdt_alter_pair {
  int64_t donor;     /* an entry; -1: none would do, and nothing is altered */
  pdt_stream stream; /* of both entries, where it writes the same section */
  uint32_t types;    /* of the facts that the notes tell, each otherwise than their own */
} pdt_alter_pair;

/* For entry i: stream and facts by the seed, then the next entry that will do. Pure. */
pdt_alter_pair pdt_alter_pair_of(const pdt_alter_entries *entries, int64_t i, pdt_alter_mode mode,
                                 uint64_t seed);

#endif
