/* Is anybody watching? */
#ifndef PDT_RUN_TERMINAL_H
#define PDT_RUN_TERMINAL_H

#include "base/types.h"

/* Does what this process writes to descriptor 1 or 2 end up on a terminal? mpirun passes both on
 * through pipes and terminals of its own, so behind mpirun the question goes to mpirun's own
 * descriptor. */
bool pdt_on_terminal(int descriptor);

/* Its width in columns; 80 when it does not say. */
int pdt_terminal_columns(void);

#endif
