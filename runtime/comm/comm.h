/* Communication behind one small interface. A pdt_comm is one communicator: the world of all ranks
 * that were started, a shard group inside it, or a single process on its own. Three backends: one
 * process without MPI (every operation a copy), MPI, and for tests a cluster whose ranks are
 * threads of one process (comm_memory.h).
 *
 * Every operation below is collective over the communicator it is given: all its ranks call it, in
 * the same order. Counts and displacements are in elements unless named bytes. Buffers belong to
 * the caller. A failing MPI call ends the job (MPI_ERRORS_ARE_FATAL): there is nothing to return.
 */
#ifndef PDT_COMM_COMM_H
#define PDT_COMM_COMM_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_comm_backend pdt_comm_backend; /* function table and MPI handle */
typedef struct pdt_watch_state pdt_watch_state;   /* of who watches over the ranks (watch.h) */

typedef struct pdt_comm {
  pdt_rank rank, size;
  const pdt_comm_backend *backend;
  void *handle;              /* the backend's own, NULL for a single process */
  pdt_watch_state *watch;    /* the world's, shared by those split from it; NULL: nobody watches */
  struct pdt_shared *shared; /* memory of its ranks, for all-gathers and exchanges (pdt_comm_share);
                                NULL: none */
} pdt_comm;

/* The rank that a launcher's environment tells; 0 without one. For those who must speak before
 * there is a world. Not collective. */
pdt_rank pdt_comm_told_rank(void);

/* Under a launcher: do the limits of this process leave enough for MPI to start? Where they do not,
 * MPI would hang. A rank that ends with an error before it starts MPI is the end of all, by their
 * launcher. Not collective. Errors: MEMORY. */
int pdt_comm_check_room(pdt_error *err);

/* The world. Under a launcher (Open MPI, PMIx, PMI) starts MPI; alone it does not, and size is 1.
 * Refused: one of several processes that were started together by something that MPI cannot join,
 * each of which would do all the work.
 * Collective over all processes started, blocking; all fail alike, and then the one whose
 * world->rank is 0 should say why. Errors: USAGE, MEMORY, RUNTIME. */
int pdt_comm_start(pdt_comm *world, int *argc, char ***argv, pdt_error *err);

/* Ends MPI when it was started. Collective, blocking. */
void pdt_comm_finish(pdt_comm *world);

/* From the start of a world to its end the ranks of MPI watch over each other, by threads of their
 * own: where one is killed, stopped or cut off from the network, one message names it and its
 * machine, and all ranks end with status 1. A rank that computes, for however long, is none of
 * that. */
typedef struct pdt_comm_deadlines {
  double exchange_seconds; /* a rank is not heard, or no exchange gets on */
  double round_seconds;    /* one round takes longer */
} pdt_comm_deadlines;      /* seconds; 0: there is none */

/* Deadlines hold from here on, until disarmed: meanwhile, as while files are loaded, a rank may be
 * silent for ten times as long, and no exchange is judged. The same on every rank; not collective,
 * and nothing without MPI. */
void pdt_comm_arm(const pdt_comm *world, const pdt_comm_deadlines *deadlines);
void pdt_comm_disarm(const pdt_comm *world);

enum { PDT_USUAL_EXCHANGE_SECONDS = 6, PDT_USUAL_ROUND_SECONDS = 600 };

/* This rank comes to round number `round`; 0: it is in none. Named in messages. Not collective. */
void pdt_comm_enter_round(const pdt_comm *world, uint64_t round);

/* Prints the error and ends every rank of the world now, with its exit status: for what one rank
 * alone met where no agreement with the others is possible. (In a cluster in one process who runs
 * it gets the error.) Not collective. Does not return. */
_Noreturn void pdt_comm_abort(const pdt_comm *world, const pdt_error *err);

/* The communicator of the ranks that name the same color, ordered by their rank in comm.
 * Collective over comm, blocking; all ranks fail alike. Free with pdt_comm_free. Errors: MEMORY. */
int pdt_comm_split(const pdt_comm *comm, int color, pdt_comm *out, pdt_error *err);
/* Communicator of the ranks of comm that share this machine's memory. Likewise. */
int pdt_comm_split_node(const pdt_comm *comm, pdt_comm *out, pdt_error *err);
void pdt_comm_free(pdt_comm *comm);

/* Where all ranks of comm are on one machine, they exchange through memory that they share from
 * here on: what is gathered by all, and what each sends to each; whoever waits sleeps (shared.h).
 * The same bytes come as without. Not while an operation that was only started is under way.
 * Collective over comm, blocking; all ranks fail alike. Errors: MEMORY. */
int pdt_comm_share(pdt_comm *comm, pdt_error *err);

