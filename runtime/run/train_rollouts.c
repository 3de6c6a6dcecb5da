/* pdt train --stage rollouts: the system decodes training entries by itself, and its heads learn
 * from what the parser says of every block. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text_safe.h"
#include "data/lessons.h"
#include "run/terminal.h"
#include "run/train.h"
#include "train/readiness.h"

enum { SESSIONS = 16 }; /* in flight */

/* Everything a run holds. */
typedef struct training {
  const pdt_comm *world;
  const char *name; /* of the program, in messages */
  const pdt_train_args *args;
  pdt_notices notices;
  pdt_train_paths paths;
  pdt_engine *engine;
  pdt_atlas_world *atlas;
  pdt_tokenizer *tokenizer;
  uint64_t tokenizer_fingerprint;
  pdt_eval_entries data; /* of the file at hand */
  json_t *settings;
  pdt_samples samples;
  pdt_lessons lessons; /* of all files */
  pdt_sidecar_config config;
  pdt_nn_sidecar sidecar;
  pdt_train_log journal;
} training;

static int load(training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  t->settings = json_pack("{s:f, s:i, s:o}", "temperature", a->temperature, "max_attempts",
                          (int)a->max_attempts, "seed", pdt_json_u64(a->run.schedule.seed));
  if (!t->settings) return pdt_fail(err, PDT_ERROR_MEMORY, "settings: no memory");
  return pdt_train_paths_make(&t->paths, t->args->out, "sidecar.safetensors", err) ||
                 pdt_tokenizer_load_folder(&t->tokenizer, a->model, &t->tokenizer_fingerprint, err)
             ? -1
             : 0;
}

/* What the system's own readiness is worth before it is trained on. */
static int report_rollouts(training *t, const char *path, const pdt_eval_figures *f,
                           pdt_error *err) {
  pdt_ratio contradictions = pdt_judge_contradictions(&f->counts);
  double ready = f->labelled > 0 ? (double)f->ready / (double)f->labelled : NAN;
  if (t->world->rank != 0) return 0;
  json_t *json = json_pack("{s:s, s:I, s:I, s:o, s:o, s:o}", "rollouts", path, "entries",
                           (json_int_t)f->counts.entries, "blocks", (json_int_t)f->labelled,
                           "ready", pdt_json_number(ready), "auc", pdt_json_number(f->auc),
                           "contradictions", pdt_json_number(contradictions.share));
  char *line = json ? pdt_json_text(json, JSON_REAL_PRECISION(6)) : NULL;
  int rc = line ? pdt_train_log_head(&t->journal, line, err)
                : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  free(line);
  json_decref(json);
  if (t->journal.on_terminal)
    pdt_say(stderr, "%s: %lld blocks, AUC %.4f", path, (long long)f->labelled, f->auc);
  return rc;
}

/* What the sidecar has met: the entries' prompts, headings and plans, in rounds by its own
 * settings.
 */
static int keep_lessons(training *t, const pdt_settings *s, pdt_error *err) {
  const pdt_data_header header = {.rounds = {s->limits.block_tokens, s->reveal_delay, s->window}};
  for (int64_t i = 0; i < t->data.n; i++)
    if (pdt_lessons_add(&t->lessons, &header, &t->data.entries[i], err)) return -1;
  return 0;
}

/* Writes them into the config of the sidecar that is trained; one that does not say what it was
 * trained with stays silent. */
static int tell_lessons(training *t, pdt_error *err) {
  json_t *trained = t->sidecar.config.trained;
  json_t *said = trained ? pdt_lessons_take(&t->lessons, err) : NULL;
  if (!trained) return 0;
  if (!said) return -1;
  json_object_set_new(said, "temperature", json_real(t->args->temperature));
  int rc = pdt_trained_add_stage(trained, said, "rollouts", err);
  json_decref(said);
  return rc;
}

/* The entries of a file, and their world in place of that of the file before. */
static int read_data(training *t, const char *path, pdt_error *err) {
  if (pdt_eval_entries_read(&t->data, path, t->args->count,
                            &pdt_engine_loaded(t->engine)->sidecar.config, t->tokenizer_fingerprint,
                            err))
    return -1;
  pdt_atlas_world_free(t->atlas);
  return pdt_atlas_world_new(&t->atlas, t->data.kind, err);
}

static int collect(training *t, const char *path, pdt_error *err) {
  const pdt_comm *world = t->world;
  pdt_eval_figures figures = {0};
  read_data(t, path, err);
  int rc = pdt_comm_agree(world, err);
  const pdt_eval eval = {.world = world,
                         .engine = t->engine,
                         .atlas = t->atlas,
                         .tokenizer = t->tokenizer,
                         .data = &t->data};
  if (!rc) rc = pdt_samples_collect(&t->samples, &eval, t->settings, &figures, err);
  if (!rc) {
    if (!report_rollouts(t, path, &figures, err)) keep_lessons(t, &figures.settings, err);
    rc = pdt_comm_agree(world, err);
  }
  pdt_eval_figures_free(&figures);
  pdt_eval_entries_free(&t->data);
  return rc;
}

