/* Is a journal of the model and the sidecar at hand? By the quick fingerprints that its header has.
 */
#ifndef PDT_RUN_FINGERPRINTS_H
#define PDT_RUN_FINGERPRINTS_H

#include "base/error.h"
#include "base/types.h"

/* Fingerprints of a model's directory and of a sidecar's file, of which little is read. Errors: IO,
 * INPUT, MEMORY. */
int pdt_fingerprint_model(const char *path, uint64_t *out, pdt_error *err);
int pdt_fingerprint_sidecar(const char *path, uint64_t *out, pdt_error *err);

/* Refuses another than what the journal was written with: `what`, "model" or "sidecar", of which
 * `recorded` is in the journal's header, and `found` that of `path`. Errors: INPUT. */
int pdt_fingerprint_check(const char *journal, const char *what, uint64_t recorded,
                          const char *path, uint64_t found, pdt_error *err);

#endif
