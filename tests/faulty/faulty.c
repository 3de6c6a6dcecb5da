/* pdt with a fault: linked in place of the gather of a boundary (ld --wrap=pdt_records_gather), it
 * lets one rank fail at one boundary, as PDT_FAULT=KIND:RANK:BOUNDARY says, and writes the file
 * that PDT_FAULT_MARK names at that moment:
 *
 *   kill, stop   the process gets SIGKILL, SIGSTOP
 *   exit         it ends by itself, with status 7
 *   flip         one bit of a note in its replica of the bus changes
 *   stick        its main thread does not come back
 *   stray        it makes another exchange than all others
 *   slow         it computes for five seconds, and comes then
 *   term         it gets SIGTERM; term2: twice, half a second apart, and sticks between them
 *
 * Without PDT_FAULT it is pdt. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/run.h"

enum { SLOW_SECONDS = 5 };

int __real_pdt_records_gather(pdt_run *run, uint64_t bus_hash, bool *failed, pdt_error *err);
int __wrap_pdt_records_gather(pdt_run *run, uint64_t bus_hash, bool *failed, pdt_error *err);

static void mark(void) {
  const char *path = getenv("PDT_FAULT_MARK");
  int fd = path ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
  if (fd >= 0) close(fd);
}

static void flip(const pdt_run *run) {
  uint32_t word;
  float *note = run->sessions[0]->session.bus.notes[0].vector;
  memcpy(&word, note, sizeof word);
  word ^= 1;
  memcpy(note, &word, sizeof word);
}

static void stick(void) {
  for (;;) pause();
}

static void twice(void) {
  raise(SIGTERM);
  usleep(500000);
  raise(SIGTERM);
}

static void fail(pdt_run *run, const char *kind) {
  mark();
  if (strcmp(kind, "kill") == 0) raise(SIGKILL);
  if (strcmp(kind, "stop") == 0) raise(SIGSTOP);
  if (strcmp(kind, "exit") == 0) _exit(7);
  if (strcmp(kind, "flip") == 0) flip(run);
  if (strcmp(kind, "stick") == 0) stick();
  if (strcmp(kind, "stray") == 0) pdt_comm_barrier(run->machine->world);
  if (strcmp(kind, "slow") == 0) sleep(SLOW_SECONDS);
  if (strcmp(kind, "term") == 0) raise(SIGTERM);
  if (strcmp(kind, "term2") == 0) twice();
}

int __wrap_pdt_records_gather(pdt_run *run, uint64_t bus_hash, bool *failed, pdt_error *err) {
  const char *fault = getenv("PDT_FAULT");
  char kind[16];
  int rank;
  unsigned long long boundary;
  if (fault && sscanf(fault, "%15[^:]:%d:%llu", kind, &rank, &boundary) == 3 &&
      rank == run->machine->world->rank && boundary == run->boundary)
    fail(run, kind);
  return __real_pdt_records_gather(run, bus_hash, failed, err);
}
