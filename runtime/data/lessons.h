/* What data would teach a sidecar, as its config keeps it (sidecar/trained.h): headings, plan
 * items, prompts, rounds. Gathered entry by entry. */
#ifndef PDT_DATA_LESSONS_H
#define PDT_DATA_LESSONS_H

#include <jansson.h>

#include "data/data.h"
#include "text/tokenizer.h"

typedef struct pdt_lessons {
  const pdt_tokenizer *tokenizer; /* borrowed */
  json_t *said;                   /* the object, but for lists of ids */
  unsigned char *plan_ids;        /* [plan_vocab]: seen */
  unsigned char *prompt_ids;      /* [vocab] */
  int32_t plan_vocab, vocab;
} pdt_lessons;

/* For a sidecar with this plan vocabulary, and a model whose token ids are below `vocab`. Freed by
 * the caller, after an error too. Errors: MEMORY. */
int pdt_lessons_new(pdt_lessons *l, const pdt_tokenizer *tokenizer, int32_t plan_vocab,
                    int32_t vocab, pdt_error *err);
void pdt_lessons_free(pdt_lessons *l);

/* Adds an entry of a file with that header, whose plan is the sidecar's. Errors: MEMORY, those of
 * pdt_tokenizer_encode. */
int pdt_lessons_add(pdt_lessons *l, const pdt_data_header *header, const pdt_data_entry *e,
                    pdt_error *err);

/* What was gathered; the caller drops the reference. NULL without memory, and err is set. */
json_t *pdt_lessons_take(const pdt_lessons *l, pdt_error *err);

#endif
