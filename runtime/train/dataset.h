/* Data files (tests/data/atlas/FORMAT.md) as entries for the sidecar's stages. */
#ifndef PDT_TRAIN_DATASET_H
#define PDT_TRAIN_DATASET_H

#include <jansson.h>

#include "data/data.h"
#include "text/tokenizer.h"
#include "train/codes.h"
#include "train/entry.h"

/* Everything but `trained` lives in the arena. */
typedef struct pdt_dataset {
  pdt_arena arena;
  int64_t n;
  size_t room;
  const pdt_train_entry **entries; /* [n] */
  pdt_data_rounds rounds;          /* those that the file's labels are for */
  json_t *trained;                 /* what they teach (sidecar/trained.h), owned */
  uint64_t fingerprint;            /* XXH3-64 of the files' bytes and of what is made of them */
  uint64_t files;                  /* of their bytes alone */
} pdt_dataset;

/* What entries are made for. */
typedef struct pdt_dataset_use {
  const pdt_nn_trunk *trunk;
  const pdt_tokenizer *tokenizer;
  const pdt_sidecar_config *config;
  pdt_teacher teacher;
  double stated;  /* weight of predicting a token of a stream's own facts, which nothing tells */
  double heading; /* of one of a heading that a text begins with, where the prefix is empty */
  bool without_states; /* what the trunk makes of prompts comes from elsewhere (states.h) */
} pdt_dataset_use;

/* Reads n_paths >= 1 files, whose blocks must be cut alike. Mean prompt states are the plain
 * trunk's. Teacher notes are those of codes.h; with `used` in them, a statement whose fact the note
 * of a sibling has told already counts as a use (entry.h). Of a file with teacher notes of its own
 * these are read, each normalized, and where an entry has no facts, readiness as labelled. Errors:
 * INPUT naming file and line: not the sidecar's plan (slots, vocabulary, salt), a text that the
 * tokenizer cuts into another number of tokens, more streams than adapters, longer than the trunk's
 * positions; IO, MEMORY. Freed by the caller, after an error too. */
int pdt_dataset_load(pdt_dataset *d, const char *const *paths, int32_t n_paths,
                     const pdt_dataset_use *use, pdt_error *err);

/* What the planner reads of an entry's prompt, by the plain trunk, into out
 * [pdt_train_prompt_floats]: the mean of its final-norm states [d], the first ones [P, d], zeros
 * behind the prompt, and with orders what it reads in order [n_prompt, d]. Errors: MEMORY. */
int64_t pdt_train_prompt_floats(const pdt_sidecar_config *config, const pdt_train_entry *e);
int pdt_train_prompt_states(const pdt_nn_trunk *trunk, const pdt_sidecar_config *config,
                            const pdt_train_entry *e, float *out, pdt_arena *scratch,
                            pdt_error *err);

/* Lets an entry have those, borrowed. */
void pdt_train_set_states(pdt_train_entry *e, const pdt_sidecar_config *config,
                          const float *states);

/* Completes entry i, which was loaded without_states: with those, and with what stands behind the
 * trunk's lower layers [rows, d], bf16, or NULL. Borrowed. */
void pdt_dataset_complete(pdt_dataset *d, int64_t i, const pdt_sidecar_config *config,
                          const float *states, const uint16_t *lower);
void pdt_dataset_free(pdt_dataset *d);

#endif
