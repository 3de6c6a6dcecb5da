/* What a communication backend provides: the operations of comm.h for size > 1. Private to comm/.
 */
#ifndef PDT_COMM_BACKEND_H
#define PDT_COMM_BACKEND_H

#include "comm/comm.h"

struct pdt_comm_backend {
  bool processes;    /* ranks are processes, which may share memory (shared.h) */
  bool checks_calls; /* finds calls of ranks that do not fit each other by itself */
  int (*split)(const pdt_comm *comm, int color, bool by_node, pdt_comm *out, pdt_error *err);
  void (*release)(pdt_comm *comm);
  void (*finish)(pdt_comm *world);
  void (*abort)(const pdt_comm *world, const pdt_error *err); /* does not return */
  void (*barrier)(const pdt_comm *comm);
  void (*broadcast)(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root);
  void (*broadcast_patiently)(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root);
  void (*gather)(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                 const pdt_bytes *counts_bytes, pdt_rank root);
  void (*all_gather_start)(const pdt_comm *comm, const void *send, void *recv,
                           const pdt_bytes *counts_bytes, pdt_comm_request *request);
  void (*wait)(const pdt_comm *comm, pdt_comm_request *request);
  void (*all_gather)(const pdt_comm *comm, const void *send, void *recv,
                     const pdt_bytes *counts_bytes);
  void (*all_to_all)(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                     const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                     const pdt_bytes *recv_at);
  void (*all_reduce_i64)(const pdt_comm *comm, int64_t *data, int32_t n_elems, pdt_comm_op op);
  /* The same where others may come late: whoever waits sleeps between looks. */
  void (*all_reduce_patiently)(const pdt_comm *comm, int64_t *data, int32_t n_elems,
                               pdt_comm_op op);
};

/* check.c: ends all ranks where they do not make the same call, with an error that names two of
 * them and what they call. What is not an argument of the call is 0 or NULL. For backends that do
 * not find that by themselves. Collective, blocking. */
void pdt_comm_check_call(const pdt_comm *comm, const char *name, pdt_bytes bytes,
                         const pdt_bytes *counts_bytes, pdt_rank root);

/* The MPI backend. Starts MPI and fills in world; on failure, alike on all ranks, MPI has ended
 * again. Collective over all processes started, blocking. */
int pdt_comm_mpi_start(pdt_comm *world, int *argc, char ***argv, pdt_error *err);

/* May this MPI join processes that only PMI ties together? Open MPI knows PMIx instead. */
bool pdt_comm_mpi_knows_pmi(void);

/* For tests: messages of this communicator, and of those split from it later, are cut into pieces
 * of `longest` bytes, as otherwise only those beyond a gibibyte are. The same on every rank; not
 * collective. */
void pdt_comm_mpi_shorten(const pdt_comm *comm, pdt_bytes longest);

/* For tests: all-gathers of this communicator, and of those split from it later, go in hops however
 * few its ranks are, as otherwise only those of many do. The same on every rank; not collective. */
void pdt_comm_mpi_hop(const pdt_comm *comm);

/* For benches: gathers and all-gathers of this communicator go by MPI's own, whatever their size.
 * The same on every rank; not collective. */
void pdt_comm_mpi_gather_flat(const pdt_comm *comm);

#endif
