/* Exchanges between GPUs, by NCCL. Its calls do not block here: whatever it does is watched, up to
 * a deadline, so that a rank that does not come is an error and no hang.
 *
 * Where there are exchanges, launches are not held back to become graphs. NCCL wants an operation
 * to be part of a graph on all ranks or on none, and whether a sequence of launches came before is
 * what each rank knows for itself; and a rank that held its part back while another one waits for
 * it, each at a place of its own, would never end. */
#include <nccl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cuda/backend.h"

struct pdt_cuda_exchange {
  pdt_exchange_group group;
  ncclComm_t comm;          /* NULL: given up */
  const char *operation;    /* the last one, for messages */
  int64_t *own, *none, *at; /* [size], of one uneven all-gather: own elements, zeros, places */
};

_Static_assert(sizeof(ncclUniqueId) == sizeof(pdt_exchange_id), "an id of NCCL's");

void pdt_cuda_exchange_abort(pdt_cuda *c) {
  if (!c->exchange || !c->exchange->comm) return;
  ncclComm_t comm = c->exchange->comm;
  c->exchange->comm = NULL;
  ncclCommAbort(comm);
}

/* Notes that the exchange failed, unless something did before, and gives it up. Returns false. */
static bool fail(pdt_cuda *c, ncclResult_t code, const char *what) {
  const pdt_cuda_exchange *x = c->exchange;
  if (c->failure.code == PDT_ERROR_NONE && code == ncclInProgress)
    pdt_fail(&c->failure, PDT_ERROR_RUNTIME,
             "%s, GPU %d: %s: NCCL's %s did not end within %g s (hint: does every rank of the "
             "group still run? PDT_NCCL_TIMEOUT=SECONDS waits longer)",
             x->group.who, c->index, what, x->operation, x->group.patience);
  else if (c->failure.code == PDT_ERROR_NONE)
    pdt_fail(
        &c->failure, PDT_ERROR_RUNTIME,
        "%s, GPU %d: %s: NCCL's %s failed: %s (NCCL error %d; hint: NCCL_DEBUG=WARN says more)",
        x->group.who, c->index, what, x->operation, ncclGetErrorString(code), (int)code);
  pdt_cuda_exchange_abort(c);
  return false;
}

/* Until when what begins now may take. */
static double deadline_of(const pdt_cuda *c) {
  return pdt_seconds() + c->exchange->group.patience;
}

/* Waits until NCCL has taken on the host what `code` came from: the first exchange with a rank
 * connects to it. */
static bool settle(pdt_cuda *c, ncclResult_t code, const char *what) {
  double deadline = deadline_of(c);
  if (code != ncclSuccess && code != ncclInProgress) return fail(c, code, what);
  while (code == ncclInProgress) {
    ncclResult_t asked = ncclCommGetAsyncError(c->exchange->comm, &code);
    if (asked != ncclSuccess) code = asked;
    if (code == ncclInProgress && pdt_seconds() > deadline) break;
    if (code == ncclInProgress) sched_yield();
  }
  return code == ncclSuccess || fail(c, code, what);
}

bool pdt_cuda_await(pdt_cuda *c, cudaEvent_t event, const char *what) {
  if (!c->exchange)
    return pdt_cuda_ok(
        c, event ? cudaEventSynchronize(event) : cudaStreamSynchronize(c->queue.stream), what);
  if (c->failure.code != PDT_ERROR_NONE) return false;
  double deadline = deadline_of(c);
  for (;;) {
    cudaError_t code = event ? cudaEventQuery(event) : cudaStreamQuery(c->queue.stream);
    if (code != cudaErrorNotReady) return pdt_cuda_ok(c, code, what);
    ncclResult_t state = ncclSuccess, asked = ncclCommGetAsyncError(c->exchange->comm, &state);
    if (asked != ncclSuccess) state = asked;
    if (state != ncclSuccess && state != ncclInProgress) return fail(c, state, what);
    if (pdt_seconds() > deadline) return fail(c, ncclInProgress, what);
    sched_yield();
  }
}

int pdt_cuda_exchange_id(pdt_device *dev, pdt_exchange_id *id, pdt_error *err) {
  ncclUniqueId made;
  ncclResult_t code = ncclGetUniqueId(&made);
  if (code != ncclSuccess)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "GPU %d: NCCL cannot begin a group: %s (NCCL error %d; hint: NCCL_DEBUG=WARN "
                    "says more)",
                    pdt_cuda_of(dev)->index, ncclGetErrorString(code), (int)code);
  memcpy(id->bytes, &made, sizeof made);
  return 0;
}

