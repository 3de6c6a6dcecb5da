#include "base/file_state.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static int state_of(pdt_file_state *out, int failed, const struct stat *s, const char *path,
                    pdt_error *err) {
  if (failed) return pdt_fail(err, PDT_ERROR_IO, "%s: %s", path, strerror(errno));
  *out = (pdt_file_state){.device = s->st_dev,
                          .inode = s->st_ino,
                          .bytes = s->st_size,
                          .written = s->st_mtim,
                          .regular = S_ISREG(s->st_mode)};
  return 0;
}

int pdt_file_state_of(pdt_file_state *out, const char *path, pdt_error *err) {
  struct stat s;
  int failed = stat(path, &s);
  return state_of(out, failed, &s, path, err);
}

int pdt_file_state_of_open(pdt_file_state *out, int fd, const char *path, pdt_error *err) {
  struct stat s;
  int failed = fstat(fd, &s);
  return state_of(out, failed, &s, path, err);
}

static int compare(const pdt_file_state *then, const pdt_file_state *now, const char *path,
                   pdt_error *err) {
  bool same = then->device == now->device && then->inode == now->inode &&
              then->bytes == now->bytes && then->written.tv_sec == now->written.tv_sec &&
              then->written.tv_nsec == now->written.tv_nsec;
  if (same) return 0;
  return pdt_fail(
      err, PDT_ERROR_IO,
      "%s: expected it to stay as it was, found that it changed while it was being read "
      "(hint: write another file and rename it)",
      path);
}

int pdt_file_unchanged(const pdt_file_state *then, const char *path, pdt_error *err) {
  pdt_file_state now = {0};
  return pdt_file_state_of(&now, path, err) || compare(then, &now, path, err) ? -1 : 0;
}

int pdt_file_unchanged_open(const pdt_file_state *then, int fd, const char *path, pdt_error *err) {
  pdt_file_state now = {0};
  return pdt_file_state_of_open(&now, fd, path, err) || compare(then, &now, path, err) ? -1 : 0;
}
