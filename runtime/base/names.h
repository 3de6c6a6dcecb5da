/* Questions about names. */
#ifndef PDT_BASE_NAMES_H
#define PDT_BASE_NAMES_H

#include <string.h>

#include "base/types.h"

/* Does the text end so? Pure. */
static inline bool pdt_ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

#endif
