/* Normal random numbers by counter: element i of a tensor is the same whoever makes it, in whatever
 * pieces, on however many threads. */
#ifndef PDT_MODEL_NORMAL_H
#define PDT_MODEL_NORMAL_H

#include "base/types.h"

/* out[j] = mean + deviation * z, z the standard normal number of element first + j of the sequence
 * that seed and name choose (Philox, then Box-Muller; |z| < 6). first must be a multiple of 4.
 * Shared among OpenMP's threads. */
void pdt_normal_fill(uint64_t seed, const char *name, int64_t first, int64_t n_elems, float mean,
                     float deviation, float *out);

#endif
