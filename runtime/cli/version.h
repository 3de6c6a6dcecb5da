/* What this program was built from and with. */
#ifndef PDT_CLI_VERSION_H
#define PDT_CLI_VERSION_H

#include <stdio.h>

/* Writes `pdt --version`: one line each for pdt itself, the build, the kernels, and every library
 * that changes what pdt can do (MPI, OpenMP, parsers, CUDA and NCCL, with the devices seen here).
 * Asks the libraries that are loaded, not the headers, wherever they can tell. Not collective, and
 * needs no MPI_Init. */
void pdt_version_print(FILE *out);

#endif
