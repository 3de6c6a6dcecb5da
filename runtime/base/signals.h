/* Signals that ask a process to end: SIGTERM, SIGINT, and SIGUSR1, with which batch systems warn.
 * While somebody listens, the first one is kept, so that what is under way can be finished; another
 * one ends the process as always. */
#ifndef PDT_BASE_SIGNALS_H
#define PDT_BASE_SIGNALS_H

#include "base/types.h"

/* From here on the first signal is kept, or all of them end the process again. What the process
 * ignores (as a shell's background jobs do SIGINT) stays ignored. */
void pdt_signals_listen(bool listens);

/* From here on they are ignored: of a process that a signal has stopped and that ends by itself
 * now, with a status that says so. Launchers send one more to all ranks as soon as the first has
 * ended. */
void pdt_signals_ignore(void);

/* The signal that came since somebody listens; 0: none. From any thread. */
int pdt_signals_caught(void);

#endif
