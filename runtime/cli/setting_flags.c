#include "cli/setting_flags.h"

#include <errno.h>

#include "base/json.h"

typedef struct setting_flag {
  const char *flag, *key;
  enum { INTEGER, REAL, WORD, SEED } kind;
  double low, high;
} setting_flag;

static const setting_flag setting_flags[PDT_SETTINGS] = {
    {"streams", "streams", INTEGER, 1, 65536},
    {"block-tokens", "block_tokens", INTEGER, 1, 1 << 24},
    {"reveal-delay", "reveal_delay", INTEGER, 1, 1 << 20},
    {"window", "window", INTEGER, 1, 1 << 20},
    {"horizon", "horizon", INTEGER, 1, 1 << 24},
    {"gamma", "gamma", REAL, 0, 1},
    {"policy", "policy", WORD, 0, 0},
    {"max-attempts", "max_attempts", INTEGER, 1, 1 << 20},
    {"max-tokens", "max_tokens", INTEGER, 1, 1 << 24},
    {"max-rounds", "max_rounds", INTEGER, 1, INT32_MAX},
    {"temperature", "temperature", REAL, 0, 1e6},
    {"top-k", "top_k", INTEGER, 0, INT32_MAX},
    {"top-p", "top_p", REAL, 1e-9, 1},
    {"seed", "seed", SEED, 0, 0},
};

/* Any 64 bits: a negative number is the one with the same bits. */
static error_t parse_seed(struct argp_state *state, const char *flag, const char *arg,
                          uint64_t *seed) {
  int64_t negative = 0;
  if (*arg != '-') return pdt_cli_seed(state, flag, arg, seed);
  error_t code = pdt_cli_integer(state, flag, arg, INT64_MIN, INT64_MAX, &negative);
  *seed = (uint64_t)negative;
  return code;
}

error_t pdt_setting_parse(json_t *settings, pdt_setting setting, char *arg,
                          struct argp_state *state) {
  const setting_flag *flag = &setting_flags[setting];
  json_t *value = NULL;
  int64_t integer;
  double real;
  uint64_t seed;
  error_t code = 0;
  if (flag->kind == INTEGER) {
    code =
        pdt_cli_integer(state, flag->flag, arg, (int64_t)flag->low, (int64_t)flag->high, &integer);
    if (!code) value = json_integer(integer);
  } else if (flag->kind == REAL) {
    code = pdt_cli_real(state, flag->flag, arg, flag->low, flag->high, &real);
    if (!code) value = json_real(real);
  } else if (flag->kind == SEED) {
    code = parse_seed(state, flag->flag, arg, &seed);
    if (!code) value = pdt_json_u64(seed);
  } else {
    value = json_string(arg);
  }
  if (code) return code;
  if (value && json_object_set_new(settings, flag->key, value) == 0) return 0;
  argp_error(state, "--%s: '%s' is not UTF-8", flag->flag, arg);
  return EINVAL;
}
