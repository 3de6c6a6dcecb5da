/* The MPI backend. Errors of MPI itself are fatal (the default handler), so return codes are not
 * looked at. Only the thread that started MPI calls it. */
#include <errno.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "comm/backend.h"
#include "comm/watch.h"

/* MPI counts and displacements are ints. What is longer goes in pieces of this many bytes. */
enum { ROW_TAG = 1, GATHER_TAG, HOP_TAG, STARTED_HOP_TAG, LONGEST_MESSAGE = 1 << 30 };
enum { SHORTEST_PAUSE_NS = 20000, LONGEST_PAUSE_NS = 5000000 }; /* between two looks */
enum { WATCHED_BYTES = 1 << 30, WATCHED_SECONDS = 8, START_SECONDS = 60, ABORT_SECONDS = 4 };
/* A gather that comes to less than so many bytes, and as many again for every rank, goes by a tree:
 * it waits for messages one behind the other, log2 of the ranks of them, and not for every rank's
 * at the root. */
enum { TREE_BYTES = 64 << 10, TREE_RANK_BYTES = 1 << 10 };
/* Where there are more ranks than that, all-gathers of so little go in hops, log2 of the ranks of
 * them: MPI's own go round all ranks, or send every rank's part to every other. */
enum { FEW_RANKS = 16 };

/* What MPI must allow: threads that do not call it. Ranks that are simulated have none. */
#ifdef PDT_SIMULATED
enum { NEEDED_THREADS = MPI_THREAD_SINGLE };
#else
enum { NEEDED_THREADS = MPI_THREAD_FUNNELED };
#endif

static const pdt_comm_backend mpi_backend;

/* Where the pieces of a gather stand, and how long they are. */
typedef struct layout {
  int *counts, *displacements; /* [size] */
} layout;

/* A communicator, and all that its operations need: none of them allocates, so none can fail on one
 * rank alone. */
typedef struct mpi_handle {
  MPI_Comm comm;
  pdt_bytes longest;     /* bytes of one message */
  MPI_Request *requests; /* [2 * size] of one operation at a time */
  layout now, pending;   /* of the operation at hand, and of the one that was only started */
  MPI_Request gather;    /* that one; MPI_REQUEST_NULL: there is none */
  char *hopping;         /* where that one receives, where it goes in hops; NULL */
  MPI_Request hop[4];    /* of the first of them */
  int in_hop;            /* requests in it */
  pdt_rank few;          /* FEW_RANKS */
  char *branch;          /* [branch_bytes]: what a rank inside of a tree hands on */
  pdt_bytes branch_bytes;
} mpi_handle;

static MPI_Comm comm_of(const pdt_comm *comm) {
  return ((mpi_handle *)comm->handle)->comm;
}

static void free_handle(mpi_handle *handle) {
  if (!handle) return;
  free(handle->requests);
  free(handle->now.counts);
  free(handle->now.displacements);
  free(handle->pending.counts);
  free(handle->pending.displacements);
  free(handle->branch);
  free(handle);
}

/* A handle for a communicator of at most `size` ranks that is yet to be made. */
static int new_handle(mpi_handle **out, pdt_rank size, pdt_error *err) {
  mpi_handle *h;
  if (PDT_NEW(&h, 1, "communicator", err)) return -1;
  h->longest = LONGEST_MESSAGE;
  h->few = FEW_RANKS;
  h->gather = MPI_REQUEST_NULL;
  h->branch_bytes = TREE_BYTES + (pdt_bytes)size * TREE_RANK_BYTES;
  /* not zeroed: most ranks of thousands never use it */
  h->branch = malloc((size_t)h->branch_bytes);
  if (!h->branch)
    pdt_fail(err, PDT_ERROR_MEMORY, "communicator: no memory for %lld bytes",
             (long long)h->branch_bytes);
  if (!h->branch || PDT_NEW(&h->requests, 2 * (int64_t)size, "communicator", err) ||
      PDT_NEW(&h->now.counts, size, "communicator", err) ||
      PDT_NEW(&h->now.displacements, size, "communicator", err) ||
      PDT_NEW(&h->pending.counts, size, "communicator", err) ||
      PDT_NEW(&h->pending.displacements, size, "communicator", err)) {
    free_handle(h);
    return -1;
  }
  *out = h;
  return 0;
}

