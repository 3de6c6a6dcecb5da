/* Which processors a process may run on, and how the processes of a machine share them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/processors.h"

enum { MOST_RANKS = 16, SET_BYTES = 1024, PROCESSORS = SET_BYTES * 8 };

/* The processes of a machine. */
typedef struct machine {
  int32_t ranks;
  _Alignas(64) char sets[MOST_RANKS * SET_BYTES];
  pdt_processor_use uses[MOST_RANKS];
  int32_t threads[MOST_RANKS];
} machine;

/* One more process, on processors [begin, end). */
static int32_t join(machine *m, int begin, int end) {
  cpu_set_t *set = (cpu_set_t *)(void *)(m->sets + (ptrdiff_t)m->ranks * SET_BYTES);
  for (int p = begin; p < end; p++) CPU_SET_S((size_t)p, SET_BYTES, set);
  return m->ranks++;
}

static void put_under(machine *m, int32_t rank, uint64_t group, double processors) {
  pdt_processor_use *use = &m->uses[rank];
  use->quotas[use->n_quotas++] = (pdt_cgroup_quota){group, processors};
}

static void share(machine *m) {
  pdt_error err = {0};
  assert_int_equal(pdt_processors_share(m->sets, SET_BYTES, m->uses, m->ranks, m->threads, &err),
                   0);
}

static machine *new_machine(void **state) {
  *(machine *)*state = (machine){0};
  return *state;
}

static int setup(void **state) {
  *state = aligned_alloc(64, sizeof(machine));
  return *state ? 0 : -1;
}

static int teardown(void **state) {
  free(*state);
  return 0;
}

static void all_threads(const machine *m, const int32_t *expected) {
  for (int32_t r = 0; r < m->ranks; r++) assert_int_equal(m->threads[r], expected[r]);
}

static void equal_sets(void **state) {
  const int32_t processors[] = {1, 2, 4, 7, 64, 192, 1024, 1025, 4096, PROCESSORS};
  for (size_t i = 0; i < sizeof processors / sizeof *processors; i++)
    for (int32_t ranks = 1; ranks <= MOST_RANKS; ranks++) {
      if (processors[i] > 1024 && ranks % 5 != 1) continue; /* the search takes its time */
      machine *m = new_machine(state);
      for (int32_t r = 0; r < ranks; r++) join(m, 0, processors[i]);
      share(m);
      int32_t fair = processors[i] / ranks;
      for (int32_t r = 0; r < ranks; r++) assert_int_equal(m->threads[r], fair > 1 ? fair : 1);
    }
}

static void sets_apart(void **state) {
  machine *m = new_machine(state);
  join(m, 0, 4);
  join(m, 4, 5);
  join(m, 1000, 2000);
  join(m, 5, 8);
  share(m);
  all_threads(m, (const int32_t[]){4, 1, 1000, 3});
}

/* The one inside the other, and all orders of who comes first. */
static void nested_sets(void **state) {
  for (int order = 0; order < 2; order++) {
    machine *m = new_machine(state);
    int32_t narrow = order ? join(m, 0, 2) : -1, wide = join(m, 0, 8);
    if (!order) narrow = join(m, 0, 2);
    share(m);
    assert_int_equal(m->threads[narrow], 2);
    assert_int_equal(m->threads[wide], 6);
  }
  machine *m = new_machine(state); /* as wide as it is, it has room enough elsewhere */
  join(m, 0, 8);
  join(m, 0, 4);
  share(m);
  all_threads(m, (const int32_t[]){4, 4});
  m = new_machine(state); /* two processors: this one has them both, that one only the second */
  join(m, 0, 2);
  join(m, 1, 2);
  share(m);
  all_threads(m, (const int32_t[]){1, 1});
}

static void overlapping_sets(void **state) {
  machine *m = new_machine(state); /* a chain: 0-3, 2-5, 4-7 */
  for (int r = 0; r < 3; r++) join(m, 2 * r, 2 * r + 4);
  share(m);
  int32_t sum = 0;
  for (int r = 0; r < 3; r++) {
    assert_in_range(m->threads[r], 2, 3);
    sum += m->threads[r];
  }
  assert_true(sum <= 8);
  m = new_machine(state); /* three who compete for four, and one who has others */
  for (int r = 0; r < 3; r++) join(m, 0, 4);
  join(m, 0, 8);
  share(m);
  all_threads(m, (const int32_t[]){1, 1, 1, 5});
  m = new_machine(state); /* two on one processor leave the others to the third */
  join(m, 0, 3);
  join(m, 0, 1);
  join(m, 0, 1);
  share(m);
  all_threads(m, (const int32_t[]){2, 1, 1});
}

