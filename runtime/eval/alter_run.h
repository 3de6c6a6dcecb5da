/* Interventions on notes while sessions decode: what a run of an arm does with the notes of its
 * sessions (private to runtime/eval). */
#ifndef PDT_EVAL_ALTER_RUN_H
#define PDT_EVAL_ALTER_RUN_H

#include "eval/alter.h"
#include "eval/eval.h"

/* What a stream of an entry wrote: notes of its blocks, and tokens. */
typedef struct pdt_alter_record {
  int32_t n_notes, n_tokens;
  float *notes; /* [n_notes, dn] */
  size_t notes_room;
  pdt_token *tokens; /* [n_tokens] */
  size_t tokens_room;
} pdt_alter_record;

struct pdt_eval_trial;

/* An intervention. Every rank has its own, all alike. */
typedef struct pdt_alteration {
  const struct pdt_eval_trial *trial; /* borrowed */
  pdt_alter_mode mode;
  int32_t dim; /* of a note */
  uint64_t seed;
  pdt_scramble scramble;
  /* Of modes that borrow, by entry of the data: */
  pdt_alter_record (*records)[PDT_DATA_SECTIONS]; /* of each stream */
  pdt_alter_facts *facts;
  pdt_alter_pair *pairs;
  pdt_rollout_text scratch;
  float *note; /* [dim] */
} pdt_alteration;

/* Prepares one, by the seed of the trial's first request. Not collective. Freed by the caller,
 * after an error too. Errors: MEMORY. */
int pdt_alteration_new(pdt_alteration *a, const struct pdt_eval_trial *trial, pdt_error *err);
void pdt_alteration_free(pdt_alteration *a);

/* Engine variants' `alter`, of which the context is the alteration: keeps what streams have written
 * and changes nothing; intervenes. Errors: MEMORY, those of pdt_rollout_read. */
int pdt_alteration_record(void *alteration, const pdt_running *running, float *notes,
                          pdt_error *err);
int pdt_alteration_act(void *alteration, const pdt_running *running, float *notes, pdt_error *err);

/* After a run that was recorded: who lends to whom. Errors: MEMORY, those of pdt_rollout_read. */
int pdt_alteration_pair(pdt_alteration *a, pdt_error *err);

/* What an entry's siblings are told in place of what its own stream states. */
pdt_judge_lent pdt_alteration_lent(const pdt_alteration *a, int64_t entry);

#endif
