/* pdt plan. */
#include <errno.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/engine_flags.h"
#include "run/forecast.h"

enum {
  DTYPE = 256,
  RANKS,
  PER_MACHINE,
  STREAMS,
  SESSIONS,
  PROMPT,
  TOKENS,
  BLOCK,
  EXCHANGE,
  BOUNDARY,
  MEMORY
};

static error_t parse_count(pdt_forecast_options *o, int key, const char *arg,
                           struct argp_state *state) {
  static const char *const names[] = {"ranks",  "per-machine", "streams",     "sessions",
                                      "prompt", "tokens",      "block-tokens"};
  int32_t *numbers[] = {&o->ranks,  &o->per_machine, &o->streams,     &o->sessions,
                        &o->prompt, &o->tokens,      &o->block_tokens};
  int64_t number = 0;
  error_t code = pdt_cli_integer(state, names[key - RANKS], arg, 1, 1 << 20, &number);
  *numbers[key - RANKS] = (int32_t)number;
  return code;
}

static error_t parse_seconds(double *seconds, const char *name, const char *arg,
                             struct argp_state *state) {
  double us = 0;
  error_t code = pdt_cli_real(state, name, arg, 0, 1e9, &us);
  *seconds = us * 1e-6;
  return code;
}

static error_t check(const pdt_forecast_options *o, struct argp_state *state) {
  int named = (o->model != NULL) + (o->config != NULL) + (o->preset != NULL);
  if (named == 1 && o->ranks > 0) return 0;
  argp_error(state,
             named != 1 ? "expected one of --model, --config and --preset" : "expected --ranks N");
  return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  pdt_forecast_options *o = state->input;
  const pdt_cli_kept kept[] = {{'m', &o->model, NULL},
                               {'c', &o->config, NULL},
                               {'p', &o->preset, NULL},
                               {'f', &o->measured, NULL},
                               {'j', NULL, &o->json}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key >= RANKS && key <= BLOCK) return parse_count(o, key, arg, state);
  switch (key) {
  case DTYPE:
    if (pdt_dtype_parse(arg, &o->dtype)) return 0;
    argp_error(state, "--dtype: expected F32, F16, BF16 or a quantized type as Q8_0, found '%s'",
               arg);
    return EINVAL;
  case EXCHANGE:
    return parse_seconds(&o->exchange_seconds, "exchange-us", arg, state);
  case BOUNDARY:
    return parse_seconds(&o->boundary_seconds, "boundary-us", arg, state);
  case MEMORY:
    return pdt_cli_bytes(state, "memory", arg, &o->memory);
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, "argument", arg, NULL);
  case ARGP_KEY_END:
    return check(o, state);
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int pdt_cmd_plan(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp_option table[] = {
      {"model", 'm', "DIR", 0,
       "a model's directory, of which only config.json is read, or GGUF file, of which only sizes "
       "are; or",
       0},
      {"config", 'c', "FILE", 0, "a config.json; or", 0},
      {"preset", 'p', "NAME", 0, "a known shape, as pdt model random has them", 0},
      {"dtype", DTYPE, "TYPE", 0,
       "of the weights: F32, F16, BF16, or Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K (BF16)",
       0},
      {"ranks", RANKS, "N", 0, "ranks altogether", 1},
      {"per-machine", PER_MACHINE, "N", 0, "of them, on one machine (all)", 1},
      {"memory", MEMORY, "BYTES", 0, "of one machine; 64G is understood", 1},
      {"sessions", SESSIONS, "N", 0, "in flight at once (1)", 2},
      {"streams", STREAMS, "K", 0, "of each (4)", 2},
      {"prompt", PROMPT, "N", 0, "tokens of a prompt (128)", 2},
      {"tokens", TOKENS, "N", 0, "tokens of a stream (64)", 2},
      {"block-tokens", BLOCK, "N", 0, "tokens of a block (16)", 2},
      {"measured", 'f', "FILE", 0,
       "what bench/decode --json wrote on such a machine: without it there are no times", 3},
      {"exchange-us", EXCHANGE, "US", 0,
       "microseconds of one exchange inside a group, as pdt doctor measures them (20)", 3},
      {"boundary-us", BOUNDARY, "US", 0, "of a boundary, as bench/boundary measures it (100)", 3},
      {"json", 'j', NULL, 0, "a JSON list in place of a table", 4},
      {0}};
  static const struct argp argp = {
      table,
      parse,
      NULL,
      "Forecast what a model needs and does on a cluster: memory of a rank and time of a round, "
      "for "
      "every way to cut the ranks into shard groups; the best is marked. A step takes as long as "
      "reading a rank's weights or multiplying by them, whichever is longer, at the best rates "
      "that "
      "were measured, and the exchanges of every layer. The sidecar is left out."
      "\vExamples:\n"
      "  pdt plan --preset llama-8b --ranks 8 --memory 64G\n"
      "  bench/decode --json > here.json\n"
      "  pdt plan --preset smollm2-135m --ranks 2 --measured here.json --streams 8\n",
      NULL,
      NULL,
      NULL};
  pdt_forecast_options o = {.dtype = PDT_BF16,
                            .streams = 4,
                            .sessions = 1,
                            .prompt = 128,
                            .tokens = 64,
                            .block_tokens = 16,
                            .exchange_seconds = 20e-6,
                            .boundary_seconds = 100e-6};
  int status = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (status == 0) status = pdt_forecast_run(&o, stdout, err);
  return status < 0 ? -1 : 0;
}
