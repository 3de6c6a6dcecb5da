#include "run/outputs.h"
#include "run/train.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "model/tensors.h"
#include "run/terminal.h"
#include "store/gguf.h"

static const pdt_bytes max_config_bytes = 1 << 20, max_tokenizer_bytes = 512 << 20;

/* Everything a run holds. */
typedef struct training {
  const pdt_comm *world;
  const char *name; /* of the program, in messages */
  const pdt_train_args *args;
  pdt_notices notices;
  pdt_pretrain_options run;
  pdt_train_paths paths;
  char *config_path, *tokenizer_path; /* of what is read; tokenizer_path NULL: none */
  pdt_model_config config;
  pdt_tokenizer *tokenizer;
  pdt_nn_trunk trunk;
  pdt_corpus corpus, valid;
  pdt_train_log journal;
  double begun;
  int64_t first_step;
} training;

static int make_paths(training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  if (a->model && pdt_is_gguf(a->model))
    return pdt_fail(
        err, PDT_ERROR_USAGE,
        "--model: expected a directory, whose files go beside the trained weights, found "
        "the GGUF file '%s' (hint: pdt model convert makes a directory of it)",
        a->model);
  if (pdt_train_paths_make(&t->paths, a->out, "model.safetensors", err) ||
      pdt_path_join(&t->config_path, a->model ? a->model : "", a->model ? "config.json" : a->config,
                    err))
    return -1;
  if (a->tokenizer) return pdt_path_join(&t->tokenizer_path, "", a->tokenizer, err);
  if (!a->model) return 0;
  if (pdt_path_join(&t->tokenizer_path, a->model, "tokenizer.json", err)) return -1;
  if (pdt_path_is_there(t->tokenizer_path)) return 0;
  free(t->tokenizer_path);
  t->tokenizer_path = NULL;
  return 0;
}

/* The tokenizer of the model, or a file that was named. */
static int load_tokenizer(training *t, pdt_error *err) {
  if (!t->tokenizer_path) return 0;
  return t->args->tokenizer ? pdt_tokenizer_load(&t->tokenizer, t->tokenizer_path, err)
                            : pdt_tokenizer_load_folder(&t->tokenizer, t->args->model, NULL, err);
}

/* A new model has random weights by seed; another one's are read. */
static int make_trunk(training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  if (!a->model) {
    if (pdt_model_config_load_file(&t->config, a->config, &t->notices, err) ||
        pdt_nn_trunk_new(&t->trunk, &t->config, NULL, false, err))
      return -1;
    pdt_nn_trunk_init(&t->trunk, a->run.schedule.seed);
    return 0;
  }
  return pdt_train_load_trunk(&t->trunk, &t->config, a->model, false, &t->notices, err);
}

static int load(training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  if (make_paths(t, err) || make_trunk(t, err)) return -1;
  int32_t most = t->config.max_positions < 512 ? t->config.max_positions : 512;
  t->run.context = a->context > 0 ? (int32_t)a->context : most;
  if (t->run.context > t->config.max_positions)
    return pdt_fail(err, PDT_ERROR_USAGE, "--context: expected at most the model's %d, found %d",
                    t->config.max_positions, t->run.context);
  t->run.schedule.state = t->paths.state;
  t->run.model = t->paths.result;
  if (load_tokenizer(t, err)) return -1;
  if (t->tokenizer && pdt_tokenizer_size(t->tokenizer) > t->config.vocab_size)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: has %d tokens, the model's vocabulary %d (hint: vocab_size in %s)",
                    t->tokenizer_path, pdt_tokenizer_size(t->tokenizer), t->config.vocab_size,
                    t->config_path);
  if (pdt_corpus_load(&t->corpus, a->data[0], t->tokenizer, &t->config, t->run.context, err))
    return -1;
  return a->valid
             ? pdt_corpus_load(&t->valid, a->valid, t->tokenizer, &t->config, t->run.context, err)
             : 0;
}

static int copy_into(const char *directory, const char *name, const char *from, pdt_bytes most,
                     pdt_error *err) {
  char *path, *text;
  pdt_bytes length;
  if (pdt_path_join(&path, directory, name, err)) return -1;
  int rc = pdt_file_read(&text, &length, from, most, err);
  pdt_new_file file;
  if (!rc) rc = pdt_new_file_open(&file, path, err);
  if (!rc) {
    rc = pdt_new_file_write(&file, text, length, err);
    if (!rc) rc = pdt_new_file_commit(&file, err);
    pdt_new_file_abandon(&file);
  }
  free(path);
  free(text);
  return rc;
}

/* Files beside a model's tokenizer.json that tell of tokens, where they are. */
static int copy_token_files(const training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  int rc = 0;
  for (int i = 0; i < PDT_TOKEN_FILES && !rc && t->tokenizer_path && !a->tokenizer; i++) {
    char *path;
    if (pdt_path_join(&path, a->model, pdt_token_files[i], err)) return -1;
    if (pdt_path_is_there(path))
      rc = copy_into(a->out, pdt_token_files[i], path, max_tokenizer_bytes, err);
    free(path);
  }
  return rc;
}

