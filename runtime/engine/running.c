#include "engine/running.h"

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

int64_t pdt_running_pages(const pdt_request *request, pdt_rank begin, pdt_rank end,
                          pdt_rank ranks) {
  int64_t pages = 0;
  for (pdt_stream k = 0; k < request->settings.streams; k++) {
    pdt_rank owner = pdt_owner_of(k, ranks);
    if (owner >= begin && owner < end) pages += pdt_kv_pages(pdt_request_own_tokens(request, k));
  }
  return pages > 0 ? pages + pdt_kv_pages(request->n_prompt) : 0;
}

/* Replicated parts. */
static int new_replica(pdt_running *r, const pdt_sidecar *sidecar, pdt_error *err) {
  const pdt_settings *settings = &r->request->settings;
  int32_t window = pdt_settings_window(settings);
  return pdt_session_new(&r->session, settings, sidecar->config.notes_dim, PDT_ROOM_FOR_ALL, err) ||
                 PDT_NEW(&r->sequences, settings->streams, "streams", err) ||
                 PDT_NEW(&r->drafts, settings->streams, "streams", err) ||
                 PDT_NEW(&r->window_notes, window, "window", err) ||
                 PDT_NEW(&r->window_names, window, "window", err) ||
                 pdt_plan_new(&r->plan, sidecar, err)
             ? -1
             : 0;
}

/* Page tables on the ranks of a group that decodes some of the streams. */
static int new_sequences(const pdt_request *q, const pdt_place *place, pdt_kv_cache *kv,
                         pdt_kv_sequence *prompt, pdt_kv_sequence *sequences, pdt_error *err) {
  if (pdt_kv_sequence_new(prompt, kv, NULL, 0, q->n_prompt, err)) return -1;
  for (pdt_stream k = 0; k < q->settings.streams; k++) {
    pdt_rank owner = pdt_owner_of(k, place->ranks);
    if (owner < place->group_begin || owner >= place->group_end) continue;
    /* every stream reads the last prompt token itself */
    if (pdt_kv_sequence_new(&sequences[k], kv, prompt, q->n_prompt - 1,
                            pdt_request_own_tokens(q, k), err))
      return -1;
  }
  return 0;
}

int pdt_running_new(pdt_running *r, pdt_request *request, int32_t index, const pdt_place *place,
                    pdt_sidecar *sidecar, pdt_kv_cache *kv, pdt_kv_cache *draft_kv,
                    pdt_error *err) {
  int32_t K = request->settings.streams;
  *r = (pdt_running){.own_request = *request, .request = &r->own_request, .index = index};
  *request = (pdt_request){0};
  r->computes = pdt_streams_among(K, place->group_begin, place->group_end, place->ranks) > 0;
  r->owns = pdt_streams_among(K, place->rank, place->rank + 1, place->ranks) > 0;
  int64_t sums = place->group_begin == 0 ? pdt_plan_sums(sidecar) : 0;
  return (sums > 0 && PDT_NEW(&r->sums, sums, "prompt", err)) || new_replica(r, sidecar, err) ||
                 (r->computes &&
                  new_sequences(r->request, place, kv, &r->prompt, r->sequences, err)) ||
                 (r->computes && draft_kv &&
                  new_sequences(r->request, place, draft_kv, &r->draft_prompt, r->drafts, err)) ||
                 (r->owns && pdt_window_new(&r->window, sidecar,
                                            pdt_settings_window(&r->request->settings), err))
             ? -1
             : 0;
}

int pdt_running_alter(pdt_running *r, const pdt_place *place, pdt_sidecar *sidecar,
                      pdt_error *err) {
  int32_t budget = pdt_settings_window(&r->request->settings);
  int32_t K = r->request->settings.streams;
  if (PDT_NEW(&r->altered_notes, (int64_t)budget * sidecar->config.notes_dim, "window", err) ||
      PDT_NEW(&r->altered, K, "window", err))
    return -1;
  for (pdt_stream k = 0; k < K; k++)
    if (pdt_owner_of(k, place->ranks) == place->rank &&
        pdt_window_new(&r->altered[k], sidecar, budget, err))
      return -1;
  return 0;
}

const pdt_window *pdt_running_window(const pdt_running *r, pdt_stream k) {
  return r->altered ? &r->altered[k] : &r->window;
}

void pdt_running_free(pdt_running *r, pdt_kv_cache *kv, pdt_kv_cache *draft_kv) {
  for (pdt_stream k = 0; r->altered && k < r->request->settings.streams; k++)
    pdt_window_free(&r->altered[k]);
  free(r->altered);
  free(r->altered_notes);
  for (pdt_stream k = 0; r->sequences && r->drafts && k < r->request->settings.streams; k++) {
    pdt_kv_sequence_free(&r->sequences[k], kv);
    pdt_kv_sequence_free(&r->drafts[k], draft_kv);
  }
  pdt_kv_sequence_free(&r->prompt, kv);
  pdt_kv_sequence_free(&r->draft_prompt, draft_kv);
  free(r->drafts);
  free(r->sequences);
  free(r->sums);
  free(r->window_notes);
  free(r->window_names);
  pdt_session_free(&r->session);
  pdt_plan_free(&r->plan);
  pdt_window_free(&r->window);
  pdt_request_free(&r->own_request);
  *r = (pdt_running){0};
}