int pdt_cuda_exchange_join(pdt_device *dev, const pdt_exchange_group *group, pdt_error *err) {
  pdt_cuda *c = pdt_cuda_of(dev);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclUniqueId id;
  pdt_cuda_exchange *x;
  if (PDT_NEW(&x, 1, "exchange of GPUs", err)) return -1;
  c->exchange = x;
  x->group = *group;
  x->operation = "initialization";
  if (PDT_NEW(&x->own, group->size, "exchange of GPUs", err) ||
      PDT_NEW(&x->none, group->size, "exchange of GPUs", err) ||
      PDT_NEW(&x->at, group->size, "exchange of GPUs", err))
    return -1;
  config.blocking = 0;
  memcpy(&id, group->id.bytes, sizeof id);
  ncclResult_t code = ncclCommInitRankConfig(&x->comm, group->size, id, group->rank, &config);
  if (settle(c, code, "joining the group")) {
    dev->joined = group->size;
    return 0;
  }
  if (err) *err = c->failure;
  return -1;
}

void pdt_cuda_exchange_close(pdt_cuda *c) {
  pdt_cuda_exchange *x = c->exchange;
  if (!x) return;
  if (c->failure.code != PDT_ERROR_NONE) pdt_cuda_exchange_abort(c);
  if (x->comm) x->operation = "end";
  if (x->comm && settle(c, ncclCommFinalize(x->comm), "leaving the group"))
    ncclCommDestroy(x->comm);
  free(x->own);
  free(x->none);
  free(x->at);
  free(x);
  c->exchange = NULL;
}

/* Begins an exchange behind everything before: may it? */
static bool begin(pdt_device *dev, const char *operation) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev) || !pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), "launches")) return false;
  c->exchange->operation = operation;
  return true;
}

/* Copies what a rank has for itself. */
static void keep_own(pdt_cuda *c, pdt_array to, pdt_array from, int64_t elems) {
  if (elems > 0 && to.at != from.at)
    pdt_cuda_ok(c,
                pdt_cuda_transfer(c, to.at, from.at, (size_t)elems * sizeof(float),
                                  cudaMemcpyDeviceToDevice),
                "a rank's own part of an exchange");
}

/* Notes the first result that is an error, or that says that more is to come. */
static void note(ncclResult_t *first, ncclResult_t code) {
  if (*first == ncclSuccess || (*first == ncclInProgress && code != ncclSuccess)) *first = code;
}

/* Sends to and receives from all others; returns what NCCL says. */
static ncclResult_t send_and_receive(pdt_cuda *c, pdt_array send, const int64_t *out_elems,
                                     const int64_t *out_at, pdt_array recv, const int64_t *in_elems,
                                     const int64_t *in_at) {
  const pdt_cuda_exchange *x = c->exchange;
  ncclResult_t result = ncclGroupStart();
  if (result != ncclSuccess) return result;
  for (pdt_rank r = 0; r < x->group.size; r++) {
    if (r == x->group.rank) continue;
    if (out_elems[r] > 0)
      note(&result, ncclSend(send.at + out_at[r], (size_t)out_elems[r], ncclFloat32, r, x->comm,
                             c->queue.stream));
    if (in_elems[r] > 0)
      note(&result, ncclRecv(recv.at + in_at[r], (size_t)in_elems[r], ncclFloat32, r, x->comm,
                             c->queue.stream));
  }
  note(&result, ncclGroupEnd());
  return result;
}

void pdt_cuda_all_to_all(pdt_device *dev, pdt_array send, const int64_t *out_elems,
                         const int64_t *out_at, pdt_array recv, const int64_t *in_elems,
                         const int64_t *in_at) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!begin(dev, "all-to-all")) return;
  pdt_rank own = c->exchange->group.rank;
  keep_own(c, pdt_array_at(recv, in_at[own]), pdt_array_at(send, out_at[own]), in_elems[own]);
  if (c->failure.code != PDT_ERROR_NONE) return;
  settle(c, send_and_receive(c, send, out_elems, out_at, recv, in_elems, in_at), "an exchange");
}

void pdt_cuda_all_gather(pdt_device *dev, pdt_array send, pdt_array recv, const int64_t *elems) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!begin(dev, "all-gather")) return;
  const pdt_cuda_exchange *x = c->exchange;
  pdt_rank T = x->group.size, own = x->group.rank;
  bool even = true;
  for (pdt_rank r = 0; r < T; r++) {
    even = even && elems[r] == elems[0];
    x->own[r] = elems[own];
    x->at[r] = r == 0 ? 0 : x->at[r - 1] + elems[r - 1];
  }
  if (even) {
    settle(c,
           elems[0] > 0 ? ncclAllGather(send.at, recv.at, (size_t)elems[0], ncclFloat32, x->comm,
                                        c->queue.stream)
                        : ncclSuccess,
           "an exchange");
    return;
  }
  keep_own(c, pdt_array_at(recv, x->at[own]), send, elems[own]);
  if (c->failure.code != PDT_ERROR_NONE) return;
  settle(c, send_and_receive(c, send, x->own, x->none, recv, elems, x->at), "an exchange");
}
