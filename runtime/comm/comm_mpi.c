/* The MPI backend. Errors of MPI itself are fatal (the default handler), so return codes are not
 * looked at. Only the thread that started MPI calls it. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "comm/backend.h"

enum { ROW_TAG = 1 };

static const pdt_comm_backend mpi_backend;

/* A communicator, with room for the requests and displacements of one operation at a time. */
typedef struct mpi_handle {
  MPI_Comm comm;
  MPI_Request *requests; /* [2 * size] */
  int *counts, *displacements;
} mpi_handle;

static MPI_Comm comm_of(const pdt_comm *comm) {
  return ((mpi_handle *)comm->handle)->comm;
}

/* MPI counts are ints; nothing that one boundary or one step exchanges comes near. */
static int to_count(pdt_bytes bytes) {
  if (bytes <= INT_MAX) return (int)bytes;
  fprintf(stderr,
          "pdt: one message of %lld bytes; MPI takes at most %d (hint: fewer streams at "
          "once)\n",
          (long long)bytes, INT_MAX);
  MPI_Abort(MPI_COMM_WORLD, 1);
  return 0;
}

static int wrap(MPI_Comm mpi, pdt_comm *out, pdt_error *err) {
  int rank, size;
  MPI_Comm_rank(mpi, &rank);
  MPI_Comm_size(mpi, &size);
  mpi_handle *handle;
  if (PDT_NEW(&handle, 1, "communicator", err)) return -1;
  handle->comm = mpi;
  *out = (pdt_comm){.rank = rank, .size = size, .backend = &mpi_backend, .handle = handle};
  if (PDT_NEW(&handle->requests, 2 * size, "communicator", err) ||
      PDT_NEW(&handle->counts, size, "communicator", err) ||
      PDT_NEW(&handle->displacements, size, "communicator", err))
    return -1;
  return 0;
}

int pdt_comm_mpi_start(pdt_comm *world, int *argc, char ***argv, pdt_error *err) {
  int provided;
  MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm copy;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  if (wrap(copy, world, err)) return -1;
  if (provided < MPI_THREAD_FUNNELED)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "this MPI library does not allow threads beside it");
  return 0;
}

static int mpi_split(const pdt_comm *comm, int color, bool by_node, pdt_comm *out, pdt_error *err) {
  MPI_Comm part;
  if (by_node)
    MPI_Comm_split_type(comm_of(comm), MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &part);
  else
    MPI_Comm_split(comm_of(comm), color, comm->rank, &part);
  return wrap(part, out, err);
}

static void mpi_release(pdt_comm *comm) {
  mpi_handle *handle = comm->handle;
  MPI_Comm_free(&handle->comm);
  free(handle->requests);
  free(handle->counts);
  free(handle->displacements);
  free(handle);
}

static void mpi_finish(pdt_comm *world) {
  mpi_release(world);
  MPI_Finalize();
}

static void mpi_abort(const pdt_comm *world, int exit_status) {
  MPI_Abort(comm_of(world), exit_status);
}

static void mpi_barrier(const pdt_comm *comm) {
  MPI_Barrier(comm_of(comm));
}

static void mpi_broadcast(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root) {
  MPI_Bcast(data, to_count(bytes), MPI_BYTE, root, comm_of(comm));
}

/* Fills in the handle's counts and displacements for pieces that stand one after another. */
static const mpi_handle *lay_out(const pdt_comm *comm, const pdt_bytes *counts_bytes) {
  const mpi_handle *handle = comm->handle;
  pdt_bytes at = 0;
  for (pdt_rank r = 0; r < comm->size; r++) {
    handle->counts[r] = to_count(counts_bytes[r]);
    handle->displacements[r] = to_count(at);
    at += counts_bytes[r];
  }
  return handle;
}

static void mpi_gather(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                       const pdt_bytes *counts_bytes, pdt_rank root) {
  const mpi_handle *handle = lay_out(comm, counts_bytes);
  MPI_Gatherv(send, to_count(bytes), MPI_BYTE, recv, handle->counts, handle->displacements,
              MPI_BYTE, root, handle->comm);
}

