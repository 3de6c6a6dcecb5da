#include "cli/data_flags.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "data/entry.h"
#include "sidecar/config.h"

error_t pdt_data_flag(pdt_data_flags *flags, int flag, const char *arg, struct argp_state *state) {
  pdt_data_rounds *r = &flags->rounds;
  switch (flag) {
  case PDT_FLAG_BLOCK_TOKENS:
    return pdt_cli_int32(state, "block-tokens", arg, 1, 1 << 20, &r->block_tokens);
  case PDT_FLAG_REVEAL_DELAY:
    return pdt_cli_int32(state, "reveal-delay", arg, 1, 1 << 20, &r->reveal_delay);
  case PDT_FLAG_WINDOW:
    return pdt_cli_int32(state, "window", arg, 0, 1 << 20, &r->window);
  case PDT_FLAG_PLAN_SLOTS:
    return pdt_cli_int32(state, "plan-slots", arg, 1, PDT_DATA_SLOTS, &flags->plan_slots);
  case PDT_FLAG_PLAN_VOCAB:
    return pdt_cli_int32(state, "plan-vocab", arg, 2, 1 << 24, &flags->plan_vocab_size);
  case PDT_FLAG_PLAN_SALT:
    flags->plan_salt = arg;
    if (strlen(arg) < PDT_SALT_BYTES) return 0;
    argp_error(state, "--plan-salt: expected at most %d bytes, found %zu", PDT_SALT_BYTES - 1,
               strlen(arg));
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}
