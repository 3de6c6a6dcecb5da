#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/internal.h"
#include "model/tensors.h"

void pdt_engine_note_failure(pdt_engine *e, const pdt_error *err) {
  if (e->failure.code == PDT_ERROR_NONE) e->failure = *err;
}

/* Splits the world into groups of T consecutive ranks; by default a machine's, where all machines
 * have as many. Collective over the world; all ranks fail alike. */
static int make_groups(pdt_engine *e, pdt_error *err) {
  pdt_rank P = e->world->size, T = e->options.tensor_parallel, rank = e->world->rank;
  int64_t least[4] = {e->ranks_on_node, -e->ranks_on_node, T, -T}; /* and the most, negated */
  pdt_comm_all_reduce_i64(e->world, least, 4, PDT_COMM_MIN);
  if (least[2] != -least[3])
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "--tp: expected the same on every rank, found %lld and %lld",
                    (long long)least[2], -(long long)least[3]);
  if (T == 0) T = least[0] == -least[1] && P % least[0] == 0 ? (pdt_rank)least[0] : 1;
  if (T < 1 || P % T != 0)
    return pdt_fail(
        err, PDT_ERROR_USAGE,
        "--tp: expected a number that divides the %d ranks, found %d (hint: mpirun -n a "
        "multiple of --tp)",
        P, T);
  e->place = (pdt_place){rank, P, rank / T * T, rank / T * T + T};
  return pdt_comm_split(e->world, rank / T, &e->group, err);
}

/* The best instruction set that every rank has: one set of kernels, one set of results. Collective
 * over the world; all ranks fail alike. */
static int choose_kernels(pdt_engine *e, pdt_error *err) {
  pdt_cpu_isa isa = pdt_cpu_best_isa();
  if (e->options.kernels && !pdt_cpu_isa_parse(e->options.kernels, &isa))
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: expected portable, avx2 or avx512, found '%s'",
             e->options.kernels);
  int64_t common = isa;
  pdt_comm_all_reduce_i64(e->world, &common, 1, PDT_COMM_MIN);
  bool has = pdt_cpu_has((pdt_cpu_isa)common);
  if (!has && err->code == PDT_ERROR_NONE)
    pdt_fail(err, PDT_ERROR_USAGE, "--kernels: rank %d's machine or build does not have '%s'",
             e->world->rank,
             e->options.kernels ? e->options.kernels : "the common instruction set");
  if (has) pdt_cpu_device_new(&e->device, (pdt_cpu_isa)common, e->threads, err);
  return pdt_comm_agree(e->world, err);
}

/* Fingerprints of what was loaded: taken from the same open files, and believed only when none of
 * them was written to since they were opened; config.json, which is read anew, must be what it was.
 */
static int fingerprint(pdt_engine *e, pdt_error *err) {
  uint64_t now;
  if (pdt_checkpoint_fingerprint(e->checkpoint, PDT_FINGERPRINT_QUICK, &e->fingerprints.model,
                                 err) ||
      pdt_safetensors_fingerprint(e->sidecar_file, PDT_FINGERPRINT_QUICK, &e->fingerprints.sidecar,
                                  err) ||
      pdt_config_hash(e->options.model, &now, err))
    return -1;
  if (now != e->fingerprints.config)
    return pdt_fail(err, PDT_ERROR_IO, "%s: config.json changed while the model was being read",
                    e->options.model);
  return pdt_engine_files_unchanged(e, err);
}

static int load(pdt_engine *e, pdt_error *err) {
  const pdt_engine_options *o = &e->options;
  if (pdt_config_hash(o->model, &e->fingerprints.config, err) ||
      pdt_model_config_load(&e->model, o->model, o->notices, err) ||
      pdt_checkpoint_open(&e->checkpoint, o->model, o->notices, err) ||
      pdt_model_tensors_check(&e->model, e->checkpoint, o->notices, err) ||
      pdt_safetensors_open(&e->sidecar_file, o->sidecar, err) ||
      pdt_sidecar_load(&e->sidecar, &e->device, e->sidecar_file, &e->model, e->place.rank,
                       e->place.ranks, err) ||
      pdt_trunk_weights_load(&e->weights, &e->device, &e->model, e->checkpoint, e->group.rank,
                             e->group.size, err) ||
      e->device.ops->sync(&e->device, err))
    return -1;
  return fingerprint(e, err);
}

