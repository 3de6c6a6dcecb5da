/* pdt data score. */
#include <errno.h>

#include "cli/cli.h"
#include "run/score.h"

enum { OPT_MODEL = 256, OPT_SIDECAR, OPT_DATA, OPT_COUNT, OPT_THREADS, OPT_JSON };

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "the trunk, a Hugging Face directory or a .gguf", 0},
    {"sidecar", OPT_SIDECAR, "FILE", 0, "the sidecar beside it", 0},
    {"data", OPT_DATA, "FILE", 0, "entries that neither of them was trained on", 0},
    {"count", OPT_COUNT, "N", 0, "at most so many entries (default: all)", 0},
    {"threads", OPT_THREADS, "N", 0, "threads of matrix products (default 1)", 0},
    {"json", OPT_JSON, NULL, 0, "print JSON instead of a table", 0},
    {0},
};

static const char doc[] =
    "What coordination buys on data of any kind: the cross-entropy of its own text, tokens of "
    "names that a sibling states apart from all others, read under the notes that the streams "
    "write, under the plan's note alone, and under none (blind)."
    "\vA sidecar that was trained with notes is not the best one without them; what it saves "
    "where nothing depends on siblings (\"all other tokens\") tells how much of the difference is "
    "that.\n\n"
    "Examples:\n"
    "  pdt data score --model m --sidecar s.safetensors --data test.jsonl\n"
    "  pdt data score --model m --sidecar s.safetensors --data test.jsonl --json\n";

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_score_options *o = state->input;
  const pdt_cli_kept kept[] = {{OPT_MODEL, &o->model, NULL},
                               {OPT_SIDECAR, &o->sidecar, NULL},
                               {OPT_DATA, &o->data, NULL},
                               {OPT_JSON, NULL, &o->json}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_COUNT:
    return pdt_cli_integer(state, "count", arg, 1, INT64_MAX, &o->count);
  case OPT_THREADS:
    return pdt_cli_integer(state, "threads", arg, 1, 1024, &o->threads);
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    if (o->model && o->sidecar && o->data) return 0;
    argp_error(state, "expected --model, --sidecar and --data");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_data_score(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_score_options args = {.count = INT64_MAX, .threads = 1};
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_score_report(cli->name, &args, err);
}
