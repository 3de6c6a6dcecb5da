/* Allocation that checks its arithmetic and aligns for vector loads. */
#ifndef PDT_BASE_MEMORY_H
#define PDT_BASE_MEMORY_H

#include "base/error.h"
#include "base/types.h"

#define PDT_ALIGN_BYTES 64 /* a cache line and an AVX-512 vector */

/* Zeroed, 64-byte aligned room for count elements of size bytes; never NULL on success, count 0
 * included. `what` names it in the error. Released with free(). Sets *out. Errors: MEMORY. */
int pdt_new(void **out, int64_t count, size_t size, const char *what, pdt_error *err);

/* pdt_new for a typed pointer: PDT_NEW(&p, n, "what", err). */
#define PDT_NEW(pointer, count, what, err)                                                         \
  pdt_new((void **)(pointer), (int64_t)(count), sizeof **(pointer), what, err)

/* Largest resident set this process ever had (VmHWM), in bytes; 0 where /proc does not say. */
pdt_bytes pdt_peak_resident_bytes(void);

/* Memory the system could still give to new work (MemAvailable, or the cgroup's limit where that
 * is lower), in bytes; 0 where unknown. */
pdt_bytes pdt_available_bytes(void);

#endif
