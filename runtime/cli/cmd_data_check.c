/* pdt data check. */
#include <errno.h>

#include "cli/cli.h"
#include "run/data_report.h"

enum { OPT_MODEL = 256, OPT_JSON };

typedef struct check_args {
  const char *path, *model;
  bool json;
} check_args;

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0,
     "cut the blocks again by the tokenizer.json in DIR and compare (the Atlas's own needs none)",
     0},
    {"json", OPT_JSON, NULL, 0, "print JSON instead of a table", 0},
    {0},
};

static const char doc[] =
    "Checks a file of training or test data and says what is in it."
    "\vWhat is wrong with it, with line and field, is the error it ends with.\n\n"
    "Examples:\n"
    "  pdt data check train.jsonl\n"
    "  pdt data check --json --model m other.jsonl\n";

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  check_args *a = state->input;
  const pdt_cli_kept kept[] = {{OPT_MODEL, &a->model, NULL}, {OPT_JSON, NULL, &a->json}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "FILE", arg, &a->path);
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (a->path) return 0;
  argp_error(state, "expected a FILE");
  return EINVAL;
}

int pdt_cmd_data_check(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  check_args a = {0};
  const struct argp argp = {options, parse_option, "FILE", doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &a, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_data_report(a.path, a.model, a.json, err);
}
