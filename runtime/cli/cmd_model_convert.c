/* pdt model convert. */
#include <errno.h>
#include <strings.h>

#include "cli/cli.h"
#include "run/convert.h"

enum { OPT_DTYPE = 256, OPT_QUANTIZE, OPT_OVERWRITE };

static const struct argp_option options[] = {
    {"dtype", OPT_DTYPE, "TYPE", 0,
     "F32, F16 or BF16 for all matrices (as they are; quantized ones in a directory as F32)", 0},
    {"quantize", OPT_QUANTIZE, "TYPE", 0,
     "q8_0 or q4_0, into GGUF, rounded as ggml's reference does. With q4_0 the output, or the "
     "embedding where it is both, is q8_0; rows that are no multiple of 32 are F16",
     0},
    {"overwrite", OPT_OVERWRITE, NULL, 0, "replace what is there", 0},
    {0},
};

static const char doc[] =
    "Writes the model SRC as DST: a GGUF file as a Hugging Face directory, or either as a GGUF "
    "file, "
    "which DST is when its name ends in .gguf."
    "\vIn GGUF norms and biases are F32. config.json is written last: a directory that has one is "
    "whole.\n\n"
    "Examples:\n"
    "  pdt model convert SmolLM2-135M-Instruct.Q4_1.gguf m\n"
    "  pdt model convert --quantize q8_0 m m.gguf\n"
    "  pdt model convert --dtype BF16 model-00001-of-00003.gguf m\n";

static error_t parse_type(pdt_convert_options *o, int key, const char *arg,
                          struct argp_state *state) {
  static const pdt_dtype known[] = {PDT_F32, PDT_F16, PDT_BF16, PDT_Q8_0, PDT_Q4_0};
  bool quantize = key == OPT_QUANTIZE;
  for (int i = quantize ? 3 : 0; i < (quantize ? 5 : 3); i++)
    if (strcasecmp(arg, pdt_dtype_name(known[i])) == 0) {
      bool again = o->has_dtype;
      o->has_dtype = true;
      o->dtype = known[i];
      if (!again) return 0;
      argp_error(state, "expected one of --dtype and --quantize, once");
      return EINVAL;
    }
  argp_error(state, "--%s: expected %s, found '%s'", quantize ? "quantize" : "dtype",
             quantize ? "q8_0 or q4_0" : "F32, F16 or BF16", arg);
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_convert_options *o = state->input;
  const pdt_cli_kept kept[] = {{OPT_OVERWRITE, NULL, &o->overwrite}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case OPT_DTYPE:
  case OPT_QUANTIZE:
    return parse_type(o, key, arg, state);
  case ARGP_KEY_ARG:
    return o->source ? pdt_cli_argument(state, "DST", arg, &o->target)
                     : pdt_cli_argument(state, "SRC", arg, &o->source);
  case ARGP_KEY_END:
    if (o->target) return 0;
    argp_error(state, "expected SRC and DST");
    return EINVAL;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_model_convert(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_convert_options o = {0};
  static const struct argp argp = {options, parse_option, "SRC DST", doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  return pdt_convert(&o, err);
}