/* Rank 0's part of the beginning: the directory and what lies beside the weights. */
static int prepare_out(training *t, pdt_error *err) {
  const pdt_train_args *a = t->args;
  if (pdt_train_open_log(&t->journal, a, "model", &t->paths, err)) return -1;
  if (t->tokenizer_path &&
      copy_into(a->out, "tokenizer.json", t->tokenizer_path, max_tokenizer_bytes, err))
    return -1;
  if (copy_token_files(t, err)) return -1;
  return copy_into(a->out, "config.json", t->config_path, max_config_bytes, err);
}

static int on_begin(void *context, int64_t step, pdt_error *err) {
  training *t = context;
  char line[400];
  t->begun = pdt_seconds();
  t->first_step = step;
  if (t->world->rank != 0) return 0;
  snprintf(line, sizeof line,
           "{\"begin\": %lld, \"steps\": %lld, \"ranks\": %d, \"parameters\": %lld, "
           "\"documents\": %lld, \"pieces\": %lld, \"tokens\": %lld}",
           (long long)step, (long long)t->run.schedule.steps, t->world->size,
           (long long)t->trunk.parameters.n_elems, (long long)t->corpus.n_documents,
           (long long)t->corpus.n_pieces, (long long)t->corpus.n_tokens);
  return pdt_train_log_begin(&t->journal, step, err) || pdt_train_log_head(&t->journal, line, err)
             ? -1
             : 0;
}

static int on_report(void *context, const void *report, pdt_error *err) {
  training *t = context;
  const pdt_pretrain_report *r = report;
  char line[400], valid[120] = "";
  if (t->world->rank != 0) return 0;
  if (!isnan(r->valid_loss))
    snprintf(valid, sizeof valid, ", \"valid_loss\": %.6f, \"valid_accuracy\": %.5f", r->valid_loss,
             r->valid_accuracy);
  double speed = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
  snprintf(line, sizeof line,
           "{\"step\": %lld, \"loss\": %.6f, \"accuracy\": %.5f%s, \"rate\": %.4g, \"norm\": %.4g, "
           "\"tokens_per_s\": %.0f}",
           (long long)r->step, r->loss, r->accuracy, valid, r->rate, r->norm, speed);
  if (pdt_train_log_line(&t->journal, line, err)) return -1;
  if (!t->journal.on_terminal) return 0;
  double per_step = (pdt_seconds() - t->begun) / (double)(r->step - t->first_step);
  int left = (int)(per_step * (double)(r->steps - r->step));
  fprintf(stderr,
          "\rstep %lld/%lld  loss %.4f  right %.1f%%  rate %.2e  %.0f tokens/s  %d:%02d left",
          (long long)r->step, (long long)r->steps, r->loss, 100 * r->accuracy, r->rate, speed,
          left / 60, left % 60);
  if (!isnan(r->valid_loss))
    fprintf(stderr, "  held out %.4f, %.1f%%", r->valid_loss, 100 * r->valid_accuracy);
  fputs(isnan(r->valid_loss) && r->step < r->steps ? "\033[K" : "\033[K\n", stderr);
  return 0;
}

static void end(training *t) {
  pdt_train_close_log(&t->journal);
  pdt_corpus_free(&t->corpus);
  pdt_corpus_free(&t->valid);
  pdt_tokenizer_free(t->tokenizer);
  pdt_nn_trunk_free(&t->trunk);
  pdt_train_paths_free(&t->paths);
  free(t->config_path);
  free(t->tokenizer_path);
}

static int train(training *t, pdt_error *err) {
  const pdt_comm *world = t->world;
  load(t, err);
  if (pdt_comm_agree(world, err) ||
      pdt_run_same_data(t->world, t->args->data[0], t->corpus.fingerprint, err))
    return -1;
  if (world->rank == 0) pdt_notices_print(&t->notices, stderr, t->name, false);
  if (world->rank == 0) prepare_out(t, err);
  if (pdt_comm_agree(world, err)) return -1;
  const pdt_train_observer observer = {t, on_begin, on_report};
  if (pdt_pretrain(&t->trunk, &t->corpus, t->args->valid ? &t->valid : NULL, &t->run, world,
                   &observer, err))
    return -1;
  if (world->rank == 0) pdt_train_finish_log(&t->journal, err);
  return pdt_comm_agree(world, err);
}

int pdt_train_trunk(const pdt_comm *world, const char *name, const pdt_train_args *args,
                    pdt_error *err) {
  training t = {.world = world, .name = name, .args = args, .run = args->run};
  int rc = train(&t, err);
  end(&t);
  return rc;
}
