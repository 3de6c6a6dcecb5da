#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text_safe.h"
#include "cli/cli.h"
#include "journal/sink.h"
#include "run/outputs.h"
#include "sidecar/init.h"

typedef struct sidecar_args {
  const char *model, *out, *layers;
  bool gate_given, overwrite;
  pdt_sidecar_config config;
  pdt_sidecar_init_options init;
} sidecar_args;

/* Options with an integer: the key is this plus the place in the table below. */
enum {
  OPT_MODEL = 256,
  OPT_OUT,
  OPT_DTYPE,
  OPT_SEED,
  OPT_PLANNER,
  OPT_POOL,
  OPT_LAYERS,
  OPT_SALT,
  OPT_GATE,
  OPT_NO_SNC,
  OPT_GAMMA,
  OPT_RANDOM,
  OPT_OVERWRITE,
  OPT_SIZE = 512
};

typedef struct size_option {
  const char *name;
  int64_t low, high;
  size_t offset; /* of an int32_t in sidecar_args */
} size_option;

#define SIZE(name, high, field)                                                                    \
  { name, 1, high, offsetof(sidecar_args, config.field) }

static const size_option size_options[] = {
    SIZE("streams", 4096, streams),
    SIZE("notes-dim", 1 << 16, notes_dim),
    SIZE("snc-heads", 1024, snc_heads),
    SIZE("snc-head-dim", 1024, snc_head_dim),
    SIZE("adapter-dim", 1 << 16, adapter_dim),
    SIZE("plan-slots", 4096, plan_slots),
    SIZE("plan-vocab", 1 << 24, plan_vocab_size),
    SIZE("plan-dim", 1 << 16, plan_dim),
    SIZE("pool-heads", 1024, pool_heads),
    SIZE("pool-dim", 1 << 14, pool_dim),
    SIZE("coverage-dim", 1 << 16, coverage_dim),
    SIZE("agree-dim", 1 << 16, agree_dim),
    {"speculation-hidden", 0, 1 << 20, offsetof(sidecar_args, config.speculation_hidden)},
    {"plan-places", 0, PDT_PLAN_PLACES, offsetof(sidecar_args, config.plan_places)},
    SIZE("block-tokens", INT32_MAX, defaults.block_tokens),
    SIZE("reveal-delay", INT32_MAX, defaults.reveal_delay),
    SIZE("window", INT32_MAX, defaults.window),
    SIZE("horizon", INT32_MAX, defaults.horizon),
};
enum { N_SIZES = sizeof size_options / sizeof *size_options };

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "the model it is for", 0},
    {"out", OPT_OUT, "FILE", 0, "the sidecar to write", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a sidecar that is there", 0},
    {"streams", OPT_SIZE + 0, "K", 0, "most streams, one adapter each (default 4)", 0},
    {"layers", OPT_LAYERS, "L,L,...", 0,
     "instrumented layers (default: four, spread over the upper half)", 0},
    {"planner", OPT_PLANNER, "KIND", 0, "tied or full (default tied)", 0},
    {"pool", OPT_POOL, "KIND", 0, "attention or last (default attention)", 0},
    {"dtype", OPT_DTYPE, "TYPE", 0, "F32, F16 or BF16 (default F32)", 0},
    {"seed", OPT_SEED, "N", 0, "of the random numbers (default 0)", 0},
    {"gate", OPT_GATE, "G", 0, "every gate before its sigmoid (default -4; 0 with --random)", 0},
    {"no-snc", OPT_NO_SNC, NULL, 0,
     "close the gates of cross-attention to notes for good: to compare with", 0},
    {"random", OPT_RANDOM, NULL, 0, "every matrix random: for tests, its text is noise", 0},
    {NULL, 0, NULL, 0, "Sizes:", 1},
    {"notes-dim", OPT_SIZE + 1, "N", 0, "width of a note (default 256)", 1},
    {"snc-heads", OPT_SIZE + 2, "N", 0, "heads of cross-attention to notes (default 8)", 1},
    {"snc-head-dim", OPT_SIZE + 3, "N", 0, "width of one (default 32)", 1},
    {"adapter-dim", OPT_SIZE + 4, "N", 0, "bottleneck of an adapter (default 64)", 1},
    {"plan-slots", OPT_SIZE + 5, "N", 0, "slots of a plan (default 16)", 1},
    {"plan-vocab", OPT_SIZE + 6, "N", 0, "entries of the plan vocabulary (default 65536)", 1},
    {"plan-dim", OPT_SIZE + 7, "N", 0, "width of a plan embedding (default 128)", 1},
    {"plan-salt", OPT_SALT, "TEXT", 0, "of the hash (default parallel-decoder-v1)", 1},
    {"pool-heads", OPT_SIZE + 8, "N", 0, "heads of a block's summary (default 4)", 1},
    {"pool-dim", OPT_SIZE + 9, "N", 0, "width of one (default 64)", 1},
    {"coverage-dim", OPT_SIZE + 10, "N", 0, "width of the coverage head (default 64)", 1},
    {"agree-dim", OPT_SIZE + 11, "N", 0, "width of the readiness head (default 128)", 1},
    {"speculation-hidden", OPT_SIZE + 12, "N", 0,
     "hidden layer of the note head, 0 for none (default 0)", 1},
    {"plan-places", OPT_SIZE + 13, "N", 0,
     "first tokens of a prompt that every plan slot weighs by itself, 0 for none (default 0)", 1},
    {NULL, 0, NULL, 0, "Defaults that a request may override:", 2},
    {"block-tokens", OPT_SIZE + 14, "N", 0, "tokens of a block, tau (default 16)", 2},
    {"reveal-delay", OPT_SIZE + 15, "N", 0, "rounds until a note is seen (default 1)", 2},
    {"window", OPT_SIZE + 16, "N", 0, "notes a stream sees (default 8 a stream and the plan's)", 2},
    {"horizon", OPT_SIZE + 17, "N", 0, "most uncommitted tokens (default 4 blocks)", 2},
    {"gamma", OPT_GAMMA, "R", 0, "readiness threshold (default 0.5)", 2},
    {0},
};

