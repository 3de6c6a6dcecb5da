#include "cli/setting_flags.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

static void flag_name(const pdt_setting *setting, char *name, size_t room) {
  snprintf(name, room, "%s", setting->key);
  for (char *c = name; *c; c++)
    if (*c == '_') *c = '-';
}

/* What a command says of a setting; NULL: nothing of its own. */
static const pdt_setting_words *find_words(const pdt_setting *setting, const pdt_setting_words *own,
                                           int n_own) {
  for (int i = 0; i < n_own; i++)
    if (strcmp(own[i].key, setting->key) == 0) return &own[i];
  return NULL;
}

void pdt_setting_options(struct argp_option *end, pdt_setting_texts *texts, int key, int group,
                         const pdt_setting_words *own, int n_own) {
  for (int i = 0; i < PDT_SETTINGS; i++) {
    const pdt_setting *setting = &pdt_setting_table[i];
    const pdt_setting_words *words = find_words(setting, own, n_own);
    char usual[64];
    if (words && !words->words) continue;
    pdt_setting_default(setting, usual, sizeof usual);
    flag_name(setting, texts->name[i], sizeof texts->name[i]);
    snprintf(texts->help[i], sizeof texts->help[i], "%s (%s)", setting->help,
             words ? words->words : usual);
    *end++ =
        (struct argp_option){texts->name[i], key + i, setting->argument, 0, texts->help[i], group};
  }
  *end = (struct argp_option){0};
}

/* Any 64 bits: a negative number is the one with the same bits. */
static error_t parse_seed(struct argp_state *state, const char *option, const char *arg,
                          uint64_t *seed) {
  int64_t negative = 0;
  if (*arg != '-') return pdt_cli_seed(state, option, arg, seed);
  error_t code = pdt_cli_integer(state, option, arg, INT64_MIN, INT64_MAX, &negative);
  *seed = (uint64_t)negative;
  return code;
}

error_t pdt_setting_value(json_t **out, const pdt_setting *setting, const char *option, char *arg,
                          struct argp_state *state) {
  int64_t integer = 0;
  double real = 0;
  uint64_t seed = 0;
  error_t code = 0;
  *out = NULL;
  if (setting->kind == PDT_SETTING_INTEGER) {
    code = pdt_cli_integer(state, option, arg, (int64_t)setting->low, (int64_t)setting->high,
                           &integer);
    if (!code) *out = json_integer(integer);
  } else if (setting->kind == PDT_SETTING_REAL) {
    code = pdt_cli_real(state, option, arg, setting->low, setting->high, &real);
    if (!code) *out = json_real(real);
  } else if (setting->kind == PDT_SETTING_SEED) {
    code = parse_seed(state, option, arg, &seed);
    if (!code) *out = pdt_json_u64(seed);
  } else {
    *out = json_string(arg); /* the reader of requests knows the names */
  }
  if (code || *out) return code;
  argp_error(state, "--%s: '%s' is not UTF-8", option, arg);
  return EINVAL;
}

error_t pdt_setting_parse(json_t *settings, int index, char *arg, struct argp_state *state) {
  const pdt_setting *setting = &pdt_setting_table[index];
  char name[sizeof((pdt_setting_texts *)NULL)->name[0]];
  json_t *value;
  flag_name(setting, name, sizeof name);
  error_t code = pdt_setting_value(&value, setting, name, arg, state);
  if (code || json_object_set_new(settings, setting->key, value) == 0) return code;
  argp_error(state, "--%s: no memory", name);
  return ENOMEM;
}
