/* Plain versions of every kernel, to be read and to be compared with. They take the same inputs and
 * compute in double, in the simplest order; results agree with a backend's within rounding, not in
 * every bit. One thread, slow. */
#ifndef PDT_KERNELS_REFERENCE_H
#define PDT_KERNELS_REFERENCE_H

#include "kernels/kernels.h"

/* The table, named "reference". Static storage. */
const pdt_kernels *pdt_reference_kernels(void);

#endif