static const char doc[] =
    "Writes a fresh sidecar for a model: decoding with it gives the model's own text."
    "\vIts gates stand at -4 and what cross-attention and adapters add is zero, so it changes "
    "nothing until it is trained.\n\n"
    "Examples:\n"
    "  pdt sidecar init --model m --out sidecar.safetensors\n"
    "  pdt sidecar init --model m --out s.safetensors --streams 8 \\\n"
    "      --layers 20,23,26,29\n"
    "  pdt sidecar init --model m --out noise.safetensors --random --seed 7\n";

static error_t bad_choice(struct argp_state *state, const char *option, const char *expected,
                          const char *arg) {
  argp_error(state, "--%s: expected %s, found '%s'", option, expected, arg);
  return EINVAL;
}

static error_t parse_size(sidecar_args *a, const size_option *o, const char *arg,
                          struct argp_state *state) {
  int64_t value;
  error_t rc = pdt_cli_integer(state, o->name, arg, o->low, o->high, &value);
  if (!rc) *(int32_t *)(void *)((char *)a + o->offset) = (int32_t)value;
  return rc;
}

static error_t parse_kind(sidecar_args *a, int key, const char *arg, struct argp_state *state) {
  bool first;
  switch (key) {
  case OPT_DTYPE:
    if (pdt_dtype_parse(arg, &a->init.dtype)) return 0;
    return bad_choice(state, "dtype", "F32, F16 or BF16", arg);
  case OPT_PLANNER:
    first = strcmp(arg, "full") == 0;
    if (!first && strcmp(arg, "tied") != 0)
      return bad_choice(state, "planner", "tied or full", arg);
    a->config.planner = first ? PDT_PLANNER_FULL : PDT_PLANNER_TIED;
    return 0;
  case OPT_POOL:
    first = strcmp(arg, "last") == 0;
    if (!first && strcmp(arg, "attention") != 0)
      return bad_choice(state, "pool", "attention or last", arg);
    a->config.pool = first ? PDT_POOL_LAST : PDT_POOL_ATTENTION;
    return 0;
  default:
    if (strlen(arg) >= PDT_SALT_BYTES)
      return bad_choice(state, "plan-salt", "127 bytes at most", arg);
    snprintf(a->config.plan_hash_salt, PDT_SALT_BYTES, "%s", arg);
    return 0;
  }
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  sidecar_args *a = state->input;
  if (key >= OPT_SIZE && key < OPT_SIZE + N_SIZES)
    return parse_size(a, &size_options[key - OPT_SIZE], arg, state);
  switch (key) {
  case OPT_MODEL:
    a->model = arg;
    break;
  case OPT_OUT:
    a->out = arg;
    break;
  case OPT_LAYERS:
    a->layers = arg;
    break;
  case OPT_RANDOM:
    a->init.start = PDT_SIDECAR_RANDOM;
    break;
  case OPT_DTYPE:
  case OPT_PLANNER:
  case OPT_POOL:
  case OPT_SALT:
    return parse_kind(a, key, arg, state);
  case OPT_SEED:
    return pdt_cli_seed(state, "seed", arg, &a->init.seed);
  case OPT_OVERWRITE:
    a->overwrite = true;
    return 0;
  case OPT_NO_SNC:
    a->init.snc_closed = true;
    return 0;
  case OPT_GATE:
    a->gate_given = true;
    return pdt_cli_real(state, "gate", arg, -1000, 1000, &a->init.gate);
  case OPT_GAMMA:
    return pdt_cli_real(state, "gamma", arg, 0, 1, &a->config.defaults.gamma);
  case ARGP_KEY_ARG:
    argp_error(state, "expected options only, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    if (a->model && a->out) break;
    argp_error(state, "expected --model and --out");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
  return 0;
}

/* "8,10,12": ascending layers of the model. */
static int parse_layers(pdt_sidecar_config *c, const char *text, pdt_layer n_layers,
                        pdt_error *err) {
  const char *at = text;
  int64_t last = -1;
  for (;;) {
    char *end;
    errno = 0;
    long long layer = strtoll(at, &end, 10);
    if (end == at || errno || layer <= last || layer >= n_layers || (*end && *end != ','))
      return pdt_fail(err, PDT_ERROR_USAGE,
                      "--layers: expected ascending layers from 0 to %d with commas between, found "
                      "'%.200s'",
                      n_layers - 1, text);
    c->instrumented[c->n_instrumented++] = (pdt_layer)layer;
    last = layer;
    if (!*end) return 0;
    at = end + 1;
  }
}

/* Four layers, the last among them, evenly down to the middle of the stack. */
static void default_layers(pdt_sidecar_config *c, pdt_layer n_layers) {
  int32_t n = n_layers < 4 ? n_layers : 4, step = n_layers / 2 / n;
  if (step < 1) step = 1;
  for (int32_t i = 0; i < n; i++) c->instrumented[i] = n_layers - 1 - (n - 1 - i) * step;
  c->n_instrumented = n;
}

/* What depends on the model or on other options. */
static int complete(sidecar_args *a, pdt_error *err) {
  pdt_model_config model;
  pdt_sidecar_config *c = &a->config;
  pdt_sidecar_defaults *d = &c->defaults;
  if (pdt_model_config_load(&model, a->model, NULL, err)) return -1;
  c->hidden_size = model.hidden_size;
  if (!d->window) d->window = 1 + 8 * c->streams;
  if (!d->horizon) d->horizon = d->block_tokens < INT32_MAX / 4 ? 4 * d->block_tokens : INT32_MAX;
  if (d->horizon < d->block_tokens)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--horizon: expected at least the %d tokens of a block, found %d",
                    d->block_tokens, d->horizon);
  if (a->init.start == PDT_SIDECAR_RANDOM && !a->gate_given) a->init.gate = 0;
  if (PDT_NEW(&c->instrumented, model.layers, "list of layers", err)) return -1;
  if (a->layers) return parse_layers(c, a->layers, model.layers, err);
  default_layers(c, model.layers);
  return 0;
}

/* A sidecar takes long to train: none is replaced unasked. */
static int check_output(const sidecar_args *a, pdt_error *err) {
  pdt_named_files outputs = {0}, inputs = {0};
  pdt_files_add(&outputs, "--out", a->out);
  pdt_files_add_model(&inputs, "--model", a->model);
  if (pdt_outputs_check(&outputs, &inputs, err)) return -1;
  if (pdt_sink_descriptor(a->out) >= 0)
    return pdt_fail(err, PDT_ERROR_USAGE, "--out: expected the name of a file, found '%s'", a->out);
  return pdt_output_may_replace("--out", a->out, PDT_KIND_SIDECAR, a->overwrite, err);
}

int pdt_cmd_sidecar_init(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  sidecar_args a = {.config = {.streams = 4,
                               .notes_dim = 256,
                               .snc_heads = 8,
                               .snc_head_dim = 32,
                               .adapter_dim = 64,
                               .planner = PDT_PLANNER_TIED,
                               .plan_slots = 16,
                               .plan_vocab_size = 65536,
                               .plan_dim = 128,
                               .plan_hash_salt = "parallel-decoder-v1",
                               .pool = PDT_POOL_ATTENTION,
                               .pool_heads = 4,
                               .pool_dim = 64,
                               .coverage_dim = 64,
                               .agree_dim = 128,
                               .defaults = {.block_tokens = 16, .reveal_delay = 1, .gamma = 0.5}},
                    .init = {.dtype = PDT_F32, .gate = -4}};
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &a, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  int64_t parameters;
  pdt_bytes bytes;
  int rc = check_output(&a, err);
  if (!rc) rc = complete(&a, err);
  if (!rc && a.init.start == PDT_SIDECAR_FRESH) { /* says of itself that it is untrained */
    a.config.trained = json_object();
    if (!a.config.trained) rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", a.out);
  }
  if (!rc) rc = pdt_sidecar_init(a.out, &a.config, &a.init, &parameters, &bytes, err);
  if (!rc)
    pdt_say(stdout, "%s: %.1f million parameters, %s, %.1f MB, for %d streams", a.out,
            (double)parameters * 1e-6, pdt_dtype_name(a.init.dtype), (double)bytes * 1e-6,
            a.config.streams);
  pdt_sidecar_config_free(&a.config);
  return rc;
}
