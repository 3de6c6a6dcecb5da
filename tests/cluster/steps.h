/* Runs of the engine, step by step, on ranks of one process, and what came of every session, as
 * text that can be compared between runs. */
#ifndef PDT_TESTS_CLUSTER_STEPS_H
#define PDT_TESTS_CLUSTER_STEPS_H

#include "allocations.h"
#include "comm/comm_memory.h"
#include "engine/engine.h"
#include "tests/unit/scratch.h"

enum {
  MOST_RANKS = 4,
  MOST_REQUESTS = 8,
  MOST_STREAMS = 4,
  MOST_PREFIX = 4,
  MOST_STEPS = 400,
  PLAN_SLOTS = 6, /* of every sidecar used here */
  NEVER = INT32_MAX
};

/* A request with its lists. */
typedef struct script {
  pdt_request request;
  pdt_token prompt[1024], prefixes[MOST_STREAMS][MOST_PREFIX], *prefix[MOST_STREAMS];
  int32_t n_prefix[MOST_STREAMS], plan_ids[PLAN_SLOTS];
} script;

/* A request of `streams` streams and a prompt of random tokens from a seed: blocks of 4, a delay of
 * 1, and a gamma at which some blocks are rolled back. The planner makes its plan. */
void script_new(script *s, uint64_t session, int32_t streams, int32_t n_prompt, uint64_t seed);

/* Decisions as they were packed. */
typedef struct decisions {
  struct {
    char *packed;
    pdt_bytes bytes;
  } at[MOST_STEPS];
  int32_t n;
} decisions;

void decisions_free(decisions *d);

typedef struct scene {
  const char *model, *sidecar;
  pdt_rank ranks;
  int tensor_parallel;
  bool details;
  const pdt_request *requests[MOST_REQUESTS]; /* in their order */
  int32_t n;
  int32_t come[MOST_REQUESTS]; /* step, from 0, before which a request is not there */
  int32_t max_sessions;        /* at once; 0: all */
  uint32_t unexpected;         /* bit i: the capacity is not made for request i */
  int32_t source_fails;        /* in this step; NEVER: it does not */
  int32_t observer_fails;      /* at a round of this step; likewise */
  float (*assess)(pdt_round round, pdt_stream stream); /* a block's readiness; NULL: its own */
  bool lets_fail;                                      /* requests may end alone */
  uint32_t withdrawn;        /* bit i: nobody wants the answer to request i, */
  int32_t withdrawn_from;    /* from this step on */
  const decisions *recorded; /* NULL: none */
  int32_t n_recorded;        /* the first of them */
  bool resumes;
  int32_t steps;            /* after which the run is ended; 0: when nothing is left */
  int32_t runs;             /* on one engine, one after the other; 0: one. The last one is told, and
                               is neither cut short nor made to fail, as those before it are */
  pdt_rank short_of_memory; /* this rank's */
  int32_t allocation_step;  /* allocations of this step, from 0, */
  int64_t allocation;       /* fail at this one, from 0; -1: none */
  int64_t *allocations;     /* gets how many that step has; may be NULL */
  const char *journal;      /* file that gets what the coordinator decides; NULL: none */
} scene;

/* A scene without requests, on one rank. */
scene scene_of(const char *model, const char *sidecar);
void scene_add(scene *s, const script *request, int32_t comes);

/* What came of one request. */
typedef struct told {
  char *text; /* of its plan, rounds and end; NULL: it did not start */
  size_t bytes;
  int32_t n_started, n_ended, n_failed;
  int32_t rounds;
  char failure[1024];
  int32_t first_step, last_step; /* of its rounds; -1: none */
} told;

typedef struct ending {
  int status; /* of all ranks */
  pdt_error err;
  told sessions[MOST_REQUESTS]; /* by index in the run */
  decisions decisions;          /* the coordinator's */
  int32_t n_steps;
  bool more;                           /* as the last step said */
  uint32_t rounds_in_step[MOST_STEPS]; /* bit i: of request i */
  pdt_run_stats stats;

} ending;

/* Carries the scene out. Ends the test where ranks do not end alike. */
void play(const scene *s, ending *e);
void ending_free(ending *e);

/* The same requests came to the same, as far as text tells. */
void same_session(const ending *a, int32_t i, const ending *b, int32_t j);
void same_sessions(const ending *a, const ending *b);

/* The run had no error. */
void went_well(const ending *e);

/* A model's folder in the scratch folder, with its config's max_position_embeddings changed (0: as
 * it is); its weights are copied. */
void copy_model(scratch *s, const char *name, const char *model, int positions);

/* Overwrites n numbers of a tensor (F32), `stride` elements from one to the next, from element
 * `first` on. */
typedef struct run_of {
  int64_t first, n, stride;
} run_of;
void fill_tensor(const char *safetensors, const char *tensor, run_of elements, float value);
void copy_file(const char *to, const char *from);

#endif
