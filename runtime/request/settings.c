#include "request/settings.h"

#include <stddef.h>
#include <string.h>

#include "base/json.h"

enum { DEFAULT_MAX_TOKENS = 64, DEFAULT_MAX_ATTEMPTS = 4, DEFAULT_MAX_ROUNDS = 100000 };

typedef struct integer_setting {
  const char *key;
  int32_t low, high;
  size_t offset; /* in pdt_settings */
} integer_setting;

/* The horizon last: its default follows from the block. */
static const integer_setting integers[] = {
    {"streams", 1, 1 << 16, offsetof(pdt_settings, streams)},
    {"block_tokens", 1, PDT_MAX_REQUEST_TOKENS, offsetof(pdt_settings, limits.block_tokens)},
    {"reveal_delay", 1, 1 << 20, offsetof(pdt_settings, reveal_delay)},
    {"window", 1, 1 << 20, offsetof(pdt_settings, window)},
    {"max_attempts", 1, 1 << 20, offsetof(pdt_settings, max_attempts)},
    {"max_tokens", 1, PDT_MAX_REQUEST_TOKENS, offsetof(pdt_settings, limits.max_tokens)},
    {"max_rounds", 1, INT32_MAX, offsetof(pdt_settings, max_rounds)},
    {"top_k", 0, INT32_MAX, offsetof(pdt_settings, sampling.top_k)},
    {"horizon", 1, PDT_MAX_REQUEST_TOKENS, offsetof(pdt_settings, limits.horizon)}};

typedef struct real_setting {
  const char *key;
  double low, high;
  size_t offset;
} real_setting;

static const real_setting reals[] = {
    {"gamma", 0, 1, offsetof(pdt_settings, gamma)},
    {"temperature", 0, 1e6, offsetof(pdt_settings, sampling.temperature)},
    {"top_p", 1e-9, 1, offsetof(pdt_settings, sampling.top_p)}};

enum { INTEGERS = sizeof integers / sizeof *integers, REALS = sizeof reals / sizeof *reals };

/* What the readers of one object share. */
typedef struct reader {
  const json_t *settings;
  const char *where;
  pdt_error *err;
} reader;

static int bad_integer(const char *where, const integer_setting *i, int64_t found,
                       pdt_error_code code, pdt_error *err) {
  return pdt_fail(err, code, "%s: %s: expected an integer from %d to %d, found %lld", where, i->key,
                  i->low, i->high, (long long)found);
}

static int bad_real(const char *where, const real_setting *r, double found, pdt_error_code code,
                    pdt_error *err) {
  return pdt_fail(err, code, "%s: %s: expected a number from %g to %g, found %g", where, r->key,
                  r->low, r->high, found);
}

static int bad_horizon(const pdt_settings *s, const char *where, pdt_error_code code,
                       pdt_error *err) {
  return pdt_fail(err, code, "%s: horizon: expected at least block_tokens, %d, found %d", where,
                  s->limits.block_tokens, s->limits.horizon);
}

/* An integer setting; out of range is a USAGE error, another type INPUT. */
static int read_integer(const reader *in, const integer_setting *setting, pdt_settings *s) {
  int32_t *out = (int32_t *)(void *)((char *)s + setting->offset);
  const json_t *value = pdt_json_get(in->settings, setting->key);
  const char *unusable = pdt_json_unusable(value); /* beyond 64 bits */
  int64_t number = *out;
  if (unusable)
    return pdt_fail(in->err, PDT_ERROR_USAGE, "%s: %s: expected an integer from %d to %d, found %s",
                    in->where, setting->key, setting->low, setting->high, unusable);
  if (json_is_integer(value)) {
    number = json_integer_value(value);
    if (number < setting->low || number > setting->high)
      return bad_integer(in->where, setting, number, PDT_ERROR_USAGE, in->err);
  } else if (pdt_json_integer_or(in->settings, in->where, setting->key, setting->low, setting->high,
                                 &number, in->err)) {
    return -1;
  }
  *out = (int32_t)number;
  return 0;
}

static int read_real(const reader *in, const real_setting *setting, pdt_settings *s) {
  double *out = (double *)(void *)((char *)s + setting->offset), number = *out;
  const json_t *value = pdt_json_get(in->settings, setting->key);
  if (json_is_number(value)) {
    number = json_number_value(value);
    if (!(number >= setting->low && number <= setting->high))
      return bad_real(in->where, setting, number, PDT_ERROR_USAGE, in->err);
  } else if (pdt_json_real_or(in->settings, in->where, setting->key, setting->low, setting->high,
                              &number, in->err)) {
    return -1;
  }
  *out = number;
  return 0;
}

