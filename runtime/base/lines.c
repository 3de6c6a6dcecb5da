#include "base/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { READ_BYTES = 1 << 18, SHOWN_PATH_BYTES = 200 };

void pdt_where(char where[PDT_WHERE_BYTES], const char *path, int64_t line) {
  size_t length = strlen(path);
  bool cut = length > SHOWN_PATH_BYTES;
  if (cut) path += length - SHOWN_PATH_BYTES;
  while (cut && (*path & 0xC0) == 0x80) path++;
  int n = snprintf(where, PDT_WHERE_BYTES, "%s%s", cut ? "..." : "", path);
  if (line > 0) snprintf(where + n, PDT_WHERE_BYTES - (size_t)n, ": line %lld", (long long)line);
}

int pdt_lines_open(pdt_lines *l, const char *path, size_t longest, pdt_error *err) {
  pdt_bytes size;
  *l = (pdt_lines){.path = path, .longest = longest};
  return pdt_file_stream(&l->file, &size, path, err);
}

int pdt_lines_open_once(pdt_lines *l, const char *path, size_t longest, pdt_error *err) {
  struct stat status;
  *l = (pdt_lines){.path = path, .longest = longest};
  int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &status))
    pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
  else if (S_ISDIR(status.st_mode))
    pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a file, found a folder", path);
  else if (!(l->file = fdopen(fd, "r")))
    pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (!l->file && fd >= 0) close(fd);
  return l->file ? 0 : -1;
}

void pdt_lines_close(pdt_lines *l) {
  if (l->file) (void)fclose(l->file);
  pdt_buffer_free(&l->read);
  *l = (pdt_lines){0};
}

/* Reads on, behind what is kept of the line that begins. */
static int read_more(pdt_lines *l, pdt_error *err) {
  size_t kept = l->read.bytes - l->begin;
  if (kept > l->longest) {
    char where[PDT_WHERE_BYTES];
    pdt_where(where, l->path, l->number);
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a line of at most %zu bytes", where,
                    l->longest);
  }
  if (pdt_buffer_reserve(&l->read, READ_BYTES, err)) return -1;
  if (l->begin > 0) memmove(l->read.data, l->read.data + l->begin, kept);
  l->begin = 0;
  ssize_t n; /* what a pipe has now, without waiting for as much as there is room for */
  do n = read(fileno(l->file), l->read.data + kept, READ_BYTES);
  while (n < 0 && errno == EINTR);
  if (n < 0) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", l->path, strerror(errno));
  l->read.bytes = kept + (size_t)n;
  l->ended = n == 0;
  return 0;
}

int pdt_lines_next(pdt_lines *l, pdt_error *err) {
  l->number++;
  for (size_t looked = 0;;) {
    const char *line = l->read.data + l->begin;
    size_t kept = l->read.bytes - l->begin;
    const char *newline = kept > looked ? memchr(line + looked, '\n', kept - looked) : NULL;
    if (newline || (l->ended && kept > 0)) {
      l->text = line;
      l->bytes = newline ? (size_t)(newline - line) : kept;
      l->begin += l->bytes + (newline != NULL);
      l->n_bytes += (pdt_bytes)l->bytes + (newline != NULL);
      return 1;
    }
    if (l->ended) {
      l->number--; /* there is none */
      return 0;
    }
    looked = kept;
    if (read_more(l, err)) return -1;
  }
}

static bool is_blank(const pdt_lines *l) {
  for (size_t i = 0; i < l->bytes; i++)
    if (l->text[i] != ' ' && l->text[i] != '\t' && l->text[i] != '\r') return false;
  return true;
}

int pdt_lines_next_filled(pdt_lines *l, pdt_error *err) {
  int more;
  do more = pdt_lines_next(l, err);
  while (more == 1 && is_blank(l));
  return more;
}
