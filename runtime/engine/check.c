/* What must hold between two rounds, in builds that check. */
#include "base/check.h"

#include <stdlib.h>

#include "engine/run.h"

#ifdef PDT_CHECKS
/* Page tables of all sessions in flight against the cache. */
static void check_cache(const pdt_run *run) {
  int64_t room = 0;
  int32_t n = 0;
  for (int32_t i = 0; i < run->n_sessions; i++)
    room += 1 + run->sessions[i]->session.settings.streams;
  const pdt_kv_sequence **all = malloc((size_t)(room + 1) * sizeof *all);
  if (!all) return; /* without memory there is no check */
  for (int32_t i = 0; i < run->n_sessions; i++) {
    const pdt_running *r = run->sessions[i];
    all[n++] = &r->prompt;
    for (pdt_stream k = 0; k < r->session.settings.streams; k++) all[n++] = &r->sequences[k];
  }
  PDT_INVARIANT(pdt_kv_is_valid(&run->kv, all, n));
  free((void *)all);
}
#endif

void pdt_run_check_begin(const pdt_run *run) {
#ifdef PDT_CHECKS
  const pdt_comm *world = run->machine->world;
  const pdt_engine_variant *v = run->variant;
  PDT_CHECK_SAME(world, run->details);
  PDT_CHECK_SAME(world, v->plain);
  PDT_CHECK_SAME(world, v->no_snc);
  PDT_CHECK_SAME(world, v->n_ends);
  for (int32_t i = 0; i < v->n_ends; i++) PDT_CHECK_SAME(world, v->ends[i]);
#else
  (void)run;
#endif
}

void pdt_run_check(const pdt_run *run) {
#ifdef PDT_CHECKS
  const pdt_comm *world = run->machine->world;
  PDT_CHECK_SAME(world, run->n_sessions);
  PDT_CHECK_SAME(world, run->n_decoding);
  for (int32_t i = 0; i < run->n_sessions; i++) {
    const pdt_running *r = run->sessions[i];
    PDT_CHECK_SAME(world, r->index);
    PDT_CHECK_SAME(world, r->n_encoded);
    PDT_CHECK_SAME(world, pdt_session_hash(&r->session));
    PDT_INVARIANT(pdt_session_is_valid(&r->session));
  }
  check_cache(run);
#else
  (void)run;
#endif
}
