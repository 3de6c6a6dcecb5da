/* A cluster in one process: its operations are MPI's, whoever comes first, and what MPI takes on
 * trust ends it with an error that says who and where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm/comm_memory.h"
#include "tests/comm_operations.h"

enum { RANKS = 4 };

/* ---- the right answers ---- */

static int every_operation(const pdt_comm *world, void *context, pdt_error *err) {
  (void)context;
  (void)err;
  test_comm(world);
  return world->rank;
}

static void run_every_operation(pdt_rank ranks, const pdt_comm_memory_options *options) {
  pdt_comm_memory_outcome outcomes[8];
  pdt_error err = {0};
  if (pdt_comm_memory_run(ranks, options, every_operation, NULL, outcomes, &err))
    fail_msg("%s", err.message);
  for (pdt_rank r = 0; r < ranks; r++) {
    assert_true(outcomes[r].returned);
    assert_int_equal(outcomes[r].status, r);
    assert_true(outcomes[r].operations > 0); /* of communicators of one rank, too */
    assert_int_equal(outcomes[r].faults, 0);
  }
}

static void operations(void **state) {
  (void)state;
  for (pdt_rank ranks = 1; ranks <= 5; ranks += ranks < 3 ? 1 : 2) run_every_operation(ranks, NULL);
}

static void operations_in_any_order(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    const pdt_comm_memory_options options = {
        .scheduled = true, .seed = seed, .deadline_seconds = 100};
    run_every_operation(1 + (pdt_rank)seed, &options);
  }
}

/* Ranks 0 and 2 share a machine, and 1 and 3 another one. */
static int split_machines(const pdt_comm *comm, void *context, pdt_error *err) {
  const int32_t *machines = context;
  pdt_comm node;
  int64_t lowest = comm->rank;
  CHECK(pdt_comm_split_node(comm, &node, err) == 0);
  CHECK(node.size == RANKS / 2 && node.rank == comm->rank / 2);
  pdt_comm_all_reduce_i64(&node, &lowest, 1, PDT_COMM_MIN);
  CHECK(lowest == (machines[comm->rank] == 7 ? 0 : 1));
  pdt_comm_free(&node);
  return 0;
}

static void machines_of_ranks(void **state) {
  (void)state;
  int32_t machines[RANKS] = {7, -1, 7, -1};
  const pdt_comm_memory_options options = {.machines = machines};
  pdt_comm_memory_outcome outcomes[RANKS];
  assert_int_equal(pdt_comm_memory_run(RANKS, &options, split_machines, machines, outcomes, NULL),
                   0);
}

/* Who comes by, in turn. */
typedef struct order {
  pdt_rank ranks[64];
  int n;
} order;

/* With a schedule one rank computes at a time, so that they may share this. */
static int note_order(const pdt_comm *comm, void *context, pdt_error *err) {
  order *o = context;
  (void)err;
  for (int i = 0; i < 8; i++) {
    o->ranks[o->n++] = comm->rank;
    pdt_comm_barrier(comm);
  }
  return 0;
}

static void schedules(void **state) {
  (void)state;
  enum { SEEDS = 20 };
  order orders[SEEDS][2];
  int other = 0;
  memset(orders, 0, sizeof orders);
  for (int i = 0; i < 2 * SEEDS; i++) {
    pdt_comm_memory_outcome outcomes[RANKS];
    const pdt_comm_memory_options options = {.scheduled = true, .seed = (uint64_t)i / 2};
    order *o = &orders[i / 2][i % 2];
    assert_int_equal(pdt_comm_memory_run(RANKS, &options, note_order, o, outcomes, NULL), 0);
    assert_int_equal(o->n, 8 * RANKS);
  }
  for (int i = 0; i < SEEDS; i++) {
    assert_memory_equal(&orders[i][0], &orders[i][1], sizeof(order));
    other += memcmp(&orders[i][0], &orders[0][0], sizeof(order)) != 0;
  }
  assert_int_equal(other, SEEDS - 1);
}

/* ---- ends ---- */

/* Runs a cluster that must end before its ranks come back, with an error that tells what is
 * expected; every part of it, between bars. */
