/* Allocations that are counted for one rank, and one of which fails. The linker puts the functions
 * of allocations.c between the program and its allocators (tests/CMakeLists.txt lists them);
 * jansson, which is a library of its own, is told of them. What libraries of the system allocate
 * for themselves does not count. */
#ifndef PDT_TESTS_CLUSTER_ALLOCATIONS_H
#define PDT_TESTS_CLUSTER_ALLOCATIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Of one rank: of its thread, and of those that it starts, which OpenMP does. */
typedef struct allocations {
  int64_t count;      /* so far */
  int64_t failing;    /* the one that fails, from 0; -1: none */
  const void *caller; /* that was refused; NULL: nobody yet */
} allocations;

/* Tells jansson. Once, before there are threads. */
void allocations_prepare(void);

/* From here on what the calling thread allocates counts for `of`; NULL: for nobody. */
void allocations_count(allocations *of);

#endif
