#include "run/outputs.h"
#include "run/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/tensors.h"
#include "run/terminal.h"
#include "train/states.h"

/* Everything a run holds. */
typedef struct training {
  const pdt_comm *world;
  const char *name; /* of the program, in messages */
  const pdt_train_args *args;
  pdt_notices notices;
  pdt_train_paths paths;
  pdt_model_config model;
  pdt_sidecar_config config;
  pdt_tokenizer *tokenizer;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  pdt_dataset data;
  pdt_train_states states;
  pdt_curriculum_options options;
  pdt_train_log journal;
} training;

static int load_sidecar(training *t, pdt_error *err) {
  pdt_safetensors *file;
  uint32_t trained = 0;
  for (int part = 0; part < PDT_NN_PARTS; part++)
    if (t->options.stage.rates[part] > 0) trained |= 1u << part;
  if (pdt_safetensors_open(&file, t->args->sidecar, err)) return -1;
  int rc = pdt_sidecar_config_load(&t->config, file, &t->model, err);
  if (!rc) rc = pdt_nn_sidecar_new(&t->sidecar, &t->config, file, trained, err);
  if (!rc) rc = pdt_safetensors_unchanged(file, err);
  pdt_safetensors_close(file);
  return rc;
}

static void choose_options(training *t) {
  const pdt_pretrain_options *r = &t->args->run;
  t->options = (pdt_curriculum_options){.schedule = r->schedule,
                                        .stage = t->args->plan,
                                        .threads = r->threads,
                                        .dtype = r->dtype,
                                        .sidecar = t->paths.result,
                                        .sample = t->args->sample,
                                        .own_notes = t->args->own_notes};
  t->options.schedule.state = t->paths.state;
}

/* What the sidecar was trained with, this stage included; one that does not say stays silent:
 * nobody knows what it has seen. */
static int keep_lessons(training *t, pdt_error *err) {
  json_t *trained = t->sidecar.config.trained;
  return trained ? pdt_trained_add_stage(trained, t->data.trained, t->args->stage, err) : 0;
}

static int load(training *t, pdt_error *err) {
  if (pdt_train_paths_make(&t->paths, t->args->out, "sidecar.safetensors", err) ||
      pdt_train_load_trunk(&t->trunk, &t->model, t->args->model, true, &t->notices, err))
    return -1;
  choose_options(t);
  if (load_sidecar(t, err) || pdt_tokenizer_load_folder(&t->tokenizer, t->args->model, NULL, err))
    return -1;
  const pdt_dataset_use use = {
      &t->trunk,        t->tokenizer,           &t->config, t->args->teacher, t->args->stated,
      t->args->heading, t->args->states != NULL};
  if (pdt_dataset_load(&t->data, t->args->data, t->args->n_data, &use, err) || keep_lessons(t, err))
    return -1;
  const pdt_data_rounds *r = &t->data.rounds;
  t->options.rounds = (pdt_train_rounds){.block_tokens = r->block_tokens,
                                         .reveal_delay = r->reveal_delay,
                                         .window = r->window > 0 ? r->window : 1 << 20,
                                         .lockstep = t->args->lockstep,
                                         .wait = t->args->wait,
                                         .seed = t->args->run.schedule.seed};
  t->options.data = t->data.fingerprint;
  return 0;
}

static int on_begin(void *context, int64_t step, pdt_error *err) {
  training *t = context;
  return t->world->rank == 0 ? pdt_train_log_begin(&t->journal, step, err) : 0;
}

static int on_report(void *context, const void *report, pdt_error *err) {
  training *t = context;
  const pdt_curriculum_report *r = report;
  const pdt_nn_step_sums *l = &r->losses;
  char line[600];
  if (t->world->rank != 0) return 0;
  double speed = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
  snprintf(line, sizeof line,
           "{\"stage\": %d, \"step\": %lld, \"plan\": %.5f, \"slots\": %.4f, \"notes\": %.5f, "
           "\"speculation\": %.5f, \"tokens\": %.5f, \"kd\": %.5f, \"accuracy\": %.5f, "
           "\"use\": %.4f, \"later\": %.4f, \"unseen\": %.4f, \"coverage\": %.5f, "
           "\"ready\": %.5f, \"rate\": %.4g, \"norm\": %.4g, \"tokens_per_s\": %.0f}",
           t->args->number, (long long)r->step, l->plan, r->slot_accuracy, l->notes, l->speculation,
           l->ce, l->kd, r->accuracy, r->of_kind[PDT_NN_USE], r->of_kind[PDT_NN_LATER],
           r->of_kind[PDT_NN_UNSEEN], l->coverage, l->ready, r->rate, r->norm, speed);
  if (pdt_train_log_line(&t->journal, line, err)) return -1;
  if (!t->journal.on_terminal) return 0;
  fprintf(stderr,
          "\rstage %d  step %lld/%lld  plan %.3f  notes %.3f  spec %.3f  tokens %.3f  uses %.1f%%  "
          "cover %.4f  ready %.4f  %.0f tokens/s\033[K%s",
          t->args->number, (long long)r->step, (long long)r->steps, l->plan, l->notes,
          l->speculation, l->ce, 100 * r->of_kind[PDT_NN_USE], l->coverage, l->ready, speed,
          r->step == r->steps ? "\n" : "");
  return 0;
}

static void end(training *t) {
  pdt_train_close_log(&t->journal);
  pdt_dataset_free(&t->data);
  pdt_train_states_close(&t->states);
  pdt_tokenizer_free(t->tokenizer);
  pdt_nn_sidecar_free(&t->sidecar);
  pdt_sidecar_config_free(&t->config);
  pdt_nn_trunk_free(&t->trunk);
  pdt_train_paths_free(&t->paths);
}

static void show_states(void *context, int64_t done, int64_t all) {
  const training *t = context;
  if (!pdt_on_terminal(STDERR_FILENO)) return;
  fprintf(stderr, "\r%s: states of the trunk: %lld of %lld entries\033[K%s", t->name,
          (long long)done, (long long)all, done == all ? "\n" : "");
}

static int open_states(training *t, pdt_error *err) {
  const pdt_states_observer observer = {t, show_states};
  if (!t->args->states) return 0;
  pdt_nn_set_threads(t->options.threads);
  return pdt_train_states_open(&t->states, t->args->states, &t->trunk, &t->config, &t->data,
                               t->world, &observer, err);
}

static int train(training *t, pdt_error *err) {
  const pdt_comm *world = t->world;
  load(t, err);
  if (pdt_comm_agree(world, err) ||
      pdt_run_same_data(t->world, t->args->data[0], t->data.fingerprint, err) ||
      open_states(t, err))
    return -1;
  if (world->rank == 0) pdt_notices_print(&t->notices, stderr, t->name, false);
  if (world->rank == 0) pdt_train_open_log(&t->journal, t->args, "sidecar", &t->paths, err);
  if (pdt_comm_agree(world, err)) return -1;
  const pdt_train_observer observer = {t, on_begin, on_report};
  if (pdt_curriculum(&t->trunk, &t->sidecar, t->data.entries, t->data.n, &t->options, world,
                     &observer, err))
    return -1;
  if (world->rank == 0) pdt_train_finish_log(&t->journal, err);
  return pdt_comm_agree(world, err);
}

int pdt_train_sidecar(const pdt_comm *world, const char *name, const pdt_train_args *args,
                      pdt_error *err) {
  training t = {.world = world, .name = name, .args = args};
  int rc = train(&t, err);
  end(&t);
  return rc;
}
