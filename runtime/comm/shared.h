/* Exchanges between ranks of one machine through memory that they share: what a shard group does
 * many times a token. Every ordered pair of ranks has a channel of its own, two slots through which
 * messages go piece by piece. Who waits spins for some microseconds and then sleeps in the kernel,
 * until the other wakes it: beside other work on the same processors a wait costs what the other
 * rank needs, and not the turns of whoever spins. */
#ifndef PDT_COMM_SHARED_H
#define PDT_COMM_SHARED_H

#include "comm/comm.h"

typedef struct pdt_shared pdt_shared;

/* Shared memory for the ranks of comm; *out is NULL, on all of them, where they are not on one
 * machine, are too many, or the machine gives none: then exchanges go by MPI. Collective over comm,
 * blocking. Errors: MEMORY; all ranks fail alike. */
int pdt_shared_new(pdt_shared **out, const pdt_comm *comm, pdt_error *err);

/* Safe on NULL. Not collective: whoever still reads keeps the memory. */
void pdt_shared_free(pdt_shared *shared);

/* As the operations of comm.h. Collective, blocking. */
void pdt_shared_all_gather(pdt_shared *shared, const void *send, void *recv,
                           const pdt_bytes *counts_bytes);
void pdt_shared_all_to_all(pdt_shared *shared, const void *send, const pdt_bytes *send_bytes,
                           const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                           const pdt_bytes *recv_at);

#endif
