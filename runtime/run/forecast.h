/* What a model will need and do on a cluster, before anything is started: memory of a rank and time
 * of a round for every way to cut so many ranks into shard groups, from a model's config and from
 * rates that bench/decode measured on such a machine. */
#ifndef PDT_RUN_FORECAST_H
#define PDT_RUN_FORECAST_H

#include <stdio.h>

#include "base/dtype.h"
#include "model/config.h"

typedef struct pdt_forecast_options {
  const char *model, *config, *preset; /* a directory, a config.json, or a known shape: one */
  const char *measured;                /* what bench/decode --json wrote; NULL: no times */
  pdt_dtype dtype;                     /* of the weights */
  pdt_rank ranks, per_machine;         /* >= 1; ranks of one machine, 0: all */
  int32_t streams, sessions, prompt, tokens, block_tokens;
  double exchange_seconds, boundary_seconds; /* one exchange inside a group; one boundary */
  pdt_bytes memory;                          /* of a machine; 0: not known */
  bool json;
} pdt_forecast_options;

/* What one rank can do a second. */
typedef struct pdt_forecast_rates {
  double bytes, flops; /* of weights read; of multiplications and additions; 0: not known */
} pdt_forecast_rates;

/* One way to cut the ranks: of the rank that has most, or is slowest. */
typedef struct pdt_forecast {
  pdt_rank tensor_parallel;
  pdt_bytes weights, cache, work;        /* work: rows, logits and states under way */
  int32_t rows;                          /* of a step of one group */
  bool fits;                             /* into a machine's memory, where that is known */
  double step, round, tokens_per_second; /* seconds; 0 without rates */
} pdt_forecast;

/* The forecast for shard groups of T ranks, which divides options->ranks. Errors: MEMORY. */
int pdt_forecast_of(const pdt_forecast_options *options, const pdt_model_config *model,
                    pdt_forecast_rates rates, pdt_rank T, pdt_forecast *out, pdt_error *err);

/* Reads config and measurements, and prints the forecasts of all T, the best one marked. Errors:
 * USAGE, IO, INPUT, MEMORY. */
int pdt_forecast_run(const pdt_forecast_options *given, FILE *out, pdt_error *err);

#endif
