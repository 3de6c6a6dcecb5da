/* pdt data tokenizer. */
#include <errno.h>

#include "cli/cli.h"
#include "cli/world_option.h"
#include "run/atlas.h"

enum { OPT_OUT = 256, OPT_WORLD, OPT_OVERWRITE };

typedef struct tokenizer_args {
  pdt_atlas_kind world;
  const char *out;
  bool overwrite;
} tokenizer_args;

static const struct argp_option options[] = {
    {"out", OPT_OUT, "DIR", 0, "where tokenizer.json is written; made if it is not there", 0},
    {"world", OPT_WORLD, "NAME", 0, "atlas or words (default atlas)", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a tokenizer.json that is there", 0},
    {0},
};

static const char doc[] =
    "Writes the tokenizer.json of a world of the Atlas: every word is one token, and every name "
    "of the default Atlas."
    "\vExamples:\n"
    "  pdt data tokenizer --out m\n";

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  tokenizer_args *a = state->input;
  const pdt_cli_kept kept[] = {{OPT_OUT, &a->out, NULL}, {OPT_OVERWRITE, NULL, &a->overwrite}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == OPT_WORLD) return pdt_world_option(arg, &a->world, state);
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, NULL, arg, NULL);
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (a->out) return 0;
  argp_error(state, "expected --out");
  return EINVAL;
}

int pdt_cmd_data_tokenizer(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  tokenizer_args a = {0};
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &a, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_atlas_write_tokenizer(a.world, a.out, a.overwrite, err);
}