static void mpi_all_gather(const pdt_comm *comm, const void *send, void *recv,
                           const pdt_bytes *counts_bytes) {
  const mpi_handle *handle = lay_out(comm, counts_bytes);
  bool in_place = (const char *)recv + handle->displacements[comm->rank] == send;
  MPI_Allgatherv(in_place ? MPI_IN_PLACE : send, handle->counts[comm->rank], MPI_BYTE, recv,
                 handle->counts, handle->displacements, MPI_BYTE, handle->comm);
}

/* The operation under way and what it may still read. */
typedef struct mpi_pending {
  MPI_Request request;
  int *counts, *displacements;
} mpi_pending;

static void mpi_all_gather_start(const pdt_comm *comm, const void *send, void *recv,
                                 const pdt_bytes *counts_bytes, pdt_comm_request *request) {
  const mpi_handle *handle = lay_out(comm, counts_bytes);
  size_t bytes = (size_t)comm->size * sizeof(int);
  mpi_pending *pending = malloc(sizeof *pending + 2 * bytes);
  if (!pending) { /* no room to overlap: do it now */
    mpi_all_gather(comm, send, recv, counts_bytes);
    return;
  }
  pending->counts = memcpy(pending + 1, handle->counts, bytes);
  pending->displacements = memcpy(pending->counts + comm->size, handle->displacements, bytes);
  bool in_place = (const char *)recv + pending->displacements[comm->rank] == send;
  MPI_Iallgatherv(in_place ? MPI_IN_PLACE : send, pending->counts[comm->rank], MPI_BYTE, recv,
                  pending->counts, pending->displacements, MPI_BYTE, handle->comm,
                  &pending->request);
  request->handle = pending;
}

static void mpi_wait(pdt_comm_request *request) {
  mpi_pending *pending = request->handle;
  MPI_Wait(&pending->request, MPI_STATUS_IGNORE);
  free(pending);
  request->handle = NULL;
}

/* Direct sends and receives: groups are small, and only the pairs with something to say speak. */
static void mpi_all_to_all(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                           const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                           const pdt_bytes *recv_at) {
  const mpi_handle *handle = comm->handle;
  int n = 0;
  for (pdt_rank step = 1; step < comm->size; step++) {
    pdt_rank from = (comm->rank + comm->size - step) % comm->size;
    if (recv_bytes[from] > 0)
      MPI_Irecv((char *)recv + recv_at[from], to_count(recv_bytes[from]), MPI_BYTE, from, ROW_TAG,
                handle->comm, &handle->requests[n++]);
  }
  for (pdt_rank step = 1; step < comm->size; step++) {
    pdt_rank to = (comm->rank + step) % comm->size;
    if (send_bytes[to] > 0)
      MPI_Isend((const char *)send + send_at[to], to_count(send_bytes[to]), MPI_BYTE, to, ROW_TAG,
                handle->comm, &handle->requests[n++]);
  }
  MPI_Waitall(n, handle->requests, MPI_STATUSES_IGNORE);
}

static void mpi_all_reduce_i64(const pdt_comm *comm, int64_t *data, int32_t n_elems,
                               pdt_comm_op op) {
  MPI_Op operation = op == PDT_COMM_MIN ? MPI_MIN : op == PDT_COMM_MAX ? MPI_MAX : MPI_SUM;
  MPI_Allreduce(MPI_IN_PLACE, data, n_elems, MPI_INT64_T, operation, comm_of(comm));
}

static const pdt_comm_backend mpi_backend = {
    .split = mpi_split,
    .release = mpi_release,
    .finish = mpi_finish,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .gather = mpi_gather,
    .all_gather_start = mpi_all_gather_start,
    .wait = mpi_wait,
    .all_gather = mpi_all_gather,
    .all_to_all = mpi_all_to_all,
    .all_reduce_i64 = mpi_all_reduce_i64,
};

void pdt_comm_library(char *text, size_t bytes) {
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Get_library_version(version, &length);
  version[strcspn(version, ",\n")] = '\0';
  snprintf(text, bytes, "%s", version);
}
