/* Every operation of comm.h against what each rank can work out alone; counts of zero and of
 * megabytes, unequal ones, subgroups, failing ranks, and a gather that overlaps other operations.
 * For worlds of any backend; the first wrong rank names the line and ends all. */
#ifndef PDT_TESTS_COMM_OPERATIONS_H
#define PDT_TESTS_COMM_OPERATIONS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/comm.h"

enum { MOST_RANKS = 64, MEGABYTE = 1 << 20 };

/* Ends the job: a rank that stops alone would leave the others waiting. */
static void check(const pdt_comm *comm, bool ok, const char *file, int line, const char *what) {
  if (ok) return;
  pdt_error err = {0};
  pdt_fail(&err, PDT_ERROR_RUNTIME, "%s:%d: rank %d of %d: not so: %s", file, line, comm->rank,
           comm->size, what);
  pdt_comm_abort(comm, &err);
}

#define CHECK(condition) check(comm, condition, __FILE__, __LINE__, #condition)

static unsigned char *buffer(const pdt_comm *comm, pdt_bytes bytes) {
  unsigned char *b = malloc(bytes > 0 ? (size_t)bytes : 1);
  CHECK(b != NULL);
  return b;
}

/* Byte i of what rank r sends in turn `turn`. */
static unsigned char byte_of(pdt_rank r, int turn, pdt_bytes i) {
  uint64_t x = ((uint64_t)r * 1000003 + (uint64_t)turn) * 1000003 + (uint64_t)i;
  return (unsigned char)((x * 0x9E3779B97F4A7C15U) >> 56);
}

static void fill(unsigned char *to, pdt_rank r, int turn, pdt_bytes bytes) {
  for (pdt_bytes i = 0; i < bytes; i++) to[i] = byte_of(r, turn, i);
}

static bool holds(const unsigned char *from, pdt_rank r, int turn, pdt_bytes bytes) {
  for (pdt_bytes i = 0; i < bytes; i++)
    if (from[i] != byte_of(r, turn, i)) return false;
  return true;
}

/* Counts of the turns: all zero, only one rank, all but one, unequal, equal, megabytes. */
enum { TURNS = 6 };
static pdt_bytes count_of(const pdt_comm *comm, pdt_rank r, int turn) {
  const pdt_bytes counts[TURNS] = {
      0,  r == comm->size / 2 ? 1000 : 0, r == 0 ? 0 : 17, 3 + 1001 * (pdt_bytes)(r % 4),
      64, MEGABYTE + 7 * (pdt_bytes)r};
  return counts[turn];
}

static pdt_bytes counts_of(const pdt_comm *comm, int turn, pdt_bytes *counts) {
  pdt_bytes sum = 0;
  for (pdt_rank r = 0; r < comm->size; r++) sum += counts[r] = count_of(comm, r, turn);
  return sum;
}

static bool holds_all(const pdt_comm *comm, const unsigned char *from, int turn) {
  pdt_bytes counts[MOST_RANKS];
  counts_of(comm, turn, counts);
  for (pdt_rank r = 0; r < comm->size; from += counts[r++])
    if (!holds(from, r, turn, counts[r])) return false;
  return true;
}

static void test_broadcast(const pdt_comm *comm) {
  const pdt_bytes sizes[] = {0, 1, 4097, MEGABYTE + 1};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (pdt_rank root = 0; root < comm->size; root++) {
      unsigned char *data = buffer(comm, sizes[i]);
      fill(data, comm->rank, (int)i, sizes[i]);
      pdt_comm_broadcast(comm, data, sizes[i], root);
      CHECK(holds(data, root, (int)i, sizes[i]));
      free(data);
    }
}

static void test_gather(const pdt_comm *comm) {
  for (int turn = 0; turn < TURNS; turn++)
    for (pdt_rank root = 0; root<comm->size; root += comm->size> 1 ? comm->size - 1 : 1) {
      pdt_bytes counts[MOST_RANKS], all = counts_of(comm, turn, counts), own = counts[comm->rank];
      unsigned char *send = buffer(comm, own), *recv = buffer(comm, all);
      fill(send, comm->rank, turn, own);
      pdt_comm_gather(comm, send, own, comm->rank == root ? recv : NULL, counts, root);
      CHECK(comm->rank != root || holds_all(comm, recv, turn));
      CHECK(holds(send, comm->rank, turn, own));
      free(send);
      free(recv);
    }
}

