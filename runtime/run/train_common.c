/* What the kinds of runs of pdt train share. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "model/tensors.h"
#include "run/outputs.h"
#include "run/terminal.h"
#include "run/train.h"

int pdt_train_check_outputs(const pdt_train_args *a, pdt_error *err) {
  static const char *const results[] = {"checkpoint.safetensors", "log.jsonl"};
  static const char *const copies[] = {"config.json", "tokenizer.json"};
  bool trunk = strcmp(a->stage, "trunk") == 0;
  pdt_named_files outputs = {0}, inputs = {0}, copied = {0}, others = {0};
  if (pdt_output_folder_check("--out", a->out, err)) return -1;
  for (int i = 0; i < 2; i++) {
    pdt_files_add_in(&outputs, "--out", a->out, results[i]);
    if (trunk) pdt_files_add_in(&copied, "--out", a->out, copies[i]);
  }
  for (int i = 0; trunk && i < PDT_TOKEN_FILES; i++)
    pdt_files_add_in(&copied, "--out", a->out, pdt_token_files[i]);
  pdt_files_add_in(&outputs, "--out", a->out, trunk ? "model.safetensors" : "sidecar.safetensors");
  if (a->states) pdt_files_add(&outputs, "--states", a->states);
  for (int32_t i = 0; i < a->n_data; i++) {
    pdt_files_add(&inputs, "--data", a->data[i]);
    pdt_files_add(&others, "--data", a->data[i]);
  }
  pdt_files_add(&inputs, "--valid", a->valid);
  pdt_files_add(&others, "--valid", a->valid);
  pdt_files_add(&inputs, "--config", a->config);
  pdt_files_add(&inputs, "--tokenizer", a->tokenizer);
  pdt_files_add(&inputs, "--sidecar", a->sidecar);
  if (a->model) pdt_files_add_model(&inputs, "--model", a->model);
  pdt_error ignored = {0};
  int rc = pdt_outputs_check(&outputs, &inputs, err); /* both, since they free their names */
  return pdt_outputs_check(&copied, &others, rc ? &ignored : err) || rc ? -1 : 0;
}

int pdt_train_paths_make(pdt_train_paths *p, const char *out, const char *result, pdt_error *err) {
  *p = (pdt_train_paths){NULL, NULL, NULL};
  return pdt_path_join(&p->state, out, "checkpoint.safetensors", err) ||
                 pdt_path_join(&p->result, out, result, err) ||
                 pdt_path_join(&p->log, out, "log.jsonl", err)
             ? -1
             : 0;
}

void pdt_train_paths_free(pdt_train_paths *p) {
  free(p->state);
  free(p->result);
  free(p->log);
  *p = (pdt_train_paths){NULL, NULL, NULL};
}

int pdt_train_load_trunk(pdt_nn_trunk *trunk, pdt_model_config *config, const char *model,
                         bool frozen, pdt_notices *notices, pdt_error *err) {
  pdt_checkpoint *checkpoint;
  if (pdt_model_config_load(config, model, notices, err) ||
      pdt_checkpoint_open(&checkpoint, model, notices, err))
    return -1;
  int rc = pdt_model_tensors_check(config, checkpoint, notices, err);
  if (!rc) rc = pdt_nn_trunk_new(trunk, config, checkpoint, frozen, err);
  if (!rc) rc = pdt_checkpoint_unchanged(checkpoint, err);
  pdt_checkpoint_close(checkpoint);
  return rc;
}

int pdt_train_open_log(pdt_train_log *log, const pdt_train_args *args, const char *what,
                       const pdt_train_paths *paths, pdt_error *err) {
  const char *const results[] = {paths->state, paths->result};
  if (pdt_output_folder_make(args->out, NULL, err)) return -1;
  for (int i = 0; i < 2 && !args->run.schedule.resume; i++)
    if (access(results[i], F_OK) == 0)
      return pdt_fail(err, PDT_ERROR_IO,
                      "%s: has a %s already (hint: --resume, or another directory)", args->out,
                      what);
  for (int i = 0; i < 2; i++) pdt_temporaries_remove(results[i]);
  *log = (pdt_train_log){.path = paths->log,
                         .resumes = args->run.schedule.resume,
                         .on_terminal = pdt_on_terminal(STDERR_FILENO)};
  log->file = fopen(log->path, log->resumes ? "ae" : "we");
  if (log->file) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", log->path, strerror(errno));
}

