#include "cli/eval_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/chat_flags.h"
#include "cli/engine_flags.h"
#include "cli/setting_flags.h"
#include "journal/sink.h"

enum {
  KEY_ENGINE = 256,
  KEY_SETTINGS = KEY_ENGINE + PDT_ENGINE_FLAGS,
  KEY_CHAT = KEY_SETTINGS + PDT_SETTINGS,
  KEY_DATA = KEY_CHAT + PDT_CHAT_FLAGS,
  KEY_COUNT,
  KEY_ARMS,
  KEY_SWEEP,
  KEY_BUS,
  KEY_SEEDS,
  KEY_CURVES,
  KEY_TEXTS,
  KEY_NO_TEACHER,
  KEY_JSON,
  KEY_OUT,
};

/* Without the settings, whose options come from their table. */
static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to evaluate:", 1},
    {"model", KEY_ENGINE + PDT_FLAG_MODEL, "DIR", 0,
     "Hugging Face directory, with tokenizer.json, or a GGUF file", 1},
    {"sidecar", KEY_ENGINE + PDT_FLAG_SIDECAR, "FILE", 0, "the trained modules beside the trunk",
     1},
    {"data", KEY_DATA, "FILE", 0,
     "entries that it was not trained on: pdt data atlas --split valid, or test", 1},
    {"count", KEY_COUNT, "N", 0, "the first N entries (default: all)", 1},
    {"arms", KEY_ARMS, "A,B,...", 0,
     "ways of decoding, a row each, or all: sequential, blind, plan-only, notes, system, no-snc, "
     "text-bus, parser-gate, agree-gate; one-stream, with a sidecar that was trained so, comes "
     "when "
     "named alone (default sequential,blind,notes,system; with --sweep system)",
     1},
    {"sweep", KEY_SWEEP, "KEY=X,Y,...", 0,
     "a row of every arm for each value of gamma, delay, tau, window, horizon, policy, attempts, "
     "temperature, retry-temperature, top-p or streams (entries of so many sections alone)",
     1},
    {"bus", KEY_BUS, "MODE,...", 0,
     "what do notes carry? Rows of every arm with notes (default notes) as they are, and with the "
     "notes that siblings read altered, or all: zero; sign, permute, rotate (scrambled, norms "
     "kept); "
     "swap (a stream's are another entry's); one (a note tells another value of its fact)",
     1},
    {"seeds", KEY_SEEDS, "N", 0,
     "decode every entry N times (1), with seeds S, S + 2^32, S + 2 * 2^32 ... of --seed S; "
     "intervals take an entry's seeds as one",
     1},
    {"no-teacher", KEY_NO_TEACHER, NULL, 0,
     "leave out the figures of heads that read the file's own text, as --chat does, whose prompts "
     "are not the file's",
     1},
    PDT_CHAT_OPTIONS(KEY_CHAT, 1),
    {NULL, 0, NULL, 0, "Settings:", 2},
    {NULL, 0, NULL, 0, "Where it runs:", 3},
    PDT_ENGINE_OPTIONS(KEY_ENGINE, 3, "entries in flight at once (16)"),
    {NULL, 0, NULL, 0, "What comes out:", 4},
    {"json", KEY_JSON, NULL, 0, "all figures, a JSON object a row, in place of the tables", 4},
    {"curves", KEY_CURVES, NULL, 0,
     "also precision and recall of coverage over its threshold, and blocks that a gate of "
     "readiness "
     "catches and rejects over gamma",
     4},
    {"texts", KEY_TEXTS, "FILE", 0, "what was written and judged, a JSON object an entry", 4},
    {"out", KEY_OUT, "FILE", 0, "write it there; standard output then has the tables in any case",
     4},
    {0}};

enum { OPTIONS = sizeof options / sizeof *options }; /* their end included */

/* What is otherwise here: how many streams there are, an entry's sections say. */
static const pdt_setting_words own_words[] = {
    {"streams", NULL},      {"min_tokens", NULL},
    {"keep_order", NULL},   {"max_tokens", "128 a section, 700 for all in one stream"},
    {"temperature", "0.8"},
};

