/* A request, resolved: texts became token ids, and every setting has its value (PROTOCOL.md, "Files
 * and the command line"), and what follows from its numbers. Rank 0 resolves requests
 * (request/parse.h); what it resolved is what every rank gets and the journal keeps
 * (request/message.h). */
#ifndef PDT_REQUEST_REQUEST_H
#define PDT_REQUEST_REQUEST_H

#include "base/error.h"
#include "protocol/settings.h"

typedef struct pdt_request {
  uint64_t session; /* below 2^32: a word of the random counter */
  pdt_token *prompt;
  int32_t n_prompt;   /* >= 1 */
  pdt_token **prefix; /* [streams], each [n_prefix[k]]; what a stream reads after the prompt */
  int32_t *n_prefix;  /* [streams], may be 0 */
  int32_t *plan_ids;  /* [plan slots], or NULL: the planner's */
  pdt_settings settings;
  int32_t line; /* of the file of requests, from 1; 0: of no such file */
  void *block;  /* where all of the lists are, if in one allocation; else each has its own */
} pdt_request;

enum { PDT_REQUEST_NAME_BYTES = 80 };

/* Frees what the request owns; it is then zeroed. */
void pdt_request_free(pdt_request *r);

/* What a session of request `index` is called: "session 9 (request 2, line 3)". Two requests of a
 * run may name one session, which is then no more than the same words of the random counter. */
void pdt_request_name(char *text, size_t room, const pdt_request *r, int32_t index);

/* Puts that name before the message of an error already filled in; returns -1. */
int pdt_request_fail_in(pdt_error *err, const pdt_request *r, int32_t index);

/* The error of a session that a fault ended in a round: a number that is none, in a stream's block,
 * or that it was withdrawn. Returns -1. */
int pdt_request_fault(pdt_error *err, const pdt_request *r, int32_t index, pdt_round round,
                      pdt_stream stream, pdt_fault fault);

/* Most positions of the key/value cache that a stream's own pages hold: prefix and tokens. */
int32_t pdt_request_own_tokens(const pdt_request *r, pdt_stream stream);

/* Positions of the longest sequence that the settings speak of: prompt, prefix, max_tokens. */
int32_t pdt_request_positions(const pdt_request *r);

#endif
