/* The "post_processor" of tokenizer.json: special tokens around the ids of a text. */
#ifndef PDT_TEXT_POSTPROCESSOR_H
#define PDT_TEXT_POSTPROCESSOR_H

#include "base/json.h"
#include "text/bpe.h"

/* A list of ids, with -1 where the text's own go. A zeroed one adds nothing. */
typedef struct pdt_postprocessor {
  pdt_ids template; /* empty when there is none */
  bool has_template;
} pdt_postprocessor;

/* Fills a zeroed postprocessor from the value of "post_processor". Knows TemplateProcessing (its
 * template for a single text), RobertaProcessing, BertProcessing, ByteLevel, and Sequence with at
 * most one of the first three. Errors: INPUT, MEMORY. Freed by the caller, after an error too. */
int pdt_postprocessor_load(pdt_postprocessor *p, const json_t *value, const char *where,
                           pdt_error *err);

void pdt_postprocessor_free(pdt_postprocessor *p);

/* Appends to `out` the ids of a text as the template wants them; its special tokens are left out
 * unless add_special. Errors: MEMORY. */
int pdt_postprocessor_apply(const pdt_postprocessor *p, const pdt_ids *ids, bool add_special,
                            pdt_ids *out, pdt_error *err);

#endif
