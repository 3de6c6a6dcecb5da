/* The tensors of a Hugging Face model directory: model.safetensors, or the shards that
 * model.safetensors.index.json lists. */
#ifndef PDT_STORE_CHECKPOINT_H
#define PDT_STORE_CHECKPOINT_H

#include "base/notices.h"
#include "store/safetensors.h"

/* Read-only to its users. */
typedef struct pdt_checkpoint {
  char *directory;
  int32_t n_files;
  pdt_safetensors **files; /* in order of their names */
  int32_t n_tensors;
  const pdt_tensor **tensors; /* over all files, sorted by name */
} pdt_checkpoint;

/* Opens every file and checks its header; in a sharded model, that every listed tensor is in the
 * shard the index says (what a shard holds beyond the index is ignored). model.safetensors wins
 * when both are there. File names of an index must be plain names. `notices` (NULL: nobody listens)
 * gets what was left out. Sets *out, closed by the caller. Errors: IO, INPUT, MEMORY. */
int pdt_checkpoint_open(pdt_checkpoint **out, const char *directory, pdt_notices *notices,
                        pdt_error *err);

/* NULL is allowed. */
void pdt_checkpoint_close(pdt_checkpoint *checkpoint);

/* The tensor of that name, NULL when there is none. */
const pdt_tensor *pdt_checkpoint_find(const pdt_checkpoint *checkpoint, const char *name);

/* The tensor of that name, of a computable type and exactly this shape. Errors: INPUT. */
int pdt_checkpoint_expect(const pdt_checkpoint *checkpoint, const char *name, int32_t n_dims,
                          const int64_t *shape, const pdt_tensor **out, pdt_error *err);

/* Fails when one of the files was written to since it was opened. Errors: IO. */
int pdt_checkpoint_unchanged(const pdt_checkpoint *checkpoint, pdt_error *err);

/* XXH3-64 of config.json in a model's directory. Errors: IO, INPUT, MEMORY. */
int pdt_config_hash(const char *directory, uint64_t *out, pdt_error *err);

/* XXH3-64 over config.json and the fingerprints of all files in order (safetensors.h says what the
 * modes read and are worth). QUICK is for the journal: it costs milliseconds. Errors: IO. */
int pdt_checkpoint_fingerprint(const pdt_checkpoint *checkpoint, pdt_fingerprint_mode mode,
                               uint64_t *out, pdt_error *err);

#endif
