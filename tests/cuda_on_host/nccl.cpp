/* Twins of the calls of NCCL that the backend makes, over MPI's world: what a rank sends and
 * receives is under way when a group ends, and done, as far as the backend can tell, when
 * ncclCommGetAsyncError no longer says that it is in progress.
 *
 * PDT_TWIN_NCCL in the environment makes them fail: "init" never ends initialization, "send:N" does
 * not begin the Nth exchange of this process, so that it never ends, "error:N" makes it fail; with
 * PDT_TWIN_NCCL_RANK, on that rank of MPI's world alone. */
#include <nccl.h>

#define OMPI_SKIP_MPICXX
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct ncclComm {
  int rank, size;
  int tag;                /* of the group's messages */
  std::vector<int> world; /* MPI's ranks, by rank of the group */
  std::vector<MPI_Request> under_way;
  bool stuck;
  ncclResult_t error;
  long long exchanges;
};

namespace {

enum { FIRST_TAG = 1000, TAGS = 20000 };

/* What an id holds. */
struct origin {
  int maker, tag; /* MPI's rank of who made it */
};

int open_groups = 0;
ncclComm *grouped = nullptr; /* whose operations the group that is open has */

int own_rank() {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

const char *fault() {
  const char *text = getenv("PDT_TWIN_NCCL"), *rank = getenv("PDT_TWIN_NCCL_RANK");
  return text && (!rank || atoi(rank) == own_rank()) ? text : "";
}

/* Begins one message; those of an exchange that is to fail are not sent. */
void begin(ncclComm *c, bool sends, const void *at, size_t count, int peer) {
  MPI_Request request;
  if (c->stuck || c->error != ncclSuccess) return;
  if (sends)
    MPI_Isend(at, (int)count, MPI_FLOAT, c->world[peer], c->tag, MPI_COMM_WORLD, &request);
  else
    MPI_Irecv(const_cast<void *>(at), (int)count, MPI_FLOAT, c->world[peer], c->tag, MPI_COMM_WORLD,
              &request);
  c->under_way.push_back(request);
}

/* Counts an exchange, and does to it what the environment says. */
void count_exchange(ncclComm *c) {
  long long number = 0;
  cudaStreamSynchronize(nullptr); /* what is sent must have been made: the twin's stream is lazy */
  c->exchanges++;
  if (sscanf(fault(), "send:%lld", &number) == 1 && number == c->exchanges) c->stuck = true;
  if (sscanf(fault(), "error:%lld", &number) == 1 && number == c->exchanges)
    c->error = ncclRemoteError;
}

void start_group_of(ncclComm *c) {
  if (grouped != c) count_exchange(c);
  grouped = c;
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
  *version = 0;
  return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t code) {
  return code == ncclRemoteError ? "remote process exited or there was a network error"
                                 : "an error";
}
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  static int made = 0;
  origin from = {own_rank(), FIRST_TAG + made++ % TAGS};
  memset(id, 0, sizeof *id);
  memcpy(id, &from, sizeof from);
  return ncclSuccess;
}

/* The maker of the id hears who is there and tells everybody: among themselves, all come. */
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
  origin from;
  memcpy(&from, &id, sizeof from);
  if (config->blocking != 0) return ncclInvalidArgument;
  ncclComm *c =
      new ncclComm{rank, size, from.tag, {}, {}, strcmp(fault(), "init") == 0, ncclSuccess, 0};
  *comm = c;
  int own[2] = {rank, own_rank()};
  c->world.resize(size);
  if (own[1] == from.maker) {
    c->world[rank] = own[1];
    for (int i = 1; i < size; i++) {
      int other[2];
      MPI_Recv(other, 2, MPI_INT, MPI_ANY_SOURCE, from.tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      c->world[other[0]] = other[1];
    }
    for (int r : c->world)
      if (r != own[1]) MPI_Send(c->world.data(), size, MPI_INT, r, from.tag, MPI_COMM_WORLD);
  } else {
    MPI_Send(own, 2, MPI_INT, from.maker, from.tag, MPI_COMM_WORLD);
    MPI_Recv(c->world.data(), size, MPI_INT, from.maker, from.tag, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
  }
  return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state) {
  int done = 1;
  *state = c->error;
  if (c->error != ncclSuccess) return ncclSuccess;
  if (!c->under_way.empty())
    MPI_Testall((int)c->under_way.size(), c->under_way.data(), &done, MPI_STATUSES_IGNORE);
  if (done) c->under_way.clear();
  *state = done && !c->stuck ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  open_groups++;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t) {
  if (type != ncclFloat32 || open_groups != 1 || peer == c->rank) return ncclInvalidUsage;
  start_group_of(c);
  begin(c, true, from, count, peer);
  return ncclSuccess;
}
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t) {
  if (type != ncclFloat32 || open_groups != 1 || peer == c->rank) return ncclInvalidUsage;
  start_group_of(c);
  begin(c, false, to, count, peer);
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  ncclComm *c = grouped;
  open_groups--;
  grouped = nullptr;
  return c ? ncclInProgress : ncclSuccess;
}
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t c, cudaStream_t) {
  float *all = static_cast<float *>(to);
  if (type != ncclFloat32) return ncclInvalidUsage;
  count_exchange(c);
  memmove(all + count * c->rank, from, count * sizeof *all);
  for (int r = 0; r < c->size; r++) {
    if (r == c->rank) continue;
    begin(c, true, all + count * c->rank, count, r);
    begin(c, false, all + count * r, count, r);
  }
  return ncclInProgress;
}
ncclResult_t ncclCommFinalize(ncclComm_t) {
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  delete c;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
  for (MPI_Request &r : c->under_way) {
    if (r == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&r);
    MPI_Request_free(&r);
  }
  delete c;
  return ncclSuccess;
}
}
