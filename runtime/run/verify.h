/* Does a journal come out again? Its decisions are replayed with the model that it was written
 * with: everything is computed anew from the recorded tokens, and at every boundary the notes of
 * all sessions must have the recorded hash. */
#ifndef PDT_RUN_VERIFY_H
#define PDT_RUN_VERIFY_H

#include "engine/engine.h"

typedef struct pdt_verify_options {
  const char *journal;
  pdt_engine_options engine; /* its model and sidecar, any layout that gives the same bits */
  bool json;                 /* one JSON object in place of a sentence */
} pdt_verify_options;

/* Replays the journal to its last whole boundary, and says on rank 0's standard output what was
 * compared. Collective over world, blocking; all ranks fail alike. Errors: INPUT (a damaged
 * journal, another model or sidecar, a plan or a hash that is another), IO, MEMORY, USAGE. */
int pdt_verify_run(const pdt_comm *world, const pdt_verify_options *options, pdt_error *err);

#endif
