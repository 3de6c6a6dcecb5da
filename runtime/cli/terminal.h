/* Is anybody watching? */
#ifndef PDT_CLI_TERMINAL_H
#define PDT_CLI_TERMINAL_H

#include "base/types.h"

/* Does what this process writes to standard error end up on a terminal? mpirun passes it on through
 * a pipe, so behind mpirun the question goes to mpirun's own standard error. */
bool pdt_on_terminal(void);

/* Its width in columns; 80 when it does not say. */
int pdt_terminal_columns(void);

#endif