static void test_all_gather(const pdt_comm *comm) {
  for (int turn = 0; turn < TURNS; turn++)
    for (int in_place = 0; in_place < 2; in_place++) {
      pdt_bytes counts[MOST_RANKS], all = counts_of(comm, turn, counts), own = counts[comm->rank];
      unsigned char *send = buffer(comm, own), *recv = buffer(comm, all), *place = recv;
      memset(recv, 0xEE, (size_t)all);
      for (pdt_rank r = 0; r < comm->rank; r++) place += counts[r];
      fill(in_place ? place : send, comm->rank, turn, own);
      pdt_comm_all_gather(comm, in_place ? place : send, recv, counts);
      CHECK(holds_all(comm, recv, turn));
      free(send);
      free(recv);
    }
}

/* A gather under way while other operations of the same communicator come and go, its counts
 * already forgotten by the caller; ranks begin it at different times. */
static void test_all_gather_overlapped(const pdt_comm *comm) {
  for (int turn = 0; turn < TURNS; turn++) {
    pdt_bytes counts[MOST_RANKS], all = counts_of(comm, turn, counts), own = counts[comm->rank];
    unsigned char *send = buffer(comm, own), *recv = buffer(comm, all);
    pdt_comm_request request;
    int64_t sum = comm->rank;
    if (comm->rank == turn % comm->size) usleep(20000);
    fill(send, comm->rank, turn, own);
    pdt_comm_all_gather_start(comm, send, recv, counts, &request);
    memset(counts, 0xFF, sizeof counts);
    test_broadcast(comm);
    pdt_comm_all_reduce_i64(comm, &sum, 1, PDT_COMM_SUM);
    CHECK(sum == (int64_t)comm->size * (comm->size - 1) / 2);
    test_all_gather(comm);
    pdt_comm_barrier(comm);
    pdt_comm_wait(comm, &request);
    CHECK(request.handle == NULL);
    CHECK(holds_all(comm, recv, turn));
    pdt_comm_wait(comm, &request); /* done already: nothing */
    free(send);
    free(recv);
  }
}

/* Bytes that rank p sends to rank q. */
static pdt_bytes pair_bytes(pdt_rank p, pdt_rank q, int turn) {
  const pdt_bytes bytes[] = {0, 5 + 100 * (pdt_bytes)p + q, (p + q) % 2 ? 0 : 4096,
                             p == 0 ? MEGABYTE / 2 + q : 0, (pdt_bytes)(q == 0) * 333};
  return bytes[turn];
}

static void test_all_to_all(const pdt_comm *comm) {
  for (int turn = 0; turn < 5; turn++) {
    pdt_bytes send_bytes[MOST_RANKS], send_at[MOST_RANKS], recv_bytes[MOST_RANKS];
    pdt_bytes recv_at[MOST_RANKS], sent = 0, received = 0;
    for (pdt_rank q = comm->size - 1; q >= 0; q--) { /* pieces in any order, with gaps */
      send_bytes[q] = pair_bytes(comm->rank, q, turn);
      recv_bytes[q] = pair_bytes(q, comm->rank, turn);
      send_at[q] = sent;
      recv_at[q] = received + 1;
      sent += send_bytes[q];
      received += recv_bytes[q] + 1;
    }
    unsigned char *send = buffer(comm, sent), *recv = buffer(comm, received + 1);
    memset(recv, 0xEE, (size_t)received + 1);
    for (pdt_rank q = 0; q < comm->size; q++) fill(send + send_at[q], comm->rank, q, send_bytes[q]);
    pdt_comm_all_to_all(comm, send, send_bytes, send_at, recv, recv_bytes, recv_at);
    for (pdt_rank q = 0; q < comm->size; q++) {
      CHECK(holds(recv + recv_at[q], q, comm->rank, recv_bytes[q]));
      CHECK(recv[recv_at[q] - 1] == 0xEE);
    }
    free(send);
    free(recv);
  }
}

static void test_all_reduce(const pdt_comm *comm) {
  const int64_t r = comm->rank, P = comm->size, big = INT64_MAX / 2;
  int64_t low[] = {r, -r, 7, big + r}, high[] = {r, -r, 7, INT64_MIN + r}, sum[] = {r, -r, 7, 0};
  pdt_comm_all_reduce_i64(comm, low, 4, PDT_COMM_MIN);
  pdt_comm_all_reduce_i64(comm, high, 4, PDT_COMM_MAX);
  pdt_comm_all_reduce_i64(comm, sum, 4, PDT_COMM_SUM);
  CHECK(low[0] == 0 && low[1] == 1 - P && low[2] == 7 && low[3] == big);
  CHECK(high[0] == P - 1 && high[1] == 0 && high[2] == 7 && high[3] == INT64_MIN + P - 1);
  CHECK(sum[0] == P * (P - 1) / 2 && sum[1] == -sum[0] && sum[2] == 7 * P && sum[3] == 0);
}

