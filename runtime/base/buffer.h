/* Bytes that grow at the end. A zeroed pdt_buffer is an empty one. */
#ifndef PDT_BASE_BUFFER_H
#define PDT_BASE_BUFFER_H

#include "base/memory.h"

typedef struct pdt_buffer {
  char *data; /* NULL while nothing was ever put */
  size_t bytes, room;
} pdt_buffer;

/* Appends `bytes` bytes, which must not lie inside the buffer. Errors: MEMORY, the buffer is then
 * as it was. */
int pdt_buffer_put(pdt_buffer *b, const void *data, size_t bytes, pdt_error *err);

/* Makes room for `bytes` more without a further allocation. Errors: MEMORY. */
int pdt_buffer_reserve(pdt_buffer *b, size_t bytes, pdt_error *err);

/* Gives the bytes away as a zero-terminated string for free(); the buffer is then empty. *bytes
 * (may be NULL) gets the length. Errors: MEMORY. */
int pdt_buffer_take(pdt_buffer *b, char **text, size_t *bytes, pdt_error *err);

/* Releases the bytes; the buffer is then empty. */
void pdt_buffer_free(pdt_buffer *b);

#endif
