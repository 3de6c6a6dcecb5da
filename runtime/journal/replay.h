/* A journal's sessions, brought back by what was decided about them: the same rules, applied to the
 * same verdicts (protocol/session.h), give the same tokens, coverage and ends. So a journal that
 * can be replayed tells a story that can have happened. Beyond what the reader checks byte by byte:
 * the header comes first and once; boundaries ascend by one; sessions start in the order of their
 * requests, a request that is not served in its place, before they decide, and decide nothing after
 * their end; their requests are sound; every
 * decision follows from the session's settings and from the decisions before it; tokens, readiness
 * and coverage are in range; a session ends as its streams say, or by a fault, after which nothing
 * but its end may come. No model is needed, and no memory that the journal's own bytes do not
 * account for. */
#ifndef PDT_JOURNAL_REPLAY_H
#define PDT_JOURNAL_REPLAY_H

#include "journal/journal.h"
#include "protocol/session.h"
#include "request/request.h"

/* Counts over the entries accepted so far. */
typedef struct pdt_journal_totals {
  int64_t entries;
  int64_t requests; /* to serve, by the header */
  int64_t started;  /* sessions */
  int64_t ended;    /* of them, those whose end is told */
  int64_t complete; /* of those, with every stream done */
  int64_t boundaries;
  int64_t faults; /* sessions that a number which is none ended: complete they are not */
  int64_t failed; /* requests that were not served, those sessions included */
  int64_t rounds; /* of sessions */
  int64_t gates;  /* rounds whose gate passed */
  int64_t commits, holds, rollbacks, forced; /* blocks */
  int64_t tokens;                            /* emitted */
  int64_t committed;                         /* tokens */
} pdt_journal_totals;

typedef struct pdt_replay_session {
  pdt_request request;
  int32_t index;     /* of the request */
  int32_t *plan_ids; /* [slots] */
  int32_t slots;
  uint64_t plan;            /* hash of its plan (pdt_replay_plan_hash) */
  uint64_t first, boundary; /* the first and the last that decided about it, 0 before */
  pdt_session session;      /* streams are NULL before its first round */
  pdt_fault fault;          /* that ended it in the round that was its next; none: no fault did, */
  pdt_stream fault_stream;  /* the first stream that met it */
  pdt_round round;          /* the next one */
  bool complete;            /* once it has ended: every stream is done */
} pdt_replay_session;

/* What is kept of a session after its end. */
typedef struct pdt_replay_slot {
  uint64_t number;  /* of the session */
  pdt_round rounds; /* that it has had */
  int32_t n_streams;
  pdt_fault fault;             /* that ended it */
  bool failed;                 /* the request was not served, and it is said why */
  pdt_replay_session *session; /* NULL once it has ended, or where it never started */
} pdt_replay_slot;

typedef struct pdt_replay {
  bool have_header;
  uint64_t boundary;           /* the last one */
  size_t n, room;              /* requests whose sessions have started, or never will */
  pdt_replay_slot *slots;      /* [n], by request */
  pdt_replay_session *ended;   /* handed out by the last call */
  pdt_block_verdict *verdicts; /* of one decision */
  size_t verdicts_room;
  pdt_journal_totals totals;
} pdt_replay;

/* Starts with nothing seen. Ended by pdt_replay_free. */
void pdt_replay_init(pdt_replay *r);

/* Takes the next entry, or says with its offset why it cannot follow what came before. *ended is
 * the session that it ends, which lasts until the next call, or NULL, also where a request fails.
 * Errors: INPUT, MEMORY. After one, r is good for free only. */
int pdt_replay_entry(pdt_replay *r, const pdt_journal_entry *entry,
                     const pdt_replay_session **ended, pdt_error *err);

void pdt_replay_free(pdt_replay *r);

/* Has everything been decided about a session in flight, so that its end is all that is missing? */
bool pdt_replay_is_over(const pdt_replay_session *s);

/* XXH3-64 of a session's plan: ids [n] and the note [dim]. */
uint64_t pdt_replay_plan_hash(const int32_t *ids, size_t n, const float *note, size_t dim);

/* Reads and replays the whole file at path. A torn end is no error: *torn is its bytes. Sessions
 * without an end are none either: totals tell. Both outputs may be NULL. Errors: as the reader's
 * and the replay's, and INPUT when there is no header. */
int pdt_journal_verify(const char *path, pdt_journal_totals *totals, pdt_bytes *torn,
                       pdt_error *err);

#endif
