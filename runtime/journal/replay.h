/* A journal's sessions, brought back by what was decided about them: the same rules, applied to the
 * same verdicts, give the same tokens, coverage and ends. No model is needed, and no memory that
 * the journal's own bytes do not account for. */
#ifndef PDT_JOURNAL_REPLAY_H
#define PDT_JOURNAL_REPLAY_H

#include "journal/verify.h"
#include "protocol/stream.h"
#include "request/request.h"

typedef struct pdt_replay_session {
  pdt_request request;
  int32_t index;     /* of the request */
  int32_t *plan_ids; /* [slots] */
  int32_t slots;
  pdt_stream_state *streams; /* [K]; NULL before its first round */
  bool complete;             /* once it has ended: every stream is done */
} pdt_replay_session;

typedef struct pdt_replay {
  pdt_journal_check check;
  size_t n, room;
  pdt_replay_session **sessions; /* [n], by request; NULL when it was handed out and is gone */
  pdt_replay_session *ended;     /* handed out by the last call */
} pdt_replay;

/* Starts with nothing seen. Ended by pdt_replay_free. */
void pdt_replay_init(pdt_replay *r);

/* Takes the next entry. *ended is the session that it ends, which lasts until the next call, or
 * NULL. Errors: those of pdt_journal_check_entry, and INPUT where a verdict, or an end, does not
 * follow from the request and what was decided before. After one, r is good for free only. */
int pdt_replay_entry(pdt_replay *r, const pdt_journal_entry *entry,
                     const pdt_replay_session **ended, pdt_error *err);

void pdt_replay_free(pdt_replay *r);

#endif
