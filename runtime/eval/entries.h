/* Held-out entries of the Atlas, as an evaluation asks for them. */
#ifndef PDT_EVAL_ENTRIES_H
#define PDT_EVAL_ENTRIES_H

#include "data/data.h"
#include "eval/rollout.h"

typedef struct pdt_eval_entries {
  pdt_data_header header;
  pdt_atlas_kind kind; /* the world that they are of */
  int64_t n;
  size_t room;
  pdt_data_entry *entries;    /* [n] */
  pdt_rollout_owners *owners; /* [n] */
  size_t owners_room;
  uint64_t fingerprint; /* XXH3-64 of the file's bytes */
} pdt_eval_entries;

/* Reads the first `most` entries of a file. Freed by the caller, after an error too. Errors: INPUT
 * for a file that is of no world of the Atlas, whose plan is not the sidecar's, whose blocks
 * another tokenizer than the model's cut (`tokenizer`: fingerprint of its file), or without
 * entries; those of pdt_data_next. */
int pdt_eval_entries_read(pdt_eval_entries *out, const char *path, int64_t most,
                          const pdt_sidecar_config *sidecar, uint64_t tokenizer, pdt_error *err);
void pdt_eval_entries_free(pdt_eval_entries *e);

#endif
