/* Do the other ranks still live? Every rank of a job has a thread that says so twice a second
 * (beats.h), to rank 0; rank 0 watches all, and all watch rank 0. The thread lives while its rank
 * computes, however long, and is gone, stopped or cut off with it. So nobody waits for a rank that
 * will not come:
 *
 *   a rank has ended           its machine refuses the message: told at once
 *   a rank is not heard        it was stopped, or its machine is cut off: the exchange's deadline
 *   exchanges do not get on    all are in one, and none has begun another: the same deadline
 *   a round takes too long     whoever computes does not come back: the round's deadline
 *
 * Then one rank says who is missing, where, in which round, and what it waits in itself, tells all
 * others by the same way to end silently, and ends, which ends the job by its launcher, too. No MPI
 * call is made for it: the main thread may be in one.
 *
 * Of what runs the main thread tells by stores alone: two at each exchange. Private to comm/. */
#ifndef PDT_COMM_WATCH_H
#define PDT_COMM_WATCH_H

#include <stdatomic.h>

#include "comm/comm.h"

/* What the main thread says of itself; its own thread of the watch reads it. */
typedef struct pdt_watch_state {
  _Atomic(const char *) call; /* the exchange that it is in; NULL: it computes */
  _Atomic uint64_t exchanges; /* begun so far */
  _Atomic uint64_t round;     /* 0: in none */
  _Atomic double exchange_seconds, round_seconds; /* deadlines; 0: none */
  _Atomic bool armed;                             /* they hold */
  _Atomic bool leaves;                            /* others may end before this one looks */
  _Atomic int ends; /* the job ends by this rank: 1 + the exit status of all */
} pdt_watch_state;

typedef struct pdt_watch pdt_watch;

/* Starts the watch of a world with more than one rank, and puts it there. A rank may be silent for
 * a minute until deadlines are set. Collective over world, blocking; all ranks fail alike. Errors:
 * MEMORY. */
int pdt_watch_start(pdt_comm *world, pdt_error *err);

/* Ends it, once all ranks have come here: nobody takes another one's end for a failure. NULL does
 * nothing. Collective over world, blocking. */
void pdt_watch_stop(pdt_comm *world);

/* This rank is about to end the job: the others end with the same status, and say nothing. Returns
 * when they have been told. NULL does nothing. Not collective. */
void pdt_watch_end(pdt_watch_state *state, int status);

/* The name of a rank's machine. */
const char *pdt_watch_host(const pdt_watch_state *state, pdt_rank rank);

/* The main thread begins and ends an exchange, `call` in messages. NULL: nobody watches. */
static inline void pdt_watch_enter(pdt_watch_state *s, const char *call) {
  if (!s) return;
  uint64_t n = atomic_load_explicit(&s->exchanges, memory_order_relaxed);
  atomic_store_explicit(&s->exchanges, n + 1, memory_order_relaxed);
  atomic_store_explicit(&s->call, call, memory_order_relaxed);
}
static inline void pdt_watch_leave(pdt_watch_state *s) {
  if (s) atomic_store_explicit(&s->call, NULL, memory_order_relaxed);
}

#endif
