#include "engine/engine.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/signals.h"
#include "engine/run.h"

struct pdt_engine {
  pdt_engine_options options;
  pdt_machine machine;
  pdt_loaded loaded;
  pdt_engine_variant variant;
  pdt_run *run;       /* NULL between runs */
  pdt_bytes kv_bytes; /* of the last run */
};

int pdt_engine_new(pdt_engine **out, const pdt_comm *world, const pdt_engine_options *options,
                   pdt_error *err) {
  *out = NULL;
  pdt_engine *e = NULL;
  PDT_NEW(&e, 1, "engine", err);
  if (pdt_comm_agree(world, err)) {
    free(e);
    return -1;
  }
  e->options = *options;
  int status = pdt_machine_new(&e->machine, world, &options->machine, err);
  if (!status && e->machine.notice.code != PDT_ERROR_NONE)
    pdt_notice(options->notices, PDT_NOTICE_WARNING, "all ranks compute on the CPU: %s",
               e->machine.notice.message);
  const pdt_loaded_files files = {options->model, options->sidecar, options->draft,
                                  options->quantize};
  if (status || pdt_loaded_new(&e->loaded, &e->machine, &files, options->notices, err)) {
    pdt_engine_free(e);
    return -1;
  }
  *out = e;
  return 0;
}

void pdt_engine_free(pdt_engine *engine) {
  if (!engine) return;
  pdt_loaded_free(&engine->loaded);
  pdt_machine_free(&engine->machine);
  free(engine);
}

pdt_machine *pdt_engine_machine(pdt_engine *engine) {
  return &engine->machine;
}

const pdt_loaded *pdt_engine_loaded(const pdt_engine *engine) {
  return &engine->loaded;
}

pdt_engine_layout pdt_engine_layout_of(const pdt_engine *engine) {
  const pdt_machine *m = &engine->machine;
  return (pdt_engine_layout){.ranks = m->place.ranks,
                             .groups = m->place.ranks / m->group.size,
                             .tensor_parallel = m->group.size,
                             .threads = m->threads,
                             .kernels = m->device.name,
                             .exchange = m->exchange,
                             .no_gpu = m->no_gpu,
                             .weight_bytes =
                                 engine->loaded.weights.bytes + engine->loaded.draft.weights.bytes,
                             .weight_seconds = engine->loaded.weights_seconds,
                             .kv_bytes = engine->kv_bytes};
}

void pdt_engine_vary(pdt_engine *engine, const pdt_engine_variant *variant) {
  engine->variant = *variant;
}

/* ---- a run ---- */

void pdt_run_note_failure(pdt_run *run, const pdt_error *err) {
  if (run->failure.code == PDT_ERROR_NONE) run->failure = *err;
}

int pdt_run_agree(pdt_run *run, pdt_error *err) {
  pdt_error own = run->failure;
  if (!pdt_comm_agree(run->machine->world, &own)) return 0;
  if (err) *err = own;
  return -1;
}

bool pdt_run_asked(const pdt_run *run) {
  return run->listens && pdt_signals_caught() != 0;
}

/* With no round under way that could carry it: did any rank get a signal? Collective, blocking. */
static void agree_stop(pdt_run *run) {
  int64_t asked = pdt_run_asked(run);
  pdt_comm_all_reduce_i64(run->machine->world, &asked, 1, PDT_COMM_MAX);
  run->stopped = asked != 0;
}

/* The usual deadline, where none was given; 0 where there is to be none. */
static double deadline(double given, double usual) {
  return given > 0 ? given : given < 0 ? 0 : usual;
}

static void arm(const pdt_engine *e) {
  const pdt_comm_deadlines *given = &e->options.deadlines;
  const pdt_comm_deadlines deadlines = {
      deadline(given->exchange_seconds, PDT_USUAL_EXCHANGE_SECONDS),
      deadline(given->round_seconds, PDT_USUAL_ROUND_SECONDS)};
  pdt_comm_arm(e->machine.world, &deadlines);
  if (e->options.listens) pdt_signals_listen(true);
}

bool pdt_run_ends(const pdt_run *run, const pdt_running *r, pdt_stream k, int64_t at,
                  pdt_token token) {
  const pdt_engine_variant *v = run->variant;
  if (r->session.streams[k].n_tokens + at < r->session.settings.min_tokens) return false;
  if (v->n_ends == 0) return pdt_model_is_eos(&run->loaded->model, token);
  for (int32_t i = 0; i < v->n_ends; i++)
    if (v->ends[i] == token) return true;
  return false;
}

