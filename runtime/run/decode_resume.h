/* Going on from a journal: what a run that died had decided is taken over by the one that finishes
 * it. Sessions that had ended are kept as the journal tells them; those in flight are computed anew
 * from their recorded tokens, and every boundary of theirs is checked; the others start. On rank 0
 * only, with no communication. */
#ifndef PDT_RUN_DECODE_RESUME_H
#define PDT_RUN_DECODE_RESUME_H

#include "base/buffer.h"
#include "journal/replay.h"
#include "run/decode_input.h"

typedef struct pdt_decode_resume {
  bool on;           /* there is something to go on from */
  const char *path;  /* borrowed */
  pdt_replay replay; /* as it is behind the last entry */
  pdt_bytes good;    /* of the journal: its whole entries */
  uint64_t before;   /* the boundary before the first that has to be computed again */
  int32_t n_kept;    /* sessions about which everything had been decided */
  int32_t n_going_on;
  bool skips;                /* a session that a fault ended is settled, too */
  pdt_journal_reader reader; /* of the decisions that are replayed */
  pdt_buffer packed;         /* the one in work */
  bool replays;              /* the coming round's decision is recorded */
} pdt_decode_resume;

/* Reads the journal of the options, every entry checked, and compares what it was written with:
 * model, sidecar and the requests with all their settings. One that holds no run yet, or is not
 * there, is nothing to go on from, and no error. Freed by pdt_decode_resume_free, also after an
 * error. Errors: INPUT (a damaged journal, or one of another run), IO, MEMORY. */
int pdt_decode_resume_read(pdt_decode_resume *r, const pdt_decode_options *options,
                           const pdt_decode_input *input, pdt_error *err);

/* Safe on a zeroed one. */
void pdt_decode_resume_free(pdt_decode_resume *r);

/* Is there nothing left to do for `n` requests? */
bool pdt_decode_resume_is_whole(const pdt_decode_resume *r, int32_t n);

/* Had the session of this request, in flight, started, and with this plan? False, and the caller
 * tells its start; errors: INPUT (another plan). */
int pdt_decode_resume_started(const pdt_decode_resume *r, const pdt_running *s,
                              const pdt_sidecar_config *sidecar, bool *started, pdt_error *err);

/* Is nothing left to be done for request `index`? */
bool pdt_decode_resume_is_settled(const pdt_decode_resume *r, int32_t index);

/* What becomes of what is kept: sessions that ended, and requests that are not served. `told`: the
 * journal has the end, or the failure; of those without, a session with a fault has failed. */
typedef struct pdt_decode_keeper {
  void *context;
  int (*session)(void *context, const pdt_replay_session *s, bool told, pdt_error *err);
  int (*failure)(void *context, const Pdt__RequestFailure *failure, pdt_error *err);
} pdt_decode_keeper;

/* Hands out everything that is kept, what the journal does not tell the end of last: faults, then
 * the others, as they would have been told. Errors: as reading does, and the keeper's. */
int pdt_decode_resume_kept(const pdt_decode_resume *r, const pdt_decode_keeper *keeper,
                           pdt_error *err);

/* The recorded decisions, about sessions that go on, for a run's setup; nothing where there is none
 * to go on from. Errors: IO, MEMORY. */
int pdt_decode_resume_decisions(pdt_decode_resume *r, pdt_decision_source *out, pdt_error *err);

#endif
