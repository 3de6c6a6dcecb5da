#include "run/score.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text_safe.h"
#include "run/terminal.h"
#include "run/train.h"
#include "train/score.h"

/* Everything a run holds. */
typedef struct run {
  pdt_notices notices;
  pdt_model_config model;
  pdt_sidecar_config config;
  pdt_tokenizer *tokenizer;
  pdt_nn_trunk trunk;
  pdt_nn_sidecar sidecar;
  pdt_score score;
} run;

static int load_sidecar(run *r, const char *path, pdt_error *err) {
  pdt_safetensors *file;
  if (pdt_safetensors_open(&file, path, err)) return -1;
  int rc = pdt_sidecar_config_load(&r->config, file, &r->model, err);
  if (!rc) rc = pdt_nn_sidecar_new(&r->sidecar, &r->config, file, 0, err);
  if (!rc) rc = pdt_safetensors_unchanged(file, err);
  pdt_safetensors_close(file);
  return rc;
}

static void show(void *context, int64_t done, int64_t all) {
  (void)context;
  if (pdt_on_terminal(STDERR_FILENO))
    fprintf(stderr, done < all ? "\r%lld of %lld entries\033[K" : "\r\033[K", (long long)done,
            (long long)all);
}

static int read_all(run *r, const char *name, const pdt_score_options *o, pdt_error *err) {
  if (pdt_train_load_trunk(&r->trunk, &r->model, o->model, true, &r->notices, err) ||
      load_sidecar(r, o->sidecar, err) ||
      pdt_tokenizer_load_folder(&r->tokenizer, o->model, NULL, err))
    return -1;
  pdt_notices_print(&r->notices, stderr, name, false);
  const pdt_score_use use = {.data = o->data,
                             .most = o->count,
                             .trunk = &r->trunk,
                             .sidecar = &r->sidecar,
                             .tokenizer = r->tokenizer,
                             .threads = (int)o->threads,
                             .shown = show};
  return pdt_score_read(&use, &r->score, err);
}

/* Half a 95% interval, in standard errors. */
#define INTERVAL 1.96

static double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100 * (double)part / (double)whole : 0;
}

static void print_row(const char *label, const pdt_score_figures *f) {
  if (f->tokens == 0) {
    printf("%-36s %8d\n", label, 0);
    return;
  }
  printf("%-36s %8lld %9.3f %9.3f %9.3f %8.3f +- %-7.3f %6.1f %6.1f\n", label, (long long)f->tokens,
         f->loss[PDT_SCORE_NOTES], f->loss[PDT_SCORE_PLAN], f->loss[PDT_SCORE_BLIND],
         f->saved[PDT_SCORE_BLIND], INTERVAL * f->error[PDT_SCORE_BLIND],
         percent(f->right[PDT_SCORE_NOTES], f->tokens),
         percent(f->right[PDT_SCORE_BLIND], f->tokens));
}

static void print_table(const char *path, const pdt_score *s) {
  static const char *const labels[PDT_SCORE_KINDS] = {
      "a sibling's name, told by a note", "... that the section has had before",
      "... that no note has told yet", "all other tokens"};
  pdt_say(stdout, "# %s: %lld entries; nats a token of the file's own text, read in lockstep", path,
          (long long)s->entries);
  printf("%-36s %8s %9s %9s %9s %8s %-10s %6s %6s\n", "tokens", "count", "notes", "plan", "blind",
         "saved", "(95%)", "right%", "blind%");
  for (int kind = 0; kind < PDT_SCORE_KINDS; kind++) print_row(labels[kind], &s->kinds[kind]);
  print_row("all", &s->all);
}

static json_t *figures_json(const pdt_score_figures *f) {
  static const char *const arms[PDT_SCORE_ARMS] = {"notes", "plan", "blind"};
  json_t *all = json_pack("{s:I}", "tokens", (json_int_t)f->tokens);
  for (int arm = 0; arm < PDT_SCORE_ARMS; arm++)
    json_object_set_new(all, arms[arm],
                        json_pack("{s:f,s:I,s:f,s:f}", "cross_entropy", f->loss[arm], "right",
                                  (json_int_t)f->right[arm], "above_notes", f->saved[arm],
                                  "standard_error", f->error[arm]));
  return all;
}

static int print_json(const pdt_score *s, pdt_error *err) {
  static const char *const names[PDT_SCORE_KINDS] = {"told", "again", "untold", "other"};
  json_t *report = json_pack("{s:I}", "entries", (json_int_t)s->entries);
  for (int kind = 0; kind < PDT_SCORE_KINDS; kind++)
    json_object_set_new(report, names[kind], figures_json(&s->kinds[kind]));
  int bad = json_object_set_new(report, "all", figures_json(&s->all));
  if (!bad) pdt_json_print(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
  if (!bad) putchar('\n');
  json_decref(report);
  return bad ? pdt_fail(err, PDT_ERROR_MEMORY, "no memory for a report") : 0;
}

int pdt_score_report(const char *name, const pdt_score_options *options, pdt_error *err) {
  run r = {0};
  int rc = read_all(&r, name, options, err);
  if (!rc && options->json) rc = print_json(&r.score, err);
  if (!rc && !options->json) print_table(options->data, &r.score);
  pdt_tokenizer_free(r.tokenizer);
  pdt_nn_sidecar_free(&r.sidecar);
  pdt_sidecar_config_free(&r.config);
  pdt_nn_trunk_free(&r.trunk);
  return rc;
}
