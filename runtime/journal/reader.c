#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "journal/bytes.h"
#include "journal/journal.h"

static int check_head(pdt_journal_reader *r, pdt_error *err) {
  uint8_t head[PDT_JOURNAL_HEAD_BYTES];
  if (r->size < PDT_JOURNAL_HEAD_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: expected at least %d bytes, found %lld",
                    r->name, PDT_JOURNAL_HEAD_BYTES, (long long)r->size);
  if (pdt_bytes_read(r->file, head, sizeof head, r->name, err)) return -1;
  if (memcmp(head, PDT_JOURNAL_MAGIC, 8) != 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: this is no journal: expected it to begin with "
                    "'PDTJRNL'",
                    r->name);
  uint32_t version = pdt_get_le32(head + 8);
  if (version != PDT_JOURNAL_VERSION)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: expected format version %d, found %u",
                    r->name, PDT_JOURNAL_VERSION, version);
  r->good = PDT_JOURNAL_HEAD_BYTES;
  return 0;
}

int pdt_journal_reader_attach(pdt_journal_reader *r, FILE *file, pdt_bytes size, const char *name,
                              pdt_error *err) {
  *r = (pdt_journal_reader){.file = file, .size = size, .name = strdup(name)};
  int rc = r->name ? check_head(r, err)
                   : pdt_fail(err, PDT_ERROR_MEMORY, "%s: journal: no memory", name);
  if (rc) pdt_journal_reader_close(r);
  return rc;
}

int pdt_journal_reader_open(pdt_journal_reader *r, const char *path, pdt_error *err) {
  FILE *file;
  pdt_bytes size;
  *r = (pdt_journal_reader){0};
  if (pdt_file_stream(&file, &size, path, err)) return -1;
  return pdt_journal_reader_attach(r, file, size, path, err);
}

int pdt_journal_reader_open_part(pdt_journal_reader *r, const char *path, pdt_bytes bytes,
                                 pdt_error *err) {
  if (pdt_journal_reader_open(r, path, err)) return -1;
  if (bytes < r->size) r->size = bytes;
  return 0;
}

static void drop_messages(pdt_journal_reader *r) {
  pdt__journal_entry__free_unpacked(r->message, NULL);
  pdt__decision__free_unpacked(r->decision, NULL);
  r->message = NULL;
  r->decision = NULL;
}

static int corrupt(const pdt_journal_reader *r, const char *what, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: journal: entry %lld at byte %lld: %s (hint: the first %lld bytes are good)",
                  r->name, (long long)r->entries, (long long)r->good, what, (long long)r->good);
}

/* Are all of the file's last `left` bytes zero? So a file may end whose machine stopped before what
 * was appended came to the disk. 1, 0, or -1 on error. */
static int is_blank(pdt_journal_reader *r, pdt_bytes left, pdt_error *err) {
  uint8_t piece[4096];
  while (left > 0) {
    size_t n = left < (pdt_bytes)sizeof piece ? (size_t)left : sizeof piece;
    if (pdt_bytes_read(r->file, piece, n, r->name, err)) return -1;
    for (size_t i = 0; i < n; i++)
      if (piece[i] != 0) return 0;
    left -= (pdt_bytes)n;
  }
  return 1;
}

/* Reads the payload's length: 1, or 0 when the file holds no whole entry any more. */
static int next_length(pdt_journal_reader *r, size_t *length, pdt_error *err) {
  if (r->torn > 0) return 0; /* the end was found before */
  pdt_bytes left = r->size - r->good;
  uint8_t field[4];
  r->torn = left;
  if (left < 4) return 0;
  if (pdt_bytes_read(r->file, field, sizeof field, r->name, err)) return -1;
  *length = pdt_get_le32(field);
  int blank = *length == 0 ? is_blank(r, left - (pdt_bytes)sizeof field, err) : 0;
  if (blank) return blank > 0 ? 0 : -1;
  if (*length == 0 || *length > PDT_JOURNAL_MAX_ENTRY_BYTES)
    return corrupt(r, "its length is impossible", err);
  return (pdt_bytes)*length + PDT_JOURNAL_FRAME_BYTES <= left;
}

/* Reads length, payload and checksum into the buffer, without its eight last bytes of checksum. */
static int read_payload(pdt_journal_reader *r, size_t length, pdt_error *err) {
  if (pdt_bytes_reserve(&r->buffer, &r->capacity, length + PDT_JOURNAL_FRAME_BYTES, "journal", err))
    return -1;
  pdt_put_le32(r->buffer, (uint32_t)length);
  if (pdt_bytes_read(r->file, r->buffer + 4, length + 8, r->name, err)) return -1;
  if (XXH3_64bits(r->buffer, length + 4) != pdt_get_le64(r->buffer + 4 + length))
    return corrupt(r, "its checksum is wrong", err);
  return 0;
}

static int unpack(pdt_journal_reader *r, size_t length, pdt_error *err) {
  r->message = pdt__journal_entry__unpack(NULL, length, r->buffer + 4);
  if (!r->message) return corrupt(r, "it is no JournalEntry", err);
  if (r->message->entry_case == PDT__JOURNAL_ENTRY__ENTRY__NOT_SET)
    return corrupt(r, "its kind is unknown", err);
  if (r->message->entry_case != PDT__JOURNAL_ENTRY__ENTRY_DECISION) return 0;
  const ProtobufCBinaryData *packed = &r->message->decision;
  r->decision = pdt__decision__unpack(NULL, packed->len, packed->data);
  return r->decision ? 0 : corrupt(r, "it holds no Decision", err);
}

int pdt_journal_reader_next(pdt_journal_reader *r, pdt_journal_entry *entry, pdt_error *err) {
  size_t length;
  drop_messages(r);
  int more = next_length(r, &length, err);
  if (more <= 0) return more;
  if (read_payload(r, length, err) || unpack(r, length, err)) return -1;
  *entry = (pdt_journal_entry){.index = r->entries++,
                               .offset = r->good,
                               .bytes = (pdt_bytes)length,
                               .message = r->message,
                               .decision = r->decision};
  r->good += (pdt_bytes)length + PDT_JOURNAL_FRAME_BYTES;
  r->torn = 0;
  return 1;
}

void pdt_journal_reader_close(pdt_journal_reader *r) {
  drop_messages(r);
  if (r->file) fclose(r->file);
  free(r->name);
  free(r->buffer);
  *r = (pdt_journal_reader){0};
}

bool pdt_is_journal(const char *path) {
  char magic[8];
  struct stat status;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */
  bool is = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
            read(fd, magic, sizeof magic) == sizeof magic &&
            memcmp(magic, PDT_JOURNAL_MAGIC, sizeof magic) == 0;
  if (fd >= 0) close(fd);
  return is;
}
