/* Bytes put away in a file without a name, so that they take no memory; gone with whoever holds it.
 * The file is made when it is needed: in a folder, or in memory where that takes none. */
#ifndef PDT_BASE_SPILL_H
#define PDT_BASE_SPILL_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_spill {
  int fd; /* -1 before it is needed */
  char *folder;
  const char *what; /* it holds, for messages; borrowed */
} pdt_spill;

/* Nothing is in it. Freed by pdt_spill_free, also after an error. Errors: MEMORY. */
int pdt_spill_new(pdt_spill *s, const char *folder, const char *what, pdt_error *err);

/* Closes the file, which is then gone. */
void pdt_spill_free(pdt_spill *s);

/* Writes all of `data` at a place, counted from the beginning. Errors: IO, as when the disk is
 * full. */
int pdt_spill_put(pdt_spill *s, const void *data, pdt_bytes bytes, pdt_bytes at, pdt_error *err);

/* Reads what was put there. Errors: IO. */
int pdt_spill_get(const pdt_spill *s, void *data, pdt_bytes bytes, pdt_bytes at, pdt_error *err);

/* Gives the room of bytes back that nobody will read; where that cannot be, it waits for the end.
 */
void pdt_spill_release(const pdt_spill *s, pdt_bytes at, pdt_bytes bytes);

/* Gives all room back. Errors: IO. */
int pdt_spill_clear(const pdt_spill *s, pdt_error *err);

#endif
