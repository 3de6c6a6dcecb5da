/* --world, of the commands that make things of the Atlas. */
#ifndef PDT_CLI_WORLD_OPTION_H
#define PDT_CLI_WORLD_OPTION_H

#include <argp.h>

#include "atlas/world.h"

/* Parses its argument: 0, or EINVAL after saying what is wrong. */
error_t pdt_world_option(const char *arg, pdt_atlas_kind *out, struct argp_state *state);

#endif
