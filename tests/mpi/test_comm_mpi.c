/* The MPI backend, on any number of ranks. Run by mpirun; the first wrong rank names the line and
 * ends all. */
#include <time.h>

#include "comm/backend.h"
#include "tests/comm_operations.h"

/* Nothing is too long for one call: what MPI takes no more at once goes in pieces, here of far
 * less. */
static void test_pieces(const pdt_comm *comm) {
  pdt_comm part;
  CHECK(pdt_comm_split(comm, 0, &part, NULL) == 0);
  if (part.backend) pdt_comm_mpi_shorten(&part, 100);
  test_agree(&part); /* errors of a kibibyte */
  if (part.backend) pdt_comm_mpi_shorten(&part, 90001);
  test_operations(&part);
  pdt_comm_free(&part);
}

/* All-gathers as among many ranks. */
static void test_hops(const pdt_comm *comm) {
  pdt_comm part;
  CHECK(pdt_comm_split(comm, 0, &part, NULL) == 0);
  if (part.backend) pdt_comm_mpi_hop(&part);
  test_operations(&part);
  pdt_comm_free(&part);
}

/* Gathers and all-gathers by MPI's own. */
static void test_flat(const pdt_comm *comm) {
  pdt_comm part;
  CHECK(pdt_comm_split(comm, 0, &part, NULL) == 0);
  if (part.backend) pdt_comm_mpi_gather_flat(&part);
  test_operations(&part);
  pdt_comm_free(&part);
}

/* A short exchange after a sleep of any rank, and long ones, whose pieces take their turns. */
static void test_shared(const pdt_comm *comm) {
  pdt_comm part;
  const struct timespec nap = {.tv_nsec = 3000000};
  CHECK(pdt_comm_split(comm, 0, &part, NULL) == 0);
  pdt_error err = {0};
  CHECK(pdt_comm_share(&part, &err) == 0);
  CHECK((part.shared != NULL) == (part.size > 1)); /* one machine, that has memory to share */
  test_operations(&part);
  for (pdt_rank late = 0; late < part.size; late++) {
    if (part.rank == late) nanosleep(&nap, NULL);
    test_all_gather(&part);
  }
  for (int turn = 0; turn < 3; turn++) {
    pdt_bytes counts[64], all = 0;
    for (pdt_rank r = 0; r < part.size; all += counts[r++])
      counts[r] = (r + turn) % 3 == 0 ? 0 : (pdt_bytes)300007 * (1 + r);
    unsigned char *own = buffer(&part, counts[part.rank]), *got = buffer(&part, all);
    fill(own, part.rank, turn, counts[part.rank]);
    pdt_comm_all_gather(&part, own, got, counts);
    for (pdt_rank r = 0, at = 0; r < part.size; at += (pdt_rank)counts[r++])
      CHECK(holds(got + at, r, turn, counts[r]));
    free(own);
    free(got);
  }
  pdt_comm_free(&part);
}

static void test_node(const pdt_comm *comm) {
  pdt_comm node;
  CHECK(pdt_comm_split_node(comm, &node, NULL) == 0);
  CHECK(node.size == comm->size && node.rank == comm->rank); /* this test runs on one machine */
  pdt_comm_barrier(&node);
  pdt_comm_free(&node);
}

/* The last rank calls something else, or with another root. In builds that check, that is an error
 * of all ranks; in others MPI may do anything. */
static void differ(const pdt_comm *comm, const char *how) {
  bool other = comm->rank == comm->size - 1;
  int64_t number = 0;
  if (strcmp(how, "root") == 0) pdt_comm_broadcast(comm, &number, sizeof number, other);
  if (strcmp(how, "call") == 0 && other) pdt_comm_barrier(comm);
  if (strcmp(how, "call") == 0 && !other) pdt_comm_all_reduce_i64(comm, &number, 1, PDT_COMM_SUM);
}

int main(int argc, char **argv) {
  pdt_comm world;
  pdt_error err = {0};
  if (pdt_comm_start(&world, &argc, &argv, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return 1;
  }
  const pdt_comm *comm = &world;
  if (argc == 3) differ(comm, argv[2]);
  CHECK(argc == 2 && atoi(argv[1]) == comm->size);
  test_comm(comm);
  test_node(comm);
  test_pieces(comm);
  test_hops(comm);
  test_flat(comm);
  test_shared(comm);
  if (comm->rank == 0) printf("ok: %d ranks\n", comm->size);
  pdt_comm_finish(&world);
  return 0;
}