static void ends(const pdt_comm_memory_options *options, pdt_comm_memory_function *run, int turn,
                 const char *expected) {
  pdt_comm_memory_outcome outcomes[RANKS];
  pdt_error err = {0};
  char parts[512], *rest = parts;
  snprintf(parts, sizeof parts, "%s", expected);
  assert_int_equal(pdt_comm_memory_run(RANKS, options, run, &turn, outcomes, &err), -1);
  while (rest) {
    const char *part = strsep(&rest, "|");
    if (!strstr(err.message, part)) fail_msg("turn %d: no '%s' in '%s'", turn, part, err.message);
  }
}

/* Three ranks call one operation, rank 2 something that does not fit. */
enum mismatch { KINDS, ROOTS, BYTES, COUNTS, OWN_COUNT, PIECES, ELEMENTS, REDUCTIONS, MISMATCHES };

static int call_otherwise(const pdt_comm *comm, void *context, pdt_error *err) {
  bool other = comm->rank == 2;
  int64_t data[2 * RANKS] = {0}, out[4 * RANKS];
  pdt_bytes counts[RANKS] = {8, 8, 8, 8}, at[RANKS] = {0, 8, 16, 24};
  pdt_comm_request request = {0};
  (void)err;
  pdt_comm_barrier(comm);
  if (*(int *)context == COUNTS || *(int *)context == PIECES) counts[1] += other * 8;
  switch (*(int *)context) {
  case KINDS:
    if (!other) {
      pdt_comm_all_gather(comm, data, out, counts);
      break;
    }
    pdt_comm_all_gather_start(comm, data, out, counts, &request);
    pdt_comm_wait(comm, &request); /* or it might give up the world before the others have come */
    break;
  case ROOTS:
    pdt_comm_broadcast(comm, data, 8, other);
    break;
  case BYTES:
    pdt_comm_broadcast(comm, data, 8 + other, 1);
    break;
  case COUNTS:
    pdt_comm_gather(comm, data, 8, out, counts, 0);
    break;
  case OWN_COUNT:
    pdt_comm_gather(comm, data, 8 + other, out, counts, 0);
    break;
  case PIECES:
    pdt_comm_all_to_all(comm, data, counts, at, out, (pdt_bytes[]){8, 8, 8, 8}, at);
    break;
  default:
    pdt_comm_all_reduce_i64(comm, data, 2 - (*(int *)context == ELEMENTS && other),
                            *(int *)context == REDUCTIONS && other ? PDT_COMM_MAX : PDT_COMM_MIN);
  }
  return 0;
}

static void calls_that_do_not_fit(void **state) {
  static const char *const expected[MISMATCHES] = {
      [KINDS] = "operation 2 of world|all_gather of rank|all_gather_start of rank 2|different",
      [ROOTS] = "broadcast of rank 2|roots are",
      [BYTES] = "broadcast of rank 2|8 bytes|9 bytes",
      [COUNTS] = "gather of rank 2|rank 1's part has|8 bytes|16 bytes",
      [OWN_COUNT] = "gather (operation 2 of world): rank 2 sends 9 bytes, but counts 8",
      [PIECES] = "all_to_all of rank 2|all_to_all of rank 1|16",
      [ELEMENTS] = "all_reduce_i64 of rank 2|2 numbers|1 numbers",
      [REDUCTIONS] = "all_reduce_i64 of rank 2|2 numbers (0)|2 numbers (1)"};
  (void)state;
  for (int i = 0; i < MISMATCHES; i++) {
    const pdt_comm_memory_options options = {.scheduled = true, .seed = (uint64_t)i};
    ends(NULL, call_otherwise, i, expected[i]);
    ends(&options, call_otherwise, i, expected[i]);
  }
}

/* Rank 3 leaves too early; or it waits for rank 2, which waits for it elsewhere. */
static int wait_for_ever(const pdt_comm *comm, void *context, pdt_error *err) {
  pdt_comm pair;
  int turn = *(int *)context;
  pdt_comm_barrier(comm);
  if (turn == 0 && comm->rank == 3) return 0;
  if (turn == 0) pdt_comm_barrier(comm);
  if (pdt_comm_split(comm, comm->rank / 2, &pair, err)) return -1;
  if (comm->rank == 3) pdt_comm_barrier(&pair);
  pdt_comm_barrier(comm);
  if (comm->rank == 2) pdt_comm_barrier(&pair);
  pdt_comm_free(&pair);
  return 0;
}

