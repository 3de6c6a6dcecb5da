/* The backend of a single process: every operation is a copy or nothing, and no MPI is started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm/comm.h"

enum { BYTES = 10 };

/* A world of this process alone, whatever started the test. */
static int start(void **state) {
  static const char *const signs[] = {
      "OMPI_COMM_WORLD_SIZE", "PMIX_RANK",     "PMI_RANK",
      "SLURM_STEP_NUM_TASKS", "PMI_SIZE",      "MV2_COMM_WORLD_SIZE",
      "MPI_LOCALNRANKS",      "FLUX_JOB_SIZE", "JSM_NAMESPACE_SIZE"};
  for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) unsetenv(signs[i]);
  pdt_comm *world = malloc(sizeof *world);
  int argc = 1;
  char *arguments[] = {(char[]){"test"}, NULL}, **argv = arguments;
  *state = world;
  return world ? pdt_comm_start(world, &argc, &argv, NULL) : -1;
}

static int finish(void **state) {
  pdt_comm *world = *state;
  pdt_comm_finish(world);
  int rc = world->rank == 0 && world->size == 1 ? 0 : -1;
  free(world);
  return rc;
}

static void alone(void **state) {
  const pdt_comm *world = *state;
  assert_int_equal(world->rank, 0);
  assert_int_equal(world->size, 1);
  pdt_comm_barrier(world);
  char text[128] = "";
  pdt_comm_library(text, sizeof text);
  assert_true(strlen(text) > 3 && !strchr(text, '\n'));
  pdt_comm_library(text, 4); /* cut, not overrun */
  assert_int_equal(strlen(text), 3);
}

