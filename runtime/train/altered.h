/* What altered notes do to the prediction of a data file's own text: entries read under the notes
 * that the streams write, as they are and as an intervention leaves them (eval/alter.h). */
#ifndef PDT_TRAIN_ALTERED_H
#define PDT_TRAIN_ALTERED_H

#include "eval/alter.h"
#include "eval/ratio.h"
#include "train/dataset.h"
#include "train/nn/sidecar.h"

/* What is read; everything is borrowed. */
typedef struct pdt_altered_use {
  const pdt_nn_trunk *trunk;
  const pdt_nn_sidecar *sidecar;
  const pdt_dataset *data;
  int64_t n; /* of its first entries, >= 1, complete where they are read */
  const pdt_train_rounds *rounds;
  const pdt_alter_entries *entries; /* the same, with what they state */
  uint64_t seed;                    /* of the interventions */
} pdt_altered_use;

/* Nats of an entry's tokens, by kind. */
typedef struct pdt_altered_nats {
  double nats[PDT_NN_KINDS];
  int64_t tokens[PDT_NN_KINDS];
} pdt_altered_nats;

/* Cross-entropy, nats a token, over entries that were altered. */
typedef struct pdt_altered_tokens {
  pdt_ratio_sums change; /* from notes as they are */
  pdt_ratio_sums under;  /* what it is under altered ones */
} pdt_altered_tokens;

typedef struct pdt_altered {
  int64_t entries;
  pdt_altered_tokens siblings;  /* of facts that a sibling states and a note has told */
  pdt_altered_tokens elsewhere; /* all others, facts that no note has told yet among them */
} pdt_altered;

/* The entry that lends entry i notes; -1: none does, or the mode takes none. Pure. */
int64_t pdt_altered_donor(const pdt_altered_use *use, pdt_alter_mode mode, int64_t i);

/* Reads entries [begin, end), and donors, under notes as they are (PDT_ALTER_NONE) or altered, into
 * nats[begin] to nats[end - 1]; entries that nobody lends notes are left as they stand there. Not
 * collective. Errors: MEMORY, those of pdt_train_batch. */
int pdt_altered_read(const pdt_altered_use *use, pdt_alter_mode mode, int64_t begin, int64_t end,
                     pdt_altered_nats *nats, pdt_arena *arena, pdt_error *err);

/* Compares both readings of all n entries. Pure. */
pdt_altered pdt_altered_compare(const pdt_altered_use *use, pdt_alter_mode mode,
                                const pdt_altered_nats *plain, const pdt_altered_nats *altered);

#endif
