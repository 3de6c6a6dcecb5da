/* How a journal is kept, as a flag of the command line, for every command that writes one. */
#ifndef PDT_CLI_JOURNAL_FLAGS_H
#define PDT_CLI_JOURNAL_FLAGS_H

#include "cli/cli.h"
#include "journal/journal.h"

/* For use in an argp parser: the argument of --journal-sync, "never", "end" or "round"; 0, or the
 * error code that the parser returns. */
error_t pdt_journal_sync_parse(pdt_journal_sync *sync, const char *arg, struct argp_state *state);

#endif
