/* Floats in a device's memory (kernels.h). */
#ifndef PDT_KERNELS_ARRAY_H
#define PDT_KERNELS_ARRAY_H

#include "base/types.h"

/* A struct, so that the host cannot index it by mistake: on a GPU it could not read what is there.
 */
typedef struct pdt_array {
  float *at; /* NULL: none */
} pdt_array;

/* The array from element `elems` on; none stays none. */
static inline pdt_array pdt_array_at(pdt_array a, int64_t elems) {
  return (pdt_array){a.at ? a.at + elems : NULL};
}

#endif
