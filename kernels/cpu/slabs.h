/* Memory of weights. Products read all of it again and again, from beginning to end, so it lies in
 * huge pages where the system gives them: matrices stand side by side in slabs that begin at one.
 * Matrices are made when a model is loaded and freed with it: a slab's memory comes back when all
 * that stood in it is given back. Not for several threads at once. */
#ifndef PDT_KERNELS_CPU_SLABS_H
#define PDT_KERNELS_CPU_SLABS_H

#include "base/types.h"

/* A list of slabs; NULL: none. */
typedef struct pdt_cpu_slab pdt_cpu_slab;

/* Zeroed memory, aligned to 64 bytes, bytes >= 1; NULL when there is none. */
void *pdt_cpu_slab_take(pdt_cpu_slab **slabs, pdt_bytes bytes);

/* Gives back what was taken; NULL does nothing. */
void pdt_cpu_slab_give(pdt_cpu_slab **slabs, void *at);

/* Frees all slabs, and what was not given back with them. */
void pdt_cpu_slab_free(pdt_cpu_slab **slabs);

#endif
