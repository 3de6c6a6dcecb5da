/* A run from begin to end, as the files of engine/ share it. Below it are the machine and what was
 * loaded, which outlive it; above it are rounds, which come and go in its buffers. */
#ifndef PDT_ENGINE_RUN_H
#define PDT_ENGINE_RUN_H

#include "base/arena.h"
#include "base/buffer.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/round.h"
#include "pdt.pb-c.h"

/* Notes on their way between ranks. */
typedef struct pdt_notes_exchange {
  bool under_way;
  bool carried; /* they are few: records and the decision's letter take them along */
  pdt_comm_request request;
  int which; /* half of round.notes */
  int32_t n; /* notes in it */
  struct pdt_note_target {
    int32_t request; /* index in the run */
    pdt_note_name name;
  } * targets; /* [lanes], in the order of the buffer */
} pdt_notes_exchange;

/* What crosses a boundary. Notes of a round that come to so few bytes go with the records and the
 * decision: they are there at once, and one exchange less is waited for. */
enum { PDT_LETTER_BYTES = 48 << 10, PDT_CARRIED_BYTES = 16 << 10 };
typedef struct pdt_mail {
  char *record;           /* this rank's records of a round */
  char *records;          /* everybody's, on rank 0 */
  uint8_t *letter;        /* [PDT_LETTER_BYTES]: how long a decision is, and most often all of it,
                             and notes that are carried */
  uint8_t *decision;      /* [decision_bytes]: the packed Decision, the same on every rank */
  int64_t decision_bytes; /* room, grown when a message asks for it: alike on every rank */
  pdt_arena draft;        /* on rank 0: of the message as it is made */
  pdt_arena read;         /* of the message as it is read, in one piece of read_bytes: */
  pdt_bytes read_bytes;   /* grown when a message asks for it: alike on every rank */
  pdt_block_verdict *verdicts; /* [most streams of a session]: of one session's decision */
  pdt_buffer requests;         /* those that are admitted now, packed */
} pdt_mail;

/* How likely tokens were, where an observer may ask for it; else nothing. */
typedef struct pdt_logprob_room {
  int32_t rows;           /* of one product */
  pdt_logprob *own, *all; /* [own tokens, 1 + PDT_MOST_LOGPROBS]; on rank 0, of all tokens */
} pdt_logprob_room;

typedef struct pdt_run {
  pdt_machine *machine; /* borrowed, as the next two */
  pdt_loaded *loaded;
  const pdt_engine_variant *variant;
  bool listens;        /* to signals, that stop it */
  bool tells_logprobs; /* rank 0's observer may ask for them, where decisions are not recorded */
  bool withdraws;      /* rank 0's observer knows of requests that nobody wants any more */
  pdt_run_setup setup;
  pdt_bytes kv_limit;   /* most bytes of cache; 0: what memory there is */
  bool details;         /* observers want notes and hidden states of every block */
  int32_t draft_tokens; /* most that are drafted at once; 0: there is no draft */
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_draft draft;
  pdt_round_buffers round;
  pdt_notes_exchange exchange;
  pdt_mail mail;
  pdt_logprob_room logprobs;
  pdt_ledger ledger;          /* on rank 0 */
  const pdt_request *waiting; /* on rank 0: the next request, for which there was no room yet */
  pdt_running **sessions;     /* [capacity.sessions] in the order of requests: the first n_decoding
                                 take part in rounds, the others' prompts are being read */
  int32_t n_sessions, n_decoding;
  int32_t n_taken;     /* on rank 0: requests that came from the source, refused ones included */
  bool no_more;        /* the source has no more */
  bool recorded;       /* decisions come from setup.decisions, */
  bool resumes;        /* and after the last of them from the coordinator */
  bool stopped;        /* by a signal, whichever rank got it: no other round begins */
  Pdt__Decision *next; /* recorded, of the coming round; NULL: none, or not looked at yet */
  uint64_t boundary;   /* the last one */
  double started;      /* seconds */
  pdt_run_stats stats;
  pdt_error failure; /* what this rank met where it could not say so; told at the boundary */
} pdt_run;

/* Keeps the first failure of a rank. */
void pdt_run_note_failure(pdt_run *run, const pdt_error *err);

/* Fails on all ranks with what a rank has noted. Collective over the world, blocking. */
int pdt_run_agree(pdt_run *run, pdt_error *err);

/* Has this rank got a signal that asks for the run's end? */
bool pdt_run_asked(const pdt_run *run);

/* The session at sessions[i] ends by itself, for a reason that all ranks have: rank 0's observer is
 * told, or the run ends with it. Not collective; the same on every rank. */
void pdt_run_fail_session(pdt_run *run, int32_t i, const pdt_error *why);

/* buffers.c: trunk and buffers for the capacity. Not collective. Errors: MEMORY, USAGE; what was
 * made is freed by pdt_run_buffers_free. */
int pdt_run_buffers_new(pdt_run *run, pdt_error *err);

/* buffers.c: the cache, when all else that takes memory is there on every rank; refused where it
 * does not fit. Collective, blocking; all ranks fail alike. Errors: MEMORY, RUNTIME. */
int pdt_run_cache_new(pdt_run *run, pdt_error *err);
void pdt_run_buffers_free(pdt_run *run);

/* admit.c: takes requests from the source as long as there is room, and makes sessions of them;
 * with nothing in flight, waits for one. Collective over the world, blocking; all ranks fail alike.
 */
int pdt_run_admit(pdt_run *run, pdt_error *err);

