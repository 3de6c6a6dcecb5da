/* A request's settings as flags of the command line: the same key with '-' for '_'. */
#ifndef PDT_CLI_SETTING_FLAGS_H
#define PDT_CLI_SETTING_FLAGS_H

#include <jansson.h>

#include "cli/cli.h"

typedef enum pdt_setting {
  PDT_SETTING_STREAMS,
  PDT_SETTING_BLOCK_TOKENS,
  PDT_SETTING_REVEAL_DELAY,
  PDT_SETTING_WINDOW,
  PDT_SETTING_HORIZON,
  PDT_SETTING_GAMMA,
  PDT_SETTING_POLICY,
  PDT_SETTING_MAX_ATTEMPTS,
  PDT_SETTING_MAX_TOKENS,
  PDT_SETTING_MAX_ROUNDS,
  PDT_SETTING_TEMPERATURE,
  PDT_SETTING_TOP_K,
  PDT_SETTING_TOP_P,
  PDT_SETTING_SEED,
  PDT_SETTINGS
} pdt_setting;

/* For use in an argp parser: puts the argument of a setting's flag into `settings`, an object; 0,
 * or the error code that the parser returns. Every kind of bad value ends in argp_error, which
 * keeps the message. */
error_t pdt_setting_parse(json_t *settings, pdt_setting setting, char *arg,
                          struct argp_state *state);

#endif
