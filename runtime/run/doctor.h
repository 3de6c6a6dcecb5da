/* Is everything as it must be on every machine, before a model is loaded? What each rank finds, in
 * one table; exchanges of all ranks, timed; and whoever is not as the others, by name. */
#ifndef PDT_RUN_DOCTOR_H
#define PDT_RUN_DOCTOR_H

#include "comm/comm.h"

typedef struct pdt_doctor_options {
  const char *model, *sidecar; /* a directory and a file to look at on every machine; or NULL */
  bool json;                   /* an object in place of a table */
  double timeout_seconds;      /* of an exchange, and of a rank that is not heard */
} pdt_doctor_options;

/* Looks, exchanges, and lets rank 0 print what was found on standard output. Collective over world,
 * blocking; all ranks fail alike. Errors: RUNTIME, where something must not stay as it is, MEMORY.
 */
int pdt_doctor(const pdt_comm *world, const pdt_doctor_options *options, pdt_error *err);

/* What a rank finds of itself and its machine. Texts are what tables show; "-" where nothing is. */
enum { PDT_DOCTOR_TEXT = 64, PDT_DOCTOR_LONG_TEXT = 256 };
typedef struct pdt_doctor_finding {
  char host[PDT_DOCTOR_TEXT], mpi[PDT_DOCTOR_TEXT], pmix[PDT_DOCTOR_TEXT], kernels[PDT_DOCTOR_TEXT];
  char build[PDT_DOCTOR_TEXT], gpu[PDT_DOCTOR_TEXT];
  char program[PDT_DOCTOR_TEXT]; /* a hash of the executable */
  char model[PDT_DOCTOR_TEXT], sidecar[PDT_DOCTOR_TEXT];
  char interfaces[PDT_DOCTOR_LONG_TEXT]; /* "eth0 10.0.0.1, docker0 172.17.0.1" */
  char problem[PDT_DOCTOR_LONG_TEXT];    /* what could not be read; "": all could */
  int32_t cores, numa_nodes;             /* that this process may use; of the machine */
  pdt_bytes memory, limit;               /* of the machine; that control groups leave, or -1 */
  double clock_ms;                       /* ahead of rank 0's, as far as exchanges tell */
} pdt_doctor_finding;

/* Microseconds of an exchange of all ranks: the median, on rank 0. */
typedef struct pdt_doctor_times {
  double barrier, all_reduce, gather, broadcast;
} pdt_doctor_times;

/* doctor_report.c: prints the findings of all ranks; how many things must not stay as they are,
 * each told on a line of its own. `chosen`: an interface was named for all exchanges. */
int32_t pdt_doctor_report(const pdt_doctor_finding *all, pdt_rank ranks,
                          const pdt_doctor_times *times, bool chosen, bool json);

#endif
