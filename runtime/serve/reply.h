/* Answers as HTTP carries them: a whole one, chunks of server-sent events, errors. In the threads
 * of HTTP alone. */
#ifndef PDT_SERVE_REPLY_H
#define PDT_SERVE_REPLY_H

#include "base/buffer.h"
#include "serve/ask.h"
#include "serve/likely.h"
#include "serve/parts.h"

/* One of the choices of an answer, which a session of its own makes. */
typedef struct pdt_choice {
  const pdt_job *job; /* borrowed */
  bool over;          /* it is, and has been read to its end */
  pdt_parts parts;
  size_t
      next; /* piece that is to be told next, of those of its stream where streams have an order */
  int32_t turn;     /* place in the order of the stream whose turn it is */
  bool told;        /* one of its pieces was */
  int32_t *n_told;  /* [K]: tokens whose log-probabilities were; NULL: none are asked for */
  bool begun;       /* a chunk of it was written */
  size_t n_records; /* of the job's, that are known, and those that were told; */
  size_t n_rounds;
  const pdt_record *record; /* the last of them; NULL: none */
  bool ended;               /* the last chunk of it was written */
} pdt_choice;

typedef struct pdt_reply {
  const pdt_ask *ask; /* borrowed, as the next one */
  const pdt_tokenizer *tokenizer;
  const char *model; /* its name; borrowed */
  char id[40];
  int64_t created;     /* seconds since 1970 */
  pdt_choice *choices; /* [n_choices], by index */
  int32_t n_choices;
  bool ended; /* the last chunk of all was written */
} pdt_reply;

/* An answer to be, of that number, by ask->n jobs. Errors: MEMORY; free it all the same. */
int pdt_reply_new(pdt_reply *r, const pdt_ask *ask, pdt_job *const *jobs,
                  const pdt_tokenizer *tokenizer, const char *model, uint64_t number,
                  pdt_error *err);
void pdt_reply_free(pdt_reply *r);

/* Reads the first n blocks of choice i's job, and as many records; `over`: it is. */
int pdt_reply_read(pdt_reply *r, int32_t i, size_t n, size_t n_records, bool over, pdt_error *err);

/* The body of the answer when all jobs have ended, into out: an object, or the records of pdt
 * decode. Errors: those of pdt_result_make, MEMORY. */
int pdt_reply_whole(pdt_reply *r, pdt_buffer *out, pdt_error *err);

/* Appends the chunks that can be told by now: of a choice a round each and a piece each, when its
 * job has ended its last one, and when all have, those of the whole; or when one failed its error;
 * then r->ended. Errors: MEMORY. */
int pdt_reply_chunks(pdt_reply *r, pdt_buffer *out, pdt_error *err);

/* A job that failed, so that there is no answer; NULL: none has, as far as was read. And why, as a
 * refusal. */
const pdt_job *pdt_reply_failed(const pdt_reply *r);
void pdt_reply_failure(const pdt_job *job, pdt_refusal *why);

/* Appends {"error": {...}}. Errors: MEMORY. */
int pdt_reply_error(const pdt_refusal *why, pdt_buffer *out, pdt_error *err);

#endif