/* Every rank opened the files by itself, perhaps on another machine or a moment later: they must
 * have been the same. Collective over the world. */
static int compare_files(pdt_engine *e, pdt_error *err) {
  const struct {
    uint64_t value;
    const char *path;
  } files[] = {{e->fingerprints.model, e->options.model},
               {e->fingerprints.sidecar, e->options.sidecar}};
  for (int i = 0; i < 2; i++) {
    int64_t half = (int64_t)(files[i].value >> 1), ends[2] = {half, -half};
    pdt_comm_all_reduce_i64(e->world, ends, 2, PDT_COMM_MIN);
    if (ends[0] != -ends[1] && err->code == PDT_ERROR_NONE)
      pdt_fail(err, PDT_ERROR_INPUT,
               "%s: is not the same on every rank (hint: machines with files of their own, or one "
               "that was replaced just now)",
               files[i].path);
  }
  return pdt_comm_agree(e->world, err);
}

int pdt_engine_new(pdt_engine **out, const pdt_comm *world, const pdt_engine_options *options,
                   pdt_error *err) {
  *out = NULL;
  pdt_engine *e = NULL;
  PDT_NEW(&e, 1, "engine", err);
  if (pdt_comm_agree(world, err)) {
    free(e);
    return -1;
  }
  e->world = world;
  e->options = *options;
  e->group = (pdt_comm){.rank = 0, .size = 1};
  int status = pdt_survey_node(e, err) || make_groups(e, err) || choose_kernels(e, err);
  if (!status) {
    load(e, err);
    status = pdt_comm_agree(world, err) || compare_files(e, err);
  }
  if (status) {
    pdt_engine_free(e);
    return -1;
  }
  *out = e;
  return 0;
}

void pdt_engine_free(pdt_engine *engine) {
  if (!engine) return;
  pdt_trunk_weights_free(&engine->weights);
  pdt_sidecar_free(&engine->sidecar);
  pdt_safetensors_close(engine->sidecar_file);
  pdt_checkpoint_close(engine->checkpoint);
  pdt_comm_free(&engine->group);
  if (engine->device.ops) engine->device.ops->close(&engine->device);
  free(engine);
}

const pdt_model_config *pdt_engine_model(const pdt_engine *engine) {
  return &engine->model;
}

const pdt_sidecar_config *pdt_engine_sidecar(const pdt_engine *engine) {
  return &engine->sidecar.config;
}

const pdt_checkpoint *pdt_engine_checkpoint(const pdt_engine *engine) {
  return engine->checkpoint;
}

const pdt_safetensors *pdt_engine_sidecar_file(const pdt_engine *engine) {
  return engine->sidecar_file;
}

pdt_engine_fingerprints pdt_engine_fingerprints_of(const pdt_engine *engine) {
  return engine->fingerprints;
}

int pdt_engine_files_unchanged(const pdt_engine *engine, pdt_error *err) {
  return pdt_checkpoint_unchanged(engine->checkpoint, err) ||
                 pdt_safetensors_unchanged(engine->sidecar_file, err)
             ? -1
             : 0;
}

const pdt_trunk_weights *pdt_engine_weights(const pdt_engine *engine) {
  return &engine->weights;
}

const pdt_comm *pdt_engine_group(const pdt_engine *engine) {
  return &engine->group;
}

pdt_device *pdt_engine_device(pdt_engine *engine) {
  return &engine->device;
}

pdt_engine_layout pdt_engine_layout_of(const pdt_engine *engine) {
  return (pdt_engine_layout){.ranks = engine->place.ranks,
                             .groups = engine->place.ranks / engine->group.size,
                             .tensor_parallel = engine->group.size,
                             .threads = engine->threads,
                             .kernels = engine->device.name,
                             .weight_bytes = engine->weights.bytes,
                             .kv_bytes = engine->kv_bytes};
}

void pdt_engine_vary(pdt_engine *engine, const pdt_engine_variant *variant) {
  engine->variant = *variant;
}

bool pdt_engine_is_end(const pdt_engine *e, pdt_token token) {
  if (e->variant.n_ends == 0) return pdt_model_is_eos(&e->model, token);
  for (int32_t i = 0; i < e->variant.n_ends; i++)
    if (e->variant.ends[i] == token) return true;
  return false;
}

