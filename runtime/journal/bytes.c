#include "journal/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

int pdt_bytes_open(FILE **file, pdt_bytes *size, const char *path, pdt_error *err) {
  *file = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */
  if (fd < 0) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
  struct stat status;
  int rc = 0;
  if (fstat(fd, &status))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
  else if (!S_ISREG(status.st_mode))
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a regular file, found another kind", path);
  else if (!(*file = fdopen(fd, "r")))
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (rc)
    close(fd);
  else
    *size = status.st_size;
  return rc;
}

int pdt_bytes_read(FILE *file, void *to, size_t bytes, const char *name, pdt_error *err) {
  if (fread(to, 1, bytes, file) == bytes) return 0;
  if (ferror(file))
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", name, strerror(errno));
  return pdt_fail(err, PDT_ERROR_IO, "%s: it became shorter while it was read", name);
}
