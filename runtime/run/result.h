/* What a session came to, as it is written: one artifact a stream and the merged answer. Made in
 * one way, whether the session has just ended or a journal tells of it. */
#ifndef PDT_RUN_RESULT_H
#define PDT_RUN_RESULT_H

#include "journal/output.h"
#include "protocol/stream.h"
#include "request/request.h"
#include "text/tokenizer.h"

/* A session at its end. Pointers are the caller's. */
typedef struct pdt_outcome {
  const pdt_request *request;
  int32_t index;                   /* of the request in the run */
  const pdt_stream_state *streams; /* [K] */
  const int32_t *plan_ids;         /* [slots] */
  int32_t slots;
  bool complete; /* every stream is done; else max_rounds ended it */
} pdt_outcome;

typedef struct pdt_result {
  int32_t K;
  pdt_artifact *artifacts; /* [K]; own tokens, text, forced rounds, slots */
  pdt_stream *owner;       /* [slots]: the stream that speaks for a plan slot, -1 for none */
  pdt_stream *order;       /* [K]: the answer's */
  pdt_answer answer;       /* owns its text */
} pdt_result;

/* Merges the streams, and makes texts by the tokenizer, empty ones where it is NULL. Everything is
 * copied: the outcome may go. Free it in any case. Errors: those of pdt_tokenizer_decode, MEMORY.
 */
int pdt_result_make(pdt_result *r, const pdt_outcome *outcome, const pdt_tokenizer *tokenizer,
                    pdt_error *err);
void pdt_result_free(pdt_result *r);

/* The first n committed tokens of a stream, behind its section, as they stand in the answer: sets
 * *text [*bytes], freed by the caller; the text ends before a character that is not whole. Errors:
 * those of pdt_tokenizer_decode_after, MEMORY. */
int pdt_result_part(const pdt_request *request, const pdt_stream_state *stream, int32_t n,
                    const pdt_tokenizer *tokenizer, char **text, size_t *bytes, pdt_error *err);

/* What tokens `from` to n of stream k add to its part: sets *text [*bytes], not zero-terminated,
 * freed by the caller. tokens [n]: all of the stream's, provisional ones too. The text of all parts
 * one behind another is that of pdt_result_part, a character that came in two among the last of
 * them, unless a tokenizer changes what came before. Errors: as above. */
int pdt_result_growth(const pdt_request *request, pdt_stream k, const pdt_token *tokens,
                      int32_t from, int32_t n, const pdt_tokenizer *tokenizer, char **text,
                      size_t *bytes, pdt_error *err);

/* Its records: artifacts by stream, then the answer. Errors: those of pdt_output_artifact. */
int pdt_result_write(const pdt_result *r, pdt_output *output, pdt_error *err);

#endif
