#include "engine/session.h"

#include <stdlib.h>

#include "base/memory.h"

int32_t pdt_streams_among(int32_t K, pdt_rank begin, pdt_rank end, pdt_rank ranks) {
  int32_t n = 0;
  for (pdt_stream k = 0; k < K; k++) {
    pdt_rank owner = pdt_owner_of(k, ranks);
    n += owner >= begin && owner < end;
  }
  return n;
}

int64_t pdt_session_pages(const pdt_request *request, pdt_rank begin, pdt_rank end,
                          pdt_rank ranks) {
  int64_t pages = 0;
  for (pdt_stream k = 0; k < request->settings.streams; k++) {
    pdt_rank owner = pdt_owner_of(k, ranks);
    if (owner >= begin && owner < end) pages += pdt_kv_pages(pdt_request_own_tokens(request, k));
  }
  return pages > 0 ? pages + pdt_kv_pages(request->n_prompt) : 0;
}

/* Replicated parts: plan, bus, streams. */
static int new_replica(pdt_session *s, const pdt_sidecar *sidecar, pdt_error *err) {
  const pdt_settings *settings = &s->request->settings;
  int64_t notes = pdt_request_notes(s->request);
  int32_t window = pdt_request_window(s->request);
  if (notes > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_MEMORY, "notes bus: room for %lld notes is too much",
                    (long long)notes);
  if (PDT_NEW(&s->streams, settings->streams, "streams", err) ||
      PDT_NEW(&s->sequences, settings->streams, "streams", err) ||
      PDT_NEW(&s->window_notes, window, "window", err) ||
      PDT_NEW(&s->window_names, window, "window", err) || pdt_plan_new(&s->plan, sidecar, err) ||
      pdt_bus_new(&s->bus, sidecar->config.notes_dim, settings->reveal_delay, window,
                  (int32_t)notes, err))
    return -1;
  for (pdt_stream k = 0; k < settings->streams; k++)
    if (pdt_stream_new(&s->streams[k], k, &settings->limits, settings->max_rounds, err)) return -1;
  return 0;
}

/* Page tables on the ranks of a group that decodes some of the streams. */
static int new_sequences(pdt_session *s, const pdt_place *place, pdt_kv_cache *kv, pdt_error *err) {
  const pdt_request *r = s->request;
  if (pdt_kv_sequence_new(&s->prompt, kv, NULL, 0, r->n_prompt, err)) return -1;
  for (pdt_stream k = 0; k < r->settings.streams; k++) {
    pdt_rank owner = pdt_owner_of(k, place->ranks);
    if (owner < place->group_begin || owner >= place->group_end) continue;
    /* every stream reads the last prompt token itself */
    if (pdt_kv_sequence_new(&s->sequences[k], kv, &s->prompt, r->n_prompt - 1,
                            pdt_request_own_tokens(r, k), err))
      return -1;
  }
  return 0;
}

int pdt_session_new(pdt_session *s, const pdt_request *request, int32_t index,
                    const pdt_place *place, pdt_sidecar *sidecar, pdt_kv_cache *kv,
                    pdt_error *err) {
  int32_t K = request->settings.streams;
  *s = (pdt_session){.request = request, .index = index, .round = 1};
  s->computes = pdt_streams_among(K, place->group_begin, place->group_end, place->ranks) > 0;
  s->owns = pdt_streams_among(K, place->rank, place->rank + 1, place->ranks) > 0;
  if (new_replica(s, sidecar, err) || (s->computes && new_sequences(s, place, kv, err)) ||
      (s->owns && pdt_window_new(&s->window, sidecar, pdt_request_window(request), err))) {
    pdt_session_free(s, kv);
    return -1;
  }
  return 0;
}

void pdt_session_free(pdt_session *s, pdt_kv_cache *kv) {
  for (pdt_stream k = 0; s->request && k < s->request->settings.streams; k++) {
    if (s->sequences) pdt_kv_sequence_free(&s->sequences[k], kv);
    if (s->streams) pdt_stream_free(&s->streams[k]);
  }
  pdt_kv_sequence_free(&s->prompt, kv);
  free(s->sequences);
  free(s->streams);
  free(s->window_notes);
  free(s->window_names);
  pdt_plan_free(&s->plan);
  pdt_bus_free(&s->bus);
  pdt_window_free(&s->window);
  *s = (pdt_session){0};
}

bool pdt_session_complete(const pdt_session *s) {
  for (pdt_stream k = 0; k < s->request->settings.streams; k++)
    if (!s->streams[k].done) return false;
  return true;
}
