/* The processors that a process may run on, and how the processes of one machine share them. */
#ifndef PDT_BASE_PROCESSORS_H
#define PDT_BASE_PROCESSORS_H

#include <sched.h>
#include <sys/types.h>

#include "base/cgroup.h"
#include "base/error.h"

/* A set as the kernel has it, of as many bytes as it has. Freed with free(set). */
typedef struct pdt_processors {
  char *set; /* [bytes]: a cpu_set_t of another length */
  int64_t bytes;
} pdt_processors;

/* Asks for the set of the calling thread, however many processors there are; `ask` is
 * sched_getaffinity, or a test's. Sets *out. Errors: IO, MEMORY. */
int pdt_processors_read(pdt_processors *out, int (*ask)(pid_t pid, size_t bytes, cpu_set_t *set),
                        pdt_error *err);

/* What one process may use. */
typedef struct pdt_processor_use {
  int32_t n_quotas;
  pdt_cgroup_quota quotas[PDT_MAX_QUOTAS];
} pdt_processor_use;

/* Threads for each of `ranks` processes: threads[ranks], each at least 1.
 *
 * Every processor is given to one process that may run on it, so that the process that gets the
 * fewest gets as many as it can, then the next, and so on; processes that compete for what is left
 * over get the same number, and what does not go round stays idle. Nobody gets more than its part
 * of a quota, which the processes under it share alike. Where there are more processes than
 * processors, each has one thread.
 *
 * sets[ranks, bytes]: one after another; as CPU_ISSET_S reads them, with zeros where a process's
 * own is shorter. Errors: MEMORY. */
int pdt_processors_share(const void *sets, int64_t bytes, const pdt_processor_use *uses,
                         int32_t ranks, int32_t *threads, pdt_error *err);

#endif
