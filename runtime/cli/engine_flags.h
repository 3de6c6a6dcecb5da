/* What an engine is made of, as flags of the command line, for every command that decodes. */
#ifndef PDT_CLI_ENGINE_FLAGS_H
#define PDT_CLI_ENGINE_FLAGS_H

#include "cli/cli.h"
#include "engine/engine.h"

typedef enum pdt_engine_flag {
  PDT_FLAG_MODEL,
  PDT_FLAG_SIDECAR,
  PDT_FLAG_TP,
  PDT_FLAG_THREADS,
  PDT_FLAG_MAX_SESSIONS,
  PDT_FLAG_KV_MEMORY, /* bytes; 512M, 4G are understood */
  PDT_FLAG_KERNELS,
  PDT_FLAG_DEVICE,
  PDT_FLAG_EXCHANGE_TIMEOUT, /* seconds; 0: none */
  PDT_FLAG_ROUND_TIMEOUT,
  PDT_FLAG_COMPUTE,
  PDT_FLAG_GPU,
  PDT_FLAG_EXCHANGE,
  PDT_ENGINE_FLAGS
} pdt_engine_flag;

/* For use in an argp parser: puts the argument of a flag into `engine`, which borrows it; 0, or the
 * error code that the parser returns. Every kind of bad value ends in argp_error, which keeps the
 * message. */
error_t pdt_engine_flag_parse(pdt_engine_options *engine, pdt_engine_flag flag, char *arg,
                              struct argp_state *state);

#endif
