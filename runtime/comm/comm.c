/* The dispatch, and the backend of a single process, where every operation is a copy or nothing. */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "comm/backend.h"
#include "comm/shared.h"
#include "comm/watch.h"

/* In builds that check: does every rank call this? */
#ifdef PDT_CHECKS
#define CHECK_CALL(comm, bytes, counts, root)                                                      \
  pdt_comm_check_call(comm, __func__, bytes, counts, root)
#else
#define CHECK_CALL(comm, bytes, counts, root) ((void)0)
#endif

/* What Open MPI takes of addresses when it starts: its modules, a helping thread with an arena, and
 * a piece of every neighbour's shared memory. With less it hangs sooner or later, at its start or
 * at its end. (Measured: 211 MiB for 4
 * ranks, and 136 that other libraries take at the same time.) */
enum { MPI_BYTES = 352 << 20, MPI_BYTES_A_RANK = 8 << 20 };

/* How launchers tell a process what it belongs to. */
typedef struct launcher {
  const char *size, *rank; /* environment variables: processes started together, which of them */
} launcher;

static const launcher open_mpi = {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"};

/* Slurm sets this one in steps alone: in a batch script, whose job may have many tasks, it is not
 * there. */
static const launcher others[] = {
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
    {"PMI_SIZE", "PMI_RANK"}, /* MPICH, Intel MPI */
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
    {"MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
    {"FLUX_JOB_SIZE", "FLUX_TASK_RANK"},
    {"JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"},
};

/* The number that a variable holds; -1 without one. */
static int number_of(const char *variable) {
  const char *text = getenv(variable);
  char *end;
  long n = text ? strtol(text, &end, 10) : -1;
  return text && end != text && *end == '\0' && n >= 0 && n <= INT32_MAX ? (int)n : -1;
}

/* Is this process one of a launcher's that MPI may know? Starting MPI in a process on its own costs
 * a daemon; in a step of srun --mpi=pmi2 Open MPI would end it with pages of text. */
static bool under_launcher(void) {
  static const char *const signs[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
  if (!getenv(signs[0]) && !getenv(signs[1]) && getenv("SLURM_STEP_NUM_TASKS") &&
      !pdt_comm_mpi_knows_pmi())
    return false;
  for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
    if (getenv(signs[i])) return true;
  return false;
}

/* Refuses to be one of several processes that were started together and know nothing of each other:
 * each would do all the work, and all would answer: an error if this one should turn out to be
 * alone. What the innermost launcher says holds: Open MPI's own, then the rest. world->rank becomes
 * the process's among them. */
static int check_alone(pdt_comm *world, pdt_error *err) {
  const launcher *l = NULL;
  if (getenv(open_mpi.size)) {
    if (number_of(open_mpi.size) > 1) l = &open_mpi;
  } else {
    for (size_t i = 0; i < sizeof others / sizeof *others && !l; i++)
      if (number_of(others[i].size) > 1) l = &others[i];
    if (!l && number_of("PMIX_RANK") > 0) { /* it does not say how many there are */
      world->rank = number_of("PMIX_RANK") - 1;
      return pdt_fail(err, PDT_ERROR_USAGE,
                      "PMIX_RANK is %d, but MPI found this process alone (hint: start pdt with "
                      "mpirun of Open MPI; unset PMIX_RANK where one process is meant)",
                      number_of("PMIX_RANK"));
    }
  }
  if (!l) return 0;
  int rank = number_of(l->rank);
  world->rank = rank > 0 ? rank : 0;
  return pdt_fail(
      err, PDT_ERROR_USAGE,
      "%d processes were started together (%s), but MPI found each of them alone (hint: "
      "start pdt with mpirun of Open MPI, or in Slurm with srun --mpi=pmix; unset %s "
      "where separate runs are meant)",
      number_of(l->size), l->size, l->size);
}

pdt_rank pdt_comm_told_rank(void) {
  int rank = number_of(open_mpi.rank);
  if (rank < 0) rank = number_of("PMIX_RANK");
  for (size_t i = 0; i < sizeof others / sizeof *others && rank < 0; i++)
    rank = number_of(others[i].rank);
  return rank < 0 ? 0 : rank;
}

int pdt_comm_check_room(pdt_error *err) {
  int ranks = number_of("OMPI_COMM_WORLD_LOCAL_SIZE");
  pdt_bytes needed = MPI_BYTES + (ranks > 1 ? ranks : 1) * MPI_BYTES_A_RANK;
  pdt_bytes left = under_launcher() ? pdt_limit_bytes("") : INT64_MAX;
  if (left >= needed) return 0;
  return pdt_fail(
      err, PDT_ERROR_MEMORY,
      "MPI needs %lld MiB to start in, the limits of this process (ulimit -v, -d) leave "
      "%lld: rank %d",
      (long long)(needed >> 20), (long long)(left >> 20), pdt_comm_told_rank());
}

int pdt_comm_start(pdt_comm *world, int *argc, char ***argv, pdt_error *err) {
  pdt_comm alone = {.rank = 0, .size = 1};
  pdt_error problem = {0};
  check_alone(&alone, &problem); /* before MPI starts, which changes the environment */
  *world = (pdt_comm){.rank = 0, .size = 1};
  if (under_launcher() && pdt_comm_mpi_start(world, argc, argv, err)) return -1;
  if (pdt_watch_start(world, err)) {
    pdt_rank rank = world->rank;
    pdt_comm_finish(world);
    world->rank = rank;
    return -1;
  }
  if (world->size > 1 || problem.code == PDT_ERROR_NONE) return 0;
  pdt_comm_finish(world);
  *world = alone;
  if (err) *err = problem;
  return -1;
}

void pdt_comm_finish(pdt_comm *world) {
  pdt_watch_stop(world);
  if (world->backend) world->backend->finish(world);
  *world = (pdt_comm){.rank = 0, .size = 1};
}

_Noreturn void pdt_comm_abort(const pdt_comm *world, const pdt_error *err) {
  if (world->backend) world->backend->abort(world, err);
  pdt_say(stderr, "pdt: %s", err->message);
  exit(pdt_exit_status(err->code));
}

void pdt_comm_arm(const pdt_comm *world, const pdt_comm_deadlines *deadlines) {
  pdt_watch_state *s = world->watch;
  if (!s) return;
  atomic_store(&s->exchange_seconds, deadlines->exchange_seconds);
  atomic_store(&s->round_seconds, deadlines->round_seconds);
  atomic_store(&s->armed, true);
}

void pdt_comm_disarm(const pdt_comm *world) {
  if (world->watch) atomic_store(&world->watch->armed, false);
}

void pdt_comm_enter_round(const pdt_comm *world, uint64_t round) {
  if (world->watch) atomic_store_explicit(&world->watch->round, round, memory_order_relaxed);
}

const char *pdt_comm_host(const pdt_comm *world, pdt_rank rank) {
  return world->watch ? pdt_watch_host(world->watch, rank) : "?";
}

static int split(const pdt_comm *comm, int color, bool by_node, pdt_comm *out, pdt_error *err) {
  *out = (pdt_comm){.rank = 0, .size = 1};
  if (!comm->backend) return 0;
  pdt_watch_enter(comm->watch, "split");
  int status = comm->backend->split(comm, color, by_node, out, err);
  pdt_watch_leave(comm->watch);
  out->watch = status ? NULL : comm->watch;
  return status;
}

int pdt_comm_split(const pdt_comm *comm, int color, pdt_comm *out, pdt_error *err) {
  return split(comm, color, false, out, err);
}

int pdt_comm_split_node(const pdt_comm *comm, pdt_comm *out, pdt_error *err) {
  return split(comm, 0, true, out, err);
}

int pdt_comm_share(pdt_comm *comm, pdt_error *err) {
  return comm->shared ? 0 : pdt_shared_new(&comm->shared, comm, err);
}

void pdt_comm_free(pdt_comm *comm) {
  pdt_shared_free(comm->shared);
  if (comm->backend) comm->backend->release(comm);
  *comm = (pdt_comm){.rank = 0, .size = 1};
}

void pdt_comm_barrier(const pdt_comm *comm) {
  pdt_watch_enter(comm->watch, "barrier");
  CHECK_CALL(comm, 0, NULL, 0);
  if (comm->size > 1) comm->backend->barrier(comm);
  pdt_watch_leave(comm->watch);
}

int pdt_comm_agree(const pdt_comm *comm, pdt_error *err) {
  int64_t first_failing = err->code != PDT_ERROR_NONE ? comm->rank : comm->size;
  pdt_comm_all_reduce_i64(comm, &first_failing, 1, PDT_COMM_MIN);
  if (first_failing == comm->size) return 0;
  pdt_comm_broadcast(comm, err, sizeof *err, (pdt_rank)first_failing);
  return -1;
}

void pdt_comm_broadcast(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root) {
  pdt_watch_enter(comm->watch, "broadcast");
  CHECK_CALL(comm, bytes, NULL, root);
  if (comm->size > 1) comm->backend->broadcast(comm, data, bytes, root);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_broadcast_patiently(const pdt_comm *comm, void *data, pdt_bytes bytes,
                                  pdt_rank root) {
  pdt_watch_enter(comm->watch, "broadcast");
  CHECK_CALL(comm, bytes, NULL, root);
  if (comm->size > 1) comm->backend->broadcast_patiently(comm, data, bytes, root);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_gather(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                     const pdt_bytes *counts_bytes, pdt_rank root) {
  pdt_watch_enter(comm->watch, "gather");
  CHECK_CALL(comm, 0, counts_bytes, root);
  if (comm->size > 1)
    comm->backend->gather(comm, send, bytes, recv, counts_bytes, root);
  else if (bytes > 0 && recv != send)
    memcpy(recv, send, (size_t)bytes);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_all_gather(const pdt_comm *comm, const void *send, void *recv,
                         const pdt_bytes *counts_bytes) {
  pdt_watch_enter(comm->watch, "all-gather");
  CHECK_CALL(comm, 0, counts_bytes, 0);
  if (comm->shared)
    pdt_shared_all_gather(comm->shared, send, recv, counts_bytes);
  else if (comm->size > 1)
    comm->backend->all_gather(comm, send, recv, counts_bytes);
  else if (counts_bytes[0] > 0 && recv != send)
    memcpy(recv, send, (size_t)counts_bytes[0]);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_all_gather_start(const pdt_comm *comm, const void *send, void *recv,
                               const pdt_bytes *counts_bytes, pdt_comm_request *request) {
  pdt_watch_enter(comm->watch, "all-gather");
  CHECK_CALL(comm, 0, counts_bytes, 0);
  *request = (pdt_comm_request){0};
  if (comm->size > 1)
    comm->backend->all_gather_start(comm, send, recv, counts_bytes, request);
  else
    pdt_comm_all_gather(comm, send, recv, counts_bytes);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_wait(const pdt_comm *comm, pdt_comm_request *request) {
  if (!request->handle) return;
  pdt_watch_enter(comm->watch, "all-gather");
  comm->backend->wait(comm, request);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_all_to_all(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                         const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                         const pdt_bytes *recv_at) {
  pdt_watch_enter(comm->watch, "all-to-all");
  CHECK_CALL(comm, 0, NULL, 0);
  if (send_bytes[comm->rank] > 0)
    memcpy((char *)recv + recv_at[comm->rank], (const char *)send + send_at[comm->rank],
           (size_t)send_bytes[comm->rank]);
  if (comm->shared)
    pdt_shared_all_to_all(comm->shared, send, send_bytes, send_at, recv, recv_bytes, recv_at);
  else if (comm->size > 1)
    comm->backend->all_to_all(comm, send, send_bytes, send_at, recv, recv_bytes, recv_at);
  pdt_watch_leave(comm->watch);
}

void pdt_comm_all_reduce_i64(const pdt_comm *comm, int64_t *data, int32_t n_elems, pdt_comm_op op) {
  pdt_watch_enter(comm->watch, "all-reduce");
  CHECK_CALL(comm, n_elems * (pdt_bytes)sizeof *data, NULL, op);
  if (comm->size > 1) comm->backend->all_reduce_i64(comm, data, n_elems, op);
  pdt_watch_leave(comm->watch);
}

bool pdt_comm_is_same(const pdt_comm *comm, uint64_t number) {
  int64_t ends[2] = {(int64_t)number, (int64_t)~number}; /* ~ turns the order around */
  pdt_comm_all_reduce_i64(comm, ends, 2, PDT_COMM_MIN);
  return ends[0] == ~ends[1];
}

/* Elements of one exchange: bounds memory and message sizes. */
enum { REDUCE_ELEMS = 1 << 20 };

int pdt_comm_reducer_new(pdt_comm_reducer *r, const pdt_comm *comm, pdt_error *err) {
  *r = (pdt_comm_reducer){0};
  if (PDT_NEW(&r->pieces, comm->size > 1 ? REDUCE_ELEMS + comm->size : 0, "sum over ranks", err) ||
      PDT_NEW(&r->bytes, 4 * (int64_t)comm->size, "sum over ranks", err)) {
    pdt_comm_reducer_free(r);
    return -1;
  }
  return 0;
}

void pdt_comm_reducer_free(pdt_comm_reducer *r) {
  free(r->pieces);
  free(r->bytes);
  *r = (pdt_comm_reducer){0};
}

/* One exchange: everybody's numbers of a share to the share's rank, sums back to everybody. */
static void reduce_piece(const pdt_comm *comm, pdt_comm_reducer *r, float *data, int64_t n) {
  pdt_rank P = comm->size;
  pdt_bytes *counts = r->bytes, *at = counts + P, *mine = at + P, *pieces_at = mine + P;
  int64_t first = n * comm->rank / P, share = n * (comm->rank + 1) / P - first;
  for (pdt_rank q = 0; q < P; q++) {
    int64_t begin = n * q / P;
    counts[q] = (n * (q + 1) / P - begin) * (pdt_bytes)sizeof *data;
    at[q] = begin * (pdt_bytes)sizeof *data;
    mine[q] = share * (pdt_bytes)sizeof *data;
    pieces_at[q] = q * mine[q];
  }
  pdt_comm_all_to_all(comm, data, counts, at, r->pieces, mine, pieces_at);
  for (int64_t i = 0; i < share; i++) {
    double sum = 0;
    for (pdt_rank q = 0; q < P; q++) sum += (double)r->pieces[q * share + i];
    data[first + i] = (float)sum;
  }
  pdt_comm_all_gather(comm, data + first, data, counts);
}

void pdt_comm_all_reduce_f32(const pdt_comm *comm, pdt_comm_reducer *r, float *data,
                             int64_t n_elems) {
  PDT_CHECK_SAME(comm, n_elems);
  if (comm->size == 1) return;
  for (int64_t first = 0; first < n_elems; first += REDUCE_ELEMS) {
    int64_t n = n_elems - first < REDUCE_ELEMS ? n_elems - first : REDUCE_ELEMS;
    reduce_piece(comm, r, data + first, n);
  }
}
