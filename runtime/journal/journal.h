/* The journal: what was decided, in order, in an append-only file (3.7, 3.8).
 *
 *   "PDTJRNL\n", format version (4 bytes)
 *   entries: payload length (4 bytes), payload, XXH3-64 of length and payload (8 bytes)
 *
 * Numbers are little-endian. A payload is a serialized JournalEntry of proto/pdt.proto: one
 * RunHeader first, then SessionStart (which holds the session's request), Decision, SessionEnd and
 * RequestFailure entries; the bytes of a Decision are those that were broadcast. Format 1 had all
 * requests in the header, as JSON, and format 2 one hash for the notes of all sessions; they are
 * refused by their number. Nothing here communicates: the coordinator alone writes. */
#ifndef PDT_JOURNAL_JOURNAL_H
#define PDT_JOURNAL_JOURNAL_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"
#include "pdt.pb-c.h"

enum {
  PDT_JOURNAL_VERSION = 3,
  PDT_JOURNAL_HEAD_BYTES = 12,  /* magic and version */
  PDT_JOURNAL_FRAME_BYTES = 12, /* length and checksum around a payload */
  PDT_JOURNAL_MAX_ENTRY_BYTES = 64 << 20,
  PDT_JOURNAL_ENDLESS = INT32_MAX /* requests of a header: a server's, which come as they come */
};

/* When appended entries are forced to disk. An entry survives a crash of the process as soon as it
 * is appended; surviving a crash of the machine takes a sync. */
typedef enum pdt_journal_sync {
  PDT_JOURNAL_SYNC_NEVER,
  PDT_JOURNAL_SYNC_AT_CLOSE,
  PDT_JOURNAL_SYNC_EACH_DECISION, /* and all that came before it */
} pdt_journal_sync;

/* A journal being written. */
typedef struct pdt_journal {
  int fd; /* -1 when there is none */
  char *path;
  pdt_journal_sync sync;
  bool regular;    /* a file that can be cut and synchronized, no device or pipe */
  bool created;    /* nothing had that name before */
  bool replaces;   /* there is an older journal, */
  pdt_bytes keeps; /* of which these bytes stay */
  bool begun;      /* the head is written, what of an older journal goes is gone */
  bool broken;     /* an append failed: nothing may follow */
  pdt_bytes bytes; /* written, whole entries only */
  uint8_t *buffer; /* [capacity]: one entry */
  size_t capacity;
} pdt_journal;

/* Creates the file at path, or writes to the device or pipe that is there; "-" (standard output),
 * /dev/stdout, /dev/stderr and /dev/fd/N are this process's own descriptors. A journal that is
 * there is refused unless `overwrite`, and stands as it is until the first entry is appended; any
 * other regular file that holds something is refused, and so is one that another process is
 * writing. A pipe blocks until somebody reads it. Ended by pdt_journal_close. Errors: USAGE (it
 * exists), IO, MEMORY; j is then safe to close. */
int pdt_journal_create(pdt_journal *j, const char *path, bool overwrite, pdt_journal_sync sync,
                       pdt_error *err);

/* Opens the journal at path, or a new file, to append to what is there; what that is can be read
 * now, since no other process writes it. Nothing is changed before the first append. Ended by
 * pdt_journal_close. Errors: USAGE (no regular file, or of another kind), IO (another process is
 * writing it), MEMORY; j is then safe to close. */
int pdt_journal_continue(pdt_journal *j, const char *path, pdt_journal_sync sync, pdt_error *err);

/* Of a journal so opened: its first `bytes`, which end with a whole entry, stay, and the first
 * append comes behind them in place of what there is; 0, as by itself: it begins anew. */
void pdt_journal_keep(pdt_journal *j, pdt_bytes bytes);

/* Each of these appends one entry with one write, so that it is in the file or at its torn end.
 * After a failure the entry is cut off where the file allows it, and every further append fails.
 * Errors: IO (the disk is full), RUNTIME (larger than PDT_JOURNAL_MAX_ENTRY_BYTES), MEMORY. */
int pdt_journal_append_header(pdt_journal *j, const Pdt__RunHeader *header, pdt_error *err);
int pdt_journal_append_start(pdt_journal *j, const Pdt__SessionStart *start, pdt_error *err);
int pdt_journal_append_end(pdt_journal *j, const Pdt__SessionEnd *end, pdt_error *err);
int pdt_journal_append_failure(pdt_journal *j, const Pdt__RequestFailure *failure, pdt_error *err);

/* The packed bytes of a Decision, as broadcast. They are stored, not read. */
int pdt_journal_append_decision(pdt_journal *j, const void *packed, pdt_bytes bytes,
                                pdt_error *err);

/* Closes and frees; a new file in which no entry came is removed. Safe on a zeroed-and-closed j (fd
 * -1) and after a failed create. Reports what the system only says now, unless an append already
 * failed. Errors: IO. */
int pdt_journal_close(pdt_journal *j, pdt_error *err);

/* One entry as read. Messages belong to the reader and last until its next call. */
typedef struct pdt_journal_entry {
  int64_t index;    /* from 0 */
  pdt_bytes offset; /* of its length field in the file */
  pdt_bytes bytes;  /* of its payload */
  const Pdt__JournalEntry *message;
  const Pdt__Decision *decision; /* message->decision unpacked; NULL for other kinds */
} pdt_journal_entry;

typedef struct pdt_journal_reader {
  FILE *file;
  char *name;      /* for errors */
  pdt_bytes size;  /* of the file when it was opened */
  pdt_bytes good;  /* bytes up to the end of the last whole, intact entry */
  pdt_bytes torn;  /* bytes after `good` that are no whole entry; known once next returned 0 */
  int64_t entries; /* read so far */
  uint8_t *buffer; /* [capacity]: one entry */
  size_t capacity;
  Pdt__JournalEntry *message;
  Pdt__Decision *decision;
} pdt_journal_reader;

/* Opens a journal and checks magic and version. The size is taken now: entries appended later are
 * not seen. Closed by pdt_journal_reader_close. Errors: IO, INPUT (no regular file, no journal,
 * another version), MEMORY; r is then closed. */
int pdt_journal_reader_open(pdt_journal_reader *r, const char *path, pdt_error *err);

/* The same of its first `bytes` alone, whatever is behind them. */
int pdt_journal_reader_open_part(pdt_journal_reader *r, const char *path, pdt_bytes bytes,
                                 pdt_error *err);

/* The same for a stream of size bytes that is already open; takes it over, also on failure. */
int pdt_journal_reader_attach(pdt_journal_reader *r, FILE *file, pdt_bytes size, const char *name,
                              pdt_error *err);

/* Reads the next entry: 1 when there is one, 0 at the end of the file, -1 on error. At the end,
 * r->torn counts the bytes of an append that was cut short, as by a crash, or that are zero up to
 * the end, as where the crash was the machine's: they are not an error,
 * and r->good is where the journal could be cut to be whole. A length that points past the end of
 * the file cannot be told from one. Errors: INPUT with the offset (checksum, impossible length,
 * message that does not parse), IO, MEMORY; r is then good for closing only. No more memory is
 * taken than the bytes left in the file can account for. */
int pdt_journal_reader_next(pdt_journal_reader *r, pdt_journal_entry *entry, pdt_error *err);

/* Safe on a closed reader. */
void pdt_journal_reader_close(pdt_journal_reader *r);

/* Is there a regular file that begins with the journal's magic? */
bool pdt_is_journal(const char *path);

#endif
