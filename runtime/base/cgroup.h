/* What the control groups of this process allow it: batch systems, containers and systemd give
 * their work less than the machine has. Both versions, and both at once; limits may stand at any
 * group from the process's own up to the root, and the lowest holds.
 *
 * `root` is put in front of /proc and of the paths that it names: "" for the machine itself, a
 * folder for tests. */
#ifndef PDT_BASE_CGROUP_H
#define PDT_BASE_CGROUP_H

#include "base/types.h"

/* Bytes that the groups leave to this process and the others in them: the least of limit - use over
 * all of them, never negative. Pages that only cache files are not counted as used: the kernel
 * drops them when memory is asked for. INT64_MAX where no group has a limit, or none can be read.
 */
pdt_bytes pdt_cgroup_memory_left(const char *root);

/* A group with a quota of processor time, in processors (2.5: two and a half). */
typedef struct pdt_cgroup_quota {
  uint64_t group; /* which; the same number for all processes of the machine */
  double processors;
} pdt_cgroup_quota;

enum { PDT_MAX_QUOTAS = 8 };

/* The quotas that hold for this process; how many. Of more than PDT_MAX_QUOTAS the least ones. */
int32_t pdt_cgroup_quotas(const char *root, pdt_cgroup_quota out[PDT_MAX_QUOTAS]);

#endif