/* Blocks until every rank has come here. */
void pdt_comm_barrier(const pdt_comm *comm);

/* Agreement on an error: every rank passes what happened to it (code NONE when all is well). If any
 * rank failed, all return -1 and hold the error of the lowest failing rank; else 0. Blocking. */
int pdt_comm_agree(const pdt_comm *comm, pdt_error *err);

/* Copies bytes of root's data to every rank. Blocking. */
void pdt_comm_broadcast(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root);

/* The same where root may let the others wait for long: they sleep between looks, for up to a few
 * milliseconds, in place of spinning. bytes: of one message, at most 1 GiB. Blocking. */
void pdt_comm_broadcast_patiently(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root);

/* Every rank sends bytes; root receives them one after another by rank. counts_bytes[size] on every
 * rank. recv is used at root only. Blocking. */
void pdt_comm_gather(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                     const pdt_bytes *counts_bytes, pdt_rank root);

/* Every rank sends counts_bytes[rank] bytes and receives everybody's, one after another by rank.
 * send may already stand in its place in recv. Blocking. */
void pdt_comm_all_gather(const pdt_comm *comm, const void *send, void *recv,
                         const pdt_bytes *counts_bytes);

/* The same, only started; recv and send must be left alone until pdt_comm_wait. Not blocking while
 * no other one of the communicator is under way, and all that is gathered fits into one message of
 * MPI; otherwise done at once. */
typedef struct pdt_comm_request {
  void *handle; /* NULL: done */
} pdt_comm_request;
void pdt_comm_all_gather_start(const pdt_comm *comm, const void *send, void *recv,
                               const pdt_bytes *counts_bytes, pdt_comm_request *request);
/* Blocks until the operation is done. Every rank waits for what it started. */
void pdt_comm_wait(const pdt_comm *comm, pdt_comm_request *request);

/* Each rank sends send_bytes[q] bytes from send + send_at[q] to every rank q, and receives
 * recv_bytes[q] at recv + recv_at[q]. Blocking. */
void pdt_comm_all_to_all(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                         const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                         const pdt_bytes *recv_at);

/* Element-wise over all ranks, in place. Blocking. */
typedef enum pdt_comm_op { PDT_COMM_MIN, PDT_COMM_MAX, PDT_COMM_SUM } pdt_comm_op;
void pdt_comm_all_reduce_i64(const pdt_comm *comm, int64_t *data, int32_t n_elems, pdt_comm_op op);

/* Is a number the same on every rank? Blocking. */
bool pdt_comm_is_same(const pdt_comm *comm, uint64_t number);

/* Room for sums of floats, made once for a communicator. */
typedef struct pdt_comm_reducer {
  float *pieces;    /* every rank's numbers of what this rank adds up */
  pdt_bytes *bytes; /* [4 * size] counts and places */
} pdt_comm_reducer;

/* Errors: MEMORY, on this rank alone. Not collective. */
int pdt_comm_reducer_new(pdt_comm_reducer *r, const pdt_comm *comm, pdt_error *err);
void pdt_comm_reducer_free(pdt_comm_reducer *r);

/* data[i] = the sum of all ranks' data[i], added in double in order of ranks: the same bits on
 * every rank, and in every run of as many ranks. Each rank adds up its share of the elements.
 * Blocking. */
void pdt_comm_all_reduce_f32(const pdt_comm *comm, pdt_comm_reducer *r, float *data,
                             int64_t n_elems);

/* PDT_CHECK_SAME(comm, value): a number that must be the same on every rank of comm. In builds with
 * PDT_CHECKS (base/check.h), where it is not, all ranks end with an error that names two of them
 * and what they have; in others nothing is done, and value is not looked at. Collective, blocking.
 */
#ifdef PDT_CHECKS
#define PDT_CHECK_SAME(comm, value) pdt_comm_check_same(comm, (int64_t)(value), __func__, #value)
#else
#define PDT_CHECK_SAME(comm, value) ((void)0)
#endif
void pdt_comm_check_same(const pdt_comm *comm, int64_t value, const char *function,
                         const char *name);

/* The name of a rank's machine; "?" without MPI. Borrowed from the world. */
const char *pdt_comm_host(const pdt_comm *world, pdt_rank rank);

/* This machine's networks into text[bytes], as "eth0 10.0.0.1, docker0 172.17.0.1": interfaces of
 * IPv4 that are up, but the loopback; "-" without any. Not collective. */
void pdt_comm_interfaces(char *text, size_t bytes);

/* What this build's MPI library says of itself, one line into text[bytes]; for --version. May be
 * called without MPI having been started. */
void pdt_comm_library(char *text, size_t bytes);

#endif
