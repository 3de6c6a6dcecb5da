#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

int pdt_path_join(char **out, const char *directory, const char *name, pdt_error *err) {
  size_t length = strlen(directory), room = length + strlen(name) + 2;
  if (PDT_NEW(out, room, "path", err)) return -1;
  bool slash = length > 0 && directory[length - 1] != '/';
  snprintf(*out, room, "%s%s%s", directory, slash ? "/" : "", name);
  return 0;
}

/* Reads until `bytes` are there or the file ends; how many came, -1 with errno. */
static ssize_t read_all(int fd, char *data, size_t bytes) {
  size_t have = 0;
  while (have < bytes) {
    ssize_t n = read(fd, data + have, bytes - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    have += (size_t)n;
  }
  return (ssize_t)have;
}

static int read_open_file(char **out, pdt_bytes *n_bytes, int fd, const char *path,
                          pdt_bytes max_bytes, pdt_error *err) {
  struct stat status;
  if (fstat(fd, &status)) return pdt_fail(err, PDT_ERROR_IO, "%s: %s", path, strerror(errno));
  if (!S_ISREG(status.st_mode))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a regular file, found another kind", path);
  if (status.st_size > max_bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: too large: expected at most %lld bytes, found %lld",
                    path, (long long)max_bytes, (long long)status.st_size);
  if (PDT_NEW(out, status.st_size + 1, path, err)) return -1;
  ssize_t n = read_all(fd, *out, (size_t)status.st_size);
  if (n < 0) {
    pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", path, strerror(errno));
    free(*out);
    *out = NULL;
    return -1;
  }
  (*out)[n] = '\0'; /* fewer bytes when the file was cut meanwhile */
  *n_bytes = n;
  return 0;
}

int pdt_file_read(char **out, pdt_bytes *n_bytes, const char *path, pdt_bytes max_bytes,
                  pdt_error *err) {
  *out = NULL;
  *n_bytes = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block the start */
  if (fd < 0) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
  int rc = read_open_file(out, n_bytes, fd, path, max_bytes, err);
  close(fd);
  return rc;
}

/* Opens a name nobody has beside `path`. */
static int create_temporary(pdt_new_file *file, pdt_error *err) {
  size_t room = strlen(file->path) + 64;
  if (PDT_NEW(&file->temporary, room, "path", err)) return -1;
  for (int attempt = 0; attempt < 100; attempt++) {
    snprintf(file->temporary, room, "%s.%ld.%d.tmp", file->path, (long)getpid(), attempt);
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd >= 0) return 0;
    if (errno != EEXIST) break;
  }
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot create: %s", file->path, strerror(errno));
}

int pdt_new_file_open(pdt_new_file *file, const char *path, pdt_error *err) {
  *file = (pdt_new_file){.fd = -1};
  struct stat status;
  if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: it exists and is no regular file", path);
  file->path = strdup(path);
  if (!file->path) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (create_temporary(file, err) == 0) return 0;
  pdt_new_file_abandon(file);
  return -1;
}

int pdt_new_file_write(pdt_new_file *file, const void *data, pdt_bytes bytes, pdt_error *err) {
  const char *from = data;
  while (bytes > 0) {
    ssize_t n = write(file->fd, from, (size_t)bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", file->path, strerror(errno));
    from += n;
    bytes -= n;
  }
  return 0;
}

/* A rename lasts once its folder is on disk. Some file systems cannot synchronize a folder: the
 * file's own bytes are safe all the same. */
static void sync_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
  int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    (void)fsync(fd);
    close(fd);
  }
  free(folder);
}

int pdt_new_file_commit(pdt_new_file *file, pdt_error *err) {
  int rc = 0;
  if (fsync(file->fd))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", file->path, strerror(errno));
  int fd = file->fd;
  file->fd = -1;
  if (close(fd) && !rc)
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", file->path, strerror(errno));
  if (!rc && rename(file->temporary, file->path))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot rename '%s' to it: %s", file->path,
                  file->temporary, strerror(errno));
  if (rc) {
    unlink(file->temporary);
  } else {
    sync_folder(file->path);
  }
  free(file->temporary);
  free(file->path);
  *file = (pdt_new_file){.fd = -1};
  return rc;
}

void pdt_new_file_abandon(pdt_new_file *file) {
  if (file->fd >= 0) {
    close(file->fd);
    unlink(file->temporary);
  }
  free(file->temporary);
  free(file->path);
  *file = (pdt_new_file){.fd = -1};
}

int pdt_file_write_text(const char *path, const char *text, pdt_error *err) {
  pdt_new_file file;
  if (pdt_new_file_open(&file, path, err)) return -1;
  if (pdt_new_file_write(&file, text, (pdt_bytes)strlen(text), err)) {
    pdt_new_file_abandon(&file);
    return -1;
  }
  return pdt_new_file_commit(&file, err);
}