/* Puts a communicator behind a handle. */
static pdt_comm wrap(MPI_Comm mpi, mpi_handle *handle) {
  pdt_comm out = {.backend = &mpi_backend, .handle = handle};
  handle->comm = mpi;
  MPI_Comm_rank(mpi, &out.rank);
  MPI_Comm_size(mpi, &out.size);
  return out;
}

/* May this process read another one's memory? Asked of a child of its own; where there can be none,
 * nothing is known and the answer is yes. The child is made without the handlers that libraries
 * have for a fork: OpenBLAS's waits for its threads, for ever where memory was too little to start
 * them.
 */
static bool may_read_processes(void) {
  int there = 1, here = 0;
  pid_t parent = getpid();
  /* as fork does, but without what libraries do at a fork: OpenBLAS ends its threads */
  pid_t child = (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
  if (child < 0) return true;
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent) pause();
    _exit(0);
  }
  const struct iovec to = {&here, sizeof here}, from = {&there, sizeof there};
  bool may = process_vm_readv(child, &to, 1, &from, 1, 0) == (ssize_t)sizeof here;
  kill(child, SIGKILL);
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
  return may;
}

/* Ranks of a machine copy long messages out of each other's memory. Where that is refused, as in
 * many containers, Open MPI 4 complains at every message, thousands of times; so it is told not to
 * try, unless the user has told it something or there is another way. */
static void choose_copies(void) {
  const char *parameter = "OMPI_MCA_btl_vader_single_copy_mechanism";
  if (getenv(parameter) || access("/dev/xpmem", R_OK | W_OK) == 0) return;
  if (!may_read_processes()) setenv(parameter, "none", 0);
}

/* A boundary's messages are some KiB: ranks of a machine then send them at once, and do not first
 * ask the receiver, unless the user has told Open MPI something. */
static void choose_eagerness(void) {
  setenv("OMPI_MCA_btl_vader_eager_limit", "32768", 0);
}