static void hangs(void **state) {
  (void)state;
  const pdt_comm_memory_options options = {.scheduled = true, .seed = 3};
  ends(NULL, wait_for_ever, 0,
       "no rank goes on|rank 0 waits in barrier (operation 2 of world) for rank 3|rank 3 has "
       "returned");
  ends(&options, wait_for_ever, 0, "rank 2 waits in barrier|rank 3 has returned");
  ends(NULL, wait_for_ever, 1,
       "of world) for rank 3|rank 3 waits in barrier (operation 1 of world/1) for rank 2");
}

static int gather_twice(const pdt_comm *comm, void *context, pdt_error *err) {
  int64_t own = comm->rank, all[RANKS];
  pdt_bytes counts[RANKS] = {8, 8, 8, 8};
  (void)context;
  (void)err;
  pdt_comm_gather(comm, &own, 8, all, counts, 0);
  pdt_comm_gather(comm, &own, 8, all, counts, 1);
  pdt_comm_all_reduce_i64(comm, &own, 1, PDT_COMM_SUM);
  CHECK(own == RANKS * (RANKS - 1) / 2);
  return 0;
}

static void faults(void **state) {
  static const struct {
    pdt_comm_fault fault;
    const char *expected;
  } cases[] = {
      {{PDT_COMM_STOPS_BEFORE, 2, 1, 0},
       "rank 0 waits in gather (operation 2 of world) for rank 2|rank 2 stopped in gather "
       "(operation 2 of world)"},
      {{PDT_COMM_STOPS_AFTER, 2, 1, 0},
       "rank 1 waits in all_reduce_i64 (operation 3 of world) for rank 2|rank 2 stopped in gather "
       "(operation 2 of world)"},
      {{PDT_COMM_LOSES, 2, 1, 1},
       "rank 1 waits in gather (operation 2 of world) for a message of rank 2|rank 2 waits in "
       "all_reduce_i64 (operation 3 of world) for rank 1"},
      {{PDT_COMM_LOSES, 0, 2, 3}, "all_reduce_i64 (operation 3 of world) for a message of rank 0"},
  };
  (void)state;
  for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
    const pdt_comm_memory_options options = {
        .scheduled = i % 2, .seed = i, .faults = &cases[i / 2].fault, .n_faults = 1};
    ends(&options, gather_twice, (int)i, cases[i / 2].expected);
  }
}

/* A message that is not sent cannot be lost, and an operation that does not come cannot stop. */
static void faults_that_do_not_come(void **state) {
  static const pdt_comm_fault none[] = {
      {PDT_COMM_LOSES, 2, 1, 3}, {PDT_COMM_LOSES, 1, 1, 0}, {PDT_COMM_STOPS_BEFORE, 0, 3, 0}};
  const pdt_comm_memory_options options = {.faults = none, .n_faults = 3};
  pdt_comm_memory_outcome outcomes[RANKS];
  (void)state;
  assert_int_equal(pdt_comm_memory_run(RANKS, &options, gather_twice, NULL, outcomes, NULL), 0);
  for (pdt_rank r = 0; r < RANKS; r++) assert_int_equal(outcomes[r].faults, 0);
  const pdt_comm_fault stop = {PDT_COMM_STOPS_BEFORE, 1, 0, 0};
  const pdt_comm_memory_options stops = {.faults = &stop, .n_faults = 1};
  assert_int_equal(pdt_comm_memory_run(RANKS, &stops, gather_twice, NULL, outcomes, NULL), -1);
  assert_int_equal(outcomes[1].faults, 1);
  assert_int_equal(outcomes[1].operations, 1);
  assert_false(outcomes[0].returned);
}

/* Some ranks are in an operation, one has returned, one computes. */
static int abort_one(const pdt_comm *comm, void *context, pdt_error *err) {
  (void)context;
  if (comm->rank == 1) return 5;
  if (comm->rank == 3) {
    usleep(10000);
    pdt_fail(err, PDT_ERROR_USAGE, "enough");
    pdt_comm_abort(comm, err);
  }
  pdt_comm_barrier(comm);
  return 0;
}

