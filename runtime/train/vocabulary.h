/* The ids that a softmax goes over while a sidecar is trained. With a vocabulary of 49,152 the head
 * takes a third of a step, though only some hundred of its ids ever occur in the data: so it may go
 * over those that occur, and over a sample of the others in place of all of them. */
#ifndef PDT_TRAIN_VOCABULARY_H
#define PDT_TRAIN_VOCABULARY_H

#include "train/entry.h"

typedef struct pdt_train_vocabulary {
  int32_t size, sampled; /* of the trunk; others in a sample */
  int32_t n_occurring;
  int32_t *ids;   /* [size] those that occur ascending, then the others ascending */
  int32_t *place; /* [size] of an id in a sample, -1: not in it */
} pdt_train_vocabulary;

/* Of what the entries' streams write. sampled >= 1 others; all of them where there are no more.
 * Freed by the caller, after an error too. Errors: MEMORY. */
int pdt_train_vocabulary_new(pdt_train_vocabulary *v, int32_t size, int32_t sampled,
                             const pdt_train_entry *const *entries, int64_t n, pdt_error *err);
void pdt_train_vocabulary_free(pdt_train_vocabulary *v);

/* The ids of step `step`, by it and the seed alone: all that occur, and others without repetition,
 * each of which stands for as many as there are for one. Lives in the arena and in v, until the
 * next. Errors: MEMORY. */
int pdt_train_vocabulary_draw(pdt_train_vocabulary *v, uint64_t seed, int64_t step,
                              pdt_nn_subset *out, pdt_arena *arena, pdt_error *err);

#endif
