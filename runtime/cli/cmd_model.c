/* pdt model random. */
#include <errno.h>

#include "cli/cli.h"
#include "run/random_model.h"

enum { OPT_CONFIG = 256, OPT_PRESET, OPT_OUT, OPT_DTYPE, OPT_SEED, OPT_SCALE, OPT_SHARD, OPT_TEXT };

static const struct argp_option options[] = {
    {"config", OPT_CONFIG, "FILE", 0, "config.json of the shape wanted", 0},
    {"preset", OPT_PRESET, "NAME", 0,
     "or a known shape: tiny, smollm2-135m, smollm2-360m, qwen2.5-0.5b, qwen3-0.6b, llama-1b, "
     "mistral-7b, llama-8b",
     0},
    {"out", OPT_OUT, "DIR", 0, "where the model is written; made if it is not there", 0},
    {"dtype", OPT_DTYPE, "TYPE", 0, "F32, F16 or BF16 (default BF16)", 0},
    {"seed", OPT_SEED, "N", 0, "of the random numbers (default 0)", 0},
    {"scale", OPT_SCALE, "S", 0,
     "deviation of a matrix's weights, times the root of its inputs (default 1)", 0},
    {"shard-bytes", OPT_SHARD, "N", 0,
     "write shards of at most N bytes of tensors, and their index", 0},
    {"tokenizer", OPT_TEXT, "FILE", 0,
     "tokenizer.json to copy; without it one is made, of bytes and made-up words", 0},
    {0},
};

static const char doc[] =
    "Writes a model with random weights: the shape and speed of a real one, its text noise."
    "\vThe files depend on the arguments alone. A directory that holds a model already is left as "
    "it is, with an error.\n\n"
    "Examples:\n"
    "  pdt model random --preset smollm2-135m --out m\n"
    "  pdt model random --config config.json --out m --dtype F32 --seed 7\n"
    "  pdt model random --preset llama-1b --out m --shard-bytes 1000000000\n";

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_random_model *m = state->input;
  const pdt_cli_kept kept[] = {{OPT_CONFIG, &m->config, NULL},
                               {OPT_PRESET, &m->preset, NULL},
                               {OPT_OUT, &m->out, NULL},
                               {OPT_TEXT, &m->tokenizer, NULL}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_DTYPE:
    if (pdt_dtype_parse_float(arg, &m->random.dtype)) return 0;
    argp_error(state, "--dtype: expected F32, F16 or BF16, found '%s'", arg);
    return EINVAL;
  case OPT_SEED:
    return pdt_cli_seed(state, "seed", arg, &m->random.seed);
  case OPT_SCALE:
    return pdt_cli_real(state, "scale", arg, 0, 1000, &m->random.scale);
  case OPT_SHARD:
    return pdt_cli_integer(state, "shard-bytes", arg, 1, INT64_MAX, &m->random.shard_bytes);
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    if (m->out && !m->config != !m->preset) return 0;
    argp_error(state, "expected --out and one of --config and --preset");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_model_random(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_random_model model = {.random = {.dtype = PDT_BF16, .scale = 1}};
  static const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &model, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_random_model_write(&model, err);
}
