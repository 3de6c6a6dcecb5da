#include "base/clock.h"

#include <omp.h>
#include <time.h>

double pdt_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int pdt_thread(void) {
  return omp_get_thread_num();
}
