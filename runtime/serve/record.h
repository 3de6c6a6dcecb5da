/* What a round decided, kept for a client that wants to be told of rounds (stream_options.rounds):
 * with the tokens of blocks that were held or dropped, which are nowhere else once the next round
 * is decided. The engine's thread makes records; the threads of HTTP read them. */
#ifndef PDT_SERVE_RECORD_H
#define PDT_SERVE_RECORD_H

#include "engine/observer.h"
#include "text/tokenizer.h"

/* One stream's block. */
typedef struct pdt_record_block {
  pdt_stream stream;
  int32_t attempt; /* before the decision */
  pdt_action action;
  float readiness;
  int32_t n_committed;     /* tokens of the stream that were committed before the round, which the
                              stream itself keeps; */
  int32_t n_pending;       /* those that were pending then, */
  int32_t n_tokens;        /* and those of the block: */
  const pdt_token *tokens; /* [n_pending + n_tokens] */
} pdt_record_block;

/* One round, in one allocation. */
typedef struct pdt_record {
  struct pdt_record *next; /* of the next round; NULL: not yet */
  pdt_round round;
  bool gate;
  const pdt_note_name *window; /* [n_window] */
  int32_t n_window;
  const pdt_record_block *blocks; /* [n_blocks], streams ascending */
  int32_t n_blocks;
  size_t bytes; /* of the allocation */
} pdt_record;

/* Of a report, with the streams [K] as they were before its round. NULL without memory. */
pdt_record *pdt_record_new(const pdt_round_report *report, const pdt_stream_state *streams);

/* Writes it as pdt_page_round_begin has it, with the streams [K] of the job. Errors: those of
 * pdt_result_growth; RUNTIME (text that is no UTF-8). */
int pdt_record_put(FILE *out, const pdt_record *record, const pdt_request *request,
                   const pdt_stream_state *streams, const pdt_tokenizer *tokenizer, pdt_error *err);

#endif
