/* Sizes of everything a run needs, worked out from all requests before the first starts. */
#include <stdlib.h>

#include "base/memory.h"
#include "engine/internal.h"

/* What one request takes, by kind. */
enum amount_kind {
  LANES,
  GROUP_LANES,
  OWN_LANES,
  TOKENS,
  OWN_TOKENS,
  RECORDS, /* bytes */
  OWN_RECORDS,
  PAGES,
  KINDS
};

static int64_t amount_of(const pdt_engine *e, const pdt_request *r, enum amount_kind kind) {
  const pdt_place *p = &e->place;
  int64_t K = r->settings.streams, block = pdt_settings_block(&r->settings);
  int64_t own = pdt_streams_among(r->settings.streams, p->rank, p->rank + 1, p->ranks);
  switch (kind) {
  case LANES:
    return K;
  case GROUP_LANES:
    return pdt_streams_among(r->settings.streams, p->group_begin, p->group_end, p->ranks);
  case OWN_LANES:
    return own;
  case TOKENS:
    return K * block;
  case OWN_TOKENS:
    return own * block;
  case RECORDS:
    return K * pdt_record_bytes(e, (int32_t)block);
  case OWN_RECORDS:
    return own * pdt_record_bytes(e, (int32_t)block);
  default:
    return pdt_running_pages(r, p->group_begin, p->group_end, p->ranks);
  }
}

/* Fills in the maxima of the buffers. */
static int find_maxima(pdt_engine *e, const pdt_request *requests, int32_t n, int64_t *worst,
                       pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  int64_t *amounts;
  if (PDT_NEW(&amounts, n, "requests", err)) return -1;
  for (enum amount_kind kind = LANES; kind < KINDS; kind++) {
    for (int32_t i = 0; i < n; i++) amounts[i] = amount_of(e, &requests[i], kind);
    worst[kind] = pdt_most_at_once(amounts, n, e->options.max_sessions);
  }
  free(amounts);
  for (int32_t i = 0; i < n; i++) {
    int32_t positions = pdt_request_positions(&requests[i]);
    int32_t block = pdt_settings_block(&requests[i].settings),
            window = pdt_settings_window(&requests[i].settings);
    if (positions > b->max_positions) b->max_positions = positions;
    if (block > b->max_block) b->max_block = block;
    if (window > b->max_window) b->max_window = window;
  }
  if (worst[LANES] > 1 << 20 || worst[PAGES] > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_MEMORY,
                    "%lld streams with %lld cache pages in flight are too many (hint: "
                    "--max-sessions)",
                    (long long)worst[LANES], (long long)worst[PAGES]);
  b->max_lanes = (int32_t)worst[LANES];
  b->max_group = (int32_t)worst[GROUP_LANES];
  b->max_own = (int32_t)worst[OWN_LANES];
  b->max_pages = (int32_t)worst[PAGES];
  return 0;
}

static int new_lane_buffers(pdt_engine *e, const int64_t *worst, int32_t n_requests,
                            pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  pdt_device *dev = &e->device;
  int64_t d = e->model.hidden_size, S = e->sidecar.config.plan_slots;
  int64_t lanes = b->max_lanes, dn = e->sidecar.config.notes_dim, ranks = e->place.ranks;
  int64_t all = e->place.rank == 0 ? ranks * 64 + worst[RECORDS] : 0;
  int32_t at_once = e->options.max_sessions < n_requests ? e->options.max_sessions : n_requests;
  return PDT_NEW(&b->lanes, lanes, "round", err) ||
         PDT_NEW(&b->group, b->max_group, "round", err) ||
         PDT_NEW(&b->tokens, worst[TOKENS], "round", err) ||
         dev->ops->alloc(dev, worst[OWN_TOKENS] * d, "round", &b->states, err) ||
         PDT_NEW(&b->told_states, e->options.details ? worst[OWN_TOKENS] * d : 0, "round", err) ||
         PDT_NEW(&b->notes, 2 * lanes * dn, "round", err) ||
         PDT_NEW(&b->coverage, lanes * S, "round", err) ||
         PDT_NEW(&b->record, 64 + worst[OWN_RECORDS], "round", err) ||
         PDT_NEW(&b->records, all, "round", err) ||
         PDT_NEW(&b->record_bytes, ranks, "round", err) ||
         PDT_NEW(&b->verdicts, lanes, "round", err) ||
         PDT_NEW(&b->note_bytes, ranks, "round", err) ||
         PDT_NEW(&e->exchange.targets, lanes, "round", err) ||
         PDT_NEW(&e->sessions, at_once, "round", err);
}

