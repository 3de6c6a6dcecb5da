/* Do all ranks say the same? Asked through the backend itself, whose calls are not asked about. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "comm/backend.h"

enum { TEXT_BYTES = 128 };

/* Ends all ranks where their keys differ: two that do are told, with what each of them says. */
static void compare(const pdt_comm *comm, int64_t key, const char own[TEXT_BYTES],
                    const char *function) {
  const pdt_comm_backend *b = comm->backend;
  int64_t ends[2] = {key, ~key}, other = comm->size;
  char first[TEXT_BYTES], theirs[TEXT_BYTES];
  /* what is asked about may be a call that waits for long */
  b->all_reduce_patiently(comm, ends, 2, PDT_COMM_MIN);
  if (ends[0] == ~ends[1]) return;
  memcpy(first, own, TEXT_BYTES);
  b->broadcast(comm, first, TEXT_BYTES, 0);
  if (memcmp(first, own, TEXT_BYTES) != 0) other = comm->rank;
  b->all_reduce_i64(comm, &other, 1, PDT_COMM_MIN);
  memcpy(theirs, own, TEXT_BYTES);
  b->broadcast(comm, theirs, TEXT_BYTES, (pdt_rank)other);
  if (comm->rank == 0) {
    pdt_error err = {0};
    pdt_fail(&err, PDT_ERROR_RUNTIME,
             "%s: expected the same on all %d ranks, found %s on rank 0, %s on rank %d", function,
             comm->size, first, theirs, (int)other);
    pdt_comm_abort(comm, &err);
  }
  b->barrier(comm); /* nobody passes it */
}

void pdt_comm_check_same(const pdt_comm *comm, int64_t value, const char *function,
                         const char *name) {
  char own[TEXT_BYTES] = "";
  if (comm->size == 1) return;
  snprintf(own, sizeof own, "%.80s = %" PRId64, name, value);
  compare(comm, value, own, function);
}

void pdt_comm_check_call(const pdt_comm *comm, const char *name, pdt_bytes bytes,
                         const pdt_bytes *counts_bytes, pdt_rank root) {
  char own[TEXT_BYTES] = "";
  if (comm->size == 1 || comm->backend->checks_calls) return;
  XXH64_hash_t counts =
      counts_bytes ? XXH3_64bits(counts_bytes, (size_t)comm->size * sizeof *counts_bytes) : 0;
  snprintf(own, sizeof own, "%s(bytes %" PRId64 ", counts #%016" PRIx64 ", root %d)", name, bytes,
           (uint64_t)counts, root);
  compare(comm, (int64_t)XXH3_64bits(own, sizeof own), own, "collective calls");
}