/* ---- rows ---- */

/* What can be swept, and the setting that it is. */
typedef struct sweep_key {
  const char *name, *setting; /* setting NULL: it chooses entries by how many sections they have */
} sweep_key;

static const sweep_key sweep_keys[] = {
    {"gamma", "gamma"},
    {"delay", "reveal_delay"},
    {"tau", "block_tokens"},
    {"window", "window"},
    {"horizon", "horizon"},
    {"policy", "policy"},
    {"attempts", "max_attempts"},
    {"temperature", "temperature"},
    {"retry-temperature", "retry_temperature"},
    {"top-p", "top_p"},
    {"streams", NULL},
};

static const pdt_setting sections = {.kind = PDT_SETTING_INTEGER, .low = 1, .high = 64};

static error_t memory_error(struct argp_state *state) {
  argp_error(state, "no memory");
  return ENOMEM;
}

/* Makes room for a row of an arm, as no flag but settings has it; NULL on an error. */
static pdt_eval_row_options *new_row(pdt_eval_options *o, pdt_eval_arm arm,
                                     struct argp_state *state) {
  if (o->n_rows == PDT_EVAL_ROWS) {
    argp_error(state, "expected at most %d rows", PDT_EVAL_ROWS);
    return NULL;
  }
  pdt_eval_row_options *row = &o->rows[o->n_rows];
  json_t *settings = json_deep_copy(o->settings);
  if (!settings) {
    memory_error(state);
    return NULL;
  }
  o->n_rows++;
  row->setup = (pdt_eval_setup){.arm = arm, .settings = settings, .seeds = (int32_t)o->seeds};
  snprintf(row->label, sizeof row->label, "%s", pdt_eval_arm_name(arm));
  return row;
}

/* Adds a row of a sweep. */
static error_t add_swept(pdt_eval_options *o, pdt_eval_arm arm, const sweep_key *key, char *value,
                         struct argp_state *state) {
  pdt_eval_row_options *row = new_row(o, arm, state);
  char option[32];
  json_t *number;
  if (!row) return EINVAL;
  json_t *settings = (json_t *)(uintptr_t)row->setup.settings;
  snprintf(row->label, sizeof row->label, "%s %s=%.20s", pdt_eval_arm_name(arm), key->name, value);
  snprintf(option, sizeof option, "sweep %s", key->name);
  error_t code = pdt_setting_value(
      &number, key->setting ? pdt_setting_find(key->setting) : &sections, option, value, state);
  if (code) return code;
  if (key->setting) return json_object_set_new(settings, key->setting, number) ? ENOMEM : 0;
  row->setup.streams = (int32_t)json_integer_value(number);
  json_decref(number);
  return 0;
}

/* "gamma=0.3,0.5": splits `text`, which it changes, into key and values. */
static const sweep_key *split_sweep(char *text, char **values, struct argp_state *state) {
  char *equals = strchr(text, '=');
  if (equals) *equals = '\0';
  *values = equals ? equals + 1 : NULL;
  for (size_t i = 0; i < sizeof sweep_keys / sizeof *sweep_keys && equals; i++)
    if (strcmp(text, sweep_keys[i].name) == 0 && **values) return &sweep_keys[i];
  argp_error(state,
             "--sweep: expected gamma, delay, tau, window, horizon, policy, attempts, temperature, "
             "retry-temperature, top-p or streams, '=' and values, found '%s%s%s'",
             text, equals ? "=" : "", equals ? *values : "");
  return NULL;
}

/* Adds a row of an arm whose notes are altered. */
static error_t add_altered(pdt_eval_options *o, pdt_eval_arm arm, pdt_alter_mode mode,
                           struct argp_state *state) {
  pdt_eval_row_options *row = new_row(o, arm, state);
  if (!row) return EINVAL;
  row->setup.alter = mode;
  snprintf(row->label, sizeof row->label, "%s bus=%s", pdt_eval_arm_name(arm),
           pdt_alter_name(mode));
  return 0;
}

