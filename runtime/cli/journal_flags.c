#include "cli/journal_flags.h"

#include <errno.h>
#include <string.h>

error_t pdt_journal_sync_parse(pdt_journal_sync *sync, const char *arg, struct argp_state *state) {
  static const struct {
    const char *name;
    pdt_journal_sync sync;
  } all[] = {{"never", PDT_JOURNAL_SYNC_NEVER},
             {"end", PDT_JOURNAL_SYNC_AT_CLOSE},
             {"round", PDT_JOURNAL_SYNC_EACH_DECISION}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (strcmp(arg, all[i].name) == 0) {
      *sync = all[i].sync;
      return 0;
    }
  argp_error(state, "--journal-sync: expected never, end or round, found '%s'", arg);
  return EINVAL;
}