static void splits(void **state) {
  const pdt_comm *world = *state;
  for (int node = 0; node < 2; node++) {
    pdt_comm part = {.rank = 9, .size = 9};
    int rc = node ? pdt_comm_split_node(world, &part, NULL) : pdt_comm_split(world, 5, &part, NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(part.rank, 0);
    assert_int_equal(part.size, 1);
    pdt_comm_barrier(&part);
    pdt_comm_free(&part);
    assert_int_equal(part.size, 1);
  }
}

static void agreement(void **state) {
  const pdt_comm *world = *state;
  pdt_error err = {0};
  assert_int_equal(pdt_comm_agree(world, &err), 0);
  pdt_fail(&err, PDT_ERROR_IO, "a file is missing");
  assert_int_equal(pdt_comm_agree(world, &err), -1);
  assert_int_equal(err.code, PDT_ERROR_IO);
  assert_string_equal(err.message, "a file is missing");
}

static void copies(void **state) {
  const pdt_comm *world = *state;
  const pdt_bytes counts[] = {BYTES}, none[] = {0};
  char send[BYTES] = "123456789", recv[BYTES] = "";
  pdt_comm_broadcast(world, send, BYTES, 0);
  assert_string_equal(send, "123456789");
  pdt_comm_gather(world, send, BYTES, recv, counts, 0);
  assert_string_equal(recv, "123456789");
  memset(recv, 0, sizeof recv);
  pdt_comm_all_gather(world, send, recv, counts);
  assert_string_equal(recv, "123456789");
  pdt_comm_all_gather(world, recv, recv, counts); /* in its place already */
  pdt_comm_gather(world, recv, BYTES, recv, counts, 0);
  assert_string_equal(recv, "123456789");
  memset(recv, 0, sizeof recv);
  pdt_comm_request request = {.handle = recv};
  pdt_comm_all_gather_start(world, send, recv, counts, &request);
  pdt_comm_wait(world, &request);
  pdt_comm_wait(world, &request);
  assert_string_equal(recv, "123456789");
  pdt_comm_gather(world, NULL, 0, NULL, none, 0); /* nothing needs no buffer */
  pdt_comm_all_gather(world, NULL, NULL, none);
  pdt_comm_all_gather_start(world, NULL, NULL, none, &request);
  pdt_comm_wait(world, &request);
}

static void to_itself(void **state) {
  const pdt_comm *world = *state;
  const pdt_bytes bytes[] = {3}, send_at[] = {2}, recv_at[] = {5}, none[] = {0};
  const char send[] = "..abc..";
  char recv[] = "..........";
  pdt_comm_all_to_all(world, send, bytes, send_at, recv, bytes, recv_at);
  assert_string_equal(recv, ".....abc..");
  pdt_comm_all_to_all(world, send, none, send_at, recv, none, recv_at);
  pdt_comm_all_to_all(world, NULL, none, none, NULL, none, none);
  assert_string_equal(recv, ".....abc..");
}

static void reductions(void **state) {
  const pdt_comm *world = *state;
  int64_t numbers[] = {INT64_MIN, -1, 0, INT64_MAX};
  const int64_t same[] = {INT64_MIN, -1, 0, INT64_MAX};
  for (pdt_comm_op op = PDT_COMM_MIN; op <= PDT_COMM_SUM; op++) {
    pdt_comm_all_reduce_i64(world, numbers, 4, op);
    assert_memory_equal(numbers, same, sizeof same);
  }
}

/* Variables of launchers, none of which starts MPI. */
typedef struct started {
  const char *size, *rank;
} started;

static void several_that_are_alone(void **state) {
  static const started launchers[] = {{"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                                      {"PMI_SIZE", "NO_RANK"},
                                      {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
                                      {"MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
                                      {"FLUX_JOB_SIZE", "FLUX_TASK_RANK"},
                                      {"JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"}};
  (void)state;
  pdt_comm world;
  int argc = 0;
  char **argv = NULL;
  for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
    const started *l = &launchers[i];
    pdt_error err = {0};
    setenv(l->size, "3", 1);
    setenv(l->rank, "2", 1);
    assert_int_equal(pdt_comm_start(&world, &argc, &argv, &err), -1);
    assert_int_equal(err.code, PDT_ERROR_USAGE);
    assert_non_null(strstr(err.message, "3 processes were started together"));
    assert_non_null(strstr(err.message, l->size));
    assert_int_equal(world.rank, strcmp(l->rank, "NO_RANK") == 0 ? 0 : 2); /* who speaks is 0 */
    assert_int_equal(world.size, 1);
    setenv(l->size, "1", 1); /* one task needs nobody to join */
    assert_int_equal(pdt_comm_start(&world, &argc, &argv, &err), 0);
    pdt_comm_finish(&world);
    setenv(l->size, "some", 1);
    assert_int_equal(pdt_comm_start(&world, &argc, &argv, &err), 0);
    pdt_comm_finish(&world);
    unsetenv(l->size);
    unsetenv(l->rank);
  }
}

/* A batch script of a job with many tasks is one process. */
static void batch_script(void **state) {
  static const char *const job[] = {"SLURM_NTASKS", "SLURM_NPROCS", "SLURM_TASKS_PER_NODE"};
  (void)state;
  pdt_comm world;
  pdt_error err = {0};
  int argc = 0;
  char **argv = NULL;
  for (size_t i = 0; i < sizeof job / sizeof *job; i++) setenv(job[i], "8", 1);
  setenv("SLURM_PROCID", "0", 1);
  assert_int_equal(pdt_comm_start(&world, &argc, &argv, &err), 0);
  pdt_comm_finish(&world);
  for (size_t i = 0; i < sizeof job / sizeof *job; i++) unsetenv(job[i]);
  unsetenv("SLURM_PROCID");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(alone),
      cmocka_unit_test(splits),
      cmocka_unit_test(agreement),
      cmocka_unit_test(copies),
      cmocka_unit_test(to_itself),
      cmocka_unit_test(reductions),
      cmocka_unit_test(several_that_are_alone),
      cmocka_unit_test(batch_script),
  };
  return cmocka_run_group_tests(tests, start, finish);
}
