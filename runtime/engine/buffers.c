/* What a run needs beside its sessions, made once for its capacity. */
#include <stdlib.h>

#include "base/memory.h"
#include "engine/run.h"

enum { MOST_LANES = 1 << 20 };

/* Rank 0's capacity may come from anywhere. */
static int check_capacity(const pdt_capacity *c, pdt_error *err) {
  const pdt_load *l = &c->load;
  if (l->lanes > MOST_LANES || l->pages > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_MEMORY,
                    "%lld streams with %lld cache pages in flight are too many (hint: "
                    "--max-sessions)",
                    (long long)l->lanes, (long long)l->pages);
  if (c->sessions < 1)
    return pdt_fail(err, PDT_ERROR_USAGE, "capacity: expected 1 session or more at once, found %d",
                    c->sessions);
  if (l->lanes < 0 || l->group_lanes < 0 || l->own_lanes < 0 || l->tokens < 0 ||
      l->own_tokens < 0 || l->pages < 0 || c->positions < 0 || c->block_tokens < 0 || c->window < 0)
    return pdt_fail(err, PDT_ERROR_USAGE, "capacity: expected counts of 0 or more");
  return 0;
}

static int new_lane_buffers(pdt_run *run, pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  const pdt_capacity *c = &run->setup.capacity;
  pdt_device *dev = &run->machine->device;
  int64_t d = run->loaded->model.hidden_size, S = run->loaded->sidecar.config.plan_slots;
  int64_t lanes = c->load.lanes, dn = run->loaded->sidecar.config.notes_dim;
  pdt_rank ranks = run->machine->place.ranks;
  return PDT_NEW(&b->lanes, lanes, "round", err) || PDT_NEW(&b->by_owner, lanes, "round", err) ||
         PDT_NEW(&b->owner_begin, ranks + 1, "round", err) ||
         PDT_NEW(&b->tokens, c->load.tokens, "round", err) ||
         dev->ops->alloc(dev, c->load.own_tokens * d, "round", &b->states, err) ||
         (run->loaded->sidecar.config.pool_layers > 0 &&
          dev->ops->alloc(dev, c->load.own_tokens * d, "round", &b->pooled, err)) ||
         (run->loaded->sidecar.config.pool_copies > 0 &&
          dev->ops->alloc(dev, c->load.own_tokens * d, "round", &b->embedded, err)) ||
         PDT_NEW(&b->told, run->details ? c->load.own_tokens * pdt_run_told_width(run) : 0, "round",
                 err) ||
         PDT_NEW(&b->notes, 2 * lanes * dn, "round", err) ||
         PDT_NEW(&b->coverage, lanes * S, "round", err) ||
         PDT_NEW(&b->counts, ranks, "round", err) ||
         dev->ops->alloc(dev, b->prompt_rows * d, "round", &b->prompt_states, err) ||
         (run->loaded->sidecar.config.plan_orders > 0 &&
          (dev->ops->alloc(dev, b->prompt_rows * d, "round", &b->prompt_inner, err) ||
           dev->ops->alloc(dev, b->prompt_rows * d, "round", &b->prompt_read, err))) ||
         PDT_NEW(&run->exchange.targets, lanes, "round", err) ||
         PDT_NEW(&run->sessions, c->sessions, "round", err);
}

/* Bytes of the records of so many lanes, whose blocks come to so many tokens. */
static int64_t record_bytes(const pdt_run *run, int64_t lanes, int64_t tokens) {
  return lanes * pdt_record_bytes(run, 0) +
         tokens * (pdt_record_bytes(run, 1) - pdt_record_bytes(run, 0));
}