/* Takes the session at sessions[i] out of the run. */
static void remove_session(pdt_run *run, int32_t i) {
  pdt_running *r = run->sessions[i];
  if (run->machine->world->rank == 0) pdt_ledger_remove(&run->ledger, r->request);
  if (i < run->n_decoding) run->n_decoding--;
  for (int32_t j = i + 1; j < run->n_sessions; j++) run->sessions[j - 1] = run->sessions[j];
  run->n_sessions--;
  pdt_running_free(r, &run->kv, &run->draft.kv);
  free(r);
}

void pdt_run_fail_session(pdt_run *run, int32_t i, const pdt_error *why) {
  const pdt_running *r = run->sessions[i];
  const pdt_observer *o = &run->setup.observer;
  pdt_error own = {0};
  run->stats.failed++;
  if (run->machine->world->rank == 0 && !o->request_failed)
    pdt_run_note_failure(run, why);
  else if (run->machine->world->rank == 0 &&
           o->request_failed(o->context, r->request, r->index, why, &own))
    pdt_run_note_failure(run, &own);
  remove_session(run, i);
}

/* Lets sessions leave that are complete or out of rounds. */
static void dismiss(pdt_run *run) {
  const pdt_observer *o = &run->setup.observer;
  for (int32_t i = 0; i < run->n_decoding;) {
    pdt_running *r = run->sessions[i];
    pdt_error own = {0};
    if (!pdt_session_over(&r->session)) {
      i++;
      continue;
    }
    run->stats.out_of_rounds += !pdt_session_complete(&r->session);
    if (run->machine->world->rank == 0 && o->session_ended && o->session_ended(o->context, r, &own))
      pdt_run_note_failure(run, &own);
    remove_session(run, i);
  }
}

/* Rank 0's capacity, and where decisions come from, are everybody's. Collective, blocking. */
static void share_setup(pdt_run *run) {
  struct {
    pdt_capacity capacity;
    int32_t recorded, resumes, withdraws, tells_logprobs;
    uint64_t before;
  } told = {run->setup.capacity,
            run->setup.decisions.next != NULL,
            run->setup.decisions.resumes,
            run->setup.observer.withdrawn != NULL,
            run->setup.observer.logprobs != NULL,
            run->setup.decisions.before};
  pdt_comm_broadcast(run->machine->world, &told, sizeof told, 0);
  run->setup.capacity = told.capacity;
  run->recorded = told.recorded;
  run->resumes = told.resumes;
  run->withdraws = told.withdraws;
  run->tells_logprobs = told.tells_logprobs && !told.recorded;
  run->boundary = told.before;
}

static int32_t draft_tokens(const pdt_engine *e) {
  if (!e->loaded.drafts || e->variant.no_draft) return 0;
  return e->options.draft_tokens > 0 ? e->options.draft_tokens : PDT_USUAL_DRAFT_TOKENS;
}

int pdt_engine_begin(pdt_engine *e, const pdt_run_setup *setup, pdt_error *err) {
  pdt_run *run = NULL;
  const pdt_comm *world = e->machine.world;
  PDT_NEW(&run, 1, "run", err);
  if (pdt_comm_agree(world, err)) {
    free(run);
    return -1;
  }
  *run = (pdt_run){.machine = &e->machine,
                   .loaded = &e->loaded,
                   .variant = &e->variant,
                   .listens = e->options.listens,
                   .kv_limit = e->options.kv_bytes,
                   .details = e->options.details,
                   .draft_tokens = draft_tokens(e),
                   .setup = *setup,
                   .started = pdt_seconds()};
  share_setup(run);
  pdt_run_check_begin(run);
  if (pdt_run_buffers_new(run, err)) pdt_machine_fail_in(&e->machine, err);
  int status = pdt_comm_agree(world, err) || pdt_run_cache_new(run, err);
  e->kv_bytes = pdt_kv_bytes(&run->kv.pool.shape, run->kv.n_pages) +
                pdt_kv_bytes(&run->draft.kv.pool.shape, run->draft.kv.n_pages);
  if (status) {
    pdt_run_buffers_free(run);
    free(run);
    return -1;
  }
  e->run = run;
  arm(e);
  return 0;
}

/* Can there be a round, now that prompts have been read? Not without a session that decodes; and
 * where the recorded round has more of them, because some whose prompts came before have just ended
 * by themselves, others first take their places. */
static bool is_round_due(const pdt_run *run, int64_t failed_before) {
  if (!run->next) return run->n_decoding > 0;
  return run->n_decoding >= (int64_t)run->next->n_sessions || run->stats.failed == failed_before;
}

/* Nothing more is done, since a signal came. */
static int stop(pdt_run *run, bool *more) {
  run->stats.stopped = 1;
  *more = false;
  return 0;
}

