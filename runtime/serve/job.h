/* One request on its way through the server. Whoever asked and the engine's thread share it by the
 * hub (hub.h). What the engine's thread writes here needs no memory that is not there from the
 * beginning, but for records of rounds, which nothing else depends on: a job can fail to be made,
 * never to be done. */
#ifndef PDT_SERVE_JOB_H
#define PDT_SERVE_JOB_H

#include "serve/record.h"

typedef enum pdt_job_state {
  PDT_JOB_NEW, /* nobody has it but who made it */
  PDT_JOB_QUEUED,
  PDT_JOB_RUNNING, /* the engine has it */
  PDT_JOB_ENDED,   /* complete, or out of rounds */
  PDT_JOB_FAILED,  /* by itself, or withdrawn: `why` says it */
} pdt_job_state;

/* Why nobody wants the answer, or the rest of it, any more. */
typedef enum pdt_withdrawal {
  PDT_WANTED,
  PDT_CLIENT_GONE,
  PDT_OUT_OF_TIME,
  PDT_SHUT_DOWN,
  PDT_HAS_ENOUGH,    /* every stream is done, or has met a text to stop at */
  PDT_CHOICE_FAILED, /* another one of the same answer: there is none without it */
} pdt_withdrawal;
enum { PDT_WITHDRAWALS = PDT_CHOICE_FAILED + 1 };

/* What was decided so far. */
typedef struct pdt_job_counts {
  int64_t rounds, gates;                 /* gates that passed */
  int64_t actions[PDT_ACTION_FORCE + 1]; /* blocks by what was decided */
} pdt_job_counts;

/* A block that was committed. */
typedef struct pdt_job_block {
  pdt_stream stream;
  pdt_round round; /* in which it was emitted */
  int32_t attempt;
  int32_t n_tokens;
  bool last;             /* its stream is done */
  pdt_job_counts counts; /* after the round that committed it */
} pdt_job_block;

typedef struct pdt_job {
  pdt_request request;
  pdt_stream_state *streams; /* [K]: as the session has them. Committed tokens never change, */
  pdt_job_block *blocks;     /* [room], in the order of their commits, */
  float *coverage;           /* [room, plan slots]: logits of the blocks, */
  size_t n_blocks, room;     /* nor blocks below n_blocks: once known, they are read without the
                                hub's lock, and all of it when the job is over */
  int32_t n_logprobs;        /* of every token, that are asked for; 0: none */
  pdt_logprob **logprobs;    /* [K], each [tokens of the stream, n_logprobs], as known as tokens */
  int32_t *plan_ids;         /* [plan slots], from the session's start */
  bool keeps_rounds;         /* whoever asked wants to be told of rounds: */
  pdt_record *records;       /* the first; the n_records that are known are read as blocks are. */
  pdt_record *last_record;   /* Where there is no memory for one, no later one is kept either. */
  size_t n_records, record_bytes;
  pdt_job_counts counts;
  pdt_job_state state;
  pdt_withdrawal withdrawal;
  pdt_error why;
  int32_t index;                           /* of the request in the run, once the engine has it */
  double submitted, started, first, ended; /* seconds; 0: not yet */
  int holders;                             /* who has it, and frees it when the last one leaves */
  void (*wake)(void *context);             /* NULL: nobody waits */
  void *context;
  struct pdt_job *next; /* in the hub's list */
} pdt_job;

/* A job for the request, which it takes over, also on failure, with so many log-probabilities of
 * every token (0: none). Its only holder is the caller. Errors: MEMORY. */
int pdt_job_new(pdt_job **out, pdt_request *request, int32_t n_logprobs, pdt_error *err);

/* For pdt_hub_leave: frees it. */
void pdt_job_free(pdt_job *job);

/* The engine's thread, with the hub's lock: a round was decided. Errors: RUNTIME. */
int pdt_job_round(pdt_job *job, const pdt_round_report *report, pdt_error *err);

/* The streams as they were behind the first n blocks, those of whole rounds, into view [K], whose
 * lists are the job's but for best_coverage, [K, plan slots] in one block of memory: what view[0]
 * has of it is the caller's to free. What was pending then is left out. Errors: MEMORY. */
int pdt_job_view(const pdt_job *job, size_t n, pdt_stream_state *view, pdt_error *err);

/* Is it over? And what it came to: tokens of all streams, those of the prompt with its sections. */
bool pdt_job_over(const pdt_job *job);
int64_t pdt_job_committed(const pdt_job *job);
int64_t pdt_job_prompt_tokens(const pdt_job *job);

/* "stop": every stream ended by itself, or all that was asked for is there; else "length". */
const char *pdt_job_finish_reason(const pdt_job *job);

#endif
