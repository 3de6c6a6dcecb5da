/* Answers as HTTP carries them: a whole one, chunks of server-sent events, errors. In the threads
 * of HTTP alone. */
#ifndef PDT_SERVE_REPLY_H
#define PDT_SERVE_REPLY_H

#include "base/buffer.h"
#include "serve/ask.h"
#include "serve/parts.h"

typedef struct pdt_reply {
  const pdt_ask *ask; /* borrowed, as the next three */
  const pdt_job *job;
  const pdt_tokenizer *tokenizer;
  const char *model; /* its name */
  char id[40];
  int64_t created; /* seconds since 1970 */
  pdt_parts parts;
  size_t
      next; /* piece that is to be told next, of those of its stream where streams have an order */
  int32_t turn;     /* place in the order of the stream whose turn it is */
  bool told;        /* one of its pieces was */
  int64_t n_chunks; /* that were written, but for those of rounds */
  size_t n_records; /* of the job's, that are known, and those that were told; */
  size_t n_rounds;
  const pdt_record *record; /* the last of them; NULL: none */
  bool ended;               /* the last one was */
} pdt_reply;

/* An answer to be, of that number. Errors: MEMORY; free it all the same. */
int pdt_reply_new(pdt_reply *r, const pdt_ask *ask, const pdt_job *job,
                  const pdt_tokenizer *tokenizer, const char *model, uint64_t number,
                  pdt_error *err);
void pdt_reply_free(pdt_reply *r);

/* Reads the first n blocks of the job, and as many records; `over`: it is. */
int pdt_reply_read(pdt_reply *r, size_t n, size_t n_records, bool over, pdt_error *err);

/* The body of the answer to a job that has ended, into out: an object, or the records of pdt
 * decode. Errors: those of pdt_result_make, MEMORY. */
int pdt_reply_whole(pdt_reply *r, pdt_buffer *out, pdt_error *err);

/* Appends the chunks that can be told by now: a round each, a piece each and, when the job has
 * ended, the last ones, or when it failed its error; then r->ended. Errors: MEMORY. */
int pdt_reply_chunks(pdt_reply *r, pdt_buffer *out, pdt_error *err);

/* Of a job that is over, and read: is there no answer? And why, as a refusal. */
bool pdt_reply_failed(const pdt_reply *r);
void pdt_reply_failure(const pdt_job *job, pdt_refusal *why);

/* Appends {"error": {...}}. Errors: MEMORY. */
int pdt_reply_error(const pdt_refusal *why, pdt_buffer *out, pdt_error *err);

#endif
