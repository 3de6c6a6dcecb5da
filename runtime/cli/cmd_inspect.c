/* pdt inspect. */
#include <errno.h>

#include "cli/cli.h"
#include "run/inspect.h"

enum { OPT_JSON = 256, OPT_TENSORS, OPT_FULL, OPT_MODEL, OPT_ANSWERS, OPT_OUT };

static const struct argp_option options[] = {
    {"json", OPT_JSON, NULL, 0, "print JSON instead of tables", 0},
    {"tensors", OPT_TENSORS, NULL, 0, "list the tensors of a model or sidecar", 0},
    {"full", OPT_FULL, NULL, 0,
     "read every byte of a model or sidecar: look for NaN, fingerprint all of it", 0},
    {"model", OPT_MODEL, "DIR", 0,
     "check that a sidecar fits this model; with --answers, the model that has the tokenizer", 0},
    {"answers", OPT_ANSWERS, NULL, 0,
     "of a journal: write what decode --out (with --json: decode --json) would have written of the "
     "sessions that ended; texts need --model",
     0},
    {"out", OPT_OUT, "FILE", 0, "with --answers: the file to write (standard output)", 0},
    {0},
};

static const char doc[] =
    "Says what PATH holds: a model directory, a sidecar, a journal or the output of decode --out."
    "\vWhat is wrong with it is the error it ends with.\n\n"
    "Examples:\n"
    "  pdt inspect m\n"
    "  pdt inspect --tensors --json sidecar.safetensors\n"
    "  pdt inspect --full --model m sidecar.safetensors\n"
    "  pdt inspect run.journal\n"
    "  pdt inspect --answers --json --model m run.journal\n";

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_inspect_options *o = state->input;
  const pdt_cli_kept kept[] = {{OPT_JSON, NULL, &o->json},   {OPT_TENSORS, NULL, &o->tensors},
                               {OPT_FULL, NULL, &o->full},   {OPT_ANSWERS, NULL, &o->answers},
                               {OPT_MODEL, &o->model, NULL}, {OPT_OUT, &o->out, NULL}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "PATH", arg, &o->path);
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (o->path && (o->answers || !o->out)) return 0;
  argp_error(state, o->path ? "--out belongs to --answers" : "expected a PATH");
  return EINVAL;
}

int pdt_cmd_inspect(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp argp = {options, parse_option, "PATH", doc, NULL, NULL, NULL};
  pdt_inspect_options o = {0};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_inspect(&o, err);
}
