#include "journal/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int pdt_bytes_reserve(uint8_t **buffer, size_t *capacity, size_t bytes, const char *what,
                      pdt_error *err) {
  if (*capacity >= bytes) return 0;
  size_t room = bytes > *capacity * 2 ? bytes : *capacity * 2; /* few steps for growing entries */
  free(*buffer);
  *capacity = 0;
  if (PDT_NEW(buffer, room, what, err)) return -1;
  *capacity = room;
  return 0;
}

int pdt_bytes_read(FILE *file, void *to, size_t bytes, const char *name, pdt_error *err) {
  if (fread(to, 1, bytes, file) == bytes) return 0;
  if (ferror(file))
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", name, strerror(errno));
  return pdt_fail(err, PDT_ERROR_IO, "%s: it became shorter while it was read", name);
}
