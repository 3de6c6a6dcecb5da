/* The threads of a cluster in one process (comm_memory.h): who computes, who waits, what ends all.
 * Knows nothing of operations. Private to comm/. */
#ifndef PDT_COMM_CLUSTER_H
#define PDT_COMM_CLUSTER_H

#include <pthread.h>

#include "comm/comm_memory.h"

typedef enum pdt_cluster_state {
  PDT_RANK_COMPUTES,
  PDT_RANK_READY, /* could go on, and is not its schedule's choice yet */
  PDT_RANK_WAITS, /* for other ranks */
  PDT_RANK_STOPPED,
  PDT_RANK_RETURNED,
} pdt_cluster_state;

typedef struct pdt_cluster_rank {
  pthread_cond_t goes_on;
  pdt_cluster_state state;
  uint64_t weight;    /* how readily a schedule chooses it */
  const void *call;   /* what it waits or stopped in */
  int64_t operations; /* that it came to */
  int64_t faults;     /* of them, with a fault */
} pdt_cluster_rank;

typedef struct pdt_cluster {
  pthread_mutex_t mutex; /* holds for everything here and for all communicators */
  pdt_rank size;
  pdt_comm_memory_options options;
  uint64_t random; /* the schedule's state */
  bool ended;
  pdt_error failure; /* what ended it */
  /* Writes what a rank waits for, as in "gather (operation 3 of world) for rank 2". */
  void (*describe)(const void *call, char *text, size_t room);
  void *communicators;     /* the backend's list of those that are in use */
  pdt_cluster_rank *ranks; /* [size] */
} pdt_cluster;

/* A cluster whose ranks are all ready. Errors: MEMORY. */
int pdt_cluster_new(pdt_cluster **out, pdt_rank size, const pdt_comm_memory_options *options,
                    pdt_error *err);
void pdt_cluster_free(pdt_cluster *c);

/* The calling thread is rank r from here on; returns once it may compute. */
void pdt_cluster_begin(pdt_cluster *c, pdt_rank r);

/* Rank r has returned and takes no part any more. */
void pdt_cluster_return(pdt_cluster *c, pdt_rank r);

/* Takes the mutex for rank r, which comes to an operation: a schedule may let others go first.
 * Ends the thread where the cluster has ended. */
void pdt_cluster_enter(pdt_cluster *c, pdt_rank r);

/* With the mutex: blocks rank r, which is in `call`, while *open. Ends the thread where the cluster
 * ends. */
void pdt_cluster_wait(pdt_cluster *c, pdt_rank r, const void *call, const bool *open);

/* With the mutex: `call` is done; rank r goes on if it waits in it. */
void pdt_cluster_wake(pdt_cluster *c, pdt_rank r, const void *call);

/* With the mutex: rank r stops in `call` for good. */
_Noreturn void pdt_cluster_stop(pdt_cluster *c, pdt_rank r, const void *call);

/* With the mutex: ends the cluster; the first error is kept. */
void pdt_cluster_fail(pdt_cluster *c, const pdt_error *err);

/* With the mutex, once the cluster has ended: lets go of it and ends the thread. */
_Noreturn void pdt_cluster_quit(pdt_cluster *c);

#endif