int pdt_train_finish_log(pdt_train_log *log, pdt_error *err) {
  /* some file systems say only now that the disk is full; what is no file cannot be synchronized */
  if (fsync(fileno(log->file)) == 0 || errno == EINVAL || errno == EROFS) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", log->path, strerror(errno));
}

void pdt_train_close_log(pdt_train_log *log) {
  if (log->file) fclose(log->file); /* every line was flushed, and is known to be written */
  free(log->kept);
  free(log->held);
  *log = (pdt_train_log){0};
}

/* The step that a line of a log is of; -1: none, as of lines about a start; -2: it is no line that
 * this program wrote whole. */
static int64_t step_of(const char *line, size_t bytes) {
  json_t *json = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, NULL);
  const json_t *step = json_object_get(json, "step");
  int64_t out = !json_is_object(json)   ? -2
                : json_is_integer(step) ? (int64_t)json_integer_value(step)
                                        : -1;
  json_decref(json);
  return out;
}

/* Up to where a log is of steps up to `step`: what a killed run wrote beyond its checkpoint, and a
 * line that it did not end, come again. */
static size_t length_until(const char *text, size_t bytes, int64_t step) {
  size_t at = 0;
  for (const char *end; (end = memchr(text + at, '\n', bytes - at));) {
    int64_t of = step_of(text + at, (size_t)(end - text) - at);
    if (of == -2 || of > step || (of < 0 && step == 0)) break;
    at = (size_t)(end - text) + 1;
  }
  return at;
}

static int write_line(pdt_train_log *log, const char *line, pdt_error *err) {
  if (fprintf(log->file, "%s\n", line) >= 0 && fflush(log->file) == 0) return 0;
  return pdt_fail(
      err, PDT_ERROR_IO,
      "%s: cannot write: %s (hint: the last checkpoint stands; --resume goes on from it)",
      log->path, strerror(errno));
}

/* Cuts the log where the run goes on from, and keeps that part. */
static int cut(pdt_train_log *log, int64_t step, pdt_error *err) {
  const pdt_bytes most_bytes = (pdt_bytes)1 << 34;
  struct stat status;
  pdt_bytes bytes;
  if (fstat(fileno(log->file), &status) == 0 && !S_ISREG(status.st_mode)) return 0;
  if (pdt_file_read(&log->kept, &bytes, log->path, most_bytes, err)) return -1;
  size_t length = length_until(log->kept, (size_t)bytes, step);
  log->kept[length] = '\0';
  if (ftruncate(fileno(log->file), (off_t)length) == 0) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "%s: cannot cut: %s", log->path, strerror(errno));
}

/* A line that says how a run starts; one that the kept part has is not said again. */
static int write_head(pdt_train_log *log, const char *line, pdt_error *err) {
  const char *there = log->kept ? strstr(log->kept, line) : NULL;
  if (there && there[strlen(line)] == '\n' && (there == log->kept || there[-1] == '\n')) return 0;
  return write_line(log, line, err);
}

/* The same lines where nobody watches. */
static int show_line(const pdt_train_log *log, const char *line, pdt_error *err) {
  if (log->on_terminal || (printf("%s\n", line) >= 0 && fflush(stdout) == 0)) return 0;
  return pdt_fail(err, PDT_ERROR_IO, "standard output: cannot write: %s", strerror(errno));
}

int pdt_train_log_begin(pdt_train_log *log, int64_t step, pdt_error *err) {
  if (log->resumes && cut(log, step, err)) return -1;
  log->begun = true;
  int rc = 0;
  for (char *line = log->held; line && *line && !rc;) {
    char *end = strchr(line, '\n');
    *end = '\0';
    rc = write_head(log, line, err);
    line = end + 1;
  }
  free(log->held);
  log->held = NULL;
  return rc;
}

int pdt_train_log_head(pdt_train_log *log, const char *line, pdt_error *err) {
  if (show_line(log, line, err)) return -1;
  if (log->begun) return write_head(log, line, err);
  char *held = NULL; /* where the run starts is not known yet */
  if (asprintf(&held, "%s%s\n", log->held ? log->held : "", line) < 0)
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", log->path);
  free(log->held);
  log->held = held;
  return 0;
}

int pdt_train_log_line(pdt_train_log *log, const char *line, pdt_error *err) {
  return write_line(log, line, err) || show_line(log, line, err) ? -1 : 0;
}
