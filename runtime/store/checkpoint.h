/* The tensors of a model: those of a Hugging Face directory, in model.safetensors or the shards
 * that model.safetensors.index.json lists, or those of a GGUF file (gguf_model.h), whose path goes
 * wherever a directory is asked for. */
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
  const pdt_tensor **tensors; /* over all files, sorted by name, each name once */
  struct json_t *index;       /* NULL without */
  const struct json_t *map;   /* its weight_map; NULL without */
  char *absent;               /* the first file of the index that is not there; NULL: all are */
  bool passed_over;           /* model.safetensors was read, and an index beside it was not */
} pdt_checkpoint;

/* Opens every file and checks its header. model.safetensors wins when an index is there, too. An
 * index says which files are read, as in transformers; where a tensor is, the files say. They lie
 * in the model's folder or below it. A file of an index that is not there is left out until
 * somebody asks for a tensor of it; `notices` (NULL: nobody listens) gets its name. Sets *out,
 * closed by the caller. Errors: IO, INPUT, MEMORY. */
int pdt_checkpoint_open(pdt_checkpoint **out, const char *directory, pdt_notices *notices,
                        pdt_error *err);

/* NULL is allowed. */
void pdt_checkpoint_close(pdt_checkpoint *checkpoint);

/* The tensor of that name, or one whose name has a "model." less or more in front, for transformers
 * reads those as the same; of several the first by name, as there. NULL when there is none. */
const pdt_tensor *pdt_checkpoint_find(const pdt_checkpoint *checkpoint, const char *name);

/* The next tensor that could be meant by that name, which is not used; NULL when there is none. */
const pdt_tensor *pdt_checkpoint_find_second(const pdt_checkpoint *checkpoint, const char *name);

/* The error of a tensor that pdt_checkpoint_find does not find and somebody needs: it is missing,
 * and where an index has it. Returns -1. Errors: INPUT; IO when a file of the index is not there.
 */
int pdt_checkpoint_missing(const pdt_checkpoint *checkpoint, const char *name, pdt_error *err);

/* Fails when one of the files was written to since it was opened. Errors: IO. */
int pdt_checkpoint_unchanged(const pdt_checkpoint *checkpoint, pdt_error *err);

/* XXH3-64 of config.json in a model's directory, or of a GGUF file's metadata and list of tensors.
 * Errors: IO, INPUT, MEMORY. */
int pdt_config_hash(const char *directory, uint64_t *out, pdt_error *err);

/* XXH3-64 over config.json and the fingerprints of all files in order (safetensors.h says what the
 * modes read and are worth). QUICK is for the journal: it costs milliseconds. Errors: IO. */
int pdt_checkpoint_fingerprint(const pdt_checkpoint *checkpoint, pdt_fingerprint_mode mode,
                               uint64_t *out, pdt_error *err);

#endif
