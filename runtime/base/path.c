#include "base/path.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

enum { MAX_LINKS = 40 }; /* as many as the kernel follows */

int pdt_path_join(char **out, const char *directory, const char *name, pdt_error *err) {
  size_t length = strlen(directory), room = length + strlen(name) + 2;
  if (PDT_NEW(out, room, "path", err)) return -1;
  bool slash = length > 0 && directory[length - 1] != '/';
  snprintf(*out, room, "%s%s%s", directory, slash ? "/" : "", name);
  return 0;
}

char *pdt_path_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");
}

const char *pdt_path_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* Where the symbolic link at `link` leads; NULL without memory. */
static char *link_target(const char *link, const char *text) {
  char *folder = *text == '/' ? strdup("") : pdt_path_folder(link), *out = NULL;
  if (folder && asprintf(&out, "%s%s", folder, text) < 0) out = NULL;
  free(folder);
  return out;
}

int pdt_path_follow(char **out, const char *path, pdt_error *err) {
  char text[PATH_MAX];
  *out = strdup(path);
  for (int i = 0; *out && i < MAX_LINKS; i++) {
    ssize_t n = readlink(*out, text, sizeof text - 1);
    if (n < 0) return 0; /* no link, or nothing at all: opening it tells */
    text[n] = '\0';
    char *next = link_target(*out, text);
    free(*out);
    *out = next;
  }
  if (!*out) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  free(*out);
  *out = NULL;
  return pdt_fail(err, PDT_ERROR_IO, "%s: %s", path, strerror(ELOOP));
}

bool pdt_path_is_there(const char *path) {
  struct stat status;
  return lstat(path, &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

bool pdt_same_file(const char *a, const char *b, pdt_error *err) {
  struct stat x, y;
  bool has_a = stat(a, &x) == 0, has_b = stat(b, &y) == 0;
  if (has_a || has_b) return has_a && has_b && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
  char *end_a = NULL, *end_b = NULL, *in_a = NULL, *in_b = NULL;
  pdt_error why = {0};
  bool followed = !pdt_path_follow(&end_a, a, &why) && !pdt_path_follow(&end_b, b, &why);
  if (followed) {
    in_a = pdt_path_folder(end_a);
    in_b = pdt_path_folder(end_b);
    if (!in_a || !in_b) pdt_fail(&why, PDT_ERROR_MEMORY, "%s: no memory", a);
  }
  if (why.code == PDT_ERROR_MEMORY && err) *err = why;
  bool same = in_a && in_b && strcmp(pdt_path_name(end_a), pdt_path_name(end_b)) == 0 &&
              stat(in_a, &x) == 0 && stat(in_b, &y) == 0 && x.st_dev == y.st_dev &&
              x.st_ino == y.st_ino;
  free(end_a);
  free(end_b);
  free(in_a);
  free(in_b);
  return same;
}