/* Rows of one arm under --bus: as it is, and altered, where it has notes. */
static error_t add_modes(pdt_eval_options *o, pdt_eval_arm arm, struct argp_state *state) {
  bool all = strcmp(o->bus, "all") == 0;
  error_t code = new_row(o, arm, state) ? 0 : EINVAL;
  if (!pdt_eval_arm_has_notes(arm)) return code;
  for (int mode = 1; mode < PDT_ALTER_MODES && all && !code; mode++)
    code = add_altered(o, arm, (pdt_alter_mode)mode, state);
  if (all || code) return code;
  char *text = strdup(o->bus), *rest = NULL;
  if (!text) return memory_error(state);
  for (char *name = strtok_r(text, ",", &rest); name && !code; name = strtok_r(NULL, ",", &rest)) {
    pdt_alter_mode mode = PDT_ALTER_NONE;
    if (pdt_alter_parse(name, &mode) && mode != PDT_ALTER_NONE) {
      code = add_altered(o, arm, mode, state);
      continue;
    }
    argp_error(state,
               "--bus: expected all, or some of zero, sign, permute, rotate, swap, one, found '%s'",
               name);
    code = EINVAL;
  }
  free(text);
  return code;
}

/* Rows of one arm: one, or one a value. */
static error_t add_rows(pdt_eval_options *o, pdt_eval_arm arm, struct argp_state *state) {
  if (o->bus) return add_modes(o, arm, state);
  if (!o->sweep) return new_row(o, arm, state) ? 0 : EINVAL;
  char *text = strdup(o->sweep), *values, *rest = NULL;
  if (!text) return memory_error(state);
  const sweep_key *key = split_sweep(text, &values, state);
  error_t code = key ? 0 : EINVAL;
  for (char *value = key ? strtok_r(values, ",", &rest) : NULL; value && !code;
       value = strtok_r(NULL, ",", &rest))
    code = add_swept(o, arm, key, value, state);
  free(text);
  return code;
}

static error_t add_arms(pdt_eval_options *o, struct argp_state *state) {
  const char *usual = o->bus ? "notes" : o->sweep ? "system" : "sequential,blind,notes,system";
  const char *names = o->arms ? o->arms : usual;
  bool all = strcmp(names, "all") == 0;
  error_t code = 0;
  for (int arm = 0; arm < PDT_EVAL_ARMS && all && !code; arm++)
    if (arm != PDT_EVAL_ONE_STREAM) code = add_rows(o, (pdt_eval_arm)arm, state);
  if (all) return code;
  char *text = strdup(names), *rest = NULL;
  if (!text) return memory_error(state);
  for (char *name = strtok_r(text, ",", &rest); name && !code; name = strtok_r(NULL, ",", &rest)) {
    pdt_eval_arm arm;
    if (pdt_eval_arm_parse(name, &arm)) {
      code = add_rows(o, arm, state);
      continue;
    }
    argp_error(state,
               "--arms: expected all, or some of sequential, one-stream, blind, plan-only, notes, "
               "system, no-snc, text-bus, parser-gate, agree-gate, found '%s'",
               name);
    code = EINVAL;
  }
  free(text);
  return code;
}

