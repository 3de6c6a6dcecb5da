/* Whole files: read with a limit, written all or not at all. */
#ifndef PDT_BASE_FILE_H
#define PDT_BASE_FILE_H

#include <stdio.h>

#include "base/path.h"
#include "base/types.h"

/* Opens a file to read, a pipe without waiting. Returns the descriptor, closed by the caller, or
 * -1. Errors: IO, saying so where a symbolic link leads nowhere. */
int pdt_file_open(const char *path, pdt_error *err);

/* The same of a regular file, as a stream, closed by the caller; *size: its bytes. Errors: IO,
 * INPUT (another kind of file), MEMORY. */
int pdt_file_stream(FILE **file, pdt_bytes *size, const char *path, pdt_error *err);

/* Reads a regular file of at most max_bytes. Sets *out, freed by the caller, with a zero byte after
 * the *n_bytes read. Errors: IO, INPUT (too large, or no regular file), MEMORY. */
int pdt_file_read(char **out, pdt_bytes *n_bytes, const char *path, pdt_bytes max_bytes,
                  pdt_error *err);

/* Continues a hash (XXH3, 64 bits; 0 begins one) with all bytes of a regular file, in little memory
 * whatever its size. Errors: IO, INPUT (no regular file), MEMORY. */
int pdt_file_hash(uint64_t *hash, const char *path, pdt_error *err);

/* A file being written beside the path it will have. Where the file system can (O_TMPFILE), it has
 * no name until it is committed, so that nothing stays of it whatever ends the process. Elsewhere
 * it is called NAME.PID.N.tmp, and stays after a kill until another file of that NAME is written.
 */
typedef struct pdt_new_file {
  int fd;          /* -1 when there is none */
  char *path;      /* as it was given */
  char *target;    /* the same, symbolic links followed */
  char *temporary; /* NULL while it has no name */
} pdt_new_file;

/* Creates the temporary file. `path` may exist as a regular file only, and one that this user could
 * write: the new file then gets its mode, access list and, where permitted, owner and group; else
 * it gets what the umask leaves of 0666. A symbolic link stays, and what it leads to is written.
 * Ended by commit or abandon. Errors: USAGE (an empty name), IO, MEMORY. */
int pdt_new_file_open(pdt_new_file *file, const char *path, pdt_error *err);

/* The same with a temporary file that has a name, as on file systems that know no others. */
int pdt_new_file_open_named(pdt_new_file *file, const char *path, pdt_error *err);

/* Removes the named temporary files of `path` that killed processes have left; those that are being
 * written stay. What cannot be removed stays too. */
void pdt_temporaries_remove(const char *path);

/* Appends. Errors: IO, as when the disk is full. */
int pdt_new_file_write(pdt_new_file *file, const void *data, pdt_bytes bytes, pdt_error *err);

/* Synchronizes, renames to the final path, synchronizes the folder; frees. After an error the
 * temporary file is gone and `path` is as it was. Errors: IO. */
int pdt_new_file_commit(pdt_new_file *file, pdt_error *err);

/* Removes the temporary file and frees; safe after commit and after a failed open. */
void pdt_new_file_abandon(pdt_new_file *file);

/* A file for reading and writing that never gets a name, on the file system of `folder`; gone when
 * its descriptor, which is returned, is closed. Errors (-1): IO, MEMORY. */
int pdt_nameless_open(const char *folder, pdt_error *err);

/* All of that for text in memory. */
int pdt_file_write_text(const char *path, const char *text, pdt_error *err);

#endif
