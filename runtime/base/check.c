#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void pdt_invariant_broken(const char *invariant, const char *file, int line) {
  fprintf(stderr, "pdt: %s:%d: an invariant is broken: %s\n", file, line, invariant);
  abort();
}
