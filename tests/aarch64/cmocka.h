/* As much of cmocka as the kernels' unit tests use, for machines whose library is not at hand: a
 * test that fails ends the program. */
#ifndef PDT_TESTS_AARCH64_CMOCKA_H
#define PDT_TESTS_AARCH64_CMOCKA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
  const char *name;
  void (*test_func)(void **state);
  int (*setup_func)(void **state), (*teardown_func)(void **state);
  void *initial_state;
};

#define cmocka_unit_test(f)                                                                        \
  { #f, f, NULL, NULL, NULL }

/* Ends a test without a failure. */
static jmp_buf after_test;
#define skip() longjmp(after_test, 1)

#define fail_msg(...)                                                                              \
  do {                                                                                             \
    fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                \
    fprintf(stderr, __VA_ARGS__);                                                                  \
    fprintf(stderr, "\n");                                                                         \
    exit(1);                                                                                       \
  } while (0)
#define assert_true(x)                                                                             \
  do {                                                                                             \
    if (!(x)) fail_msg("not so: %s", #x);                                                          \
  } while (0)
#define assert_false(x)              assert_true(!(x))
#define assert_null(x)               assert_true((x) == NULL)
#define assert_non_null(x)           assert_true((x) != NULL)
#define assert_int_equal(a, b)       assert_true((long long)(a) == (long long)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define print_message(...)           printf(__VA_ARGS__)

static int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                                   int (*set_up)(void **state), int (*tear_down)(void **state)) {
  static void *of_group;
  (void)name;
  if (set_up && set_up(&of_group)) return 1;
  for (size_t i = 0; i < n; i++) {
    void *own = tests[i].initial_state;
    void **state = own ? &own : &of_group;
    int skipped = setjmp(after_test);
    if (!skipped) tests[i].test_func(state);
    printf("%s %s\n", skipped ? "skipped" : "ok     ", tests[i].name);
    fflush(stdout);
  }
  return tear_down ? tear_down(&of_group) : 0;
}
#define cmocka_run_group_tests(tests, set_up, tear_down)                                           \
  _cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof *(tests), set_up, tear_down)

#endif
