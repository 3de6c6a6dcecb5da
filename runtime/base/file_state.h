/* Is a file still the one that was read? By what the system says of it: device, inode, size and
 * time of writing. A rename changes none of them. */
#ifndef PDT_BASE_FILE_STATE_H
#define PDT_BASE_FILE_STATE_H

#include <time.h>

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_file_state {
  uint64_t device, inode;
  pdt_bytes bytes;
  struct timespec written;
  bool regular;
} pdt_file_state;

/* Of the file at `path`, or of an open one. Errors: IO. */
int pdt_file_state_of(pdt_file_state *out, const char *path, pdt_error *err);
int pdt_file_state_of_open(pdt_file_state *out, int fd, const char *path, pdt_error *err);

/* Fails when the file at `path` (or the open one) is another than `then`, or was written to since.
 * Who reads a file in several goes asks so behind the last one. Errors: IO. */
int pdt_file_unchanged(const pdt_file_state *then, const char *path, pdt_error *err);
int pdt_file_unchanged_open(const pdt_file_state *then, int fd, const char *path, pdt_error *err);

#endif
