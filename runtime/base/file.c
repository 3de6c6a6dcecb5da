#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/memory.h"

enum {
  MAX_ATTEMPTS = 1 << 20,   /* names of temporary files that may be taken */
  NAME_BYTES = 255 - 3 - 40 /* of a file's name that its temporary's name has room for */
};
#define ACCESS_LIST "system.posix_acl_access"

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

/* Regular files are read, and of nothing else there is a size. */
static int check_regular(int fd, const char *path, struct stat *status, pdt_error *err) {
  if (fstat(fd, status)) return pdt_fail(err, PDT_ERROR_IO, "%s: %s", path, strerror(errno));
  if (S_ISREG(status->st_mode)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a regular file, found another kind", path);
}

static int read_open_file(char **out, pdt_bytes *n_bytes, int fd, const char *path,
                          pdt_bytes max_bytes, pdt_error *err) {
  struct stat status;
  if (check_regular(fd, path, &status, err)) return -1;
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

/* A model may have more files than a process may open by default: up to the limit that the system
 * sets, it may say so itself. */
static int open_for_reading(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block the start */
  struct rlimit files;
  if (fd >= 0 || errno != EMFILE || getrlimit(RLIMIT_NOFILE, &files)) return fd;
  files.rlim_cur = files.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &files);
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

int pdt_file_open(const char *path, pdt_error *err) {
  int fd = open_for_reading(path);
  if (fd >= 0) return fd;
  int reason = errno;
  struct stat status;
  bool dangling = reason == ENOENT && lstat(path, &status) == 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open: %s%s", path, strerror(reason),
                  dangling ? " (it is a symbolic link to a file that is not there)" : "");
}

int pdt_file_stream(FILE **file, pdt_bytes *size, const char *path, pdt_error *err) {
  struct stat status;
  *file = NULL;
  int fd = pdt_file_open(path, err);
  if (fd < 0) return -1;
  int rc = check_regular(fd, path, &status, err);
  if (!rc && !(*file = fdopen(fd, "r")))
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (rc)
    close(fd);
  else
    *size = status.st_size;
  return rc;
}

int pdt_file_read(char **out, pdt_bytes *n_bytes, const char *path, pdt_bytes max_bytes,
                  pdt_error *err) {
  *out = NULL;
  *n_bytes = 0;
  int fd = pdt_file_open(path, err);
  if (fd < 0) return -1;
  int rc = read_open_file(out, n_bytes, fd, path, max_bytes, err);
  close(fd);
  return rc;
}

static int hash_open_file(XXH3_state_t *state, int fd, const char *path, pdt_error *err) {
  enum { PIECE = 1 << 16 };
  struct stat status;
  char piece[PIECE];
  ssize_t n;
  if (check_regular(fd, path, &status, err)) return -1;
  do {
    n = read(fd, piece, sizeof piece);
    if (n > 0) XXH3_64bits_update(state, piece, (size_t)n);
  } while (n > 0 || (n < 0 && errno == EINTR));
  if (n < 0) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", path, strerror(errno));
  return 0;
}

int pdt_file_hash(uint64_t *hash, const char *path, pdt_error *err) {
  int fd = pdt_file_open(path, err);
  XXH3_state_t *state = fd < 0 ? NULL : XXH3_createState();
  if (fd < 0) return -1;
  int rc = state ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (!rc) (void)XXH3_64bits_reset_withSeed(state, *hash);
  if (!rc) rc = hash_open_file(state, fd, path, err);
  if (!rc) *hash = XXH3_64bits_digest(state);
  (void)XXH3_freeState(state);
  close(fd);
  return rc;
}

/* Whoever writes a temporary file holds a lock on it, so that one without is known for a leftover,
 * and is removed under a lock. */
static void remove_abandoned(const char *path) {
  struct stat status;
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
    unlink(path);
  close(fd);
}

/* Is this "NAME.PID.N.tmp"? A long NAME was cut. */
static bool is_temporary_of(const char *found, const char *name) {
  size_t n = strnlen(name, NAME_BYTES);
  int end = 0;
  if (strncmp(found, name, n) != 0) return false;
  (void)sscanf(found + n, ".%*[0-9].%*[0-9].tmp%n", &end);
  return end > 0 && found[n + (size_t)end] == '\0';
}

void pdt_temporaries_remove(const char *path) {
  char *target = NULL, *folder = NULL;
  DIR *list = NULL;
  if (!pdt_path_follow(&target, path, NULL) && (folder = pdt_path_folder(target)))
    list = opendir(folder);
  for (const struct dirent *e; list && (e = readdir(list));) {
    char *found = NULL;
    if (!is_temporary_of(e->d_name, pdt_path_name(target))) continue;
    if (asprintf(&found, "%s%s", folder, e->d_name) < 0) break;
    remove_abandoned(found);
    free(found);
  }
  if (list) closedir(list);
  free(folder);
  free(target);
}

/* Sets file->temporary to the attempt's name. */
static int name_temporary(pdt_new_file *file, int attempt, pdt_error *err) {
  const char *name = pdt_path_name(file->target);
  int before = (int)(name - file->target);
  free(file->temporary);
  if (asprintf(&file->temporary, "%.*s%.*s.%ld.%d.tmp", before, file->target, NAME_BYTES, name,
               (long)getpid(), attempt) >= 0)
    return 0;
  file->temporary = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", file->path);
}

static int cannot_create(const pdt_new_file *file, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot create: %s", file->path, strerror(errno));
}

/* Locks a new temporary file; false when somebody took it for a leftover just before. */
static bool lock(int fd) {
  struct stat status;
  (void)flock(fd, LOCK_EX); /* where it cannot be locked, nobody removes it either */
  return fstat(fd, &status) || status.st_nlink > 0;
}

/* A temporary file with a name, one that nobody has. */
static int create_named(pdt_new_file *file, mode_t mode, pdt_error *err) {
  pdt_temporaries_remove(file->path);
  for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    if (name_temporary(file, attempt, err)) return -1;
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file->fd >= 0 && lock(file->fd)) return 0;
    if (file->fd < 0 && errno != EEXIST) break;
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
  }
  int rc = cannot_create(file, err);
  free(file->temporary);
  file->temporary = NULL;
  return rc;
}

