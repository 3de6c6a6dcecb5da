#include "base/waiting.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

enum { TURNS = 500, TRIALS = 4, FEWEST = 100, MOST = 300000 /* libgomp's own */ };

/* libgomp's loop: a load and what the processor has for those who wait. */
static double seconds_of_turns(const int *address) {
  double start = pdt_seconds();
  for (int i = 0; i < TURNS && __atomic_load_n(address, __ATOMIC_RELAXED) == 0; i++)
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    __asm volatile("" : : : "memory");
#endif
  return pdt_seconds() - start;
}

int64_t pdt_spin_count(double microseconds) {
  int never = 0;
  double least = 1; /* of some, since others may have interrupted */
  for (int i = 0; i < TRIALS; i++) {
    double seconds = seconds_of_turns(&never);
    if (seconds < least) least = seconds;
  }
  double count = least > 0 ? 1e-6 * microseconds * TURNS / least : MOST;
  return count < FEWEST ? FEWEST : count > MOST ? MOST : (int64_t)count;
}

/* Before the constructors without a priority, libgomp's among them. */
__attribute__((constructor(101))) void pdt_prepare_waiting(void) {
  char count[32];
  if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
  snprintf(count, sizeof count, "%lld", (long long)pdt_spin_count(PDT_SPIN_MICROSECONDS));
  setenv("GOMP_SPINCOUNT", count, 0);
}
