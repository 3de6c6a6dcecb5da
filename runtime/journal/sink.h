/* Where a result goes: a regular file, which appears whole at commit or not at all, or a device or
 * pipe, which gets the bytes as they come. */
#ifndef PDT_JOURNAL_SINK_H
#define PDT_JOURNAL_SINK_H

#include "base/file.h"

typedef struct pdt_sink {
  pdt_new_file file; /* for a regular file */
  int fd;            /* for anything else; -1 when there is none */
  char *path;        /* as it was given, for errors */
} pdt_sink;

/* Opens `path` for writing what is there or creates it. A symbolic link to a regular file stays,
 * and the file behind it is replaced. "-" (standard output), /dev/stdout, /dev/stderr and /dev/fd/N
 * are this process's own descriptors. A pipe blocks until somebody reads it. Ended by commit or
 * discard. Errors: USAGE (an empty name), IO (a folder, not writable), MEMORY; s is then safe to
 * discard. */
int pdt_sink_open(pdt_sink *s, const char *path, pdt_error *err);

/* Appends all of it. Errors: IO, as when the disk is full. */
int pdt_sink_write(pdt_sink *s, const void *data, pdt_bytes bytes, pdt_error *err);

/* Ends it: a regular file gets its name, on disk. Frees. Errors: IO, after which nothing is left
 * of a regular file and an older one is untouched. */
int pdt_sink_commit(pdt_sink *s, pdt_error *err);

/* Gives up and frees; safe after commit and after a failed open. A device or pipe keeps what it
 * got. */
void pdt_sink_discard(pdt_sink *s);

/* The folder where something big may wait for its place in the sink: that of a regular file, else
 * the one for temporary files. Freed by the caller; NULL without memory. */
char *pdt_sink_folder(const pdt_sink *s);

/* The folder for temporary files: TMPDIR, or /tmp. */
const char *pdt_temporary_folder(void);

/* N when `path` names a descriptor this process has: 1 for "-", and those with a name under /dev:
 * /dev/stdout, /dev/stderr, /dev/fd/N, /proc/self/fd/N; -1 for any other. Such a name must not be
 * renamed over, nor opened anew, which would start at offset 0. */
int pdt_sink_descriptor(const char *path);

#endif