/* Where the kernel shows a descriptor's file. */
static void descriptor_path(int fd, char path[32]) {
  snprintf(path, 32, "/proc/self/fd/%d", fd);
}

/* A file that has no name yet: whatever ends the process, nothing stays. False where the file
 * system does not know them or nobody could name it later. */
static bool create_nameless(pdt_new_file *file, mode_t mode) {
  char *folder = pdt_path_folder(file->target), path[32];
  file->fd = folder ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, mode) : -1;
  free(folder);
  if (file->fd < 0) return false;
  descriptor_path(file->fd, path);
  if (access(path, F_OK) == 0) {
    (void)flock(file->fd, LOCK_EX | LOCK_NB); /* for the moment between its two names */
    return true;
  }
  close(file->fd);
  file->fd = -1;
  return false;
}

/* A file that is replaced hands on its access rights and its owner, as far as this user may give
 * them; a group that it may not give does not leave its rights to another. */
static void keep_access(int fd, const char *old_path, const struct stat *old) {
  mode_t mode = old->st_mode & 0777;
  char list[4096];
  if (fchown(fd, old->st_uid, old->st_gid) && fchown(fd, (uid_t)-1, old->st_gid))
    mode = (mode & ~(mode_t)070) | (mode & 07) << 3;
  (void)fchmod(fd, mode);
  ssize_t n = getxattr(old_path, ACCESS_LIST, list, sizeof list);
  if (n > 0) (void)fsetxattr(fd, ACCESS_LIST, list, (size_t)n, 0);
}

/* May the file that is there be replaced? As if it were to be written in place. */
static int check_replaced(const pdt_new_file *file, const struct stat *old, pdt_error *err) {
  struct stat folder;
  if (!S_ISREG(old->st_mode))
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", file->path,
                    S_ISDIR(old->st_mode) ? strerror(EISDIR) : "it exists and is no regular file");
  if (faccessat(AT_FDCWD, file->target, W_OK, AT_EACCESS))
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot open for writing: %s", file->path,
                    strerror(errno));
  char *name = pdt_path_folder(file->target);
  bool sticky = name && stat(name, &folder) == 0 && (folder.st_mode & S_ISVTX);
  free(name);
  if (sticky && geteuid() != 0 && geteuid() != old->st_uid && geteuid() != folder.st_uid)
    return pdt_fail(err, PDT_ERROR_IO,
                    "%s: cannot replace another user's file in a folder with the sticky bit",
                    file->path);
  return 0;
}

