#include "journal/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "journal/bytes.h"
#include "journal/sink.h"

static int io_error(const pdt_journal *j, const char *what, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_IO, "%s: journal: cannot %s: %s", j->path, what, strerror(errno));
}

/* Writes all bytes of j->buffer's first `bytes`. After a failure the file is cut back to its whole
 * entries, so that what was decided can still be read, and nothing more is appended: a gap in the
 * sequence would be worse than its end. */
static int put(pdt_journal *j, size_t bytes, pdt_error *err) {
  if (j->broken)
    return pdt_fail(err, PDT_ERROR_IO, "%s: journal: an earlier append failed", j->path);
  for (size_t at = 0; at < bytes;) {
    ssize_t n = write(j->fd, j->buffer + at, bytes - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      j->broken = true;
      io_error(j, "append", err);
      if (j->regular) (void)!ftruncate(j->fd, (off_t)j->bytes);
      return -1;
    }
    at += (size_t)n;
  }
  j->bytes += (pdt_bytes)bytes;
  return 0;
}

/* Room for an entry; without it nothing more is appended, as after any other failure. */
static int reserve(pdt_journal *j, size_t bytes, pdt_error *err) {
  int status = pdt_bytes_reserve(&j->buffer, &j->capacity, bytes, "journal", err);
  j->broken = j->broken || status;
  return status;
}

/* A regular file must be ours alone. *bytes: its size, now that it is. */
static int lock(pdt_journal *j, pdt_bytes *bytes, pdt_error *err) {
  struct stat status;
  *bytes = 0;
  if (fstat(j->fd, &status)) return io_error(j, "open", err);
  j->regular = S_ISREG(status.st_mode);
  if (!j->regular) return 0;
  if (flock(j->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
    return pdt_fail(err, PDT_ERROR_IO, "%s: journal: another process is writing it", j->path);
  if (fstat(j->fd, &status)) return io_error(j, "open", err);
  *bytes = status.st_size;
  return 0;
}

/* A regular file must be empty, or a journal that may be replaced. */
static int claim(pdt_journal *j, bool overwrite, pdt_error *err) {
  pdt_bytes bytes;
  if (lock(j, &bytes, err)) return -1;
  if (bytes == 0) return 0;
  bool journal = pdt_is_journal(j->path);
  j->replaces = !journal || bytes > PDT_JOURNAL_HEAD_BYTES;
  if (journal && (overwrite || !j->replaces)) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "%s: journal: expected a new file, found %s of %lld bytes (hint: name another "
                  "file%s)",
                  j->path, journal ? "one" : "another kind of file", (long long)bytes,
                  journal ? ", or ask to overwrite it" : "");
}

/* The journal begins: what an older one held goes now, but for what is kept. */
static int begin(pdt_journal *j, pdt_error *err) {
  off_t keeps = (off_t)j->keeps;
  j->begun = true;
  if (j->regular && (ftruncate(j->fd, keeps) || lseek(j->fd, keeps, SEEK_SET) != keeps)) {
    j->broken = true;
    return io_error(j, keeps > 0 ? "cut" : "empty", err);
  }
  j->bytes = j->keeps;
  if (keeps > 0) return 0;
  if (reserve(j, 4096, err)) return -1;
  memcpy(j->buffer, PDT_JOURNAL_MAGIC, 8);
  pdt_put_le32(j->buffer + 8, PDT_JOURNAL_VERSION);
  return put(j, PDT_JOURNAL_HEAD_BYTES, err);
}

int pdt_journal_create(pdt_journal *j, const char *path, bool overwrite, pdt_journal_sync sync,
                       pdt_error *err) {
  *j = (pdt_journal){.fd = -1, .sync = sync};
  j->path = strdup(path);
  if (!j->path) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: journal: no memory", path);
  int own = pdt_sink_descriptor(path);
  j->created = own < 0 && access(path, F_OK) != 0;
  j->fd =
      own < 0 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : fcntl(own, F_DUPFD_CLOEXEC, 0);
  if (j->fd < 0) return io_error(j, "create", err);
  if (own < 0 && claim(j, overwrite, err)) return -1;
  return j->replaces ? 0 : begin(j, err);
}

/* Is it a regular file with nothing in it, or with a journal, or the beginning of one's head? */
static int claim_journal(pdt_journal *j, pdt_error *err) {
  char head[sizeof PDT_JOURNAL_MAGIC - 1];
  pdt_bytes bytes;
  if (lock(j, &bytes, err)) return -1;
  ssize_t n = j->regular ? pread(j->fd, head, sizeof head, 0) : 0;
  if (n < 0) return io_error(j, "read", err);
  if (j->regular && memcmp(head, PDT_JOURNAL_MAGIC, (size_t)n) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "%s: journal: expected one to go on from, found another kind of file (hint: name "
                  "the journal of the run)",
                  j->path);
}

int pdt_journal_continue(pdt_journal *j, const char *path, pdt_journal_sync sync, pdt_error *err) {
  *j = (pdt_journal){.fd = -1, .sync = sync, .replaces = true};
  j->path = strdup(path);
  if (!j->path) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: journal: no memory", path);
  if (pdt_sink_descriptor(path) >= 0)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "%s: journal: expected the name of a file, to go on from what it holds", path);
  j->created = access(path, F_OK) != 0;
  j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666); /* a pipe must not block */
  return j->fd < 0 ? io_error(j, "open", err) : claim_journal(j, err);
}

