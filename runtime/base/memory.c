#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The number after `key` in a file of "key: number kB" lines, in bytes; 0 when absent. */
static pdt_bytes proc_kilobytes(const char *path, const char *key) {
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  char line[256];
  long long kilobytes = 0;
  while (fgets(line, sizeof line, f))
    if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %lld", &kilobytes))
      break;
  fclose(f);
  return (pdt_bytes)kilobytes * 1024;
}

pdt_bytes pdt_peak_resident_bytes(void) {
  return proc_kilobytes("/proc/self/status", "VmHWM");
}

/* A cgroup file that holds one number; -1 when absent or "max". */
static pdt_bytes cgroup_bytes(const char *path) {
  FILE *f = fopen(path, "r");
  if (!f) return -1;
  long long value = -1;
  if (fscanf(f, "%lld", &value) != 1) value = -1;
  fclose(f);
  return value;
}

pdt_bytes pdt_available_bytes(void) {
  pdt_bytes available = proc_kilobytes("/proc/meminfo", "MemAvailable");
  pdt_bytes limit = cgroup_bytes("/sys/fs/cgroup/memory.max");
  pdt_bytes used = cgroup_bytes("/sys/fs/cgroup/memory.current");
  if (limit >= 0 && used >= 0 && limit - used < available) available = limit - used;
  return available > 0 ? available : 0;
}
