/* Flags of the commands that make training data: its blocks, and the plan of the sidecar that it is
 * for. */
#ifndef PDT_CLI_DATA_FLAGS_H
#define PDT_CLI_DATA_FLAGS_H

#include <argp.h>

#include "data/blocks.h"

enum {
  PDT_FLAG_BLOCK_TOKENS,
  PDT_FLAG_REVEAL_DELAY,
  PDT_FLAG_WINDOW,
  PDT_FLAG_PLAN_SLOTS,
  PDT_FLAG_PLAN_VOCAB,
  PDT_FLAG_PLAN_SALT,
  PDT_DATA_FLAGS
};

/* Entries of argp's table, whose keys are key plus the flag. */
/* clang-format off */
#define PDT_DATA_OPTIONS(key) \
  {"block-tokens", (key) + PDT_FLAG_BLOCK_TOKENS, "N", 0, "tokens in a block (default 6)", 0}, \
  {"reveal-delay", (key) + PDT_FLAG_REVEAL_DELAY, "N", 0, \
   "rounds until a note is visible (default 1)", 0}, \
  {"window", (key) + PDT_FLAG_WINDOW, "N", 0, \
   "notes in a window, the plan's included (default 0: all)", 0}, \
  {"plan-slots", (key) + PDT_FLAG_PLAN_SLOTS, "N", 0, "of the sidecar (default 16)", 0}, \
  {"plan-vocab", (key) + PDT_FLAG_PLAN_VOCAB, "N", 0, "of the sidecar (default 65536)", 0}, \
  {"plan-salt", (key) + PDT_FLAG_PLAN_SALT, "TEXT", 0, \
   "of the sidecar's hash (default parallel-decoder-v1)", 0}
/* clang-format on */

/* What the flags say. */
typedef struct pdt_data_flags {
  pdt_data_rounds rounds;
  int32_t plan_slots, plan_vocab_size;
  const char *plan_salt; /* less than PDT_SALT_BYTES; the command line's own text, or constant */
} pdt_data_flags;

/* What they say when none is given. */
#define PDT_DATA_FLAGS_DEFAULT                                                                     \
  (pdt_data_flags) {                                                                               \
    .rounds = {6, 1, 0}, .plan_slots = 16, .plan_vocab_size = 65536,                               \
    .plan_salt = "parallel-decoder-v1"                                                             \
  }

/* For use in an argp parser: takes flag number `flag`. 0, the error code that the parser returns,
 * or ARGP_ERR_UNKNOWN where it is none of these. */
error_t pdt_data_flag(pdt_data_flags *flags, int flag, const char *arg, struct argp_state *state);

#endif
