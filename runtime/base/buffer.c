#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

int pdt_buffer_reserve(pdt_buffer *b, size_t bytes, pdt_error *err) {
  if (bytes <= b->room - b->bytes) return 0;
  size_t wanted, room;
  char *grown = NULL;
  if (!__builtin_add_overflow(b->bytes, bytes, &wanted) &&
      !__builtin_add_overflow(wanted, wanted / 2 + 64, &room))
    grown = realloc(b->data, room);
  if (!grown) return pdt_fail(err, PDT_ERROR_MEMORY, "text: no memory for %zu more bytes", bytes);
  b->data = grown;
  b->room = room;
  return 0;
}

int pdt_buffer_put(pdt_buffer *b, const void *data, size_t bytes, pdt_error *err) {
  if (!bytes) return 0;
  if (pdt_buffer_reserve(b, bytes, err)) return -1;
  memcpy(b->data + b->bytes, data, bytes);
  b->bytes += bytes;
  return 0;
}

int pdt_buffer_take(pdt_buffer *b, char **text, size_t *bytes, pdt_error *err) {
  *text = NULL;
  if (pdt_buffer_put(b, "", 1, err)) return -1;
  if (bytes) *bytes = b->bytes - 1;
  *text = b->data;
  *b = (pdt_buffer){0};
  return 0;
}

void pdt_buffer_free(pdt_buffer *b) {
  free(b->data);
  *b = (pdt_buffer){0};
}
