/* Where a run's sessions and decisions come from: on rank 0, which tells the others. */
#ifndef PDT_ENGINE_SOURCE_H
#define PDT_ENGINE_SOURCE_H

#include "request/request.h"

typedef enum pdt_next {
  PDT_NEXT_REQUEST, /* there is one */
  PDT_NEXT_PASSED,  /* one that is not to run here: it has its index all the same */
  PDT_NEXT_LATER,   /* none now */
  PDT_NEXT_END,     /* no more will come: not asked again */
  PDT_NEXT_FAILED,  /* ends the run */
} pdt_next;

/* Requests, one at a time: asked at boundaries, as long as there is room for one more session. */
typedef struct pdt_request_source {
  void *context;
  /* Sets *request, which is read until the next call and not freed. With `may_wait` nothing is in
   * flight, and the call may block until there is a request: no rank computes or spins meanwhile.
   */
  pdt_next (*next)(void *context, bool may_wait, const pdt_request **request, pdt_error *err);
} pdt_request_source;

/* Decisions that were made before, in place of the coordinator's: a round whose decision is
 * recorded takes its tokens from it, as rows of one batch, and computes no block that it drops.
 * Sessions join the rounds when they did in the record; their requests must be there by then, and
 * may be earlier. Every boundary is checked by its recorded hash of the notes, and coverage of what
 * is computed: not checked are tokens that nothing depends on, those of dropped blocks and the last
 * one of a stream. */
typedef struct pdt_decision_source {
  void *context;
  /* Sets *packed and *bytes to the next boundary's Decision, which is read until the next call: 1;
   * 0 after the last; -1 ends the run. */
  int (*next)(void *context, const void **packed, pdt_bytes *bytes, pdt_error *err);
  bool resumes;    /* after the last one the coordinator decides; else the run stops there */
  uint64_t before; /* the boundary before its first; 0: it is a record from the beginning */
} pdt_decision_source;

/* A source that hands out a list of requests in order. */
typedef struct pdt_request_list {
  const pdt_request *items; /* [n], borrowed */
  int32_t n, next;
} pdt_request_list;

/* The source that reads it; list is borrowed and counts along. */
pdt_request_source pdt_request_list_source(pdt_request_list *list);

#endif
