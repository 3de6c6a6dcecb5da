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
  pdt_request_source requests; /* those of the run, settled ones included */
  int32_t n_taken;             /* of them */
  pdt_journal_reader reader;   /* of the decisions that are replayed */
  pdt_buffer packed;           /* the one in work */
  bool replays;                /* the coming round's decision is recorded */
} pdt_decode_resume;

/* Reads the journal of the options, every entry checked, and compares what it was written with:
 * model, sidecar and the requests with all their settings. One that holds no run yet, or is not
 * there, is nothing to go on from, and no error. Freed by pdt_decode_resume_free, also after an
 * error. Errors: INPUT (a damaged journal, or one of another run), IO, MEMORY. */
int pdt_decode_resume_read(pdt_decode_resume *r, const pdt_decode_options *options,
                           const pdt_decode_input *input, pdt_error *err);

/* Safe on a zeroed one. */
void pdt_decode_resume_free(pdt_decode_resume *r);

/* Is there nothing left to compute for `n` requests? */
bool pdt_decode_resume_is_whole(const pdt_decode_resume *r, int32_t n);

/* Had the session of this request, in flight, started, and with this plan? False, and the caller
 * tells its start; errors: INPUT (another plan). */
int pdt_decode_resume_started(const pdt_decode_resume *r, const pdt_running *s,
                              const pdt_sidecar_config *sidecar, bool *started, pdt_error *err);

/* What becomes of a session that is kept; `ended`: the journal has its end. */
typedef int (*pdt_decode_keep)(void *context, const pdt_replay_session *s, bool ended,
                               pdt_error *err);

/* Hands out every session that is kept, those without an end last, in the order of their requests.
 * Errors: as reading does, and those of `keep`. */
int pdt_decode_resume_kept(const pdt_decode_resume *r, pdt_decode_keep keep, void *context,
                           pdt_error *err);

/* Changes the setup of a run to one that goes on: its requests without those that are settled, and
 * the recorded decisions about the others. Errors: IO, MEMORY. */
int pdt_decode_resume_setup(pdt_decode_resume *r, pdt_run_setup *setup, pdt_error *err);

#endif
