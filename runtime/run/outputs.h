/* What a command is about to write, beside what it reads: no file of either kind may be lost by it,
 * and all ranks read the same. */
#ifndef PDT_RUN_OUTPUTS_H
#define PDT_RUN_OUTPUTS_H

#include "base/error.h"
#include "base/types.h"
#include "comm/comm.h"

/* Files of a command line by the flags that name them. Zero-initialized it is empty. */
typedef struct pdt_named_files {
  int32_t n;
  struct pdt_named_file {
    const char *flag; /* "--out", the caller's */
    char *path;
  } * files;
  bool no_memory;
} pdt_named_files;

/* Adds a file; a path of NULL adds nothing. What memory does not allow is told by the check. */
void pdt_files_add(pdt_named_files *f, const char *flag, const char *path);

/* Adds the file `name` of a folder. */
void pdt_files_add_in(pdt_named_files *f, const char *flag, const char *folder, const char *name);

/* Adds what a model's folder consists of, be it there or not: configs, tokenizer, weights, their
 * index, and the shards that it lists; or a GGUF file and its other parts. */
void pdt_files_add_model(pdt_named_files *f, const char *flag, const char *folder);

/* Refuses outputs that name an input, or two that are the same file, by device and inode with links
 * followed, or by folder and name where there is none yet; and outputs that are the file to which
 * this process's standard output or error goes. Pipes and terminals count as files, devices such as
 * /dev/null do not. Frees both lists. To be called before anything is written; no communication.
 * Errors: USAGE (also an empty name), MEMORY. */
int pdt_outputs_check(pdt_named_files *outputs, pdt_named_files *inputs, pdt_error *err);

/* Kinds of files that can be told by how they begin. */
typedef enum pdt_file_kind {
  PDT_KIND_OTHER, /* or none is there */
  PDT_KIND_JOURNAL,
  PDT_KIND_SIDECAR,
  PDT_KIND_TENSORS, /* a model's weights, a checkpoint */
  PDT_KIND_DATA,    /* of pdt data */
} pdt_file_kind;

/* May a file be written at path? Not where one of another kind of pdt's files is, and where
 * anything else is only with `overwrite`. Devices, pipes and empty files are no files here. Errors:
 * USAGE. */
int pdt_output_may_replace(const char *flag, const char *path, pdt_file_kind own, bool overwrite,
                           pdt_error *err);

/* Makes a folder, if it is not there; *made (may be NULL): it was not. Errors: IO. */
int pdt_output_folder_make(const char *path, bool *made, pdt_error *err);

/* Fails where the ranks have not read the same data, by a fingerprint of what was at `path`.
 * Collective over world, blocking; all ranks fail alike. Errors: INPUT. */
int pdt_run_same_data(const pdt_comm *world, const char *path, uint64_t fingerprint,
                      pdt_error *err);

/* A folder to write into needs a name; "-" is none. Errors: USAGE. */
int pdt_output_folder_check(const char *flag, const char *path, pdt_error *err);

#endif