static int on_begin(void *context, int64_t step, pdt_error *err) {
  return pdt_train_log_begin(&((training *)context)->journal, step, err);
}

static int on_report(void *context, const void *report, pdt_error *err) {
  training *t = context;
  const pdt_readiness_report *r = report;
  char line[300];
  snprintf(
      line, sizeof line,
      "{\"stage\": \"rollouts\", \"step\": %lld, \"ready\": %.5f, \"coverage\": %.5f, \"rate\": "
      "%.4g, \"norm\": %.4g}",
      (long long)r->step, r->ready, r->coverage, r->rate, r->norm);
  if (pdt_train_log_line(&t->journal, line, err)) return -1;
  if (t->journal.on_terminal)
    fprintf(stderr, "\rrollouts  step %lld/%lld  ready %.4f  cover %.4f\033[K%s",
            (long long)r->step, (long long)r->steps, r->ready, r->coverage,
            r->step == r->steps ? "\n" : "");
  return 0;
}

/* The copy that learns: read before the rollouts, which may take hours in which the file changes.
 */
static int load_sidecar(training *t, pdt_error *err) {
  const pdt_safetensors *file = pdt_engine_loaded(t->engine)->sidecar_file;
  return pdt_sidecar_config_load(&t->config, file, &pdt_engine_loaded(t->engine)->model, err) ||
                 pdt_nn_sidecar_new(&t->sidecar, &t->config, file, 1u << PDT_NN_CLOSE, err) ||
                 pdt_loaded_unchanged(pdt_engine_loaded(t->engine), err)
             ? -1
             : 0;
}

static int learn(training *t, pdt_error *err) {
  const pdt_pretrain_options *run = &t->args->run;
  pdt_readiness_options options = {.schedule = run->schedule,
                                   .label = t->args->label,
                                   .rate = run->rate,
                                   .ready = 1,
                                   .coverage = 1,
                                   .dtype = run->dtype,
                                   .sidecar = t->paths.result};
  options.schedule.state = t->paths.state;
  pdt_nn_set_threads(run->threads);
  if (tell_lessons(t, err)) return -1;
  const pdt_train_observer observer = {t, on_begin, on_report};
  return pdt_readiness_train(&t->sidecar, &t->samples, &options, &observer, err);
}

static int train(training *t, pdt_error *err) {
  const pdt_comm *world = t->world;
  const pdt_engine_options engine = {.notices = &t->notices,
                                     .model = t->args->model,
                                     .sidecar = t->args->sidecar,
                                     .max_sessions = SESSIONS,
                                     .details = true};
  load(t, err);
  if (pdt_comm_agree(world, err)) return -1;
  if (world->rank == 0) pdt_train_open_log(&t->journal, t->args, "sidecar", &t->paths, err);
  if (pdt_comm_agree(world, err) || pdt_engine_new(&t->engine, world, &engine, err)) return -1;
  if (world->rank == 0) pdt_notices_print(&t->notices, stderr, t->name, false);
  if (world->rank == 0) load_sidecar(t, err);
  if (pdt_comm_agree(world, err)) return -1;
  pdt_lessons_new(&t->lessons, t->tokenizer,
                  pdt_engine_loaded(t->engine)->sidecar.config.plan_vocab_size,
                  pdt_engine_loaded(t->engine)->model.vocab_size, err);
  if (pdt_comm_agree(world, err)) return -1;
  for (int32_t i = 0; i < t->args->n_data; i++)
    if (collect(t, t->args->data[i], err)) return -1;
  if (world->rank == 0 && !learn(t, err)) pdt_train_finish_log(&t->journal, err);
  return pdt_comm_agree(world, err);
}

static void end(training *t) {
  pdt_train_close_log(&t->journal);
  pdt_nn_sidecar_free(&t->sidecar);
  pdt_sidecar_config_free(&t->config);
  pdt_samples_free(&t->samples);
  pdt_lessons_free(&t->lessons);
  json_decref(t->settings);
  pdt_tokenizer_free(t->tokenizer);
  pdt_atlas_world_free(t->atlas);
  pdt_engine_free(t->engine);
  pdt_train_paths_free(&t->paths);
}

int pdt_train_rollouts(const pdt_comm *world, const char *name, const pdt_train_args *args,
                       pdt_error *err) {
  training t = {.world = world, .name = name, .args = args};
  int rc = train(&t, err);
  end(&t);
  return rc;
}
