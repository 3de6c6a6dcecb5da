#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "protocol/philox.h"
#include "request/parse.h"

double work_uniform(uint64_t seed, uint32_t index) {
  return pdt_uniform(seed, index, 0, 0, 0);
}

int work_request(pdt_engine *engine, int32_t prompt, uint64_t seed, uint64_t session,
                 const json_t *settings, pdt_request *out, pdt_error *err) {
  const pdt_loaded *loaded = pdt_engine_loaded(engine);
  const pdt_request_context context = {&loaded->model, &loaded->sidecar.config, NULL};
  json_t *ids = json_array();
  for (int32_t i = 0; i < prompt; i++)
    json_array_append_new(ids, json_integer((json_int_t)(work_uniform(seed, (uint32_t)i) *
                                                         loaded->model.vocab_size)));
  json_t *json = json_pack("{s:o,s:O}", "prompt_ids", ids, "settings", settings);
  if (!json) return pdt_fail(err, PDT_ERROR_MEMORY, "bench: no memory for a request");
  int status = pdt_request_parse(out, json, "bench", session, &context, err);
  json_decref(json);
  return status;
}

uint64_t work_hash(const pdt_session *session) {
  uint64_t hash = 0;
  for (int32_t k = 0; k < session->settings.streams; k++) {
    const pdt_stream_state *s = &session->streams[k];
    size_t bytes = (size_t)s->n_committed * sizeof *s->tokens;
    hash = XXH3_64bits_withSeed(s->tokens, bytes, hash ^ (uint64_t)s->n_committed);
  }
  return hash;
}

int work_main(const work_main_of *m, int argc, char **argv, pdt_comm *world) {
  pdt_error err = {0};
  if (pdt_comm_start(world, &argc, &argv, &err)) {
    fprintf(stderr, "%s: %s\n", m->name, err.message);
    return 1;
  }
  int flags = world->rank == 0 ? 0 : ARGP_SILENT;
  int status = argp_parse(m->argp, argc, argv, flags, NULL, m->bench) ? 2 : 0;
  if (!status && m->run(m->bench, &err)) {
    if (world->rank == 0) fprintf(stderr, "%s: %s\n", m->name, err.message);
    status = 1;
  }
  pdt_comm_finish(world);
  return status;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

work_spread work_spread_of(double *figures, int64_t n) {
  work_spread s = {0};
  if (n < 1) return s;
  qsort(figures, (size_t)n, sizeof *figures, compare);
  for (int64_t i = 0; i < n; i++) s.mean += figures[i] / (double)n;
  s.p50 = figures[(n - 1) * 50 / 100];
  s.p90 = figures[(n - 1) * 90 / 100];
  s.p99 = figures[(n - 1) * 99 / 100];
  s.max = figures[n - 1];
  return s;
}
