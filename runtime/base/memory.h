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

/* Room in an array of *room elements of `size` bytes for `more` behind the first n: grows it by
 * half as much again. Errors: MEMORY, the array is then as it was. */
int pdt_grow(void **array, size_t n, size_t more, size_t *room, size_t size, pdt_error *err);

/* pdt_grow for a typed pointer: for one element more, or several. */
#define PDT_GROW(pointer, n, room, err) PDT_GROW_BY(pointer, n, 1, room, err)
#define PDT_GROW_BY(pointer, n, more, room, err)                                                   \
  pdt_grow((void **)(pointer), (n), (more), (room), sizeof **(pointer), (err))

static inline double pdt_mebibytes(pdt_bytes bytes) {
  return (double)bytes / (1 << 20);
}

/* Largest resident set this process ever had (VmHWM), in bytes; 0 where /proc does not say. */
pdt_bytes pdt_peak_resident_bytes(void);

/* Memory that this process's own limits (ulimit -v, -d) leave it, in bytes; INT64_MAX without any.
 * `root` as in base/cgroup.h. */
pdt_bytes pdt_limit_bytes(const char *root);

/* Memory that this process can still take, in bytes, when `sharing` processes of the machine take
 * as much each: the least of what the system has (MemAvailable, or what is left to promise where it
 * promises nothing twice), what its control groups leave, both shared, and what its own limits
 * leave. INT64_MAX where nothing is known. */
pdt_bytes pdt_available_bytes(const char *root, int32_t sharing);

#endif
