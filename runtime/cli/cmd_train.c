#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/terminal.h"
#include "cli/train_sidecar.h"
#include "model/tensors.h"
#include "train/pretrain.h"

static const pdt_bytes max_config_bytes = 1 << 20, max_tokenizer_bytes = 512 << 20;

enum {
  KEY_STAGE = 256,
  KEY_DATA,
  KEY_VALID,
  KEY_CONFIG,
  KEY_MODEL,
  KEY_TOKENIZER,
  KEY_SIDECAR,
  KEY_OUT,
  KEY_RESUME,
  KEY_STEPS,
  KEY_BATCH,
  KEY_CONTEXT,
  KEY_RATE,
  KEY_WARMUP,
  KEY_FLOOR,
  KEY_DECAY,
  KEY_CLIP,
  KEY_SEED,
  KEY_LOG_EVERY,
  KEY_VALID_EVERY,
  KEY_CHECKPOINT_EVERY,
  KEY_DTYPE,
  KEY_THREADS
};

typedef struct train_args {
  const char *stage, *data, *valid, *config, *model, *tokenizer, *sidecar, *out;
  pdt_pretrain_options run;
  int64_t context; /* 0: what the model has, 512 at most */
} train_args;

static const struct argp_option options[] = {
    {"stage", KEY_STAGE, "NAME", 0,
     "what is trained: trunk, or on a frozen one the sidecar's stage 0 (planner), 1 (SNC and "
     "adapters), "
     "2 (speculation, in two passes) or 3 (coverage and readiness)",
     1},
    {"data", KEY_DATA, "FILE", 0,
     "JSON lines: {\"text\": ...} or {\"ids\": [...], \"weights\": [...]}, a document each; "
     "for a sidecar a file of pdt data",
     1},
    {"valid", KEY_VALID, "FILE", 0, "held-out documents, to measure on", 1},
    {"config", KEY_CONFIG, "FILE", 0, "config.json of a new model, with random weights", 1},
    {"model", KEY_MODEL, "DIR", 0, "or a model to train further", 1},
    {"tokenizer", KEY_TOKENIZER, "FILE", 0,
     "tokenizer.json for texts, kept with the model; by default the one of --model", 1},
    {"sidecar", KEY_SIDECAR, "FILE", 0, "the sidecar that a stage starts from, left as it is", 1},
    {"out", KEY_OUT, "DIR", 0, "where model, checkpoint and log are written; made if not there", 1},
    {"resume", KEY_RESUME, NULL, 0,
     "go on from the checkpoint in --out; without one, from the start", 1},
    {"steps", KEY_STEPS, "N", 0, "steps in all (default 1000)", 2},
    {"batch", KEY_BATCH, "N", 0, "documents of a step, over all ranks (default 16)", 2},
    {"context", KEY_CONTEXT, "N", 0,
     "longer documents are cut into pieces of N predictions (default: the model's, 512 at most)",
     2},
    {"rate", KEY_RATE, "X", 0, "largest learning rate (default 0.002)", 2},
    {"warmup", KEY_WARMUP, "N", 0, "steps until it is reached (default 100)", 2},
    {"floor", KEY_FLOOR, "X", 0, "share of it that the cosine ends at (default 0.03)", 2},
    {"weight-decay", KEY_DECAY, "X", 0, "of matrices, times the rate (default 0.05)", 2},
    {"clip", KEY_CLIP, "X", 0, "longest gradient; 0: any (default 1)", 2},
    {"seed", KEY_SEED, "N", 0, "of first weights and order of data (default 0)", 2},
    {"log-every", KEY_LOG_EVERY, "N", 0, "steps between lines of the log (default 10)", 3},
    {"valid-every", KEY_VALID_EVERY, "N", 0,
     "steps between measurements on --valid (default: at the end)", 3},
    {"checkpoint-every", KEY_CHECKPOINT_EVERY, "N", 0, "steps between checkpoints (default 500)",
     3},
    {"dtype", KEY_DTYPE, "TYPE", 0, "of the model written: F32, F16 or BF16 (default F32)", 3},
    {"threads", KEY_THREADS, "N", 0,
     "threads of a rank's matrix products (default 1: ranks use cores better)", 3},
    {0},
};

static const char doc[] =
    "Trains a model. Under mpirun the documents of a step are shared among the ranks; the same run "
    "on as many ranks gives the same bits."
    "\vWrites DIR/model.safetensors with config.json and tokenizer.json, "
    "DIR/checkpoint.safetensors "
    "to resume from, and DIR/log.jsonl, a JSON object a line; where nobody watches, the same lines "
    "go to standard output.\n\n"
    "Examples:\n"
    "  pdt train --stage trunk --data text.jsonl --config config.json --tokenizer tokenizer.json "
    "--out m --steps 2000\n"
    "  mpirun -n 2 pdt train --stage trunk --data text.jsonl --valid held-out.jsonl "
    "--valid-every 500 --config config.json --tokenizer tokenizer.json --out m\n"
    "  mpirun -n 2 pdt train ... --out m --resume\n"
    "  pdt train --stage trunk --data more.jsonl --model m --out m2 --rate 0.0005\n"
    "  pdt train --stage 1 --data atlas.jsonl --model m --sidecar s0/sidecar.safetensors --out "
    "s1\n";

