/* A broken invariant ends the process by name, in builds that check; in others nobody asks. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"

static bool is_valid(int *asked, bool answer) {
  ++*asked;
  return answer;
}

static void invariants_that_hold(void **state) {
  int asked = 0;
  (void)state;
  (void)is_valid;
  PDT_INVARIANT(is_valid(&asked, true));
#ifdef PDT_CHECKS
  assert_int_equal(asked, 1);
#else
  assert_int_equal(asked, 0);
  PDT_INVARIANT(is_valid(&asked, false));
#endif
}

static void broken_invariant(void **state) {
  char text[256] = "";
  int status = 0, ends[2];
  (void)state;
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    signal(SIGABRT, SIG_DFL); /* cmocka's own would answer */
    pdt_invariant_broken("pages_are_free(kv)", "kv.c", 12);
  }
  close(ends[1]);
  assert_true(read(ends[0], text, sizeof text - 1) > 0);
  close(ends[0]);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  assert_string_equal(text, "pdt: kv.c:12: an invariant is broken: pages_are_free(kv)\n");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(invariants_that_hold),
      cmocka_unit_test(broken_invariant),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
