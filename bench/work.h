/* Requests that benches make up, and what is said of many figures. */
#ifndef PDT_BENCH_WORK_H
#define PDT_BENCH_WORK_H

#include <argp.h>
#include <jansson.h>

#include "engine/engine.h"

/* A request of `prompt` random token ids, which the seed decides, and settings beside or over the
 * sidecar's defaults: a JSON object, borrowed. Errors: MEMORY, USAGE for settings that cannot be.
 */
int work_request(pdt_engine *engine, int32_t prompt, uint64_t seed, uint64_t session,
                 const json_t *settings, pdt_request *out, pdt_error *err);

/* A number of a sequence that the seed decides, in (0, 1). */
double work_uniform(uint64_t seed, uint32_t index);

/* A hash of the tokens of all streams of a session, their lengths included. */
uint64_t work_hash(const pdt_session *session);

/* main of a bench of all ranks: starts them in *world, parses, lets `run` do the work, and ends.
 * `name` stands before errors, of which rank 0 tells. Returns the exit status. */
typedef struct work_main_of {
  const char *name;
  const struct argp *argp;
  int (*run)(void *bench, pdt_error *err); /* collective over world; all ranks fail alike */
  void *bench;                             /* what the parser gets, too */
} work_main_of;
int work_main(const work_main_of *m, int argc, char **argv, pdt_comm *world);

/* Mean, and the smallest figure that at least so many of all are not above. Zeros for none. */
typedef struct work_spread {
  double mean, p50, p90, p99, max;
} work_spread;

/* Of n figures, which are put in order. */
work_spread work_spread_of(double *figures, int64_t n);

#endif
