/* pdt sidecar describe. */
#include <errno.h>

#include "cli/cli.h"
#include "data/entry.h"
#include "run/describe.h"

enum {
  OPT_MODEL = 256,
  OPT_SIDECAR,
  OPT_DATA,
  OPT_STAGES,
  OPT_TEMPERATURE,
  OPT_GAMMA,
  OPT_OUT,
  OPT_PART_SLOTS,
  OPT_OVERWRITE
};

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "the model it is for", 0},
    {"sidecar", OPT_SIDECAR, "FILE", 0, "the sidecar, left as it is", 0},
    {"data", OPT_DATA, "FILE", 0, "what it was trained with; repeat it for every file", 0},
    {"stages", OPT_STAGES, "A,B,...", 0,
     "in which stages: some of 0, 1, 2, 3, all, rollouts (default 0,1,2,3)", 0},
    {"temperature", OPT_TEMPERATURE, "X", 0, "of its rollouts", 0},
    {"gamma", OPT_GAMMA, "R", 0, "readiness threshold that was chosen for it (default: as it was)",
     0},
    {"part-slots", OPT_PART_SLOTS, "N", 0,
     "plan slots of one stream's part, for one whose streams learned to find their part of the "
     "plan (pdt data atlas --untitled): a prompt alone then has as many streams as its plan "
     "(default: as it was)",
     0},
    {"out", OPT_OUT, "FILE", 0, "the sidecar to write", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace a sidecar that is there", 0},
    {0},
};

static const char doc[] =
    "Writes into a sidecar what it was trained with, or settings that were chosen afterwards (pdt "
    "eval --sweep gamma), and changes nothing else."
    "\vThe former pdt train does by itself; this is for sidecars that were trained before it did, "
    "or elsewhere. pdt decode and pdt eval warn of requests that are far from it, and pdt inspect "
    "shows it.\n\n"
    "Examples:\n"
    "  pdt sidecar describe --model m --sidecar old.safetensors \\\n"
    "      --data train.jsonl --out sidecar.safetensors\n"
    "  pdt sidecar describe --model m --sidecar old.safetensors \\\n"
    "      --data a.jsonl --data b.jsonl --stages 0,1,2,3,rollouts \\\n"
    "      --temperature 0.8 --out sidecar.safetensors\n"
    "  pdt sidecar describe --model m --sidecar trained.safetensors \\\n"
    "      --gamma 0.9 --out sidecar.safetensors\n";

static error_t add_data(pdt_describe_options *o, const char *path, struct argp_state *state) {
  if (o->n_data == PDT_DESCRIBE_DATA) {
    argp_error(state, "--data: expected %d files at most", PDT_DESCRIBE_DATA);
    return EINVAL;
  }
  o->data[o->n_data++] = path;
  return 0;
}

static error_t check(const pdt_describe_options *o, struct argp_state *state) {
  bool says_more = o->stages || o->temperature >= 0, sets = o->gamma >= 0 || o->part_slots >= 0;
  if (!o->model || !o->sidecar || !o->out || (o->n_data == 0 && !sets))
    argp_error(state, "expected --model, --sidecar, --out, and --data, --gamma or --part-slots");
  else if (o->n_data == 0 && says_more)
    argp_error(state, "--stages and --temperature say how --data was used: expected --data");
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_describe_options *o = state->input;
  const pdt_cli_kept kept[] = {{OPT_MODEL, &o->model, NULL},
                               {OPT_SIDECAR, &o->sidecar, NULL},
                               {OPT_STAGES, &o->stages, NULL},
                               {OPT_OUT, &o->out, NULL},
                               {OPT_OVERWRITE, NULL, &o->overwrite}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_DATA:
    return add_data(o, arg, state);
  case OPT_TEMPERATURE:
    return pdt_cli_real(state, "temperature", arg, 0, 1e6, &o->temperature);
  case OPT_GAMMA:
    return pdt_cli_real(state, "gamma", arg, 0, 1, &o->gamma);
  case OPT_PART_SLOTS:
    return pdt_cli_int32(state, "part-slots", arg, 0, PDT_DATA_SLOTS, &o->part_slots);
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    return check(o, state);
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_sidecar_describe(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  pdt_describe_options o = {.temperature = -1, .gamma = -1, .part_slots = -1};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  if (!o.stages) o.stages = "0,1,2,3";
  return pdt_describe(&o, err);
}
