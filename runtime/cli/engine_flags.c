#include "cli/engine_flags.h"

#include <errno.h>
#include <strings.h>

#include "engine/draft.h"

/* Seconds; of engine options 0 means the usual ones, and less means none. */
static error_t parse_seconds(struct argp_state *state, const char *option, const char *arg,
                             double *out) {
  error_t code = pdt_cli_real(state, option, arg, 0, 1e6, out);
  if (*out == 0) *out = -1;
  return code;
}

static error_t parse_quantize(struct argp_state *state, const char *arg, pdt_dtype *out) {
  bool q8_0 = strcasecmp(arg, "q8_0") == 0;
  if (!q8_0 && strcasecmp(arg, "q4_0") != 0) {
    argp_error(state, "--quantize: expected q8_0 or q4_0, found '%s'", arg);
    return EINVAL;
  }
  *out = q8_0 ? PDT_Q8_0 : PDT_Q4_0;
  return 0;
}

error_t pdt_engine_flag_parse(pdt_engine_options *engine, pdt_engine_flag flag, char *arg,
                              struct argp_state *state) {
  int64_t number = 0;
  error_t code = 0;
  switch (flag) {
  case PDT_FLAG_MODEL:
    engine->model = arg;
    break;
  case PDT_FLAG_SIDECAR:
    engine->sidecar = arg;
    break;
  case PDT_FLAG_KERNELS:
    engine->machine.kernels = arg;
    break;
  case PDT_FLAG_DEVICE:
    engine->machine.device = arg;
    break;
  case PDT_FLAG_EXCHANGE_TIMEOUT:
    return parse_seconds(state, "exchange-timeout", arg, &engine->deadlines.exchange_seconds);
  case PDT_FLAG_ROUND_TIMEOUT:
    return parse_seconds(state, "round-timeout", arg, &engine->deadlines.round_seconds);
  case PDT_FLAG_COMPUTE:
    engine->machine.compute = arg;
    break;
  case PDT_FLAG_QUANTIZE:
    return parse_quantize(state, arg, &engine->quantize);
  case PDT_FLAG_GPU:
    code = pdt_cli_integer(state, "gpu", arg, 0, 1023, &number);
    engine->machine.gpu_given = true;
    engine->machine.gpu = (int)number;
    break;
  case PDT_FLAG_EXCHANGE:
    engine->machine.exchange = arg;
    break;
  case PDT_FLAG_DRAFT:
    engine->draft = arg;
    break;
  case PDT_FLAG_DRAFT_TOKENS:
    code = pdt_cli_integer(state, "draft-tokens", arg, 1, PDT_MOST_DRAFT_TOKENS, &number);
    engine->draft_tokens = (int32_t)number;
    break;
  case PDT_FLAG_KV_MEMORY:
    return pdt_cli_bytes(state, "kv-memory", arg, &engine->kv_bytes);
  case PDT_FLAG_TP:
    code = pdt_cli_integer(state, "tp", arg, 1, INT32_MAX, &number);
    engine->machine.tensor_parallel = (int)number;
    break;
  case PDT_FLAG_THREADS:
    code = pdt_cli_integer(state, "threads", arg, 1, 4096, &number);
    engine->machine.threads = (int)number;
    break;
  default:
    code = pdt_cli_integer(state, "max-sessions", arg, 1, 1 << 20, &number);
    engine->max_sessions = (int32_t)number;
    break;
  }
  return code;
}
