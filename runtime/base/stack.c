#include "base/stack.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

enum { USUAL_STACK = 8 << 20 };

/* A size as OpenMP reads it: kibibytes unless a letter says otherwise; -1 when it is none. */
static long long size_of(const char *text) {
  static const char units[] = "BKMG";
  char *end;
  long long n = strtoll(text, &end, 10);
  if (end == text || n < 0) return -1;
  end += strspn(end, " \t");
  int unit = 1;
  for (int i = 0; *end && i < (int)strlen(units); i++)
    if (strncasecmp(end, &units[i], 1) == 0) unit = i;
  return n > INT64_MAX >> 10 * unit ? INT64_MAX : n << 10 * unit;
}

static int check_threads(pdt_error *err) {
  static const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *text = getenv(names[i]);
    long long bytes = text ? size_of(text) : -1;
    if (bytes >= 0 && bytes < PDT_LEAST_THREAD_STACK)
      return pdt_fail(err, PDT_ERROR_USAGE, "%s: expected stacks of at least %d KiB, found '%s'",
                      names[i], PDT_LEAST_THREAD_STACK >> 10, text);
    if (bytes >= 0) break; /* the first one holds */
  }
  return 0;
}

int pdt_stack_prepare(char **argv, pdt_error *err) {
  struct rlimit limit;
  if (check_threads(err)) return -1;
  if (getrlimit(RLIMIT_STACK, &limit) || limit.rlim_cur >= PDT_LEAST_STACK) return 0;
  unsigned long long found = limit.rlim_cur;
  if (limit.rlim_max >= PDT_LEAST_STACK) { /* RLIM_INFINITY is the largest number */
    limit.rlim_cur = limit.rlim_max < USUAL_STACK ? limit.rlim_max : USUAL_STACK;
    if (setrlimit(RLIMIT_STACK, &limit) == 0) execv("/proc/self/exe", argv);
  }
  return pdt_fail(err, PDT_ERROR_MEMORY,
                  "the stack may have %llu KiB: expected at least %d (hint: ulimit -s %d)",
                  found >> 10, PDT_LEAST_STACK >> 10, USUAL_STACK >> 10);
}