static int open_beside(pdt_new_file *file, bool named, pdt_error *err) {
  struct stat old;
  char *target;
  if (!*file->path)
    return pdt_fail(err, PDT_ERROR_USAGE, "expected the name of a file to write, found ''");
  if (pdt_path_follow(&target, file->path, err)) return -1;
  file->target = target;
  bool replaces = stat(file->target, &old) == 0;
  if (!replaces && errno != ENOENT) return cannot_create(file, err);
  if (replaces && check_replaced(file, &old, err)) return -1;
  mode_t mode = replaces ? old.st_mode & 0777 : 0666;
  if ((named || !create_nameless(file, mode)) && create_named(file, mode, err)) return -1;
  if (replaces) keep_access(file->fd, file->target, &old);
  return 0;
}

static int open_new(pdt_new_file *file, const char *path, bool named, pdt_error *err) {
  *file = (pdt_new_file){.fd = -1};
  file->path = strdup(path);
  if (!file->path) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  if (open_beside(file, named, err) == 0) return 0;
  pdt_new_file_abandon(file);
  return -1;
}

int pdt_new_file_open(pdt_new_file *file, const char *path, pdt_error *err) {
  return open_new(file, path, false, err);
}

int pdt_new_file_open_named(pdt_new_file *file, const char *path, pdt_error *err) {
  return open_new(file, path, true, err);
}

static int cannot_write(const pdt_new_file *file, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", file->path, strerror(errno));
}

int pdt_new_file_write(pdt_new_file *file, const void *data, pdt_bytes bytes, pdt_error *err) {
  const char *from = data;
  while (bytes > 0) {
    ssize_t n = write(file->fd, from, (size_t)bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cannot_write(file, err);
    from += n;
    bytes -= n;
  }
  return 0;
}

/* A rename lasts once its folder is on disk. Some file systems cannot synchronize a folder: the
 * file's own bytes are safe all the same. */
static void sync_folder(const char *path) {
  char *folder = pdt_path_folder(path);
  int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    (void)fsync(fd);
    close(fd);
  }
  free(folder);
}

/* Gives a nameless file its final name where nobody has that, else a temporary one. */
static int give_name(pdt_new_file *file, pdt_error *err) {
  char path[32];
  descriptor_path(file->fd, path);
  if (linkat(AT_FDCWD, path, AT_FDCWD, file->target, AT_SYMLINK_FOLLOW) == 0) return 0;
  for (int attempt = 0; errno == EEXIST && attempt < MAX_ATTEMPTS; attempt++) {
    if (name_temporary(file, attempt, err)) return -1;
    if (linkat(AT_FDCWD, path, AT_FDCWD, file->temporary, AT_SYMLINK_FOLLOW) == 0) return 0;
  }
  int rc = cannot_write(file, err);
  free(file->temporary);
  file->temporary = NULL;
  return rc;
}

int pdt_new_file_commit(pdt_new_file *file, pdt_error *err) {
  int rc = fsync(file->fd) ? cannot_write(file, err) : 0;
  if (!rc && !file->temporary) rc = give_name(file, err);
  if (!rc && file->temporary && rename(file->temporary, file->target))
    rc = pdt_fail(err, PDT_ERROR_IO, "%s: cannot rename '%s' to it: %s", file->path,
                  file->temporary, strerror(errno));
  if (!rc) {
    free(file->temporary);
    file->temporary = NULL;
    int fd = file->fd;
    file->fd = -1;
    if (close(fd)) rc = cannot_write(file, err);
    sync_folder(file->target);
  }
  pdt_new_file_abandon(file);
  return rc;
}

void pdt_new_file_abandon(pdt_new_file *file) {
  if (file->fd >= 0) {
    if (file->temporary) unlink(file->temporary);
    close(file->fd);
  }
  free(file->temporary);
  free(file->target);
  free(file->path);
  *file = (pdt_new_file){.fd = -1};
}

int pdt_nameless_open(const char *folder, pdt_error *err) {
  int fd = open(folder, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  char *path = NULL;
  if (asprintf(&path, "%s/.pdt-XXXXXX", folder) < 0)
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", folder);
  fd = mkostemp(path, O_CLOEXEC);
  if (fd < 0)
    pdt_fail(err, PDT_ERROR_IO, "%s: cannot create a file there: %s", folder, strerror(errno));
  else
    unlink(path);
  free(path);
  return fd;
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