/* Says of an error, which all ranks have, whose it is. */
static int fail_request(const pdt_request *r, int32_t index, pdt_error *err) {
  char name[PDT_REQUEST_NAME_BYTES];
  pdt_request_name(name, sizeof name, r, index);
  return pdt_fail_in(err, "%s", name);
}

/* Lets requests join in order while there is room; *next is the first that has not. */
static int admit(pdt_engine *e, const pdt_request *requests, int32_t n, int32_t *next,
                 pdt_error *err) {
  while (*next < n && e->n_sessions < e->options.max_sessions) {
    pdt_running *s = NULL;
    int status = PDT_NEW(&s, 1, "session", err);
    if (!status)
      status = pdt_running_new(s, &requests[*next], *next, &e->place, &e->sidecar, &e->kv, err);
    if (pdt_comm_agree(e->world, err)) {
      if (s && !status) pdt_running_free(s, &e->kv);
      free(s);
      return fail_request(&requests[*next], *next, err);
    }
    e->sessions[e->n_sessions++] = s;
    ++*next;
    if (pdt_running_begin(e, s, err)) return fail_request(s->request, s->index, err);

    pdt_error own = {0};
    const pdt_observer *o = e->observer;
    if (e->world->rank == 0 && o->session_started && o->session_started(o->context, s, &own))
      pdt_engine_note_failure(e, &own);
  }
  return 0;
}

/* Lets sessions leave that are complete or out of rounds; the others go on to their next round. */
static void dismiss(pdt_engine *e) {
  const pdt_observer *o = e->observer;
  int32_t kept = 0;
  for (int32_t i = 0; i < e->n_sessions; i++) {
    pdt_running *s = e->sessions[i];
    bool complete = pdt_session_complete(&s->session);
    bool over = pdt_session_over(&s->session);
    e->stats->out_of_rounds += over && !complete;
    if (!over) {
      e->sessions[kept++] = s;
      continue;
    }
    pdt_error own = {0};
    if (e->world->rank == 0 && o->session_ended && o->session_ended(o->context, s, &own))
      pdt_engine_note_failure(e, &own);
    pdt_running_free(s, &e->kv);
    free(s);
  }
  e->n_sessions = kept;
}

/* Rounds until every request has been served. */
static int run_rounds(pdt_engine *e, const pdt_request *requests, int32_t n, pdt_error *err) {
  int32_t next = 0;
  for (;;) {
    if (admit(e, requests, n, &next, err)) return -1;
    if (e->n_sessions == 0) break;
    double start = pdt_seconds();
    pdt_round_emit(e);
    if (pdt_boundary(e, err)) return -1;
    e->stats->round_seconds += pdt_seconds() - start;
    dismiss(e);
  }
  if (e->failure.code != PDT_ERROR_NONE) *err = e->failure;
  return pdt_comm_agree(e->world, err);
}

int pdt_engine_run(pdt_engine *engine, const pdt_request *requests, int32_t n_requests,
                   const pdt_observer *observer, pdt_run_stats *stats, pdt_error *err) {
  static const pdt_observer nobody = {0};
  pdt_engine *e = engine;
  double start = pdt_seconds();
  *stats = (pdt_run_stats){0};
  e->observer = observer ? observer : &nobody;
  e->stats = stats;
  e->n_sessions = 0;
  e->boundary = 0;
  e->failure = (pdt_error){0};
  pdt_round_buffers_new(e, requests, n_requests, err);
  int status = pdt_comm_agree(e->world, err);
  e->kv_bytes = pdt_kv_bytes(&e->kv.pool.shape, e->kv.n_pages);
  if (!status) status = run_rounds(e, requests, n_requests, err);
  if (e->exchange.under_way) pdt_notes_finish(e);
  for (int32_t i = 0; i < e->n_sessions; i++) {
    pdt_running_free(e->sessions[i], &e->kv);
    free(e->sessions[i]);
  }
  e->n_sessions = 0;
  stats->seconds = pdt_seconds() - start;
  stats->trunk_seconds = e->trunk.clock.compute;
  stats->exchange_seconds = e->trunk.clock.exchange;
  stats->sidecar_seconds += e->trunk.clock.hooks;
  pdt_round_buffers_free(e);
  return status;
}
