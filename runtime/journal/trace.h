/* The trace: everything a decode did, as one JSON object a request, in the fields of the executable
 * specification (PROTOCOL.md, "Files and the command line"). Sessions may overlap in time; the text
 * of each is kept in memory until the trace is written, in request order. Numbers that are float
 * keep every bit (nine digits), and the same run makes the same bytes. No communication: what is
 * traced must have been gathered. */
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

/* A trace of n_requests requests, none begun. Sets *trace. Errors: MEMORY. */
int pdt_trace_new(pdt_trace **trace, int32_t n_requests, pdt_error *err);

/* Session of request `request`: plan_ids [n_slots], plan_note [note_dim]. Errors (here and below):
 * RUNTIME (begun twice, out of order, a float that is NaN or infinite), MEMORY. Nothing of a
 * refused call is kept. */
int pdt_trace_begin(pdt_trace *trace, int32_t request, const int32_t *plan_ids, int32_t n_slots,
                    const float *plan_note, int32_t note_dim, pdt_error *err);

/* Its next round: numbers must ascend by one from 1. */
int pdt_trace_add_round(pdt_trace *trace, int32_t request, const pdt_trace_round *round,
                        pdt_error *err);

/* Its end. */
int pdt_trace_end(pdt_trace *trace, int32_t request, const pdt_trace_result *result,
                  pdt_error *err);

/* Writes all sessions, in request order, one object a line, to path (journal/sink.h): a regular
 * file appears whole or not at all. Errors: IO, RUNTIME (a session that has not ended), MEMORY. */
int pdt_trace_write(const pdt_trace *trace, const char *path, pdt_error *err);

/* NULL is fine. */
void pdt_trace_free(pdt_trace *trace);

#endif