static int new_mail(pdt_run *run, pdt_error *err) {
  pdt_mail *m = &run->mail;
  const pdt_load *l = &run->setup.capacity.load;
  pdt_rank ranks = run->machine->place.ranks;
  int64_t all = run->machine->place.rank == 0
                    ? ranks * PDT_RECORD_HEADER_BYTES + record_bytes(run, l->lanes, l->tokens) +
                          PDT_CARRIED_BYTES
                    : 0;
  int64_t own =
      PDT_RECORD_HEADER_BYTES + record_bytes(run, l->own_lanes, l->own_tokens) + PDT_CARRIED_BYTES;
  return PDT_NEW(&m->record, own, "round", err) || PDT_NEW(&m->records, all, "round", err) ||
         PDT_NEW(&m->letter, PDT_LETTER_BYTES, "round", err) ||
         PDT_NEW(&m->verdicts, l->lanes, "round", err);
}

/* Rows that a batch of the trunk may have. */
static int32_t most_rows(const pdt_round_buffers *b) {
  return b->max_rows > b->prompt_rows ? b->max_rows : b->prompt_rows;
}

static int new_row_buffers(pdt_run *run, pdt_error *err) {
  pdt_round_buffers *b = &run->round;
  pdt_device *dev = &run->machine->device;
  const pdt_load *l = &run->setup.capacity.load;
  int64_t rows = b->max_rows, most = most_rows(b);
  if (run->machine->group.size == 1 && dev->runs_ahead && run->draft_tokens == 0 &&
      dev->ops->chosen_new(dev, (int32_t)l->own_tokens, &b->ahead, err))
    return -1;
  int64_t d = run->loaded->model.hidden_size;
  return dev->ops->alloc(dev, most * d, "round", &b->hidden, err) ||
         (b->pooled.at && dev->ops->alloc(dev, most * d, "round", &b->inner, err)) ||
         (b->embedded.at && dev->ops->alloc(dev, most * d, "round", &b->inner_embedded, err)) ||
         PDT_NEW(&b->reads, rows, "round", err) || PDT_NEW(&b->steps, rows, "round", err) ||
         PDT_NEW(&b->rows, most, "round", err) || PDT_NEW(&b->conditioning, rows, "round", err) ||
         PDT_NEW(&b->row_lanes, rows, "round", err) ||
         PDT_NEW(&b->state_rows, rows, "round", err) || PDT_NEW(&b->chosen, rows, "round", err) ||
         PDT_NEW(&b->draws, rows, "round", err) ||
         PDT_NEW(&b->blocks, l->own_lanes, "round", err) ||
         PDT_NEW(&b->begin, run->machine->group.size + 1, "round", err);
}

/* Makes the cache if it fits into what this rank may use. All ranks look before any takes: some may
 * share a memory. */
static int new_cache(pdt_run *run, pdt_bytes available, pdt_error *err) {
  const pdt_shard *shard = &run->loaded->weights.shard;
  const pdt_model_config *model = &run->loaded->model;
  const pdt_kv_shape shape = {model->layers, shard->kv_heads.end - shard->kv_heads.begin,
                              model->head_dim};
  pdt_device *dev = &run->machine->device;
  int32_t pages = (int32_t)run->setup.capacity.load.pages;
  pdt_kv_shape draft = {0}; /* as many pages, of another shape */
  if (run->draft_tokens > 0) draft = pdt_bare_kv_shape(&run->loaded->draft);
  pdt_bytes bytes = pdt_kv_bytes(&shape, pages), more = pdt_kv_bytes(&draft, pages);
  if (bytes >= 0 && (more < 0 || __builtin_add_overflow(bytes, more, &bytes))) bytes = -1;
  pdt_bytes limit = run->kv_limit > 0 ? run->kv_limit : available;
  if (bytes < 0 || bytes > limit)
    return pdt_fail(
        err, PDT_ERROR_MEMORY,
        "key/value cache: rank %d needs %.3g MiB (%d pages of %d positions, %d sessions "
        "at once), %s allows %.3g MiB (hint: fewer --max-sessions, streams or "
        "max_tokens, more ranks with a larger --tp%s)",
        run->machine->place.rank, pdt_mebibytes(bytes), pages, PDT_PAGE_TOKENS,
        run->setup.capacity.sessions,
        run->kv_limit      ? "--kv-memory"
        : dev->host_memory ? "its memory"
                           : "its GPU's memory",
        pdt_mebibytes(limit), run->kv_limit ? ", a larger --kv-memory" : "");
  return pdt_kv_new(&run->kv, dev, &shape, pages, err) ||
                 (run->draft_tokens > 0 && pdt_kv_new(&run->draft.kv, dev, &draft, pages, err))
             ? -1
             : 0;
}

