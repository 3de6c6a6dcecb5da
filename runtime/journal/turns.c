#include "journal/turns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

enum { COPY_BYTES = 1 << 16, NONE = -1 };

/* Where a text's pieces wait. In the file each is preceded by a head that tells its length and
 * where the text's next one is. */
typedef struct waiting {
  int64_t first, last; /* of the pieces' heads in the file; NONE: there are none */
  bool ended;
} waiting;

typedef struct head {
  int64_t next, bytes;
} head;

struct pdt_turns {
  int32_t n, next;
  waiting *texts; /* [n] */
  int32_t n_waiting;
  int fd; /* of the waiting file; -1 before it is needed */
  int64_t end;
  char *folder;
  pdt_turns_writer write;
  void *context;
};

int pdt_turns_new(pdt_turns **turns, int32_t n, const char *folder, pdt_turns_writer write,
                  void *context, pdt_error *err) {
  if (PDT_NEW(turns, 1, "results", err)) return -1;
  **turns =
      (pdt_turns){.n = n, .fd = -1, .folder = strdup(folder), .write = write, .context = context};
  if (!(*turns)->folder || PDT_NEW(&(*turns)->texts, n, "results", err)) {
    pdt_turns_free(*turns);
    *turns = NULL;
    return pdt_fail(err, PDT_ERROR_MEMORY, "results: no memory for %d sessions", n);
  }
  for (int32_t i = 0; i < n; i++) (*turns)->texts[i] = (waiting){.first = NONE, .last = NONE};
  return 0;
}

void pdt_turns_free(pdt_turns *turns) {
  if (!turns) return;
  if (turns->fd >= 0) close(turns->fd);
  free(turns->texts);
  free(turns->folder);
  free(turns);
}

int32_t pdt_turns_next(const pdt_turns *turns) {
  return turns->next;
}

static int io_error(const pdt_turns *t, const char *what, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot %s results that wait for their turn: %s",
                  t->folder, what, strerror(errno));
}

/* Writes all of it at a place of the waiting file. */
static int put_at(const pdt_turns *t, const void *data, int64_t bytes, int64_t at, pdt_error *err) {
  for (const char *from = data; bytes > 0;) {
    ssize_t n = pwrite(t->fd, from, (size_t)bytes, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(t, "keep", err);
    from += n;
    at += n;
    bytes -= n;
  }
  return 0;
}

static int get_at(const pdt_turns *t, void *data, int64_t bytes, int64_t at, pdt_error *err) {
  for (char *to = data; bytes > 0;) {
    ssize_t n = pread(t->fd, to, (size_t)bytes, at);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO; /* nobody else knows the file */
    if (n <= 0) return io_error(t, "read", err);
    to += n;
    at += n;
    bytes -= n;
  }
  return 0;
}

static int open_waiting(pdt_turns *t, pdt_error *err) {
  if (t->fd < 0) t->fd = pdt_nameless_open(t->folder, NULL);
  if (t->fd < 0) t->fd = memfd_create("pdt results", MFD_CLOEXEC);
  return t->fd < 0 ? io_error(t, "keep", err) : 0;
}

/* Appends a piece to the waiting file and chains it to the text's others. */
static int keep(pdt_turns *t, waiting *w, const void *data, pdt_bytes bytes, pdt_error *err) {
  const head h = {.next = NONE, .bytes = bytes};
  int64_t at = t->end;
  if (open_waiting(t, err) || put_at(t, &h, sizeof h, at, err) ||
      put_at(t, data, bytes, at + (int64_t)sizeof h, err) ||
      (w->last != NONE && put_at(t, &at, sizeof at, w->last + (int64_t)offsetof(head, next), err)))
    return -1;
  if (w->first == NONE) {
    w->first = at;
    t->n_waiting++;
  }
  w->last = at;
  t->end = at + (int64_t)sizeof h + bytes;
  return 0;
}

/* Passes one waiting piece on and gives its room back; *next: the text's next one. */
static int pass_piece(pdt_turns *t, int64_t at, int64_t *next, char *buffer, pdt_error *err) {
  head h;
  if (get_at(t, &h, sizeof h, at, err)) return -1;
  int64_t from = at + (int64_t)sizeof h;
  for (int64_t done = 0; done < h.bytes;) {
    int64_t n = h.bytes - done < COPY_BYTES ? h.bytes - done : COPY_BYTES;
    if (get_at(t, buffer, n, from + done, err) || t->write(t->context, buffer, n, err)) return -1;
    done += n;
  }
  (void)fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                  (int64_t)sizeof h + h.bytes); /* where that cannot be, it waits for the end */
  *next = h.next;
  return 0;
}

/* Passes on all that waits of a text. */
static int pass_on(pdt_turns *t, waiting *w, pdt_error *err) {
  char *buffer;
  if (w->first == NONE) return 0;
  if (PDT_NEW(&buffer, COPY_BYTES, "results", err)) return -1;
  int rc = 0;
  for (int64_t at = w->first; at != NONE && !rc;) rc = pass_piece(t, at, &at, buffer, err);
  free(buffer);
  w->first = w->last = NONE;
  if (--t->n_waiting == 0 && !rc) {
    t->end = 0;
    if (ftruncate(t->fd, 0)) rc = io_error(t, "drop", err);
  }
  return rc;
}

static int check(const pdt_turns *t, int32_t text, pdt_error *err) {
  if (text >= t->next && text < t->n && !t->texts[text].ended) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "results: request %d: expected one that has not ended",
                  text);
}

int pdt_turns_put(pdt_turns *turns, int32_t text, const void *data, pdt_bytes bytes,
                  pdt_error *err) {
  if (check(turns, text, err)) return -1;
  if (text == turns->next) return turns->write(turns->context, data, bytes, err);
  return keep(turns, &turns->texts[text], data, bytes, err);
}

int pdt_turns_end(pdt_turns *turns, int32_t text, pdt_error *err) {
  if (check(turns, text, err)) return -1;
  turns->texts[text].ended = true;
  while (turns->next < turns->n && turns->texts[turns->next].ended) {
    turns->next++;
    if (turns->next < turns->n && pass_on(turns, &turns->texts[turns->next], err)) return -1;
  }
  return 0;
}