/* prompt.c: encodes prompts of the sessions that do not decode yet: as many rows as fit between two
 * rounds, or all, when no session decodes. A session whose prompt is read gets its plan and joins
 * the rounds. Where the coming round is recorded, exactly the sessions that it has join. Collective
 * over the world, blocking; all ranks fail alike. */
int pdt_run_prompts(pdt_run *run, pdt_error *err);

/* emit.c: lists the lanes of the next round; then lets every one emit a block, note, coverage and
 * readiness, the tokens sampled or, where there is one, taken from a decision. Collective over each
 * group. Failures of this rank are noted. */
void pdt_round_list(pdt_run *run);
void pdt_round_emit(pdt_run *run, const Pdt__Decision *recorded);

/* The position at which step i of a lane's block reads; what stands at a position of its sequence,
 * which is the last of the prompt or behind it, and known; and how step i's token is drawn. */
int32_t pdt_lane_position(const pdt_lane *lane, int32_t i);
pdt_token pdt_lane_token_at(const pdt_lane *lane, int32_t position);
pdt_row_draw pdt_lane_draw(const pdt_lane *lane, int32_t i);

/* logprobs.c: room for a run that may tell them; not collective; errors: MEMORY. And of all blocks
 * that were emitted in sessions that want them, on rank 0 in lane->logprobs: collective over the
 * world, where there is such a session, blocking. */
int pdt_logprobs_new(pdt_run *run, pdt_error *err);
void pdt_logprobs_free(pdt_run *run);
void pdt_logprobs_tell(pdt_run *run);

/* notes.c: starts the exchange of the round's notes over the world, unless they are few, and
 * records and a decision that is yet to be made can carry them; ends the one under way and fills
 * the buses. Collective; only the second blocks. */
void pdt_notes_start(pdt_run *run, bool may_be_carried);
void pdt_notes_finish(pdt_run *run);

/* The notes of the exchange under way, [its lanes, dn] in the order of by_owner, and their bytes.
 */
float *pdt_notes_under_way(const pdt_run *run);
pdt_bytes pdt_notes_bytes(const pdt_run *run);

/* Where the notes of the coming exchange are written: [lanes, dn] in the order of by_owner. */
float *pdt_notes_room(const pdt_run *run);

/* records.c: gathers all records at rank 0 and reads them into the lanes there. Collective over the
 * world, blocking. Sets *failed where a rank has a failure to tell; errors, on rank 0 alone: a
 * replica that diverged. */
int pdt_records_gather(pdt_run *run, uint64_t bus_hash, bool *failed, pdt_error *err);
enum { PDT_RECORD_HEADER_BYTES = 16 }; /* of a rank, before those of its lanes */
/* Bytes of the record of a block of at most `room` tokens, without a note. */
pdt_bytes pdt_record_bytes(const pdt_run *run, int32_t room);
/* Do details tell this of the sidecar's blocks? Pure. */
bool pdt_run_tells(const pdt_run *run, pdt_told what);
/* Floats that details tell of one step. */
int64_t pdt_run_told_width(const pdt_run *run);

/* decision.c: rank 0 decides about all lanes and packs the message into the mail. Errors: MEMORY,
 * those of the observer. */
int pdt_decision_make(pdt_run *run, uint64_t bus_hash, int64_t *bytes, pdt_error *err);

/* Sends *bytes of rank 0's packed message to everybody, and their number, and whether the run is
 * stopped; -1: rank 0 has none, and
 * all ranks fail with what any of them has noted. `room`: of the message's buffer, the same on
 * every rank. Collective over the world, blocking; all ranks fail alike. */
int pdt_decision_share(pdt_run *run, int64_t *bytes, int64_t room, pdt_error *err);

/* Makes room for a message of so many bytes. Errors: MEMORY. */
int pdt_decision_fit(pdt_run *run, int64_t bytes, pdt_error *err);

/* What a message says of one session, into run->mail.verdicts. It may be a journal's: everything is
 * checked that pdt_session_check does not. Errors: RUNTIME. */
int pdt_decision_read(pdt_run *run, const pdt_running *r, const Pdt__SessionDecision *d,
                      pdt_session_decision *out, pdt_error *err);

/* boundary.c: where decisions are recorded, reads the next one into run->next, unless it is there
 * already; after the last, they are recorded no more. Collective over the world, blocking; all
 * ranks fail alike. */
int pdt_run_look_ahead(pdt_run *run, pdt_error *err);
void pdt_run_forget_next(pdt_run *run); /* frees it */

/* One round of all decoding sessions: obtain a decision (gathered and decided, or the recorded
 * one), apply it on every rank, tell the observer. Collective over the world, blocking; all ranks
 * fail alike. */
int pdt_run_round(pdt_run *run, pdt_error *err);

/* The boundary of a round whose blocks have been emitted: notes and records go their way, the
 * coordinator decides, every rank applies it and the observer is told. Collective over the world,
 * blocking; all ranks fail alike. */
int pdt_run_settle(pdt_run *run, pdt_error *err);

/* check.c: in builds that check (base/check.h): are all ranks about to run the same; and after a
 * step, are their replicas equal, and page tables, notes and streams sound? Collective over the
 * world, blocking. */
void pdt_run_check_begin(const pdt_run *run);
void pdt_run_check(const pdt_run *run);

/* A lane's block as observers see it. */
pdt_block_report pdt_report_of(const pdt_run *run, const pdt_lane *lane, int32_t attempt,
                               pdt_action action);

/* Does this token, number `at` of the block of a session's stream k, end the stream? */
bool pdt_run_ends(const pdt_run *run, const pdt_running *r, pdt_stream k, int64_t at,
                  pdt_token token);

#endif