int pdt_run_buffers_new(pdt_run *run, pdt_error *err) {
  const pdt_capacity *c = &run->setup.capacity;
  const pdt_machine *m = run->machine;
  if (check_capacity(c, err)) return -1;
  int64_t step = c->load.group_lanes * (1 + run->draft_tokens);
  int32_t lanes = (int32_t)c->load.group_lanes, bulk = m->device.bulk_rows;
  run->round.max_rows = step > PDT_BATCH_ROWS ? (int32_t)step : PDT_BATCH_ROWS;
  run->round.prompt_rows = c->positions < bulk ? c->positions : bulk;
  const pdt_trunk_limits limits = {most_rows(&run->round), (int32_t)step, c->positions};
  const pdt_sidecar_limits sidecar = {run->round.max_rows, (int32_t)c->load.own_lanes,
                                      c->block_tokens, c->window};
  if (new_lane_buffers(run, err) || new_mail(run, err) || new_row_buffers(run, err) ||
      pdt_logprobs_new(run, err) ||
      (m->place.rank == 0 && pdt_ledger_new(&run->ledger, pdt_machine_spread(m), err)))
    return -1;
  if (run->draft_tokens > 0 && pdt_draft_new(&run->draft, &run->loaded->draft, run->machine,
                                             run->draft_tokens, lanes, &limits, err))
    return -1;
  return pdt_trunk_new(&run->trunk, &run->loaded->weights, &m->group, &run->kv, &limits, err) ||
                 pdt_sidecar_reserve(&run->loaded->sidecar, &sidecar, err)
             ? -1
             : 0;
}

int pdt_run_cache_new(pdt_run *run, pdt_error *err) {
  pdt_machine *m = run->machine;
  pdt_bytes available = 0;
  if (!pdt_machine_sync(m, err)) /* a device that failed has nothing left to give */
    available = m->device.ops->available(&m->device, m->sharing) / 10 * 9;
  if (pdt_comm_agree(m->world, err)) return -1;
  if (new_cache(run, available, err)) pdt_machine_fail_in(m, err);
  return pdt_comm_agree(m->world, err);
}

void pdt_run_buffers_free(pdt_run *run) {
  pdt_round_buffers *b = &run->round;
  pdt_mail *m = &run->mail;
  pdt_device *dev = &run->machine->device;
  void *all[] = {b->lanes,        b->by_owner,
                 b->owner_begin,  b->tokens,
                 b->told,         b->notes,
                 b->coverage,     b->rows,
                 b->row_lanes,    b->state_rows,
                 b->conditioning, b->begin,
                 b->chosen,       b->draws,
                 b->blocks,       b->counts,
                 m->record,       m->records,
                 m->decision,     m->verdicts,
                 run->sessions,   run->exchange.targets,
                 b->reads,        b->steps,
                 m->letter};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  dev->ops->release(dev, b->states);
  dev->ops->release(dev, b->pooled);
  dev->ops->release(dev, b->embedded);
  dev->ops->release(dev, b->inner);
  dev->ops->release(dev, b->inner_embedded);
  dev->ops->release(dev, b->hidden);
  dev->ops->release(dev, b->prompt_states);
  dev->ops->release(dev, b->prompt_inner);
  dev->ops->release(dev, b->prompt_read);
  dev->ops->chosen_free(dev, b->ahead);
  pdt_logprobs_free(run);
  pdt_buffer_free(&m->requests);
  pdt_arena_free(&m->draft);
  pdt_arena_free(&m->read);
  pdt_ledger_free(&run->ledger);
  pdt_trunk_free(&run->trunk);
  pdt_draft_free(&run->draft, dev);
  pdt_kv_free(&run->kv);
}
