/* The trace: everything a decode did, as one JSON object a request, in the fields of the executable
 * specification (PROTOCOL.md, "Files and the command line"). Sessions may overlap in time; the text
 * is written as it comes, in request order: what comes before its turn waits in a file (turns.h).
 * Numbers that are float keep every bit (nine digits), and the same run makes the same bytes. No
 * communication: what is traced must have been gathered. */
#ifndef PDT_JOURNAL_TRACE_H
#define PDT_JOURNAL_TRACE_H

#include "base/error.h"
#include "base/types.h"
#include "protocol/decide.h"

/* One stream that emitted a block in a round, and what became of it. Pointers are the caller's. */
typedef struct pdt_trace_block {
  pdt_stream stream;
  int32_t attempt; /* earlier attempts since the commit point */
  pdt_action action;
  float readiness;
  const pdt_token *tokens;  /* [n_tokens] */
  const float *note;        /* [dim of the plan note] */
  const float *coverage;    /* [plan slots], logits */
  const float *last_hidden; /* [n_hidden] */
  int32_t n_tokens, n_hidden;
} pdt_trace_block;

/* A note that a window shows. */
typedef struct pdt_trace_note {
  pdt_round round;
  pdt_stream stream; /* -1: the planner */
} pdt_trace_note;

/* One round of one session. Pointers are the caller's. */
typedef struct pdt_trace_round {
  pdt_round round;
  const pdt_trace_note *window; /* [n_window], in the window's order */
  int32_t n_window;
  bool gate;
  const pdt_trace_block *blocks; /* [n_blocks], streams ascending */
  int32_t n_blocks;
  const pdt_stream *stalled_next; /* [n_stalled], ascending */
  int32_t n_stalled;
  const int32_t *committed; /* [n_streams]: tokens each stream has committed after this round */
  int32_t n_streams;
} pdt_trace_round;

/* What one stream came to. Pointers are the caller's. */
typedef struct pdt_trace_stream {
  const pdt_token *tokens; /* [n_tokens], committed */
  int32_t n_tokens;
  const pdt_token *uncommitted; /* [n_uncommitted] */
  int32_t n_uncommitted;
  bool done;
  const pdt_round *forced_rounds; /* [n_forced] */
  int32_t n_forced;
} pdt_trace_stream;

/* The end of one session. Pointers are the caller's. */
typedef struct pdt_trace_result {
  const pdt_trace_stream *streams; /* [n_streams] */
  int32_t n_streams;
  const pdt_stream *slot_owner;  /* [plan slots]: -1 for none */
  const pdt_stream *merge_order; /* [n_streams] */
} pdt_trace_result;

typedef struct pdt_trace pdt_trace;

/* Opens the file at path (see journal/sink.h for devices and pipes) for the trace of n_requests
 * requests, none begun; a regular file appears at close. Sets *trace. Ended by close or discard.
 * Errors: USAGE, IO, MEMORY. */
int pdt_trace_open(pdt_trace **trace, const char *path, int32_t n_requests, pdt_error *err);

/* Session of request `request`: plan_ids [n_slots], plan_note [note_dim]. Errors (here and below):
 * RUNTIME (begun twice, out of order, a float that is NaN or infinite), after which nothing of the
 * call is kept; IO, MEMORY, after which the trace can only be discarded. */
int pdt_trace_begin(pdt_trace *trace, int32_t request, const int32_t *plan_ids, int32_t n_slots,
                    const float *plan_note, int32_t note_dim, pdt_error *err);

/* Its next round: numbers must ascend by one from 1. */
int pdt_trace_add_round(pdt_trace *trace, int32_t request, const pdt_trace_round *round,
                        pdt_error *err);

/* Its end. */
int pdt_trace_end(pdt_trace *trace, int32_t request, const pdt_trace_result *result,
                  pdt_error *err);

/* Ends the trace, one object a line in request order: a regular file gets its name. Frees it, also
 * on failure. Errors: IO, RUNTIME (a session that has not ended). */
int pdt_trace_close(pdt_trace *trace, pdt_error *err);

/* Frees it and leaves no regular file; NULL is fine. */
void pdt_trace_discard(pdt_trace *trace);

#endif