static void test_agree(const pdt_comm *comm) {
  pdt_error err = {0};
  CHECK(pdt_comm_agree(comm, &err) == 0 && err.code == PDT_ERROR_NONE);
  for (pdt_rank failing = 0; failing < comm->size; failing++) {
    char expected[64];
    snprintf(expected, sizeof expected, "rank %d has no memory", failing);
    err = (pdt_error){0};
    if (comm->rank == failing) pdt_fail(&err, PDT_ERROR_MEMORY, "rank %d has no memory", failing);
    CHECK(pdt_comm_agree(comm, &err) == -1);
    CHECK(err.code == PDT_ERROR_MEMORY && strcmp(err.message, expected) == 0);
  }
  err = (pdt_error){0}; /* several fail: all hold the lowest one's */
  if (comm->rank >= comm->size / 2) pdt_fail(&err, PDT_ERROR_INPUT, "rank %d", comm->rank);
  CHECK(pdt_comm_agree(comm, &err) == -1);
  CHECK(atoi(err.message + 5) == comm->size / 2 && err.code == PDT_ERROR_INPUT);
  err = (pdt_error){0}; /* and after failures all is well again */
  CHECK(pdt_comm_agree(comm, &err) == 0);
}

static void test_operations(const pdt_comm *comm) {
  pdt_comm_barrier(comm);
  test_broadcast(comm);
  test_gather(comm);
  test_all_gather(comm);
  test_all_gather_overlapped(comm);
  test_all_to_all(comm);
  test_all_reduce(comm);
  test_agree(comm);
}

/* Nobody passes a barrier before the last has come: it comes late, and tells when it came. */
static void test_barrier(const pdt_comm *comm) {
  for (pdt_rank late = 0; late < comm->size; late++) {
    struct timespec now;
    if (comm->rank == late) usleep(30000);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t came = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    pdt_comm_barrier(comm);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t went = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    pdt_comm_broadcast(comm, &came, sizeof came, late); /* ranks here share the machine's clock */
    CHECK(went >= came);
  }
}

/* Groups of consecutive ranks, as shard groups are, then every other rank; each works on its own.
 */
static void test_splits(const pdt_comm *comm) {
  for (int turn = 0; turn < 2; turn++) {
    pdt_comm part;
    pdt_error err = {0};
    int color = turn ? comm->rank % 2 : comm->rank / 2;
    CHECK(pdt_comm_split(comm, color, &part, &err) == 0);
    int size = 0, rank = 0;
    for (pdt_rank r = 0; r < comm->size; r++) {
      bool mine = (turn ? r % 2 : r / 2) == color;
      size += mine;
      rank += mine && r < comm->rank;
    }
    CHECK(part.size == size && part.rank == rank);
    test_operations(&part);
    pdt_comm_free(&part);
    CHECK(part.rank == 0 && part.size == 1);
  }
}

/* Two gathers at once: both arrive, whether or not the second one waits. */
static void test_two_gathers(const pdt_comm *comm) {
  enum { BYTES = 5000 };
  pdt_bytes counts[MOST_RANKS];
  pdt_comm_request requests[2];
  unsigned char *send[2], *recv[2];
  for (pdt_rank r = 0; r < comm->size; r++) counts[r] = BYTES;
  for (int i = 0; i < 2; i++) {
    send[i] = buffer(comm, BYTES);
    recv[i] = buffer(comm, (pdt_bytes)BYTES * comm->size);
    fill(send[i], comm->rank, i, BYTES);
    pdt_comm_all_gather_start(comm, send[i], recv[i], counts, &requests[i]);
  }
  for (int i = 1; i >= 0; i--) {
    pdt_comm_wait(comm, &requests[i]);
    for (pdt_rank r = 0; r < comm->size; r++) CHECK(holds(recv[i] + r * BYTES, r, i, BYTES));
    free(send[i]);
    free(recv[i]);
  }
}

/* All of it. */
static void test_comm(const pdt_comm *comm) {
  CHECK(comm->size <= MOST_RANKS);
  test_operations(comm);
  test_barrier(comm);
  test_splits(comm);
  test_two_gathers(comm);
  test_operations(comm);
}

#endif