static int read_policy(const reader *in, pdt_policy *policy) {
  const char *name = pdt_policy_name(*policy);
  if (pdt_json_string_or(in->settings, in->where, "policy", &name, in->err)) return -1;
  if (!pdt_policy_parse(name, policy))
    return pdt_fail(in->err, PDT_ERROR_USAGE,
                    "%s: policy: expected selective, stall or global, found '%s'", in->where, name);
  return 0;
}

/* Any 64 bits: a negative number is the one with the same bits. */
static int read_seed(const reader *in, uint64_t *seed) {
  const json_t *value = pdt_json_get(in->settings, "seed");
  int64_t low = 0;
  if (!value || pdt_json_u64_of(value, seed)) return 0;
  if (pdt_json_integer(in->settings, in->where, "seed", INT64_MIN, INT64_MAX, &low, NULL) == 0) {
    *seed = (uint64_t)low;
    return 0;
  }
  const char *text = json_string_value(value), *number = pdt_json_unusable(value);
  const char *found = text ? text : number ? number : pdt_json_type_name(value);
  return pdt_fail(in->err, PDT_ERROR_INPUT,
                  "%s: 'seed': expected an integer from -2^63 to 2^64 - 1, found %s%.80s%s",
                  in->where, text ? "'" : "", found, text ? "'" : "");
}

static int read_keys(const reader *in, pdt_settings *s, int32_t most_streams) {
  for (int i = 0; i < INTEGERS - 1; i++) {
    if (read_integer(in, &integers[i], s)) return -1;
    if (i == 0 && s->streams > most_streams)
      return pdt_fail(in->err, PDT_ERROR_USAGE,
                      "%s: streams: expected at most %d, as many as the sidecar has adapters for, "
                      "found %d",
                      in->where, most_streams, s->streams);
  }
  for (int i = 0; i < REALS; i++)
    if (read_real(in, &reals[i], s)) return -1;
  if (read_policy(in, &s->limits.policy) || read_seed(in, &s->seed)) return -1;
  /* A sidecar's default below block_tokens is raised to it: both mean that nothing is written
   * behind a held block. */
  if (s->limits.horizon < s->limits.block_tokens) s->limits.horizon = s->limits.block_tokens;
  if (read_integer(in, &integers[INTEGERS - 1], s)) return -1;
  if (s->limits.horizon >= s->limits.block_tokens) return 0;
  return bad_horizon(s, in->where, PDT_ERROR_USAGE, in->err);
}

int pdt_settings_read(pdt_settings *s, const json_t *settings, const char *where, int32_t streams,
                      const pdt_sidecar_config *sidecar, pdt_error *err) {
  static const char *const keys[] = {
      "streams", "block_tokens", "reveal_delay", "window",     "horizon",     "gamma", "policy",
      "seed",    "max_attempts", "max_tokens",   "max_rounds", "temperature", "top_k", "top_p"};
  const pdt_sidecar_defaults *defaults = &sidecar->defaults;
  const reader in = {settings, where, err};
  *s = (pdt_settings){.streams = streams ? streams : sidecar->streams,
                      .reveal_delay = defaults->reveal_delay,
                      .window = defaults->window,
                      .max_attempts = DEFAULT_MAX_ATTEMPTS,
                      .max_rounds = DEFAULT_MAX_ROUNDS,
                      .gamma = defaults->gamma,
                      .sampling = {0, 0, 1},
                      .limits = {.block_tokens = defaults->block_tokens,
                                 .horizon = defaults->horizon,
                                 .max_tokens = DEFAULT_MAX_TOKENS,
                                 .slots = sidecar->plan_slots,
                                 .policy = PDT_SELECTIVE}};
  if (settings && pdt_json_only_keys(settings, where, keys, sizeof keys / sizeof *keys, err))
    return -1;
  return read_keys(&in, s, sidecar->streams);
}

int pdt_settings_check(const pdt_settings *s, const char *where, pdt_error *err) {
  for (int i = 0; i < INTEGERS; i++) {
    int32_t value;
    memcpy(&value, (const char *)s + integers[i].offset, sizeof value);
    if (value < integers[i].low || value > integers[i].high)
      return bad_integer(where, &integers[i], value, PDT_ERROR_INPUT, err);
  }
  for (int i = 0; i < REALS; i++) {
    double value;
    memcpy(&value, (const char *)s + reals[i].offset, sizeof value);
    if (!(value >= reals[i].low && value <= reals[i].high))
      return bad_real(where, &reals[i], value, PDT_ERROR_INPUT, err);
  }
  if (s->limits.horizon < s->limits.block_tokens)
    return bad_horizon(s, where, PDT_ERROR_INPUT, err);
  if (s->limits.policy > PDT_GLOBAL)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: policy: expected 0 to 2, found %d", where,
                    (int)s->limits.policy);
  return 0;
}
