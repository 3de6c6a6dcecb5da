/* pdt view. */
#include <errno.h>

#include "cli/cli.h"
#include "run/view.h"

enum { OPT_OUT = 256, OPT_MODEL, OPT_GAMMA, OPT_REQUEST };

static const struct argp_option options[] = {
    {"out", OPT_OUT, "FILE", 0, "the page to write (standard output)", 0},
    {"model", OPT_MODEL, "DIR", 0,
     "the model that has the tokenizer; without it, token ids stand where texts would", 0},
    {"gamma", OPT_GAMMA, "R", 0,
     "of a trace, which does not tell it: the readiness that the gate asked for, as a mark in the "
     "bars",
     0},
    {"request", OPT_REQUEST, "N", 0, "its session alone, of many; the first is 0", 0},
    {0}};

static const char doc[] =
    "Writes the page of a finished run, in one file that needs nothing else: its streams side by "
    "side, round by round, what was held, rolled back and committed, the notes that were read, and "
    "the answer. PATH is a journal or a trace of pdt decode, or a journal of pdt serve, whose own "
    "page shows the same while it decodes."
    "\vExamples, with M=launch/model:\n"
    "  pdt decode --model M --sidecar M/sidecar.safetensors \\\n"
    "      --prompt \"Describe Velmora.\" --journal run.journal\n"
    "  pdt view --model M --out run.html run.journal\n"
    "  pdt view --model M --request 3 --out third.html serve.journal\n"
    "  pdt view --model M --gamma 0.8 --out run.html run.trace\n";

static error_t parse(int key, char *arg, struct argp_state *state) {
  pdt_view_options *o = state->input;
  const pdt_cli_kept kept[] = {{OPT_OUT, &o->out, NULL}, {OPT_MODEL, &o->model, NULL}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "PATH", arg, &o->path);
  if (key == OPT_GAMMA) return pdt_cli_real(state, "gamma", arg, 0, 1, &o->gamma);
  if (key == OPT_REQUEST) return pdt_cli_integer(state, "request", arg, 0, INT32_MAX, &o->request);
  if (key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
  if (o->path) return 0;
  argp_error(state, "expected a PATH, a journal or a trace");
  return EINVAL;
}

int pdt_cmd_view(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp argp = {options, parse, "PATH", doc, NULL, NULL, NULL};
  pdt_view_options o = {.out = "-", .gamma = -1, .request = -1};
  int rc = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (rc) return rc < 0 ? -1 : 0;
  return pdt_view(&o, err);
}