int pdt_engine_step(pdt_engine *e, bool *more, pdt_error *err) {
  pdt_run *run = e->run;
  bool was_recorded = run->recorded;
  int64_t failed = run->stats.failed;
  *more = false;
  if (pdt_run_admit(run, err)) return -1;
  pdt_run_check(run);
  *more = run->n_sessions > 0 || !run->no_more;
  if (run->n_sessions == 0) return 0;
  if (run->n_decoding == 0) agree_stop(run);
  if (pdt_run_look_ahead(run, err)) return -1;
  if (run->stopped) return stop(run, more);
  if (was_recorded && !run->recorded && !run->resumes) {
    *more = false;
    return 0;
  }
  if (pdt_run_prompts(run, err)) return -1;
  if (!is_round_due(run, failed)) return 0;
  double start = pdt_seconds();
  int status = pdt_run_round(run, err);
  run->stats.round_seconds += pdt_seconds() - start;
  if (!status) dismiss(run);
  if (!status) pdt_run_check(run);
  if (!status && run->stopped && (run->n_sessions > 0 || !run->no_more)) return stop(run, more);
  return status;
}

pdt_run_stats pdt_engine_stats(const pdt_engine *e) {
  return e->run->stats;
}

/* What was drafted is known within each group: adds up those of all. Collective, blocking. */
static void add_drafts(pdt_run *run) {
  int64_t *counts[] = {&run->stats.draft_steps, &run->stats.drafted, &run->stats.drafts_right};
  int64_t sums[3];
  for (int i = 0; i < 3; i++) sums[i] = run->machine->group.rank == 0 ? *counts[i] : 0;
  if (run->draft.tokens == 0) return;
  pdt_comm_all_reduce_i64(run->machine->world, sums, 3, PDT_COMM_SUM);
  for (int i = 0; i < 3; i++) *counts[i] = sums[i];
  run->stats.draft_seconds = run->draft.trunk.clock.compute + run->draft.trunk.clock.exchange;
}

int pdt_engine_end(pdt_engine *e, pdt_run_stats *stats, pdt_error *err) {
  pdt_run *run = e->run;
  pdt_error own = {0};
  int status = pdt_run_agree(run, &own);
  pdt_comm_disarm(run->machine->world);
  if (run->listens && run->stopped)
    pdt_signals_ignore();
  else if (run->listens)
    pdt_signals_listen(false);
  if (run->exchange.under_way) pdt_notes_finish(run);
  pdt_run_forget_next(run);
  while (run->n_sessions > 0) remove_session(run, run->n_sessions - 1);
  add_drafts(run);
  run->stats.seconds = pdt_seconds() - run->started;
  run->stats.trunk_seconds = run->trunk.clock.compute;
  run->stats.exchange_seconds = run->trunk.clock.exchange;
  run->stats.sidecar_seconds += run->trunk.clock.hooks;
  *stats = run->stats;
  pdt_run_buffers_free(run);
  free(run);
  e->run = NULL;
  if (status && err && err->code == PDT_ERROR_NONE) *err = own;
  return status;
}

int pdt_engine_run(pdt_engine *engine, const pdt_run_setup *setup, pdt_run_stats *stats,
                   pdt_error *err) {
  *stats = (pdt_run_stats){0};
  if (pdt_engine_begin(engine, setup, err)) return -1;
  int status = 0;
  for (bool more = true; more && !status;) status = pdt_engine_step(engine, &more, err);
  pdt_error last = {0};
  if (pdt_engine_end(engine, stats, &last) && !status) {
    if (err) *err = last;
    status = -1;
  }
  return status;
}

int pdt_engine_run_list(pdt_engine *engine, const pdt_request *requests, int32_t n,
                        const pdt_observer *observer, pdt_run_stats *stats, pdt_error *err) {
  pdt_request_list list = {.items = requests, .n = n};
  pdt_run_setup setup = {.requests = pdt_request_list_source(&list)};
  pdt_capacity_maker maker =
      pdt_capacity_maker_of(engine->options.max_sessions, pdt_machine_spread(&engine->machine));
  if (observer) setup.observer = *observer;
  PDT_CHECK_SAME(engine->machine.world, n);
  int status = 0;
  for (int32_t i = 0; i < n && !status; i++)
    status = pdt_capacity_maker_add(&maker, &requests[i], err);
  setup.capacity = pdt_capacity_made(&maker);
  status = pdt_comm_agree(engine->machine.world, err);
  pdt_capacity_maker_free(&maker);
  return status ? -1 : pdt_engine_run(engine, &setup, stats, err);
}
