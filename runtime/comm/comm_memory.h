/* A cluster in one process: every rank is a thread with a world of its own, and its operations copy
 * from one rank's buffers to the other's. For tests: it checks what MPI takes on trust, decides who
 * comes first, and lets ranks and messages fail as a schedule says.
 *
 * - Every blocking operation is a meeting of all ranks of its communicator: nobody leaves before
 *   the last has come. A program that needs more from MPI than it promises hangs here.
 * - All ranks must call the same operation with sizes that fit each other. Where they do not, the
 *   cluster ends with an error that names both ranks and what each of them called.
 * - Where every rank waits and nothing is on its way, the cluster ends at once, with an error that
 *   says who waits in which operation for whom.
 * - Results do not depend on who comes first. With a schedule, one rank computes at a time, and at
 *   every operation the seed chooses the next: the same seed, the same order.
 *
 * How a cluster ends before its ranks have come back: by pdt_comm_abort on any rank, or by an error
 * as above. Then every rank's thread ends in the operation that it is in, or in the next one that
 * it comes to, as MPI would end its process. Nothing is unwound: what such a rank has allocated or
 * opened stays so until the process ends, and a test that lets many clusters end so runs each in a
 * process of its own. */
#ifndef PDT_COMM_COMM_MEMORY_H
#define PDT_COMM_COMM_MEMORY_H

#include "comm/comm.h"

typedef enum pdt_comm_fault_kind {
  PDT_COMM_STOPS_BEFORE, /* the rank comes to the operation and takes no part in it */
  PDT_COMM_STOPS_AFTER,  /* it takes part, and does not come back from it */
  PDT_COMM_LOSES,        /* what it sends rank `to` there does not arrive */
} pdt_comm_fault_kind;

typedef struct pdt_comm_fault {
  pdt_comm_fault_kind kind;
  pdt_rank rank;     /* of the world */
  int64_t operation; /* of this rank, from 0, over all its communicators; pdt_comm_wait is none */
  pdt_rank to;       /* of the world; for PDT_COMM_LOSES */
} pdt_comm_fault;

/* Zeroed: all ranks on one machine, all at once, and no faults. */
typedef struct pdt_comm_memory_options {
  const int32_t *machines; /* [ranks]: ranks of the same number share a machine; NULL: all do */
  bool scheduled;          /* one rank computes at a time, in an order that the seed decides; */
  uint64_t seed;           /* it also decides which ranks are late at most operations */
  double deadline_seconds; /* a rank that waits for longer ends the cluster; 0: there is none */
  const pdt_comm_fault *faults; /* [n_faults] */
  int32_t n_faults;
} pdt_comm_memory_options;

/* What became of one rank. */
typedef struct pdt_comm_memory_outcome {
  bool returned;              /* from its function; else it ended with the cluster */
  int status;                 /* what the function returned */
  pdt_error err;              /* what it put there */
  int64_t operations, faults; /* that it came to; of them, those that had a fault */
} pdt_comm_memory_outcome;

/* What a rank does; world is its own and need not be finished. */
typedef int pdt_comm_memory_function(const pdt_comm *world, void *context, pdt_error *err);

/* Starts a cluster, lets every rank call run(world, context, &outcome.err), and waits for all.
 * Fills in outcomes[ranks]. Returns 0 when all ranks came back from it, whatever they returned; -1
 * when the cluster ended before, with the one error that ended it. Not to be called from inside a
 * cluster. Errors: MEMORY, RUNTIME, and what was given to pdt_comm_abort. */
int pdt_comm_memory_run(pdt_rank ranks, const pdt_comm_memory_options *options,
                        pdt_comm_memory_function *run, void *context,
                        pdt_comm_memory_outcome *outcomes, pdt_error *err);

#endif