/* A command line that is whole. */
static error_t finish(pdt_eval_options *o, struct argp_state *state) {
  const char *missing = !o->engine.model     ? "--model"
                        : !o->engine.sidecar ? "--sidecar"
                        : !o->data           ? "--data"
                                             : NULL;
  if (missing) {
    argp_error(state, "%s is missing", missing);
    return EINVAL;
  }
  if (o->bus && o->sweep) {
    argp_error(state, "--bus and --sweep: one of them at a time");
    return EINVAL;
  }
  if (!json_object_get(o->settings, "temperature") &&
      json_object_set_new(o->settings, "temperature", json_real(0.8)))
    return memory_error(state);
  o->no_teacher = o->no_teacher || o->chat.prompts || o->chat.system;
  error_t code = add_arms(o, state);
  if (code || o->n_rows > 0) return code;
  argp_error(state, "%s: expected at least one, found '%s'", o->arms ? "--arms" : "--sweep",
             o->arms ? o->arms : o->sweep);
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_eval_options *o = state->input;
  const pdt_cli_kept kept[] = {{KEY_DATA, &o->data, NULL},
                               {KEY_ARMS, &o->arms, NULL},
                               {KEY_SWEEP, &o->sweep, NULL},
                               {KEY_BUS, &o->bus, NULL},
                               {KEY_NO_TEACHER, NULL, &o->no_teacher},
                               {KEY_JSON, NULL, &o->json},
                               {KEY_CURVES, NULL, &o->curves},
                               {KEY_TEXTS, &o->texts, NULL},
                               PDT_CHAT_KEPT(KEY_CHAT, &o->chat)};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= KEY_SETTINGS && key < KEY_SETTINGS + PDT_SETTINGS)
    return pdt_setting_parse(o->settings, key - KEY_SETTINGS, arg, state);
  if (key >= KEY_ENGINE && key < KEY_SETTINGS)
    return pdt_engine_flag_parse(&o->engine, (pdt_engine_flag)(key - KEY_ENGINE), arg, state);
  switch (key) {
  case KEY_OUT: /* what goes to standard output is there without */
    o->out = pdt_sink_descriptor(arg) == STDOUT_FILENO ? NULL : arg;
    return 0;
  case KEY_SEEDS:
    return pdt_cli_integer(state, "seeds", arg, 1, 1 << 20, &o->seeds);
  case KEY_COUNT:
    return pdt_cli_integer(state, "count", arg, 1, INT32_MAX, &o->count);
  case ARGP_KEY_ARG:
    argp_error(state, "unexpected argument '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    return finish(o, state);
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

static const char doc[] =
    "Decode held-out entries of the Atlas in several ways, and judge what was written: do the "
    "sections contradict each other? Held-out are combinations: towns, names and lists of sections "
    "are those of training, but no entry has a training entry's town with its facts. (The world of "
    "words also holds names out of training: uses of those are counted apart.) The split valid is "
    "for choosing, test for final figures.\v"
    "Examples, with the plan of launch/model:\n"
    "  pdt data atlas --count 100 --split test --plan-vocab 1024 \\\n"
    "      --plan-salt atlas-5 --out test.jsonl\n"
    "  pdt eval --model M --sidecar S.safetensors --data test.jsonl\n"
    "  pdt eval --model M --sidecar S.safetensors --data test.jsonl --top-p 0.9\n"
    "  mpirun -n 2 pdt eval --model M --sidecar S.safetensors --data test.jsonl \\\n"
    "      --arms all --json --out figures.jsonl\n"
    "  pdt eval --model M --sidecar S.safetensors --data test.jsonl \\\n"
    "      --sweep gamma=0.3,0.5,0.7\n"
    "  pdt eval --model M --sidecar S.safetensors --data test.jsonl --bus zero,swap\n"
    "  pdt eval --model M --sidecar S.safetensors --data test.jsonl \\\n"
    "      --sweep streams=2,4,6 --arms blind,system --max-attempts 12\n";

int pdt_eval_options_parse(pdt_eval_options *o, const pdt_cli *cli, int argc, char **argv,
                           pdt_error *err) {
  struct argp_option all[OPTIONS + PDT_SETTINGS];
  const struct argp argp = {all, parse_option, NULL, doc, NULL, NULL, NULL};
  pdt_setting_texts texts;
  memcpy(all, options, sizeof options);
  pdt_setting_options(&all[OPTIONS - 1], &texts, KEY_SETTINGS, 2, own_words,
                      sizeof own_words / sizeof *own_words);
  *o = (pdt_eval_options){.count = INT32_MAX, .seeds = 1, .settings = json_object()};
  o->engine.max_sessions = 16;
  if (!o->settings) return pdt_fail(err, PDT_ERROR_MEMORY, "no memory");
  return pdt_cli_parse(cli, &argp, argc, argv, o, err);
}

void pdt_eval_options_free(pdt_eval_options *o) {
  for (int32_t i = 0; i < o->n_rows; i++)
    json_decref((json_t *)(uintptr_t)o->rows[i].setup.settings);
  json_decref(o->settings);
  *o = (pdt_eval_options){0};
}
