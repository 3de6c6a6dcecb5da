#include "cli/world_option.h"

#include <errno.h>

error_t pdt_world_option(const char *arg, pdt_atlas_kind *out, struct argp_state *state) {
  if (pdt_atlas_kind_parse(arg, out)) return 0;
  argp_error(state, "--world: expected atlas or words, found '%s'", arg);
  return EINVAL;
}
