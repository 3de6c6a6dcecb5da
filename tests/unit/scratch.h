/* A folder of a test's own, gone after it. */
#ifndef PDT_TESTS_SCRATCH_H
#define PDT_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct scratch {
  char folder[256];
  char path[512]; /* of the last scratch_path */
} scratch;

static inline int scratch_setup(void **state) {
  scratch *s = calloc(1, sizeof *s);
  const char *base = getenv("TMPDIR");
  if (!s) return -1;
  snprintf(s->folder, sizeof s->folder, "%s/pdt-test-XXXXXX", base ? base : "/tmp");
  *state = s;
  return mkdtemp(s->folder) ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *status, int type,
                                 struct FTW *ftw) {
  (void)status;
  (void)type;
  (void)ftw;
  return remove(path);
}

static inline int scratch_teardown(void **state) {
  scratch *s = *state;
  int rc = nftw(s->folder, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
  free(s);
  return rc;
}

/* The path of a file in the folder, good until the next call. */
static inline const char *scratch_path(scratch *s, const char *name) {
  snprintf(s->path, sizeof s->path, "%s/%s", s->folder, name);
  return s->path;
}

/* Writes bytes into a file of the folder. */
static inline void scratch_write(scratch *s, const char *name, const void *data, size_t bytes) {
  FILE *f = fopen(scratch_path(s, name), "wb");
  if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
}

static inline void scratch_text(scratch *s, const char *name, const char *text) {
  scratch_write(s, name, text, strlen(text));
}

#endif