void pdt_journal_keep(pdt_journal *j, pdt_bytes bytes) {
  j->keeps = bytes;
}

static int append(pdt_journal *j, const Pdt__JournalEntry *entry, pdt_error *err) {
  size_t length = pdt__journal_entry__get_packed_size(entry);
  if (length > PDT_JOURNAL_MAX_ENTRY_BYTES) {
    j->broken = true; /* what cannot be kept must not be skipped either */
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "%s: journal: an entry of %zu bytes: expected at most %d", j->path, length,
                    PDT_JOURNAL_MAX_ENTRY_BYTES);
  }
  size_t bytes = length + PDT_JOURNAL_FRAME_BYTES;
  if (!j->begun && begin(j, err)) return -1;
  if (reserve(j, bytes, err)) return -1;
  pdt_put_le32(j->buffer, (uint32_t)length);
  pdt__journal_entry__pack(entry, j->buffer + 4);
  pdt_put_le64(j->buffer + 4 + length, XXH3_64bits(j->buffer, 4 + length));
  if (put(j, bytes, err)) return -1;
  bool decision = entry->entry_case == PDT__JOURNAL_ENTRY__ENTRY_DECISION;
  if (decision && j->sync == PDT_JOURNAL_SYNC_EACH_DECISION && j->regular && fdatasync(j->fd)) {
    j->broken = true;
    return io_error(j, "synchronize", err);
  }
  return 0;
}

/* A message's repeated fields are only read, though its struct does not say so. */
int pdt_journal_append_header(pdt_journal *j, const Pdt__RunHeader *header, pdt_error *err) {
  Pdt__JournalEntry entry = PDT__JOURNAL_ENTRY__INIT;
  entry.entry_case = PDT__JOURNAL_ENTRY__ENTRY_HEADER;
  entry.header = (Pdt__RunHeader *)(uintptr_t)header;
  return append(j, &entry, err);
}

int pdt_journal_append_start(pdt_journal *j, const Pdt__SessionStart *start, pdt_error *err) {
  Pdt__JournalEntry entry = PDT__JOURNAL_ENTRY__INIT;
  entry.entry_case = PDT__JOURNAL_ENTRY__ENTRY_START;
  entry.start = (Pdt__SessionStart *)(uintptr_t)start;
  return append(j, &entry, err);
}

int pdt_journal_append_end(pdt_journal *j, const Pdt__SessionEnd *end, pdt_error *err) {
  Pdt__JournalEntry entry = PDT__JOURNAL_ENTRY__INIT;
  entry.entry_case = PDT__JOURNAL_ENTRY__ENTRY_END;
  entry.end = (Pdt__SessionEnd *)(uintptr_t)end;
  return append(j, &entry, err);
}

int pdt_journal_append_failure(pdt_journal *j, const Pdt__RequestFailure *failure, pdt_error *err) {
  Pdt__JournalEntry entry = PDT__JOURNAL_ENTRY__INIT;
  entry.entry_case = PDT__JOURNAL_ENTRY__ENTRY_FAILURE;
  entry.failure = (Pdt__RequestFailure *)(uintptr_t)failure;
  return append(j, &entry, err);
}

int pdt_journal_append_decision(pdt_journal *j, const void *packed, pdt_bytes bytes,
                                pdt_error *err) {
  Pdt__JournalEntry entry = PDT__JOURNAL_ENTRY__INIT;
  entry.entry_case = PDT__JOURNAL_ENTRY__ENTRY_DECISION;
  entry.decision.data = (uint8_t *)(uintptr_t)packed;
  entry.decision.len = (size_t)bytes;
  return append(j, &entry, err);
}

int pdt_journal_close(pdt_journal *j, pdt_error *err) {
  int rc = 0;
  bool tell = !j->broken;
  if (j->fd >= 0 && j->created && j->bytes <= PDT_JOURNAL_HEAD_BYTES) unlink(j->path);
  if (j->fd >= 0) {
    if (j->sync != PDT_JOURNAL_SYNC_NEVER && j->regular && fsync(j->fd) && tell)
      rc = io_error(j, "synchronize", err);
    if (close(j->fd) && tell && !rc) rc = io_error(j, "close", err);
  }
  free(j->path);
  free(j->buffer);
  *j = (pdt_journal){.fd = -1};
  return rc;
}
