/* Is anybody watching? */
#ifndef PDT_CLI_TERMINAL_H
#define PDT_CLI_TERMINAL_H

#include <stdio.h>

#include "base/types.h"

/* Does what this process writes to descriptor 1 or 2 end up on a terminal? mpirun passes both on
 * through pipes and terminals of its own, so behind mpirun the question goes to mpirun's own
 * descriptor. */
bool pdt_on_terminal(int descriptor);

/* Writes UTF-8 text for a person's terminal: control characters, which could move its cursor or
 * worse, become U+FFFD, but for tabs and line breaks. False when the stream refuses. */
bool pdt_print_for_terminal(FILE *out, const char *text, size_t bytes);

/* Its width in columns; 80 when it does not say. */
int pdt_terminal_columns(void);

#endif