static int new_row_buffers(pdt_engine *e, int32_t max_rows, pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  pdt_device *dev = &e->device;
  return dev->ops->alloc(dev, (int64_t)max_rows * e->model.hidden_size, "round", &b->hidden, err) ||
         PDT_NEW(&b->rows, max_rows, "round", err) ||
         PDT_NEW(&b->conditioning, max_rows, "round", err) ||
         PDT_NEW(&b->row_lanes, max_rows, "round", err) ||
         PDT_NEW(&b->chosen, b->max_group, "round", err) ||
         PDT_NEW(&b->begin, e->group.size + 1, "round", err) ||
         PDT_NEW(&b->state_rows, b->max_own, "round", err) ||
         PDT_NEW(&b->draws, b->max_group, "round", err) ||
         PDT_NEW(&b->blocks, b->max_own, "round", err);
}

/* Makes the cache if it fits into what this rank may use. */
static int new_cache(pdt_engine *e, pdt_error *err) {
  const pdt_shard *shard = &e->weights.shard;
  const pdt_kv_shape shape = {e->model.layers, shard->kv_heads.end - shard->kv_heads.begin,
                              e->model.head_dim};
  int32_t pages = e->buffers.max_pages;
  pdt_bytes bytes = pdt_kv_bytes(&shape, pages);
  pdt_bytes available = e->device.ops->available(&e->device, e->ranks_on_node) / 10 * 9;
  pdt_bytes limit = e->options.kv_bytes > 0 ? e->options.kv_bytes : available;
  if (bytes < 0 || bytes > limit)
    return pdt_fail(
        err, PDT_ERROR_MEMORY,
        "key/value cache: rank %d needs %.3g MiB (%d pages of %d positions, %d sessions "
        "at once), %s allows %.3g MiB (hint: fewer --max-sessions, streams or "
        "max_tokens, more ranks with a larger --tp%s)",
        e->place.rank, pdt_mebibytes(bytes), pages, PDT_PAGE_TOKENS, e->options.max_sessions,
        e->options.kv_bytes ? "--kv-memory" : "its memory", pdt_mebibytes(limit),
        e->options.kv_bytes ? ", a larger --kv-memory" : "");
  return pdt_kv_new(&e->kv, &e->device, &shape, pages, err);
}

int pdt_round_buffers_new(pdt_engine *e, const pdt_request *requests, int32_t n_requests,
                          pdt_error *err) {
  pdt_round_buffers *b = &e->buffers;
  int64_t worst[KINDS];
  *b = (pdt_round_buffers){0};
  if (find_maxima(e, requests, n_requests, worst, err)) return -1;
  const pdt_trunk_limits limits = {.max_rows = b->max_group > PDT_PROMPT_ROWS ? b->max_group
                                                                              : PDT_PROMPT_ROWS,
                                   .max_logit_rows = b->max_group,
                                   .max_tokens = b->max_positions};
  if (new_cache(e, err) || new_lane_buffers(e, worst, n_requests, err) ||
      new_row_buffers(e, limits.max_rows, err))
    return -1;
  const pdt_sidecar_limits sidecar = {limits.max_rows, b->max_own, b->max_block, b->max_window};
  return pdt_trunk_new(&e->trunk, &e->weights, &e->group, &e->kv, &limits, err) ||
         pdt_sidecar_reserve(&e->sidecar, &sidecar, err);
}

void pdt_round_buffers_free(pdt_engine *e) {
  pdt_round_buffers *b = &e->buffers;
  void *all[] = {b->lanes,       b->group,        b->tokens,
                 b->told_states, b->notes,        b->coverage,
                 b->state_rows,  b->rows,         b->conditioning,
                 b->row_lanes,   b->chosen,       b->begin,
                 b->draws,       b->blocks,       b->record,
                 b->records,     b->record_bytes, b->note_bytes,
                 b->verdicts,    b->decision,     e->exchange.targets,
                 e->sessions};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  e->device.ops->release(&e->device, b->states);
  e->device.ops->release(&e->device, b->hidden);
  e->buffers = (pdt_round_buffers){0};
  e->exchange = (pdt_notes_exchange){0};
  e->sessions = NULL;
  pdt_trunk_free(&e->trunk);
  pdt_kv_free(&e->kv);
}
