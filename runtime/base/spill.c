#include "base/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"

int pdt_spill_new(pdt_spill *s, const char *folder, const char *what, pdt_error *err) {
  *s = (pdt_spill){.fd = -1, .folder = strdup(folder), .what = what};
  return s->folder ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", what);
}

void pdt_spill_free(pdt_spill *s) {
  if (s->folder && s->fd >= 0) close(s->fd);
  free(s->folder);
  *s = (pdt_spill){.fd = -1};
}

static int io_error(const pdt_spill *s, const char *verb, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot %s %s: %s", s->folder, verb, s->what,
                  strerror(errno));
}

int pdt_spill_put(pdt_spill *s, const void *data, pdt_bytes bytes, pdt_bytes at, pdt_error *err) {
  if (s->fd < 0) s->fd = pdt_nameless_open(s->folder, NULL);
  if (s->fd < 0) s->fd = memfd_create("pdt", MFD_CLOEXEC);
  if (s->fd < 0) return io_error(s, "keep", err);
  for (const char *from = data; bytes > 0;) {
    ssize_t n = pwrite(s->fd, from, (size_t)bytes, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(s, "keep", err);
    from += n;
    at += n;
    bytes -= n;
  }
  return 0;
}

int pdt_spill_get(const pdt_spill *s, void *data, pdt_bytes bytes, pdt_bytes at, pdt_error *err) {
  for (char *to = data; bytes > 0;) {
    ssize_t n = pread(s->fd, to, (size_t)bytes, at);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO; /* nobody else knows the file */
    if (n <= 0) return io_error(s, "read", err);
    to += n;
    at += n;
    bytes -= n;
  }
  return 0;
}

void pdt_spill_release(const pdt_spill *s, pdt_bytes at, pdt_bytes bytes) {
  (void)fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes);
}

int pdt_spill_clear(const pdt_spill *s, pdt_error *err) {
  return s->fd >= 0 && ftruncate(s->fd, 0) ? io_error(s, "drop", err) : 0;
}
