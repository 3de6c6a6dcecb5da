/* Data files (tests/data/atlas/FORMAT.md) as entries for the sidecar's stages. */
#ifndef PDT_TRAIN_DATASET_H
#define PDT_TRAIN_DATASET_H

#include "atlas/data.h"
#include "text/tokenizer.h"
#include "train/entry.h"

/* Everything lives in the arena. */
typedef struct pdt_dataset {
  pdt_nn_arena arena;
  int64_t n, room;
  const pdt_train_entry **entries; /* [n] */
  pdt_data_rounds rounds;          /* those that the file's labels are for */
  uint64_t fingerprint;            /* XXH3-64 of the files' bytes and of what is made of them */
} pdt_dataset;

/* What teacher notes are made of. */
typedef enum pdt_codes { PDT_CODES_EMBEDDING, PDT_CODES_RANDOM } pdt_codes;

/* What entries are made for. */
typedef struct pdt_dataset_use {
  const pdt_nn_trunk *trunk;
  const pdt_tokenizer *tokenizer;
  const pdt_sidecar_config *config;
  pdt_codes codes;
  double stated; /* weight of predicting a token of a stream's own facts, which nothing tells */
  double used;   /* share of what a block uses in its teacher note, 0: only what it states */
} pdt_dataset_use;

/* Reads n_paths >= 1 files, whose blocks must be cut alike. Mean prompt states are the plain
 * trunk's. A block's teacher note is Norm(sum of the codes of the facts it states), a code of its
 * own where it states none; the code of its r-th fact, r = 0, 1, is Norm(c_r(type) + Norm(sum_j
 * P_rj (E[t_j] - mean E) / std E)) over the tokens t_j of " value", E the trunk's embedding, c_r
 * and P_rj fixed random vectors and matrices by name: what a note says is then easy to write from
 * the trunk's states and easy to read into them, and of two facts each value stays with its type.
 * Of used facts of siblings it has read the names of, it then adds the codes, times `used`, and is
 * normalized again; a statement whose fact is already in a note counts as a use (entry.h).
 * PDT_CODES_RANDOM: a random vector a fact. Of a file with teacher notes of its own these are read,
 * each normalized, and where an entry has no facts, readiness as labelled. Errors: INPUT naming
 * file and line: not the sidecar's plan (slots, vocabulary, salt), a text that the tokenizer cuts
 * into another number of tokens, more streams than adapters, longer than the trunk's positions; IO,
 * MEMORY. Freed by the caller, after an error too. */
int pdt_dataset_load(pdt_dataset *d, const char *const *paths, int32_t n_paths,
                     const pdt_dataset_use *use, pdt_error *err);
void pdt_dataset_free(pdt_dataset *d);

#endif