/* Options that take a number; the parser's error code, or ARGP_ERR_UNKNOWN. */
static error_t parse_number(int key, char *arg, struct argp_state *state, train_args *a) {
  pdt_pretrain_options *r = &a->run;
  int64_t n = 0;
  error_t rc;
  switch (key) {
  case KEY_STEPS:
    return pdt_cli_integer(state, "steps", arg, 1, INT64_MAX / (1 << 24), &r->steps);
  case KEY_BATCH:
    rc = pdt_cli_integer(state, "batch", arg, 1, 1 << 20, &n);
    r->batch = (int32_t)n;
    return rc;
  case KEY_CONTEXT:
    return pdt_cli_integer(state, "context", arg, 1, 1 << 20, &a->context);
  case KEY_RATE:
    return pdt_cli_real(state, "rate", arg, 0, 10, &r->rate);
  case KEY_WARMUP:
    return pdt_cli_integer(state, "warmup", arg, 0, INT32_MAX, &r->warmup);
  case KEY_FLOOR:
    return pdt_cli_real(state, "floor", arg, 0, 1, &r->floor);
  case KEY_DECAY:
    return pdt_cli_real(state, "weight-decay", arg, 0, 10, &r->adamw.weight_decay);
  case KEY_CLIP:
    return pdt_cli_real(state, "clip", arg, 0, 1e9, &r->adamw.clip);
  case KEY_SEED:
    rc = pdt_cli_integer(state, "seed", arg, 0, INT64_MAX, &n);
    r->seed = (uint64_t)n;
    return rc;
  case KEY_LOG_EVERY:
    return pdt_cli_integer(state, "log-every", arg, 1, INT32_MAX, &r->log_every);
  case KEY_VALID_EVERY:
    return pdt_cli_integer(state, "valid-every", arg, 1, INT32_MAX, &r->valid_every);
  case KEY_CHECKPOINT_EVERY:
    return pdt_cli_integer(state, "checkpoint-every", arg, 1, INT32_MAX, &r->checkpoint_every);
  case KEY_THREADS:
    rc = pdt_cli_integer(state, "threads", arg, 1, 1024, &n);
    r->threads = (int)n;
    return rc;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* What must go together. */
static error_t check_args(struct argp_state *state, const train_args *a) {
  bool trunk = a->stage && strcmp(a->stage, "trunk") == 0;
  bool sidecar = a->stage && strlen(a->stage) == 1 && a->stage[0] >= '0' && a->stage[0] <= '3';
  if (!trunk && !sidecar)
    argp_error(state, "--stage: expected trunk, 0, 1, 2 or 3, found '%s'",
               a->stage ? a->stage : "nothing");
  else if (trunk && (!a->data || !a->out || !a->config == !a->model || a->sidecar))
    argp_error(state, "expected --data, --out and one of --config and --model");
  else if (sidecar && (!a->data || !a->out || !a->model || !a->sidecar || a->config || a->valid ||
                       a->tokenizer))
    argp_error(state, "a sidecar's stage: expected --data, --out, --model and --sidecar, and no "
                      "--config, --valid or --tokenizer");
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  train_args *a = state->input;
  struct {
    int key;
    const char **value;
  } texts[] = {{KEY_STAGE, &a->stage},   {KEY_DATA, &a->data},      {KEY_VALID, &a->valid},
               {KEY_CONFIG, &a->config}, {KEY_MODEL, &a->model},    {KEY_TOKENIZER, &a->tokenizer},
               {KEY_OUT, &a->out},       {KEY_SIDECAR, &a->sidecar}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (key == texts[i].key) {
      *texts[i].value = arg;
      return 0;
    }
  switch (key) {
  case KEY_RESUME:
    a->run.resume = true;
    return 0;
  case KEY_DTYPE:
    if (pdt_dtype_parse(arg, &a->run.dtype)) return 0;
    argp_error(state, "--dtype: expected F32, F16 or BF16, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_ARG:
    argp_error(state, "expected options only, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_END:
    return check_args(state, a);
  default:
    return parse_number(key, arg, state, a);
  }
}

/* Everything a run holds. */
typedef struct training {
  const pdt_cli *cli;
  train_args *args;
  char *state, *model, *log;          /* paths in --out */
  char *config_path, *tokenizer_path; /* of what is read; tokenizer_path NULL: none */
  pdt_model_config config;
  pdt_tokenizer *tokenizer;
  pdt_nn_trunk trunk;
  pdt_corpus corpus, valid;
  FILE *log_file;
  bool on_terminal;
  double begun;
  int64_t first_step;
} training;

static int make_paths(training *t, pdt_error *err) {
  const train_args *a = t->args;
  if (pdt_path_join(&t->state, a->out, "checkpoint.safetensors", err) ||
      pdt_path_join(&t->model, a->out, "model.safetensors", err) ||
      pdt_path_join(&t->log, a->out, "log.jsonl", err) ||
      pdt_path_join(&t->config_path, a->model ? a->model : "", a->model ? "config.json" : a->config,
                    err))
    return -1;
  if (a->tokenizer) return pdt_path_join(&t->tokenizer_path, "", a->tokenizer, err);
  if (!a->model) return 0;
  if (pdt_path_join(&t->tokenizer_path, a->model, "tokenizer.json", err)) return -1;
  if (access(t->tokenizer_path, F_OK) == 0) return 0;
  free(t->tokenizer_path);
  t->tokenizer_path = NULL;
  return 0;
}

/* A new model has random weights by seed; another one's are read. */
static int make_trunk(training *t, pdt_error *err) {
  const train_args *a = t->args;
  if (!a->model) {
    if (pdt_model_config_load_file(&t->config, a->config, err) ||
        pdt_nn_trunk_new(&t->trunk, &t->config, NULL, false, err))
      return -1;
    pdt_nn_trunk_init(&t->trunk, a->run.seed);
    return 0;
  }
  pdt_checkpoint *checkpoint;
  if (pdt_model_config_load(&t->config, a->model, err) ||
      pdt_checkpoint_open(&checkpoint, a->model, err))
    return -1;
  int rc = pdt_model_tensors_check(&t->config, checkpoint, err);
  if (!rc) rc = pdt_nn_trunk_new(&t->trunk, &t->config, checkpoint, false, err);
  pdt_checkpoint_close(checkpoint);
  return rc;
}

static int load(training *t, pdt_error *err) {
  train_args *a = t->args;
  if (make_paths(t, err) || make_trunk(t, err)) return -1;
  int32_t most = t->config.max_positions < 512 ? t->config.max_positions : 512;
  a->run.context = a->context > 0 ? (int32_t)a->context : most;
  if (a->run.context > t->config.max_positions)
    return pdt_fail(err, PDT_ERROR_USAGE, "--context: expected at most the model's %d, found %d",
                    t->config.max_positions, a->run.context);
  a->run.state = t->state;
  a->run.model = t->model;
  if (t->tokenizer_path && pdt_tokenizer_load(&t->tokenizer, t->tokenizer_path, err)) return -1;
  if (t->tokenizer && pdt_tokenizer_size(t->tokenizer) > t->config.vocab_size)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: has %d tokens, the model's vocabulary %d (hint: vocab_size in %s)",
                    t->tokenizer_path, pdt_tokenizer_size(t->tokenizer), t->config.vocab_size,
                    t->config_path);
  if (pdt_corpus_load(&t->corpus, a->data, t->tokenizer, &t->config, a->run.context, err))
    return -1;
  return a->valid
             ? pdt_corpus_load(&t->valid, a->valid, t->tokenizer, &t->config, a->run.context, err)
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

/* Rank 0's part of the beginning: the directory and what lies beside the weights. */
static int prepare_out(training *t, pdt_error *err) {
  const train_args *a = t->args;
  if (mkdir(a->out, 0777) && errno != EEXIST)
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot make the directory: %s", a->out,
                    strerror(errno));
  if (!a->run.resume && (access(t->state, F_OK) == 0 || access(t->model, F_OK) == 0))
    return pdt_fail(err, PDT_ERROR_IO,
                    "%s: has a model already (hint: --resume, or another directory)", a->out);
  t->log_file = fopen(t->log, a->run.resume ? "ae" : "we");
  if (!t->log_file)
    return pdt_fail(err, PDT_ERROR_IO, "%s: cannot write: %s", t->log, strerror(errno));
  if (t->tokenizer_path &&
      copy_into(a->out, "tokenizer.json", t->tokenizer_path, max_tokenizer_bytes, err))
    return -1;
  return copy_into(a->out, "config.json", t->config_path, max_config_bytes, err);
}

/* One line into the log, and to standard output where nobody watches. */
static void log_line(training *t, const char *line) {
  if (t->log_file) {
    fprintf(t->log_file, "%s\n", line);
    fflush(t->log_file);
  }
  if (!t->on_terminal) {
    printf("%s\n", line);
    fflush(stdout);
  }
}

static void on_begin(void *context, int64_t step) {
  training *t = context;
  char line[400];
  t->begun = pdt_seconds();
  t->first_step = step;
  if (t->cli->world->rank != 0) return;
  snprintf(line, sizeof line,
           "{\"begin\": %lld, \"steps\": %lld, \"ranks\": %d, \"parameters\": %lld, "
           "\"documents\": %lld, \"pieces\": %lld, \"tokens\": %lld}",
           (long long)step, (long long)t->args->run.steps, t->cli->world->size,
           (long long)t->trunk.parameters.n_elems, (long long)t->corpus.n_documents,
           (long long)t->corpus.n_pieces, (long long)t->corpus.n_tokens);
  log_line(t, line);
}

static void on_report(void *context, const pdt_pretrain_report *r) {
  training *t = context;
  char line[400], valid[120] = "";
  if (t->cli->world->rank != 0) return;
  if (!isnan(r->valid_loss))
    snprintf(valid, sizeof valid, ", \"valid_loss\": %.6f, \"valid_accuracy\": %.5f", r->valid_loss,
             r->valid_accuracy);
  double speed = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
  snprintf(line, sizeof line,
           "{\"step\": %lld, \"loss\": %.6f, \"accuracy\": %.5f%s, \"rate\": %.4g, \"norm\": %.4g, "
           "\"tokens_per_s\": %.0f}",
           (long long)r->step, r->loss, r->accuracy, valid, r->rate, r->norm, speed);
  log_line(t, line);
  if (!t->on_terminal) return;
  double per_step = (pdt_seconds() - t->begun) / (double)(r->step - t->first_step);
  int left = (int)(per_step * (double)(r->steps - r->step));
  fprintf(stderr,
          "\rstep %lld/%lld  loss %.4f  right %.1f%%  rate %.2e  %.0f tokens/s  %d:%02d left",
          (long long)r->step, (long long)r->steps, r->loss, 100 * r->accuracy, r->rate, speed,
          left / 60, left % 60);
  if (!isnan(r->valid_loss))
    fprintf(stderr, "  held out %.4f, %.1f%%", r->valid_loss, 100 * r->valid_accuracy);
  fputs(isnan(r->valid_loss) && r->step < r->steps ? "\033[K" : "\033[K\n", stderr);
}

static void end(training *t) {
  if (t->log_file) fclose(t->log_file);
  pdt_corpus_free(&t->corpus);
  pdt_corpus_free(&t->valid);
  pdt_tokenizer_free(t->tokenizer);
  pdt_nn_trunk_free(&t->trunk);
  char *paths[] = {t->state, t->model, t->log, t->config_path, t->tokenizer_path};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(paths[i]);
}

/* All ranks must have read the same text. */
static int compare_data(const training *t, pdt_error *err) {
  int64_t low = (int64_t)(t->corpus.fingerprint >> 1), high = low;
  pdt_comm_all_reduce_i64(t->cli->world, &low, 1, PDT_COMM_MIN);
  pdt_comm_all_reduce_i64(t->cli->world, &high, 1, PDT_COMM_MAX);
  return low == high ? 0
                     : pdt_fail(err, PDT_ERROR_INPUT, "%s: is not the same on every rank's machine",
                                t->args->data);
}

static int train(training *t, pdt_error *err) {
  const pdt_comm *world = t->cli->world;
  load(t, err);
  if (pdt_comm_agree(world, err) || compare_data(t, err)) return -1;
  if (world->rank == 0) prepare_out(t, err);
  if (pdt_comm_agree(world, err)) return -1;
  const pdt_pretrain_observer observer = {t, on_report, on_begin};
  return pdt_pretrain(&t->trunk, &t->corpus, t->args->valid ? &t->valid : NULL, &t->args->run,
                      world, &observer, err);
}

int pdt_cmd_train(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  train_args args = {.run = {.steps = 1000,
                             .warmup = 100,
                             .rate = 0.002,
                             .floor = 0.03,
                             .adamw = pdt_adamw_defaults(),
                             .batch = 16,
                             .log_every = 10,
                             .checkpoint_every = 500,
                             .threads = 1,
                             .dtype = PDT_F32}};
  args.run.adamw.weight_decay = 0.05;
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (parsed) return parsed < 0 ? -1 : 0;
  if (strcmp(args.stage, "trunk") != 0) {
    const pdt_train_sidecar_args sidecar = {args.stage[0] - '0', args.data, args.model,
                                            args.sidecar,        args.out,  &args.run};
    return pdt_train_sidecar(cli, &sidecar, err);
  }
  training t = {.cli = cli, .args = &args, .on_terminal = pdt_on_terminal(STDERR_FILENO)};
  int rc = train(&t, err);
  end(&t);
  return rc;
}