static void more_processes_than_processors(void **state) {
  machine *m = new_machine(state);
  for (int r = 0; r < 8; r++) join(m, 0, 2);
  join(m, 0, 4);
  share(m);
  all_threads(m, (const int32_t[]){1, 1, 1, 1, 1, 1, 1, 1, 2});
}

static void nothing_known(void **state) {
  machine *m = new_machine(state);
  join(m, 0, 0);
  join(m, 0, 4);
  share(m);
  all_threads(m, (const int32_t[]){1, 4});
}

static void quotas(void **state) {
  machine *m = new_machine(state);
  put_under(m, join(m, 0, 64), 1, 2.5);
  share(m);
  all_threads(m, (const int32_t[]){2});
  m = new_machine(state); /* less than a processor is one thread */
  put_under(m, join(m, 0, 64), 1, 0.3);
  share(m);
  all_threads(m, (const int32_t[]){1});
  m = new_machine(state); /* four share eight, whatever groups lie between */
  for (int r = 0; r < 4; r++) {
    int32_t rank = join(m, 0, 64);
    put_under(m, rank, 7, 8);
    put_under(m, rank, 100 + (uint64_t)r, r == 3 ? 1 : 32);
  }
  share(m);
  all_threads(m, (const int32_t[]){2, 2, 2, 1});
  m = new_machine(state); /* what one may not use is the other's */
  put_under(m, join(m, 0, 8), 1, 3);
  join(m, 0, 8);
  share(m);
  all_threads(m, (const int32_t[]){3, 5});
  m = new_machine(state); /* a quota that is wider than the set */
  put_under(m, join(m, 2, 4), 1, 100);
  share(m);
  all_threads(m, (const int32_t[]){2});
}

/* Kernels of 4,096 processors, and of none that says. */
static int of_many(pid_t pid, size_t bytes, cpu_set_t *set) {
  (void)pid;
  if (bytes < 512) {
    errno = EINVAL;
    return -1;
  }
  CPU_SET_S(4095, bytes, set);
  return 0;
}

static int refused(pid_t pid, size_t bytes, cpu_set_t *set) {
  (void)pid;
  (void)bytes;
  (void)set;
  errno = EPERM;
  return -1;
}

static int never_enough(pid_t pid, size_t bytes, cpu_set_t *set) {
  refused(pid, bytes, set);
  errno = EINVAL;
  return -1;
}

static void reading(void **state) {
  (void)state;
  pdt_processors p;
  pdt_error err = {0};
  assert_int_equal(pdt_processors_read(&p, sched_getaffinity, &err), 0);
  assert_true(CPU_COUNT_S((size_t)p.bytes, (cpu_set_t *)(void *)p.set) > 0);
  free(p.set);
  assert_int_equal(pdt_processors_read(&p, of_many, &err), 0);
  assert_true(CPU_ISSET_S(4095, (size_t)p.bytes, (cpu_set_t *)(void *)p.set));
  assert_int_equal(CPU_COUNT_S((size_t)p.bytes, (cpu_set_t *)(void *)p.set), 1);
  free(p.set);
  assert_int_equal(pdt_processors_read(&p, refused, &err), -1);
  assert_non_null(strstr(err.message, "--threads"));
  assert_null(p.set);
  assert_int_equal(pdt_processors_read(&p, never_enough, &err), -1);
  assert_null(p.set);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(equal_sets, setup, teardown),
      cmocka_unit_test_setup_teardown(sets_apart, setup, teardown),
      cmocka_unit_test_setup_teardown(nested_sets, setup, teardown),
      cmocka_unit_test_setup_teardown(overlapping_sets, setup, teardown),
      cmocka_unit_test_setup_teardown(more_processes_than_processors, setup, teardown),
      cmocka_unit_test_setup_teardown(nothing_known, setup, teardown),
      cmocka_unit_test_setup_teardown(quotas, setup, teardown),
      cmocka_unit_test(reading),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
