/* What the kinds of runs of pdt train share. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/outputs.h"
#include "cli/train.h"

int pdt_train_compare_data(const pdt_cli *cli, const pdt_train_args *args, uint64_t fingerprint,
                           pdt_error *err) {
  int64_t low = (int64_t)(fingerprint >> 1), high = low;
  pdt_comm_all_reduce_i64(cli->world, &low, 1, PDT_COMM_MIN);
  pdt_comm_all_reduce_i64(cli->world, &high, 1, PDT_COMM_MAX);
  return low == high ? 0
                     : pdt_fail(err, PDT_ERROR_INPUT, "%s: is not the same on every rank's machine",
                                args->data[0]);
}

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
  pdt_files_add_in(&outputs, "--out", a->out, trunk ? "model.safetensors" : "sidecar.safetensors");
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
  int rc = pdt_outputs_check(&outputs, &inputs, err);
  return pdt_outputs_check(&copied, &others, rc ? NULL : err) || rc ? -1 : 0;
}

int pdt_train_open_log(const pdt_train_args *args, const char *what, const char *const results[2],
                       const char *path, FILE **log, pdt_error *err) {
  const char *out = args->out;
  if (mkdir(out, 0777) && errno != EEXIST)
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot make the directory: %s", out, strerror(errno));
  for (int i = 0; i < 2 && !args->run.resume; i++)
    if (results[i] && access(results[i], F_OK) == 0)
      return pdt_fail(err, PDT_ERROR_IO,
                      "%s: has a %s already (hint: --resume, or another directory)", out, what);
  *log = fopen(path, args->run.resume ? "ae" : "we");
  return *log ? 0 : pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", path, strerror(errno));
}

void pdt_train_log_line(FILE *log, bool on_terminal, const char *line) {
  if (log) {
    fprintf(log, "%s\n", line);
    fflush(log);
  }
  if (on_terminal) return;
  printf("%s\n", line);
  fflush(stdout);
}
