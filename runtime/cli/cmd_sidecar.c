/* pdt sidecar init. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "run/fresh_sidecar.h"

/* Options with an integer: the key is this plus the place in the table below. */
enum {
  OPT_MODEL = 256,
  OPT_OUT,
  OPT_DTYPE,
  OPT_SEED,
  OPT_PLANNER,
  OPT_POOL,
  OPT_LAYERS,
  OPT_POOL_LAYER,
  OPT_SCALE_TEXT,
  OPT_READ_CODES,
  OPT_SALT,
  OPT_GATE,
  OPT_NO_SNC,
  OPT_GAMMA,
  OPT_RANDOM,
  OPT_OVERWRITE,
  OPT_NOTE_QUERY,
  OPT_SIZE = 512
};

typedef struct size_option {
  const char *name;
  int64_t low, high;
  size_t offset; /* of an int32_t in pdt_fresh_sidecar */
} size_option;

#define SIZE(name, high, field)                                                                    \
  { name, 1, high, offsetof(pdt_fresh_sidecar, config.field) }

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
    {"speculation-hidden", 0, 1 << 20, offsetof(pdt_fresh_sidecar, config.speculation_hidden)},
    {"plan-places", 0, PDT_PLAN_PLACES, offsetof(pdt_fresh_sidecar, config.plan_places)},
    SIZE("block-tokens", INT32_MAX, defaults.block_tokens),
    SIZE("reveal-delay", INT32_MAX, defaults.reveal_delay),
    SIZE("window", INT32_MAX, defaults.window),
    SIZE("horizon", INT32_MAX, defaults.horizon),
    {"plan-orders", 0, PDT_PLAN_ORDERS, offsetof(pdt_fresh_sidecar, config.plan_orders)},
    {"plan-layer", 0, INT32_MAX, offsetof(pdt_fresh_sidecar, config.plan_layer)},
    {"pool-copies", 0, 1024, offsetof(pdt_fresh_sidecar, config.pool_copies)},
    {"part-slots", 0, 1 << 16, offsetof(pdt_fresh_sidecar, config.defaults.part_slots)},
};
enum { N_SIZES = sizeof size_options / sizeof *size_options };

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "the model it is for, a directory or a GGUF file", 0},
    {"out", OPT_OUT, "FILE", 0, "the sidecar to write", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a sidecar that is there", 0},
    {"streams", OPT_SIZE + 0, "K", 0, "most streams, one adapter each (default 4)", 0},
    {"layers", OPT_LAYERS, "L,L,...", 0,
     "instrumented layers (default: four, spread over the upper half)", 0},
    {"pool-layer", OPT_POOL_LAYER, "L", 0,
     "the pool reads this layer's output (default: the final states)", 0},
    {"scale-text", OPT_SCALE_TEXT, "FILE", 0,
     "multiply what cross-attention and adapters add to a layer by the size of its output on this "
     "text: for large trained models",
     0},
    {"read-codes", OPT_READ_CODES, "N", 0,
     "in the last N instrumented layers cross-attention begins with turning what a teacher's note "
     "says of a name into that name, in place of adding nothing (default 0)",
     0},
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
    {"pool-copies", OPT_SIZE + 20, "N", 0,
     "of these heads the last N mix, in place of what they read, the embeddings of the tokens that "
     "the block read, so that a note can tell any word (default 0)",
     1},
    {"coverage-dim", OPT_SIZE + 10, "N", 0, "width of the coverage head (default 64)", 1},
    {"agree-dim", OPT_SIZE + 11, "N", 0, "width of the readiness head (default 128)", 1},
    {"speculation-hidden", OPT_SIZE + 12, "N", 0,
     "hidden layer of the note head, 0 for none (default 0)", 1},
    {"plan-places", OPT_SIZE + 13, "N", 0,
     "first tokens of a prompt that every plan slot weighs by itself, 0 for none (default 0)", 1},
    {"note-query", OPT_NOTE_QUERY, NULL, 0,
     "readiness asks the window about the block's own note, too: has its stream told that already?",
     1},
    {"plan-orders", OPT_SIZE + 18, "N", 0,
     "tokens that name a section which every plan slot weighs by their order, wherever they stand: "
     "for prompts in several wordings; 0 for none (default 0)",
     1},
    {"plan-layer", OPT_SIZE + 19, "L", 0,
     "layer behind which --plan-orders tells and reads them (default 0)", 1},
    {NULL, 0, NULL, 0, "Defaults that a request may override:", 2},
    {"block-tokens", OPT_SIZE + 14, "N", 0, "tokens of a block, tau (default 16)", 2},
    {"reveal-delay", OPT_SIZE + 15, "N", 0, "rounds until a note is seen (default 1)", 2},
    {"window", OPT_SIZE + 16, "N", 0, "notes a stream sees (default 8 a stream and the plan's)", 2},
    {"horizon", OPT_SIZE + 17, "N", 0, "most uncommitted tokens (default 4 blocks)", 2},
    {"gamma", OPT_GAMMA, "R", 0, "readiness threshold (default 0.5)", 2},
    {"part-slots", OPT_SIZE + 21, "N", 0,
     "plan slots of one stream's part: a prompt alone then has as many streams as its plan "
     "(default 0: as many as there are)",
     2},
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

static error_t parse_size(pdt_fresh_sidecar *a, const size_option *o, const char *arg,
                          struct argp_state *state) {
  int64_t value;
  error_t rc = pdt_cli_integer(state, o->name, arg, o->low, o->high, &value);
  if (!rc) *(int32_t *)(void *)((char *)a + o->offset) = (int32_t)value;
  return rc;
}

static error_t parse_kind(pdt_fresh_sidecar *a, int key, const char *arg,
                          struct argp_state *state) {
  bool first;
  switch (key) {
  case OPT_DTYPE:
    if (pdt_dtype_parse_float(arg, &a->init.dtype)) return 0;
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

/* What options say of one another. */
static error_t check_given(const pdt_fresh_sidecar *a, struct argp_state *state) {
  if (!a->model || !a->out)
    argp_error(state, "expected --model and --out");
  else if (a->read_codes > 0 && a->init.start == PDT_SIDECAR_RANDOM)
    argp_error(state, "--read-codes: expected a fresh sidecar, found --random");
  else if (a->pool_layer >= 0 && a->config.pool == PDT_POOL_LAST)
    argp_error(state, "--pool-layer: expected with --pool attention, found 'last'");
  else if (a->config.pool_copies > 0 && a->config.pool == PDT_POOL_LAST)
    argp_error(state, "--pool-copies: expected with --pool attention, found 'last'");
  else if (a->config.pool_copies > a->config.pool_heads)
    argp_error(state, "--pool-copies: expected at most the %d of --pool-heads, found %d",
               a->config.pool_heads, a->config.pool_copies);
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_fresh_sidecar *a = state->input;
  const pdt_cli_kept kept[] = {{OPT_MODEL, &a->model, NULL},
                               {OPT_OUT, &a->out, NULL},
                               {OPT_LAYERS, &a->layers, NULL},
                               {OPT_SCALE_TEXT, &a->scale_text, NULL},
                               {OPT_OVERWRITE, NULL, &a->overwrite},
                               {OPT_NO_SNC, NULL, &a->init.snc_closed},
                               {OPT_NOTE_QUERY, NULL, &a->config.note_query}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= OPT_SIZE && key < OPT_SIZE + N_SIZES)
    return parse_size(a, &size_options[key - OPT_SIZE], arg, state);
  int64_t layer;
  switch (key) {
  case OPT_POOL_LAYER:
    if (pdt_cli_integer(state, "pool-layer", arg, 0, INT32_MAX - 1, &layer)) return EINVAL;
    a->pool_layer = (int32_t)layer;
    return 0;
  case OPT_READ_CODES:
    if (pdt_cli_integer(state, "read-codes", arg, 0, 1024, &layer)) return EINVAL;
    a->read_codes = (int32_t)layer;
    return 0;
  case OPT_RANDOM:
    a->init.start = PDT_SIDECAR_RANDOM;
    return 0;
  case OPT_DTYPE:
  case OPT_PLANNER:
  case OPT_POOL:
  case OPT_SALT:
    return parse_kind(a, key, arg, state);
  case OPT_SEED:
    return pdt_cli_seed(state, "seed", arg, &a->init.seed);
  case OPT_GATE:
    a->gate_given = true;
    return pdt_cli_real(state, "gate", arg, -1000, 1000, &a->init.gate);
  case OPT_GAMMA:
    return pdt_cli_real(state, "gamma", arg, 0, 1, &a->config.defaults.gamma);
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    return check_given(a, state);
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_sidecar_init(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_fresh_sidecar a = {
      .config = {.streams = 4,
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
      .pool_layer = -1,
      .init = {.dtype = PDT_F32, .gate = -4}};
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &a, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  int rc = pdt_fresh_sidecar_write(&a, err);
  pdt_sidecar_config_free(&a.config);
  return rc;
}
