#include "base/memory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"

int pdt_new(void **out, int64_t count, size_t size, const char *what, pdt_error *err) {
  *out = NULL;
  size_t bytes;
  if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) ||
      bytes > SIZE_MAX - PDT_ALIGN_BYTES)
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: impossible size: %lld elements of %zu bytes", what,
                    (long long)count, size);
  bytes = (bytes + PDT_ALIGN_BYTES - 1) / PDT_ALIGN_BYTES * PDT_ALIGN_BYTES;
  if (bytes == 0) bytes = PDT_ALIGN_BYTES;
  *out = aligned_alloc(PDT_ALIGN_BYTES, bytes);
  if (!*out) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for %zu bytes", what, bytes);
  memset(*out, 0, bytes);
  return 0;
}

int pdt_grow(void **array, size_t n, size_t more, size_t *room, size_t size, pdt_error *err) {
  size_t wanted, larger, bytes;
  bool possible = !__builtin_add_overflow(n, more, &wanted);
  if (possible && wanted <= *room) return 0;
  possible = possible && !__builtin_add_overflow(wanted, wanted / 2 + 16, &larger) &&
             !__builtin_mul_overflow(larger, size, &bytes);
  void *grown = possible ? realloc(*array, bytes) : NULL;
  if (!grown)
    return pdt_fail(err, PDT_ERROR_MEMORY, "a list: no memory for %zu elements behind %zu", more,
                    n);
  *array = grown;
  *room = larger;
  return 0;
}

/* The number behind `key` in a file of lines such as "key: number kB", times `unit`; -1 when it is
 * absent or no number. */
static pdt_bytes number_of(const char *root, const char *file, const char *key, pdt_bytes unit) {
  char path[PATH_MAX], line[256];
  long long value = -1;
  if (snprintf(path, sizeof path, "%s%s", root, file) >= (int)sizeof path) return -1;
  FILE *f = fopen(path, "re");
  if (!f) return -1;
  while (value < 0 && fgets(line, sizeof line, f))
    if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%lld", &value) != 1)
      break;
  fclose(f);
  return value < 0 || value > INT64_MAX / unit ? -1 : value * unit;
}

pdt_bytes pdt_peak_resident_bytes(void) {
  pdt_bytes peak = number_of("", "/proc/self/status", "VmHWM:", 1024);
  return peak > 0 ? peak : 0;
}

/* The smaller one of `least` and limit - used, as far as those are known. */
static pdt_bytes lower(pdt_bytes least, pdt_bytes limit, pdt_bytes used) {
  if (limit < 0 || used < 0) return least;
  pdt_bytes left = limit > used ? limit - used : 0;
  return left < least ? left : least;
}

pdt_bytes pdt_limit_bytes(const char *root) {
  const char *status = "/proc/self/status", *limits = "/proc/self/limits";
  pdt_bytes left = lower(INT64_MAX, number_of(root, limits, "Max address space", 1),
                         number_of(root, status, "VmSize:", 1024));
  return lower(left, number_of(root, limits, "Max data size", 1),
               number_of(root, status, "VmData:", 1024));
}

pdt_bytes pdt_available_bytes(const char *root, int32_t sharing) {
  const char *meminfo = "/proc/meminfo";
  pdt_bytes all = lower(INT64_MAX, number_of(root, meminfo, "MemAvailable:", 1024), 0);
  if (number_of(root, "/proc/sys/vm/overcommit_memory", "", 1) == 2) /* nothing is promised twice */
    all = lower(all, number_of(root, meminfo, "CommitLimit:", 1024),
                number_of(root, meminfo, "Committed_AS:", 1024));
  all = lower(all, pdt_cgroup_memory_left(root), 0);
  if (all < INT64_MAX) all /= sharing;
  return lower(all, pdt_limit_bytes(root), 0);
}