static void aborts(void **state) {
  pdt_comm_memory_outcome outcomes[RANKS];
  pdt_error err = {0};
  (void)state;
  assert_int_equal(pdt_comm_memory_run(RANKS, NULL, abort_one, NULL, outcomes, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_USAGE);
  assert_string_equal(err.message, "enough");
  assert_true(outcomes[1].returned && outcomes[1].status == 5);
  assert_false(outcomes[0].returned || outcomes[2].returned || outcomes[3].returned);
}

/* One rank computes and computes; in the end it comes to its operation, and ends there. */
static int compute(const pdt_comm *comm, void *context, pdt_error *err) {
  (void)context;
  (void)err;
  if (comm->rank == 3) usleep(300000);
  pdt_comm_barrier(comm);
  return 0;
}

static void deadline(void **state) {
  const pdt_comm_memory_options options = {.deadline_seconds = 0.1};
  const pdt_comm_memory_options patient = {.deadline_seconds = 100};
  pdt_comm_memory_outcome outcomes[RANKS];
  (void)state;
  ends(&options, compute, 0,
       "has waited for 0.1 seconds|waits in barrier (operation 1 of world) for rank 3|rank 3 "
       "computes");
  assert_int_equal(pdt_comm_memory_run(RANKS, &patient, compute, NULL, outcomes, NULL), 0);
}

static int forget_gather(const pdt_comm *comm, void *context, pdt_error *err) {
  int64_t own = 0, all[RANKS];
  pdt_bytes counts[RANKS] = {8, 8, 8, 8};
  pdt_comm_request request;
  (void)context;
  (void)err;
  pdt_comm_all_gather_start(comm, &own, all, counts, &request);
  pdt_comm_barrier(comm);
  if (comm->rank != 2) pdt_comm_wait(comm, &request);
  return 0;
}

static void gather_nobody_waits_for(void **state) {
  (void)state;
  ends(NULL, forget_gather, 0, "rank 2 gives up world without waiting for all_gather_start");
}

/* What is said to be the same on all ranks, and is so, or is another number on rank 2. */
static int check_same(const pdt_comm *comm, void *context, pdt_error *err) {
  int64_t value = INT64_MIN;
  (void)err;
  pdt_comm_check_same(comm, value, "f", "value");
  value = -5;
  pdt_comm_check_same(comm, value, "f", "value");
  if (*(int *)context && comm->rank >= 2) value = INT64_MAX;
  pdt_comm_check_same(comm, value, "f", "value");
  return 0;
}

static void the_same_on_all_ranks(void **state) {
  pdt_comm_memory_outcome outcomes[RANKS];
  int no = 0;
  (void)state;
  assert_int_equal(pdt_comm_memory_run(RANKS, NULL, check_same, &no, outcomes, NULL), 0);
  assert_int_equal(pdt_comm_memory_run(1, NULL, check_same, &no, outcomes, NULL), 0);
  ends(NULL, check_same, 1,
       "f: expected the same on all 4 ranks, found value = -5 on rank 0, value = "
       "9223372036854775807 on rank 2");
}

/* Errors that ranks agree on are theirs, and no end of the cluster. */
static int fail_alike(const pdt_comm *comm, void *context, pdt_error *err) {
  (void)context;
  if (comm->rank == 2) pdt_fail(err, PDT_ERROR_INPUT, "rank 2 cannot");
  return pdt_comm_agree(comm, err);
}

static void agreements(void **state) {
  pdt_comm_memory_outcome outcomes[RANKS];
  (void)state;
  assert_int_equal(pdt_comm_memory_run(RANKS, NULL, fail_alike, NULL, outcomes, NULL), 0);
  for (pdt_rank r = 0; r < RANKS; r++) {
    assert_true(outcomes[r].returned && outcomes[r].status == -1);
    assert_int_equal(outcomes[r].err.code, PDT_ERROR_INPUT);
    assert_string_equal(outcomes[r].err.message, "rank 2 cannot");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(operations),
      cmocka_unit_test(operations_in_any_order),
      cmocka_unit_test(machines_of_ranks),
      cmocka_unit_test(schedules),
      cmocka_unit_test(calls_that_do_not_fit),
      cmocka_unit_test(hangs),
      cmocka_unit_test(faults),
      cmocka_unit_test(faults_that_do_not_come),
      cmocka_unit_test(aborts),
      cmocka_unit_test(deadline),
      cmocka_unit_test(gather_nobody_waits_for),
      cmocka_unit_test(agreements),
      cmocka_unit_test(the_same_on_all_ranks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
