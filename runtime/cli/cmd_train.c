#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "run/train.h"

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
  KEY_THREADS,
  KEY_SHARE,
  KEY_PART_RATE,
  KEY_PASSES,
  KEY_EMPTY,
  KEY_LOCKSTEP,
  KEY_WAIT,
  KEY_CODES,
  KEY_STATED,
  KEY_HEADING,
  KEY_STATES,
  KEY_SAMPLE,
  KEY_USED,
  KEY_OWN_NOTES,
  KEY_COUNT,
  KEY_ATTEMPTS,
  KEY_TEMPERATURE,
  KEY_LABEL
};

static const struct argp_option options[] = {
    {"stage", KEY_STAGE, "NAME", 0,
     "what is trained: trunk, or on a frozen one the sidecar's stage 0 (planner), 1 (SNC and "
     "adapters), 2 (speculation, in two passes), 3 (coverage and readiness), or all at once (all); "
     "then, on what the system writes itself, coverage and "
     "readiness again (rollouts)",
     1},
    {"data", KEY_DATA, "FILE", 0,
     "JSON lines: {\"text\": ...} or {\"ids\": [...], \"weights\": [...]}, a document each; "
     "for a sidecar a file of pdt data, or several, each with its --data",
     1},
    {"valid", KEY_VALID, "FILE", 0, "held-out documents, to measure on", 1},
    {"config", KEY_CONFIG, "FILE", 0, "config.json of a new model, with random weights", 1},
    {"model", KEY_MODEL, "DIR", 0,
     "or a model to train further; for a sidecar, the one it is for, a GGUF file, too", 1},
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
    {NULL, 0, NULL, 0, "Of a sidecar's stage:", 4},
    {"weight", KEY_SHARE, "LOSS=X", 0,
     "share of a loss in L: plan, notes, speculation, tokens, kd, coverage or ready; or how much "
     "tokens count: the first (use) and later (later) ones of a sibling's fact whose note is "
     "visible, "
     "and sentences with one whose note is not (unseen); or how much L_spec asks of blocks whose "
     "note "
     "tells nothing (quiet)",
     4},
    {"part-rate", KEY_PART_RATE, "PART=X", 0,
     "largest rate of one part: plan, condition, pool, speculation or close; 0 leaves it as it is",
     4},
    {"passes", KEY_PASSES, "N", 0, "1: streams read teacher notes, 2: what they write themselves",
     4},
    {"empty-slots", KEY_EMPTY, NULL, 0,
     "also teach the planner which slots stay empty (default: they are ignored)", 4},
    {"lockstep", KEY_LOCKSTEP, "X", 0,
     "share of entries whose streams never wait for each other (default 0.3)", 4},
    {"wait", KEY_WAIT, "X", 0,
     "elsewhere: chance that a stream waits before a block (default 0.12)", 4},
    {"codes", KEY_CODES, "KIND", 0,
     "what teacher notes are made of: embedding, the trunk's, or random (default embedding)", 4},
    {"states", KEY_STATES, "FILE", 0,
     "begin texts where the sidecar does, from states of the trunk kept in this file; made, by all "
     "ranks, where it is not there, and used by all stages on the same data",
     4},
    {"softmax-sample", KEY_SAMPLE, "N", 0,
     "of ids that do not occur in the data, N drawn anew for every step stand for all of them in "
     "the softmax (default: all)",
     4},
    {"stated", KEY_STATED, "X", 0,
     "weight of the tokens of a stream's own facts, which nothing tells (default 0.3)", 4},
    {"heading", KEY_HEADING, "X", 0,
     "weight of the tokens of a heading that a stream has to choose for itself, by its part of the "
     "plan (pdt data atlas --untitled; default 1)",
     4},
    {"own-notes", KEY_OWN_NOTES, NULL, 0,
     "streams read siblings' notes as zeros, as by pdt eval --bus zero: what the same parameters "
     "can "
     "do without them, to compare with",
     4},
    {"used", KEY_USED, "X", 0,
     "share in a block's teacher note of siblings' facts that it uses (default 0)", 4},
    {NULL, 0, NULL, 0, "Of the rollouts, where a step has --batch blocks:", 5},
    {"count", KEY_COUNT, "N", 0, "entries of each file that are decoded (default 500)", 5},
    {"max-attempts", KEY_ATTEMPTS, "N", 0, "attempts at a block before it is forced (default 12)",
     5},
    {"temperature", KEY_TEMPERATURE, "X", 0, "of sampling (default 0.8)", 5},
    {"label", KEY_LABEL, "KIND", 0,
     "what counts as ready: visible, when all facts that a block uses were, or agrees, when it "
     "also tells them right and keeps to what its stream has stated (default visible)",
     5},
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
    "  pdt train --stage trunk --data text.jsonl --config config.json \\\n"
    "      --tokenizer tokenizer.json --out m --steps 2000\n"
    "  mpirun -n 2 pdt train --stage trunk --data text.jsonl --valid valid.jsonl \\\n"
    "      --valid-every 500 --config config.json --tokenizer tokenizer.json \\\n"
    "      --out m\n"
    "  mpirun -n 2 pdt train ... --out m --resume\n"
    "  pdt train --stage trunk --data more.jsonl --model m --out m2 --rate 0.0005\n"
    "  pdt train --stage 1 --data atlas.jsonl --model m \\\n"
    "      --sidecar s0/sidecar.safetensors --out s1 --weight use=3\n"
    "  pdt train --stage 2 --data atlas.jsonl --model m \\\n"
    "      --sidecar s1/sidecar.safetensors --out s2 --part-rate condition=0.0005\n"
    "  pdt train --stage rollouts --data atlas.jsonl --model m \\\n"
    "      --sidecar s3/sidecar.safetensors --out s4 --batch 64\n";

/* Options that take a number; the parser's error code, or ARGP_ERR_UNKNOWN. */
static error_t parse_number(int key, char *arg, struct argp_state *state, pdt_train_args *a) {
  pdt_train_schedule *s = &a->run.schedule;
  int64_t n = 0;
  error_t rc;
  switch (key) {
  case KEY_STEPS:
    return pdt_cli_integer(state, "steps", arg, 1, INT64_MAX / (1 << 24), &s->steps);
  case KEY_BATCH:
    rc = pdt_cli_integer(state, "batch", arg, 1, 1 << 20, &n);
    s->batch = (int32_t)n;
    return rc;
  case KEY_CONTEXT:
    return pdt_cli_integer(state, "context", arg, 1, 1 << 20, &a->context);
  case KEY_RATE:
    return pdt_cli_real(state, "rate", arg, 0, 10, &a->run.rate);
  case KEY_WARMUP:
    return pdt_cli_integer(state, "warmup", arg, 0, INT32_MAX, &s->warmup);
  case KEY_FLOOR:
    return pdt_cli_real(state, "floor", arg, 0, 1, &s->floor);
  case KEY_DECAY:
    return pdt_cli_real(state, "weight-decay", arg, 0, 10, &s->adamw.weight_decay);
  case KEY_CLIP:
    return pdt_cli_real(state, "clip", arg, 0, 1e9, &s->adamw.clip);
  case KEY_SEED:
    return pdt_cli_seed(state, "seed", arg, &s->seed);
  case KEY_LOG_EVERY:
    return pdt_cli_integer(state, "log-every", arg, 1, INT32_MAX, &s->log_every);
  case KEY_VALID_EVERY:
    return pdt_cli_integer(state, "valid-every", arg, 1, INT32_MAX, &s->valid_every);
  case KEY_CHECKPOINT_EVERY:
    return pdt_cli_integer(state, "checkpoint-every", arg, 1, INT32_MAX, &s->checkpoint_every);
  case KEY_THREADS:
    rc = pdt_cli_integer(state, "threads", arg, 1, 1024, &n);
    a->run.threads = (int)n;
    return rc;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* Splits NAME=X: the name into `name`, the number into *value. */
static error_t parse_pair(struct argp_state *state, const char *option, const char *arg,
                          double most, char name[32], double *value) {
  const char *equals = strchr(arg, '=');
  size_t length = equals ? (size_t)(equals - arg) : 0;
  if (!equals || length == 0 || length >= 32) {
    argp_error(state, "--%s: expected NAME=NUMBER, found '%s'", option, arg);
    return EINVAL;
  }
  memcpy(name, arg, length);
  name[length] = '\0';
  return pdt_cli_real(state, option, equals + 1, 0, most, value);
}

/* A share of L, or a rate, given by itself: applied once the stage is known. */
static error_t parse_override(int key, char *arg, struct argp_state *state, pdt_train_args *a) {
  char name[32];
  double value;
  bool is_share = key == KEY_SHARE;
  error_t rc =
      parse_pair(state, is_share ? "weight" : "part-rate", arg, is_share ? 1e6 : 10, name, &value);
  if (rc) return rc;
  double *share = is_share ? pdt_train_loss_share(&a->plan.losses, name) : NULL;
  int32_t part = is_share ? -1 : pdt_train_part(name);
  if (is_share ? !share : part < 0) {
    argp_error(state, "--%s: there is no %s called '%s'", is_share ? "weight" : "part-rate",
               is_share ? "loss" : "part", name);
    return EINVAL;
  }
  *(is_share ? share : &a->plan.rates[part]) = value;
  return 0;
}

/* Options of a sidecar's stage. */
static error_t parse_stage_option(int key, char *arg, struct argp_state *state, pdt_train_args *a) {
  int64_t n = 0;
  error_t rc;
  switch (key) {
  case KEY_SHARE:
  case KEY_PART_RATE:
    return parse_override(key, arg, state, a);
  case KEY_PASSES:
    rc = pdt_cli_integer(state, "passes", arg, 1, 2, &n);
    a->passes = (int32_t)n;
    return rc;
  case KEY_EMPTY:
    a->plan.losses.empty = true;
    return 0;
  case KEY_LOCKSTEP:
    return pdt_cli_real(state, "lockstep", arg, 0, 1, &a->lockstep);
  case KEY_WAIT:
    return pdt_cli_real(state, "wait", arg, 0, 1, &a->wait);
  case KEY_STATES:
    a->states = arg;
    return 0;
  case KEY_SAMPLE:
    rc = pdt_cli_integer(state, "softmax-sample", arg, 1, 1 << 24, &n);
    a->sample = (int32_t)n;
    return rc;
  case KEY_STATED:
    return pdt_cli_real(state, "stated", arg, 0, 1e6, &a->stated);
  case KEY_HEADING:
    return pdt_cli_real(state, "heading", arg, 0, 1e6, &a->heading);
  case KEY_OWN_NOTES:
    a->own_notes = true;
    return 0;
  case KEY_USED:
    return pdt_cli_real(state, "used", arg, 0, 1e6, &a->teacher.used);
  case KEY_CODES:
    if (strcmp(arg, "embedding") == 0 || strcmp(arg, "random") == 0) {
      a->teacher.codes = *arg == 'e' ? PDT_CODES_EMBEDDING : PDT_CODES_RANDOM;
      return 0;
    }
    argp_error(state, "--codes: expected embedding or random, found '%s'", arg);
    return EINVAL;
  case KEY_COUNT:
    return pdt_cli_integer(state, "count", arg, 1, INT32_MAX, &a->count);
  case KEY_ATTEMPTS:
    return pdt_cli_integer(state, "max-attempts", arg, 1, INT32_MAX, &a->max_attempts);
  case KEY_TEMPERATURE:
    return pdt_cli_real(state, "temperature", arg, 0, 100, &a->temperature);
  case KEY_LABEL:
    if (strcmp(arg, "visible") == 0 || strcmp(arg, "agrees") == 0) {
      a->label = *arg == 'v' ? PDT_LABEL_READY : PDT_LABEL_AGREES;
      return 0;
    }
    argp_error(state, "--label: expected visible or agrees, found '%s'", arg);
    return EINVAL;
  default:
    return parse_number(key, arg, state, a);
  }
}

/* The stage of that name, -1 when there is none. */
static int32_t stage_number(const char *name) {
  if (name && strcmp(name, "all") == 0) return PDT_TRAIN_STAGES - 1;
  return name && strlen(name) == 1 && name[0] >= '0' && name[0] <= '3' ? name[0] - '0' : -1;
}

static bool is_rollouts(const pdt_train_args *a) {
  return a->stage && strcmp(a->stage, "rollouts") == 0;
}

/* What must go together. */
static error_t check_args(struct argp_state *state, pdt_train_args *a) {
  bool trunk = a->stage && strcmp(a->stage, "trunk") == 0;
  bool sidecar = stage_number(a->stage) >= 0 || is_rollouts(a);
  if (!trunk && !sidecar)
    argp_error(state, "--stage: expected trunk, 0, 1, 2, 3, all or rollouts, found '%s'",
               a->stage ? a->stage : "nothing");
  else if (trunk && (a->n_data != 1 || !a->out || !a->config == !a->model || a->sidecar))
    argp_error(state, "expected one --data, --out and one of --config and --model");
  else if (sidecar && (a->n_data == 0 || !a->out || !a->model || !a->sidecar || a->config ||
                       a->valid || a->tokenizer))
    argp_error(state, "a sidecar's stage: expected --data, --out, --model and --sidecar, and no "
                      "--config, --valid or --tokenizer");
  else if ((a->states || a->sample > 0) && stage_number(a->stage) < 0)
    argp_error(state,
               "--states, --softmax-sample: expected with stage 0, 1, 2, 3 or all, found '%s'",
               a->stage);
  else
    return 0;
  return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  pdt_train_args *a = state->input;
  const pdt_cli_kept kept[] = {
      {KEY_STAGE, &a->stage, NULL},     {KEY_VALID, &a->valid, NULL},
      {KEY_CONFIG, &a->config, NULL},   {KEY_MODEL, &a->model, NULL},
      {KEY_OUT, &a->out, NULL},         {KEY_TOKENIZER, &a->tokenizer, NULL},
      {KEY_SIDECAR, &a->sidecar, NULL}, {KEY_RESUME, NULL, &a->run.schedule.resume}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  switch (key) {
  case KEY_DATA:
    if (a->n_data == PDT_TRAIN_DATA) {
      argp_error(state, "--data: expected %d files at most", PDT_TRAIN_DATA);
      return EINVAL;
    }
    a->data[a->n_data++] = arg;
    return 0;
  case KEY_DTYPE:
    if (pdt_dtype_parse_float(arg, &a->run.dtype)) return 0;
    argp_error(state, "--dtype: expected F32, F16 or BF16, found '%s'", arg);
    return EINVAL;
  case ARGP_KEY_ARG:
    return pdt_cli_argument(state, NULL, arg, NULL);
  case ARGP_KEY_END:
    return check_args(state, a);
  default:
    return parse_stage_option(key, arg, state, a);
  }
}

/* The stage's own plan, and over it what flags said. */
static void choose_plan(pdt_train_args *a) {
  static const char *const names[] = {"plan",  "notes", "speculation", "tokens", "kd",   "coverage",
                                      "ready", "use",   "later",       "unseen", "quiet"};
  pdt_train_stage given = a->plan;
  a->number = stage_number(a->stage);
  a->plan = pdt_train_stage_of(a->number, a->run.rate);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    double share = *pdt_train_loss_share(&given.losses, names[i]);
    if (!isnan(share)) *pdt_train_loss_share(&a->plan.losses, names[i]) = share;
  }
  for (int i = 0; i < PDT_NN_PARTS; i++)
    if (!isnan(given.rates[i])) a->plan.rates[i] = given.rates[i];
  a->plan.losses.empty = given.losses.empty;
  if (a->passes > 0) a->plan.step.student_notes = a->passes == 2;
  a->plan.step.through_trunk = a->plan.rates[PDT_NN_CONDITION] > 0 || a->passes == 2;
}

/* Distillation is towards all of the trunk's logits. */
static int check_plan(const pdt_train_args *a, pdt_error *err) {
  if (a->sample == 0 || a->plan.losses.kd == 0) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "--softmax-sample: expected without a share of kd, found "
                  "--weight kd=%g",
                  a->plan.losses.kd);
}

/* Nothing is said of any loss or rate. */
static pdt_train_stage nothing_given(void) {
  pdt_train_stage out = {.losses = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, false}};
  for (int i = 0; i < PDT_TRAIN_GROUPS; i++) out.rates[i] = NAN;
  return out;
}

int pdt_cmd_train(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_train_args args = {.lockstep = 0.3,
                         .wait = 0.12,
                         .stated = 0.3,
                         .heading = 1,
                         .count = 500,
                         .max_attempts = 12,
                         .temperature = 0.8,
                         .plan = nothing_given(),
                         .run = {.schedule = {.steps = 1000,
                                              .warmup = 100,
                                              .floor = 0.03,
                                              .adamw = pdt_adamw_defaults(),
                                              .batch = 16,
                                              .log_every = 10,
                                              .checkpoint_every = 500},
                                 .rate = 0.002,
                                 .threads = 1,
                                 .dtype = PDT_F32}};
  args.run.schedule.adamw.weight_decay = 0.05;
  const struct argp argp = {options, parse_option, NULL, doc, NULL, NULL, NULL};
  int parsed = pdt_cli_parse(cli, &argp, argc, argv, &args, err);
  if (!parsed && cli->world->rank == 0) pdt_train_check_outputs(&args, err);
  if (pdt_comm_agree(cli->world, err)) return -1;
  if (parsed) return 0;
  if (strcmp(args.stage, "trunk") == 0) return pdt_train_trunk(cli->world, cli->name, &args, err);
  if (is_rollouts(&args)) return pdt_train_rollouts(cli->world, cli->name, &args, err);
  choose_plan(&args);
  if (check_plan(&args, err)) return -1;
  return pdt_train_sidecar(cli->world, cli->name, &args, err);
}
