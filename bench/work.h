/* Requests that benches make up, and what is said of many figures. */
#ifndef PDT_BENCH_WORK_H
#define PDT_BENCH_WORK_H

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

/* Mean, and the smallest figure that at least so many of all are not above. Zeros for none. */
typedef struct work_spread {
  double mean, p50, p90, p99, max;
} work_spread;

/* Of n figures, which are put in order. */
work_spread work_spread_of(double *figures, int64_t n);

#endif
