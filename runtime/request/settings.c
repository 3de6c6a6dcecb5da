#include "request/settings.h"

#include <string.h>

#include "base/json.h"
#include "request/setting_table.h"

/* What the readers of one object share. */
typedef struct reader {
  const json_t *settings;
  const char *where;
  pdt_error *err;
} reader;

static int bad_integer(const char *where, const pdt_setting *i, int64_t found, pdt_error_code code,
                       pdt_error *err) {
  return pdt_fail(err, code, "%s: %s: expected an integer from %.0f to %.0f, found %lld", where,
                  i->key, i->low, i->high, (long long)found);
}

static int bad_real(const char *where, const pdt_setting *r, double found, pdt_error_code code,
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
static int read_integer(const reader *in, const pdt_setting *setting, int32_t *out) {
  const json_t *value = pdt_json_get(in->settings, setting->key);
  const char *unusable = pdt_json_unusable(value); /* beyond 64 bits */
  int64_t low = (int64_t)setting->low, high = (int64_t)setting->high, number = *out;
  if (unusable)
    return pdt_fail(in->err, PDT_ERROR_USAGE,
                    "%s: %s: expected an integer from %lld to %lld, found %s", in->where,
                    setting->key, (long long)low, (long long)high, unusable);
  if (json_is_integer(value)) {
    number = json_integer_value(value);
    if (number < low || number > high)
      return bad_integer(in->where, setting, number, PDT_ERROR_USAGE, in->err);
  } else if (pdt_json_integer_or(in->settings, in->where, setting->key, low, high, &number,
                                 in->err)) {
    return -1;
  }
  *out = (int32_t)number;
  return 0;
}

static int read_real(const reader *in, const pdt_setting *setting, double *out) {
  const json_t *value = pdt_json_get(in->settings, setting->key);
  double number = *out;
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

static int read_policy(const reader *in, const pdt_setting *setting, pdt_policy *policy) {
  const char *name = pdt_policy_name(*policy);
  if (pdt_json_string_or(in->settings, in->where, setting->key, &name, in->err)) return -1;
  if (!pdt_policy_parse(name, policy))
    return pdt_fail(in->err, PDT_ERROR_USAGE,
                    "%s: %s: expected selective, stall, global or local, found '%s'", in->where,
                    setting->key, name);
  return 0;
}

/* Any 64 bits: a negative number is the one with the same bits. */
static int read_seed(const reader *in, const pdt_setting *setting, uint64_t *seed) {
  const json_t *value = pdt_json_get(in->settings, setting->key);
  int64_t low = 0;
  if (!value || pdt_json_u64_of(value, seed)) return 0;
  if (pdt_json_integer(in->settings, in->where, setting->key, INT64_MIN, INT64_MAX, &low, NULL) ==
      0) {
    *seed = (uint64_t)low;
    return 0;
  }
  const char *text = json_string_value(value), *number = pdt_json_unusable(value);
  const char *found = text ? text : number ? number : pdt_json_type_name(value);
  return pdt_fail(in->err, PDT_ERROR_INPUT,
                  "%s: '%s': expected an integer from -2^63 to 2^64 - 1, found %s%.80s%s",
                  in->where, setting->key, text ? "'" : "", found, text ? "'" : "");
}

/* One setting, if the object has it. */
static int read_setting(const reader *in, const pdt_setting *setting, pdt_settings *s) {
  void *out = (char *)s + setting->place;
  switch (setting->kind) {
  case PDT_SETTING_INTEGER:
    return read_integer(in, setting, out);
  case PDT_SETTING_REAL:
    return read_real(in, setting, out);
  case PDT_SETTING_POLICY:
    return read_policy(in, setting, out);
  default:
    return read_seed(in, setting, out);
  }
}

static int read_keys(const reader *in, pdt_settings *s, int32_t most_streams) {
  const char *keys[PDT_SETTINGS];
  for (int i = 0; i < PDT_SETTINGS; i++) keys[i] = pdt_setting_table[i].key;
  if (in->settings && pdt_json_only_keys(in->settings, in->where, keys, PDT_SETTINGS, in->err))
    return -1;
  for (int i = 0; i < PDT_SETTINGS; i++)
    if (read_setting(in, &pdt_setting_table[i], s)) return -1;
  if (s->streams > most_streams)
    return pdt_fail(in->err, PDT_ERROR_USAGE,
                    "%s: streams: expected at most %d, as many as the sidecar has adapters for, "
                    "found %d",
                    in->where, most_streams, s->streams);
  if (s->limits.horizon >= s->limits.block_tokens) return 0;
  if (pdt_json_get(in->settings, "horizon"))
    return bad_horizon(s, in->where, PDT_ERROR_USAGE, in->err);
  /* A sidecar's default below block_tokens is raised to it: both mean that nothing is written
   * behind a held block. */
  s->limits.horizon = s->limits.block_tokens;
  return 0;
}

/* A setting that has its default in the table. */
static void set_fallback(const pdt_setting *setting, pdt_settings *s) {
  void *out = (char *)s + setting->place;
  if (setting->kind == PDT_SETTING_INTEGER)
    *(int32_t *)out = (int32_t)setting->fallback;
  else if (setting->kind == PDT_SETTING_REAL)
    *(double *)out = setting->fallback;
  else if (setting->kind == PDT_SETTING_POLICY)
    *(pdt_policy *)out = (pdt_policy)setting->fallback;
  else
    *(uint64_t *)out = (uint64_t)setting->fallback;
}

/* What holds where nobody says otherwise. */
static pdt_settings defaults_of(const pdt_sidecar_config *sidecar, int32_t streams) {
  const pdt_sidecar_defaults *defaults = &sidecar->defaults;
  pdt_settings s = {.streams = streams ? streams : sidecar->streams,
                    .reveal_delay = defaults->reveal_delay,
                    .window = defaults->window,
                    .gamma = defaults->gamma,
                    .limits = {.block_tokens = defaults->block_tokens,
                               .horizon = defaults->horizon,
                               .slots = sidecar->plan_slots}};
  for (int i = 0; i < PDT_SETTINGS; i++)
    if (!pdt_setting_table[i].fallback_words) set_fallback(&pdt_setting_table[i], &s);
  return s;
}

int pdt_settings_read(pdt_settings *s, const json_t *settings, const char *where, int32_t streams,
                      const pdt_sidecar_config *sidecar, pdt_error *err) {
  const reader in = {settings, where, err};
  *s = defaults_of(sidecar, streams);
  bool counted = streams > 0 || pdt_json_get(settings, "streams");
  s->part_slots = counted ? 0 : sidecar->defaults.part_slots;
  return read_keys(&in, s, sidecar->streams);
}

/* A setting that came as a number. */
static int check_setting(const pdt_settings *s, const pdt_setting *setting, const char *where,
                         pdt_error *err) {
  const void *value = (const char *)s + setting->place;
  if (setting->kind == PDT_SETTING_INTEGER) {
    int32_t number = *(const int32_t *)value;
    if (number < setting->low || number > setting->high)
      return bad_integer(where, setting, number, PDT_ERROR_INPUT, err);
  } else if (setting->kind == PDT_SETTING_REAL) {
    double number = *(const double *)value;
    if (!(number >= setting->low && number <= setting->high))
      return bad_real(where, setting, number, PDT_ERROR_INPUT, err);
  } else if (setting->kind == PDT_SETTING_POLICY && *(const pdt_policy *)value >= PDT_POLICIES) {
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %s: expected 0 to %d, found %d", where, setting->key,
                    PDT_POLICIES - 1, (int)*(const pdt_policy *)value);
  }
  return 0;
}

int pdt_settings_check(const pdt_settings *s, const char *where, pdt_error *err) {
  for (int i = 0; i < PDT_SETTINGS; i++)
    if (check_setting(s, &pdt_setting_table[i], where, err)) return -1;
  if (s->limits.horizon < s->limits.block_tokens)
    return bad_horizon(s, where, PDT_ERROR_INPUT, err);
  return 0;
}
