/* Does a journal tell a story that can have happened? Beyond what the reader checks byte by byte:
 * the header comes first and once; boundaries and each session's rounds ascend by one; sessions
 * start in the order of their requests, before they decide, and decide nothing after their end;
 * their requests are sound; round 1 has every stream; no block is longer than the request's;
 * actions
 * fit the gate (3.7); attempts follow from the actions before them; tokens, readiness and coverage
 * are in range; nothing follows a stream's end of sequence. */
#ifndef PDT_JOURNAL_VERIFY_H
#define PDT_JOURNAL_VERIFY_H

#include "journal/journal.h"

/* Counts over the entries accepted so far. */
typedef struct pdt_journal_totals {
  int64_t entries;
  int64_t requests; /* to serve, by the header */
  int64_t started;  /* sessions */
  int64_t ended;    /* of them, those with a SessionEnd */
  int64_t complete; /* of those, with every stream done */
  int64_t boundaries;
  int64_t rounds;                            /* of sessions */
  int64_t gates;                             /* rounds whose gate passed */
  int64_t commits, holds, rollbacks, forced; /* blocks */
  int64_t tokens;                            /* emitted */
  int64_t committed;                         /* tokens */
} pdt_journal_totals;

/* What is known of one stream of one session in flight. */
typedef struct pdt_journal_stream {
  int64_t attempt; /* expected of its next block */
  int64_t pending; /* tokens */
  bool ended;      /* its last block, pending or committed, ends the sequence */
} pdt_journal_stream;

typedef struct pdt_journal_session {
  bool ended;
  uint64_t session;
  int32_t max_block;           /* tokens, by its request */
  uint64_t boundary;           /* last one that decided about it, 0 before */
  uint32_t round;              /* last decided, 0 before */
  size_t n_slots;              /* plan_ids */
  size_t n_streams;            /* by its request */
  pdt_journal_stream *streams; /* [n_streams], from round 1 on, freed at the end */
} pdt_journal_session;

typedef struct pdt_journal_check {
  bool have_header;
  uint64_t boundary; /* the last one */
  size_t n_requests;
  size_t n_started, room;
  pdt_journal_session *sessions; /* [n_started], by request */
  pdt_journal_totals totals;
} pdt_journal_check;

/* Starts with nothing seen. Ended by pdt_journal_check_free. */
void pdt_journal_check_init(pdt_journal_check *c);

/* Accepts the next entry, or says with its offset why it cannot follow what came before. Errors:
 * INPUT, MEMORY. After one, c is good for free only. */
int pdt_journal_check_entry(pdt_journal_check *c, const pdt_journal_entry *entry, pdt_error *err);

void pdt_journal_check_free(pdt_journal_check *c);

/* Reads and checks the whole file at path. A torn end is no error: *torn is its bytes. Sessions
 * without an end are none either: totals tell. Both outputs may be NULL. Errors: as the reader's
 * and the check's, and INPUT when there is no header. */
int pdt_journal_verify(const char *path, pdt_journal_totals *totals, pdt_bytes *torn,
                       pdt_error *err);

#endif
