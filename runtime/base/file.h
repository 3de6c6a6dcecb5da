/* Whole files: read with a limit, written all or not at all. */
#ifndef PDT_BASE_FILE_H
#define PDT_BASE_FILE_H

#include "base/error.h"
#include "base/types.h"

/* "directory/name", or name alone when directory is empty; freed by the caller. Errors: MEMORY. */
int pdt_path_join(char **out, const char *directory, const char *name, pdt_error *err);

/* Reads a regular file of at most max_bytes. Sets *out, freed by the caller, with a zero byte after
 * the *n_bytes read. Errors: IO, INPUT (too large, or no regular file), MEMORY. */
int pdt_file_read(char **out, pdt_bytes *n_bytes, const char *path, pdt_bytes max_bytes,
                  pdt_error *err);

/* A file being written beside the path it will have. */
typedef struct pdt_new_file {
  int fd; /* -1 when there is none */
  char *path, *temporary;
} pdt_new_file;

/* Creates the temporary file. `path` may exist as a regular file only. Ended by commit or abandon.
 * Errors: IO, MEMORY. */
int pdt_new_file_open(pdt_new_file *file, const char *path, pdt_error *err);

/* Appends. Errors: IO, as when the disk is full. */
int pdt_new_file_write(pdt_new_file *file, const void *data, pdt_bytes bytes, pdt_error *err);

/* Synchronizes, renames to the final path, synchronizes the folder; frees. After an error the
 * temporary file is gone and `path` is as it was. Errors: IO. */
int pdt_new_file_commit(pdt_new_file *file, pdt_error *err);

/* Removes the temporary file and frees; safe after commit and after a failed open. */
void pdt_new_file_abandon(pdt_new_file *file);

/* All of that for text in memory. */
int pdt_file_write_text(const char *path, const char *text, pdt_error *err);

#endif
