/* pdt serve: decoding over HTTP. Rank 0 listens; whoever asks gets what pdt decode would give, and
 * sessions join and leave at boundaries while others run. */
#ifndef PDT_SERVE_SERVE_H
#define PDT_SERVE_SERVE_H

#include "comm/comm.h"
#include "serve/options.h"

/* Serves until a signal (SIGTERM, SIGINT, SIGUSR1) comes to rank 0, and what runs then is finished
 * or out of its time; a second one ends the process. While nothing is asked, no rank takes a
 * processor's time. `name` is what messages call the program. Collective over world, blocking; all
 * ranks fail alike. Errors: USAGE, INPUT, IO, MEMORY, RUNTIME. */
int pdt_serve_run(const pdt_comm *world, const char *name, const pdt_serve_options *given,
                  pdt_error *err);

/* The version of HTTP's library, or that there is none, into text[bytes]; for --version. */
void pdt_serve_library(char *text, size_t bytes);

#endif
