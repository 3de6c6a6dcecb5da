/* The texts of a job's streams as their blocks are committed, in pieces: what a block adds to its
 * stream's part of the answer. Together the pieces of a part are its text in the answer, cut before
 * the first text to stop at. In the threads of HTTP alone. */
#ifndef PDT_SERVE_PARTS_H
#define PDT_SERVE_PARTS_H

#include "serve/ask.h"
#include "serve/job.h"

typedef struct pdt_part {
  char *text; /* [bytes], its section first; NULL before its first block */
  size_t bytes;
  size_t section; /* bytes of it that are the section's */
  size_t shown;   /* bytes that are in pieces: what may yet become a text to stop at is not */
  int32_t n_tokens;
  bool stopped;  /* it has met a text to stop at */
  bool over;     /* so, or its stream is done: nothing comes any more */
  bool left_out; /* its stream had nothing to write: it is no part of the answer */
} pdt_part;

typedef struct pdt_piece {
  pdt_stream stream;
  pdt_round round; /* of its block */
  int32_t attempt;
  size_t begin, end; /* bytes of its part */
} pdt_piece;

typedef struct pdt_parts {
  const pdt_ask *ask; /* borrowed, as the next two */
  const pdt_job *job;
  const pdt_tokenizer *tokenizer;
  size_t longest_stop; /* bytes; 0: nothing stops */
  pdt_part *parts;     /* [K] */
  pdt_piece *pieces;   /* [n_pieces], as their blocks were committed */
  size_t n_pieces, room;
  size_t n_blocks; /* of the job's, that have been read */
  size_t
      cut; /* > 0: all parts are over with those of so many blocks, one of them by a text to stop
              at: the answer is what there was then, whatever the session does until it is told */
  pdt_stream *order;      /* [K]: that of the answer, of which */
  int32_t n_order;        /* so many are known: all of them once the job is over */
  pdt_stream_state *seen; /* [K]: what the blocks that were read say of coverage, and of ends */
  float *best;            /* [K, plan slots]: that coverage */
  bool *placed;           /* [K]: which streams are known places of the order */
  bool ended;
} pdt_parts;

/* Errors: MEMORY; free it all the same. */
int pdt_parts_new(pdt_parts *p, const pdt_ask *ask, const pdt_job *job,
                  const pdt_tokenizer *tokenizer, pdt_error *err);
void pdt_parts_free(pdt_parts *p);

/* Reads the job's blocks up to n; more of the order may be known then: what it begins with cannot
 * change any more, whatever comes. Errors: those of pdt_result_part, MEMORY. */
int pdt_parts_read(pdt_parts *p, size_t n, pdt_error *err);

/* The job is over: what was kept back comes, and the order of the answer is known. Errors: MEMORY.
 */
int pdt_parts_end(pdt_parts *p, pdt_error *err);

/* Does a line break come before the part at place i of an order of parts (NULL: by stream)? Not
 * before the first one, nor where there is none. Pure. */
bool pdt_parts_break(const pdt_parts *p, const pdt_stream *order, int32_t i);

/* The answer: parts in their order, a line break between them, into *text [*bytes], freed by the
 * caller. After pdt_parts_end. Errors: MEMORY. */
int pdt_parts_answer(const pdt_parts *p, char **text, size_t *bytes, pdt_error *err);

#endif
