/* What a device computes, on its way between the ranks of a communicator. A device whose memory is
 * the process's own is read and written where it is; what another one sends is downloaded to the
 * host first, and what it receives is uploaded: a staged link. Devices that have joined an exchange
 * of their own (kernels.h), which is that of their shard group, do it themselves: a direct link.
 *
 * Operations are collective over the communicator, and blocking unless the link is direct. Counts
 * and places are in floats.
 */
#ifndef PDT_COMM_LINK_H
#define PDT_COMM_LINK_H

#include "comm/comm.h"
#include "kernels/kernels.h"

typedef struct pdt_link {
  const pdt_comm *comm;   /* borrowed */
  pdt_device *device;     /* borrowed */
  pdt_bytes *bytes;       /* [4, size] counts and places of one operation */
  float *sent, *received; /* [most_sent], [most_received] on the host; NULL when not staged */
} pdt_link;

/* A link for operations that send and receive at most so many floats on this rank. Borrows comm and
 * device. Not collective. Errors: MEMORY. */
int pdt_link_new(pdt_link *link, const pdt_comm *comm, pdt_device *device, int64_t most_sent,
                 int64_t most_received, pdt_error *err);
void pdt_link_free(pdt_link *link);

/* Does it go through host memory? */
bool pdt_link_is_staged(const pdt_link *link);

/* Every rank sends elems[rank] floats and receives everybody's, one after another by rank. send may
 * already stand in its place in recv. elems[size]. */
void pdt_link_all_gather(const pdt_link *link, pdt_array send, pdt_array recv,
                         const int64_t *elems);

/* One side of an exchange: elems[q] floats at place at[q] go to, or come from, rank q. */
typedef struct pdt_link_side {
  int64_t *elems, *at; /* [size] */
} pdt_link_side;

/* Each rank sends to every rank, and receives from every rank, what the sides say. */
void pdt_link_all_to_all(const pdt_link *link, pdt_array send, const pdt_link_side *out,
                         pdt_array recv, const pdt_link_side *in);

#endif