static void on_alarm(int number) {
  static const char text[] =
      "pdt: MPI neither starts nor ends in the memory that this process may have (ulimit -v, -d)\n";
  (void)number;
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

/* Where MPI gets no memory it may wait for ever, as it starts or ends: in a process that may have
 * little, `begins` gives it WATCHED_SECONDS, and all ranks end by their launcher. */
static void watch(bool begins) {
  if (pdt_limit_bytes("") >= WATCHED_BYTES) return;
  signal(SIGALRM, begins ? on_alarm : SIG_DFL);
  alarm(begins ? WATCHED_SECONDS : 0);
}

static void on_late(int number) {
  static const char text[] =
      "pdt: MPI has not come up within a minute (hint: do all machines run the same MPI, and does "
      "it use a network that joins them, not docker0? launch/mpirun --interface NAME chooses)\n";
  (void)number;
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

static void on_late_elsewhere(int number) {
  (void)number;
  _exit(1);
}

/* The first exchanges end within a minute, or all ranks do: networks that do not join the machines
 * are tried for ever. Rank 0 speaks, the others give it the time to. */
static void watch_start(bool begins) {
  if ((int)NEEDED_THREADS == (int)MPI_THREAD_SINGLE) return; /* simulated: so are its minutes */
  if (pdt_limit_bytes("") < WATCHED_BYTES) {
    watch(begins);
    return;
  }
  bool lead = pdt_comm_told_rank() == 0;
  signal(SIGALRM, begins ? lead ? on_late : on_late_elsewhere : SIG_DFL);
  alarm(begins ? START_SECONDS + (lead ? 0 : 2) : 0);
}

int pdt_comm_mpi_start(pdt_comm *world, int *argc, char ***argv, pdt_error *err) {
  int provided, size;
  mpi_handle *handle = NULL;
  choose_copies();
  choose_eagerness();
  watch_start(true);
  MPI_Init_thread(argc, argv, NEEDED_THREADS, &provided);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  /* who has no memory for a handle agrees with the others through one that needs none */
  mpi_handle bare = {.longest = LONGEST_MESSAGE};
  *world = wrap(MPI_COMM_WORLD, &bare);
  if (!new_handle(&handle, size, err) && provided < (int)NEEDED_THREADS)
    pdt_fail(err, PDT_ERROR_RUNTIME, "this MPI library does not allow threads beside it");
  if (pdt_comm_agree(world, err)) {
    free_handle(handle);
    MPI_Finalize();
    *world = (pdt_comm){.rank = world->rank, .size = 1};
    return -1;
  }
  MPI_Comm copy;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  *world = wrap(copy, handle);
  pdt_comm_barrier(world);
  watch_start(false);
  return 0;
}

static int mpi_split(const pdt_comm *comm, int color, bool by_node, pdt_comm *out, pdt_error *err) {
  mpi_handle *handle = NULL;
  MPI_Comm part;
  pdt_error own = {0};
  new_handle(&handle, comm->size, &own);
  if (pdt_comm_agree(comm, &own)) {
    free_handle(handle);
    if (err) *err = own;
    return -1;
  }
  if (by_node)
    MPI_Comm_split_type(comm_of(comm), MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &part);
  else
    MPI_Comm_split(comm_of(comm), color, comm->rank, &part);
  handle->longest = ((mpi_handle *)comm->handle)->longest;
  handle->few = ((mpi_handle *)comm->handle)->few;
  *out = wrap(part, handle);
  return 0;
}

static void mpi_release(pdt_comm *comm) {
  mpi_handle *handle = comm->handle;
  MPI_Comm_free(&handle->comm);
  free_handle(handle);
}

static void mpi_finish(pdt_comm *world) {
  watch(true);
  mpi_release(world);
  MPI_Finalize();
  watch(false);
}

static void mpi_abort(const pdt_comm *world, const pdt_error *err) {
  pdt_say(stderr, "pdt: %s", err->message);
  fflush(stderr);
  pdt_watch_end(world->watch, pdt_exit_status(err->code));
  signal(SIGALRM, SIG_DFL);
  alarm(ABORT_SECONDS); /* its launcher may be out of reach */
  MPI_Abort(comm_of(world), pdt_exit_status(err->code));
}

static void mpi_barrier(const pdt_comm *comm) {
  MPI_Barrier(comm_of(comm));
}

/* The bytes from `at` on that one message takes. */
static int piece(pdt_bytes bytes, pdt_bytes at, pdt_bytes longest) {
  pdt_bytes left = bytes > at ? bytes - at : 0;
  return (int)(left < longest ? left : longest);
}

static void mpi_broadcast(const pdt_comm *comm, void *data, pdt_bytes bytes, pdt_rank root) {
  pdt_bytes longest = ((mpi_handle *)comm->handle)->longest;
  for (pdt_bytes at = 0; at < bytes; at += longest)
    MPI_Bcast((char *)data + at, piece(bytes, at, longest), MPI_BYTE, root, comm_of(comm));
}

/* Looks less and less often, so that a wait of seconds takes no processor's time. */
static void wait_patiently(MPI_Request *request) {
  int done = 0;
  struct timespec pause = {.tv_nsec = SHORTEST_PAUSE_NS};
  for (;;) {
    MPI_Test(request, &done, MPI_STATUS_IGNORE);
    if (done) return;
    nanosleep(&pause, NULL);
    if (pause.tv_nsec < LONGEST_PAUSE_NS) pause.tv_nsec *= 2;
  }
}

static void mpi_broadcast_patiently(const pdt_comm *comm, void *data, pdt_bytes bytes,
                                    pdt_rank root) {
  MPI_Request request;
  MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, comm_of(comm), &request);
  wait_patiently(&request);
}

/* The bytes of all ranks together. */
static pdt_bytes sum_of(const pdt_comm *comm, const pdt_bytes *counts_bytes) {
  pdt_bytes sum = 0;
  for (pdt_rank r = 0; r < comm->size; r++) sum += counts_bytes[r];
  return sum;
}

/* Fills in counts and displacements for pieces that stand one after another, which must come to no
 * more than one message. */
static void lay_out(const pdt_comm *comm, const pdt_bytes *counts_bytes, layout *out) {
  pdt_bytes at = 0;
  for (pdt_rank r = 0; r < comm->size; r++) {
    out->counts[r] = (int)counts_bytes[r];
    out->displacements[r] = (int)at;
    at += counts_bytes[r];
  }
}

/* A gather of more than one message takes: every rank in turn, in pieces. */
static void gather_in_turn(const pdt_comm *comm, const void *send, char *recv,
                           const pdt_bytes *counts_bytes, pdt_rank root) {
  const mpi_handle *h = comm->handle;
  const char *own = send;
  for (pdt_rank r = 0; r < comm->size; r++) {
    pdt_bytes bytes = counts_bytes[r];
    for (pdt_bytes at = 0; at < bytes && r != root; at += h->longest) {
      int n = piece(bytes, at, h->longest);
      if (comm->rank == root)
        MPI_Recv(recv + at, n, MPI_BYTE, r, GATHER_TAG, h->comm, MPI_STATUS_IGNORE);
      else if (comm->rank == r)
        MPI_Send(own + at, n, MPI_BYTE, root, GATHER_TAG, h->comm);
    }
    if (comm->rank != root) continue;
    if (r == root && bytes > 0 && recv != own) memcpy(recv, own, (size_t)bytes);
    recv += bytes;
  }
}

/* A gather to rank 0 along a binomial tree: rank r collects what ranks r .. r + 2^k - 1 send, which
 * stands together, and hands it to rank r - 2^k; 2^k is the lowest bit of r. Ranks of a machine
 * follow one another, so most of its branches stay inside of machines. */
static void gather_by_tree(const pdt_comm *comm, const void *send, pdt_bytes bytes, char *recv) {
  mpi_handle *h = comm->handle;
  pdt_rank rank = comm->rank, step = 1;
  char *to = rank == 0 ? recv : h->branch;
  int n = 0, *at = h->now.displacements, *counts = h->now.counts, whole = (int)bytes;
  for (; step < comm->size && !(rank & step); step *= 2) {
    pdt_rank child = rank + step, last = rank + 2 * step - 1;
    if (child >= comm->size) continue;
    if (last >= comm->size) last = comm->size - 1;
    int branch = at[last] + counts[last] - at[child];
    MPI_Irecv(to + (at[child] - at[rank]), branch, MPI_BYTE, child, GATHER_TAG, h->comm,
              &h->requests[n++]);
    whole += branch;
  }
  if (bytes > 0 && to != send) memcpy(to, send, (size_t)bytes);
  MPI_Waitall(n, h->requests, MPI_STATUSES_IGNORE);
  if (rank != 0) MPI_Send(to, whole, MPI_BYTE, rank - step, GATHER_TAG, h->comm);
}

static void mpi_gather(const pdt_comm *comm, const void *send, pdt_bytes bytes, void *recv,
                       const pdt_bytes *counts_bytes, pdt_rank root) {
  mpi_handle *h = comm->handle;
  pdt_bytes all = sum_of(comm, counts_bytes);
  if (all > h->longest) {
    gather_in_turn(comm, send, recv, counts_bytes, root);
    return;
  }
  lay_out(comm, counts_bytes, &h->now);
  if (root == 0 && all <= h->branch_bytes) {
    gather_by_tree(comm, send, bytes, recv);
    return;
  }
  MPI_Gatherv(send, (int)bytes, MPI_BYTE, recv, h->now.counts, h->now.displacements, MPI_BYTE, root,
              h->comm);
}

/* An all-gather of more than one message takes: every rank's part is broadcast in turn. */
static void all_gather_in_turn(const pdt_comm *comm, const void *send, char *recv,
                               const pdt_bytes *counts_bytes) {
  for (pdt_rank r = 0; r < comm->size; r++) {
    if (r == comm->rank && counts_bytes[r] > 0 && recv != send)
      memcpy(recv, send, (size_t)counts_bytes[r]);
    mpi_broadcast(comm, recv, counts_bytes[r], r);
    recv += counts_bytes[r];
  }
}

/* Sends or receives the parts of n ranks from `first` on, past the last one from rank 0 on, which
 * are one piece or two. Adds to the requests. */
static int move_parts(const pdt_comm *comm, char *recv, const layout *l, pdt_rank first, pdt_rank n,
                      pdt_rank peer, int tag, bool sends, MPI_Request *requests) {
  int posted = 0;
  while (n > 0) {
    pdt_rank some = first + n <= comm->size ? n : comm->size - first, last = first + some - 1;
    int at = l->displacements[first], bytes = l->displacements[last] + l->counts[last] - at;
    if (bytes > 0 && sends)
      MPI_Isend(recv + at, bytes, MPI_BYTE, peer, tag, comm_of(comm), &requests[posted++]);
    else if (bytes > 0)
      MPI_Irecv(recv + at, bytes, MPI_BYTE, peer, tag, comm_of(comm), &requests[posted++]);
    n -= some;
    first = 0;
  }
  return posted;
}

/* Begins the hop over `step` ranks (Bruck): this rank has the parts of that many ranks from its own
 * on, and gets as many, or what is missing, from the rank that has those behind them. */
static int begin_hop(const pdt_comm *comm, char *recv, const layout *l, pdt_rank step, int tag,
                     MPI_Request *requests) {
  pdt_rank P = comm->size, n = step < P - step ? step : P - step, ahead = (comm->rank + step) % P;
  int posted = move_parts(comm, recv, l, ahead, n, ahead, tag, false, requests);
  return posted + move_parts(comm, recv, l, comm->rank, n, (comm->rank + P - step) % P, tag, true,
                             requests + posted);
}

static void put_own(const pdt_comm *comm, const void *send, char *recv, const layout *l) {
  int bytes = l->counts[comm->rank];
  recv += l->displacements[comm->rank];
  if (bytes > 0 && recv != send) memcpy(recv, send, (size_t)bytes);
}

/* The hops from the one over `step` ranks on. */
static void hop(const pdt_comm *comm, char *recv, const layout *l, pdt_rank step, int tag) {
  MPI_Request requests[4];
  for (; step < comm->size; step *= 2)
    MPI_Waitall(begin_hop(comm, recv, l, step, tag, requests), requests, MPI_STATUSES_IGNORE);
}

static bool goes_in_hops(const pdt_comm *comm, pdt_bytes bytes) {
  const mpi_handle *h = comm->handle;
  return comm->size > h->few && bytes <= h->branch_bytes;
}

static void mpi_all_gather(const pdt_comm *comm, const void *send, void *recv,
                           const pdt_bytes *counts_bytes) {
  mpi_handle *h = comm->handle;
  pdt_bytes all = sum_of(comm, counts_bytes);
  if (all > h->longest) {
    all_gather_in_turn(comm, send, recv, counts_bytes);
    return;
  }
  lay_out(comm, counts_bytes, &h->now);
  if (goes_in_hops(comm, all)) {
    put_own(comm, send, recv, &h->now);
    hop(comm, recv, &h->now, 1, HOP_TAG);
    return;
  }
  bool in_place = (const char *)recv + h->now.displacements[comm->rank] == send;
  MPI_Allgatherv(in_place ? MPI_IN_PLACE : send, h->now.counts[comm->rank], MPI_BYTE, recv,
                 h->now.counts, h->now.displacements, MPI_BYTE, h->comm);
}

static void mpi_all_gather_start(const pdt_comm *comm, const void *send, void *recv,
                                 const pdt_bytes *counts_bytes, pdt_comm_request *request) {
  mpi_handle *h = comm->handle;
  pdt_bytes all = sum_of(comm, counts_bytes);
  /* every rank knows all counts, so all of them choose alike; MPI matches the two kinds of
   * all-gather with their own kind only */
  if (all > h->longest || h->gather != MPI_REQUEST_NULL || h->hopping) {
    mpi_all_gather(comm, send, recv, counts_bytes);
    return;
  }
  lay_out(comm, counts_bytes, &h->pending);
  request->handle = h;
  if (goes_in_hops(comm, all)) { /* only the first one begins now */
    put_own(comm, send, recv, &h->pending);
    h->hopping = recv;
    h->in_hop = begin_hop(comm, recv, &h->pending, 1, STARTED_HOP_TAG, h->hop);
    return;
  }
  bool in_place = (const char *)recv + h->pending.displacements[comm->rank] == send;
  MPI_Iallgatherv(in_place ? MPI_IN_PLACE : send, h->pending.counts[comm->rank], MPI_BYTE, recv,
                  h->pending.counts, h->pending.displacements, MPI_BYTE, h->comm, &h->gather);
}

static void mpi_wait(const pdt_comm *comm, pdt_comm_request *request) {
  mpi_handle *h = request->handle;
  if (h->hopping) {
    MPI_Waitall(h->in_hop, h->hop, MPI_STATUSES_IGNORE);
    hop(comm, h->hopping, &h->pending, 2, STARTED_HOP_TAG);
    h->hopping = NULL;
  }
  MPI_Wait(&h->gather, MPI_STATUS_IGNORE);
  request->handle = NULL;
}

/* Direct sends and receives: groups are small, and only the pairs with something to say speak. */
static void mpi_all_to_all(const pdt_comm *comm, const void *send, const pdt_bytes *send_bytes,
                           const pdt_bytes *send_at, void *recv, const pdt_bytes *recv_bytes,
                           const pdt_bytes *recv_at) {
  const mpi_handle *h = comm->handle;
  pdt_bytes most = 0;
  for (pdt_rank r = 0; r < comm->size; r++) {
    if (r != comm->rank && send_bytes[r] > most) most = send_bytes[r];
    if (r != comm->rank && recv_bytes[r] > most) most = recv_bytes[r];
  }
  for (pdt_bytes at = 0; at < most; at += h->longest) { /* once, unless there are very long rows */
    int n = 0;
    for (pdt_rank step = 1; step < comm->size; step++) {
      pdt_rank from = (comm->rank + comm->size - step) % comm->size;
      int bytes = piece(recv_bytes[from], at, h->longest);
      if (bytes > 0)
        MPI_Irecv((char *)recv + recv_at[from] + at, bytes, MPI_BYTE, from, ROW_TAG, h->comm,
                  &h->requests[n++]);
    }
    for (pdt_rank step = 1; step < comm->size; step++) {
      pdt_rank to = (comm->rank + step) % comm->size;
      int bytes = piece(send_bytes[to], at, h->longest);
      if (bytes > 0)
        MPI_Isend((const char *)send + send_at[to] + at, bytes, MPI_BYTE, to, ROW_TAG, h->comm,
                  &h->requests[n++]);
    }
    MPI_Waitall(n, h->requests, MPI_STATUSES_IGNORE);
  }
}

static MPI_Op operation_of(pdt_comm_op op) {
  return op == PDT_COMM_MIN ? MPI_MIN : op == PDT_COMM_MAX ? MPI_MAX : MPI_SUM;
}

static void mpi_all_reduce_i64(const pdt_comm *comm, int64_t *data, int32_t n_elems,
                               pdt_comm_op op) {
  MPI_Allreduce(MPI_IN_PLACE, data, n_elems, MPI_INT64_T, operation_of(op), comm_of(comm));
}

static void mpi_all_reduce_patiently(const pdt_comm *comm, int64_t *data, int32_t n_elems,
                                     pdt_comm_op op) {
  MPI_Request request;
  MPI_Iallreduce(MPI_IN_PLACE, data, n_elems, MPI_INT64_T, operation_of(op), comm_of(comm),
                 &request);
  wait_patiently(&request);
}

static const pdt_comm_backend mpi_backend = {
    .processes = true,
    .split = mpi_split,
    .release = mpi_release,
    .finish = mpi_finish,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .broadcast_patiently = mpi_broadcast_patiently,
    .gather = mpi_gather,
    .all_gather_start = mpi_all_gather_start,
    .wait = mpi_wait,
    .all_gather = mpi_all_gather,
    .all_to_all = mpi_all_to_all,
    .all_reduce_i64 = mpi_all_reduce_i64,
    .all_reduce_patiently = mpi_all_reduce_patiently,
};

bool pdt_comm_mpi_knows_pmi(void) {
#ifdef OPEN_MPI
  return false;
#else
  return true;
#endif
}

void pdt_comm_mpi_shorten(const pdt_comm *comm, pdt_bytes longest) {
  mpi_handle *handle = comm->handle;
  if (handle) handle->longest = longest;
}

void pdt_comm_mpi_hop(const pdt_comm *comm) {
  mpi_handle *handle = comm->handle;
  if (handle) handle->few = 1;
}

void pdt_comm_mpi_gather_flat(const pdt_comm *comm) {
  mpi_handle *handle = comm->handle;
  if (handle) handle->branch_bytes = 0;
}

void pdt_comm_library(char *text, size_t bytes) {
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Get_library_version(version, &length);
  version[strcspn(version, ",\n")] = '\0';
  snprintf(text, bytes, "%s", version);
}
