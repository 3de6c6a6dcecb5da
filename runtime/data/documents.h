/* Entries made of anyone's documents (tests/data/atlas/FORMAT.md, "Documents"): sections as
 * streams, facts by string match or as spans. */
#ifndef PDT_DATA_DOCUMENTS_H
#define PDT_DATA_DOCUMENTS_H

#include "data/names.h"
#include "sidecar/config.h"

/* What documents are read by; all borrowed. */
typedef struct pdt_document_rules {
  const pdt_sidecar_config *plan;  /* slots, vocabulary and salt alone */
  const pdt_data_stop_words *find; /* facts are found where a document has none; NULL: it must */
} pdt_document_rules;

/* Reads a line into an entry without labels: no tokens and no blocks yet. `where` names the line in
 * errors ("docs.jsonl: line 7") and an entry that has no name. Where facts are to be found and none
 * are, the entry has none. *out is freed by the caller, after an error it is empty. Errors: INPUT,
 * MEMORY. */
int pdt_document_parse(pdt_data_entry *out, const pdt_document_rules *rules, const char *text,
                       size_t bytes, const char *where, pdt_error *err);

#endif
