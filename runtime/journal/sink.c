#include "journal/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int pdt_sink_descriptor(const char *path) {
  static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
  if (strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0) return STDOUT_FILENO;
  if (strcmp(path, "/dev/stderr") == 0) return STDERR_FILENO;
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    size_t n = strlen(folders[i]);
    if (strncmp(path, folders[i], n) != 0 || path[n] < '0' || path[n] > '9') continue;
    char *end;
    errno = 0;
    long fd = strtol(path + n, &end, 10);
    if (*end == '\0' && !errno && fd <= INT_MAX) return (int)fd;
  }
  return -1;
}

static int refuse(const char *path, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open for writing: %s", path, strerror(errno));
}

int pdt_sink_open(pdt_sink *s, const char *path, pdt_error *err) {
  *s = (pdt_sink){.file = {.fd = -1}, .fd = -1};
  s->path = strdup(path);
  if (!s->path) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  int own = pdt_sink_descriptor(path);
  struct stat status;
  bool exists = own < 0 && stat(path, &status) == 0;
  if (own < 0 && (!exists || S_ISREG(status.st_mode)))
    return pdt_new_file_open(&s->file, path, err);
  s->fd = own < 0 ? open(path, O_WRONLY | O_CLOEXEC) : fcntl(own, F_DUPFD_CLOEXEC, 0);
  if (s->fd < 0) return refuse(path, err);
  if ((fcntl(s->fd, F_GETFL) & O_ACCMODE) != O_RDONLY) return 0;
  errno = EBADF; /* as a standard descriptor that was closed, see main */
  return refuse(path, err);
}

int pdt_sink_write(pdt_sink *s, const void *data, pdt_bytes bytes, pdt_error *err) {
  if (s->fd < 0) return pdt_new_file_write(&s->file, data, bytes, err);
  pdt_new_file direct = {.fd = s->fd, .path = s->path};
  return pdt_new_file_write(&direct, data, bytes, err);
}

int pdt_sink_commit(pdt_sink *s, pdt_error *err) {
  int rc = 0;
  if (s->fd < 0)
    rc = pdt_new_file_commit(&s->file, err);
  else if (close(s->fd))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", s->path, strerror(errno));
  s->fd = -1;
  pdt_sink_discard(s);
  return rc;
}

void pdt_sink_discard(pdt_sink *s) {
  if (s->fd >= 0) close(s->fd);
  pdt_new_file_abandon(&s->file);
  free(s->path);
  *s = (pdt_sink){.file = {.fd = -1}, .fd = -1};
}

const char *pdt_temporary_folder(void) {
  const char *folder = getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

char *pdt_sink_folder(const pdt_sink *s) {
  return s->file.target ? pdt_path_folder(s->file.target) : strdup(pdt_temporary_folder());
}
