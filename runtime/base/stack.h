/* Stacks that are large enough. A limit of some kilobytes (ulimit -s) ends a program somewhere in
 * its kernels, by a signal and without a word. */
#ifndef PDT_BASE_STACK_H
#define PDT_BASE_STACK_H

#include "base/error.h"

enum {
  PDT_LEAST_STACK = 1 << 20,          /* bytes, of the main thread; a sixth of it is used */
  PDT_LEAST_THREAD_STACK = 256 << 10, /* of OpenMP's threads; a fourth of it is used */
};

/* Checks the limit of this process's stack and what OMP_STACKSIZE says. A limit that may be raised
 * is, and the program starts once more, with the same argv, so that all its threads have it: then
 * this does not return. To be called first. Errors: MEMORY (a limit that may not be raised), USAGE
 * (OMP_STACKSIZE). */
int pdt_stack_prepare(char **argv, pdt_error *err);

#endif
