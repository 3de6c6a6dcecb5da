/* The same text written in several ways, over the number of streams, the length of a block and the
 * delay of notes: by one stream, by one whose tokens a draft model proposes (with --draft), by K
 * streams of PDT, and by K streams that know nothing of one another (the trunk alone). One JSON
 * line for every run, arms and repeats interleaved, so that what else the machine does falls on all
 * alike. bench/scaling runs it over layouts and draws it.
 *
 *   [mpirun -n P] bench_scaling --model DIR --sidecar FILE --streams 1,2,4 --tokens 128
 *
 * Strong scaling: --tokens are those of the whole text, whatever K. Weak: those of each stream, and
 * the one stream of the first arm writes K times as many. Nothing ends a stream early. */
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/draft.h"
#include "work.h"

enum { MOST = 16 };

typedef struct list {
  int32_t at[MOST], n;
} list;

typedef struct bench {
  pdt_comm world;
  pdt_engine *engine;
  pdt_engine_options options;
  list streams, blocks, delays;
  int32_t tokens, prompt, repeats;
  bool weak;
  json_t *settings;
  int64_t steps; /* of the run under way */
  uint64_t hash;
} bench;

/* One run. */
typedef struct arm {
  const char *name;
  int32_t streams, written; /* K, and streams that write */
  int32_t block, delay;
  bool plain, drafted;
} arm;

static int round_done(void *context, const pdt_round_report *report, pdt_error *err) {
  bench *b = context;
  int32_t most = 0;
  (void)err;
  for (int32_t i = 0; i < report->n_blocks; i++)
    if (report->blocks[i].n_tokens > most) most = report->blocks[i].n_tokens;
  b->steps += most;
  return 0;
}

static int session_ended(void *context, const pdt_running *running, pdt_error *err) {
  bench *b = context;
  (void)err;
  b->hash = work_hash(&running->session);
  return 0;
}

/* Tokens of each stream that writes. */
static int32_t tokens_of(const bench *b, const arm *a) {
  int32_t all = b->weak ? b->tokens * a->streams : b->tokens;
  return (all + a->written - 1) / a->written;
}

static int make_request(bench *b, const arm *a, pdt_request *request, pdt_error *err) {
  json_t *settings =
      json_pack("{s:i,s:i,s:i,s:i,s:f}", "streams", a->written, "max_tokens", tokens_of(b, a),
                "block_tokens", a->block, "reveal_delay", a->delay, "gamma", 0.0);
  if (!settings || json_object_update(settings, b->settings)) {
    json_decref(settings);
    return pdt_fail(err, PDT_ERROR_MEMORY, "bench: no memory for a request");
  }
  int status = work_request(b->engine, b->prompt, 1, 0, settings, request, err);
  json_decref(settings);
  return status;
}

/* How far the draft went. */
static void add_draft(json_t *times, const pdt_run_stats *s) {
  double right = s->drafted > 0 ? (double)s->drafts_right / (double)s->drafted : 0;
  double steps = s->draft_steps > 0 ? (double)s->draft_steps : 1;
  json_object_set_new(times, "draft_seconds", json_real(s->draft_seconds));
  json_object_set_new(times, "draft_right", json_real(right));
  json_object_set_new(times, "tokens_per_step", json_real((double)s->emitted_tokens / steps));
}

static void print_run(const bench *b, const arm *a, int32_t repeat, const pdt_run_stats *s) {
  const pdt_engine_layout l = pdt_engine_layout_of(b->engine);
  char hash[17];
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)b->hash);
  json_t *out = json_pack(
      "{s:s,s:s,s:i,s:i,s:i,s:i,s:s,s:i,s:i,s:i,s:i,s:I}", "mode", b->weak ? "weak" : "strong",
      "arm", a->name, "streams", a->streams, "ranks", l.ranks, "tensor_parallel", l.tensor_parallel,
      "threads", l.threads, "kernels", l.kernels, "block_tokens", a->block, "reveal_delay",
      a->delay, "notes_dim", pdt_engine_loaded(b->engine)->sidecar.config.notes_dim, "repeat",
      repeat, "tokens", (json_int_t)s->committed_tokens);
  json_t *times =
      json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:s}", "seconds", s->seconds,
                "prompt_seconds", s->prompt_seconds, "round_seconds", s->round_seconds,
                "trunk_seconds", s->trunk_seconds, "sidecar_seconds", s->sidecar_seconds,
                "exchange_seconds", s->exchange_seconds, "boundary_seconds", s->boundary_seconds,
                "tokens_per_second", (double)s->committed_tokens / s->seconds, "rows_per_step",
                b->steps > 0 ? (double)s->emitted_tokens / (double)b->steps : 0.0, "hash", hash);
  if (times && a->drafted) add_draft(times, s);
  if (out && times && !json_object_update(out, times)) json_dumpf(out, stdout, JSON_COMPACT);
  printf("\n");
  fflush(stdout);
  json_decref(out);
  json_decref(times);
}

static int run_arm(bench *b, const arm *a, int32_t repeat, pdt_error *err) {
  const pdt_engine_variant variant = {
      .plain = a->plain, .no_draft = !a->drafted, .n_ends = 1, .ends = {-1}};
  const pdt_observer observer = {
      .context = b, .round_done = round_done, .session_ended = session_ended};
  pdt_request request;
  pdt_run_stats stats;
  if (make_request(b, a, &request, err)) return -1;
  pdt_engine_vary(b->engine, &variant);
  b->steps = 0;
  int status = pdt_engine_run_list(b->engine, &request, 1, &observer, &stats, err);
  if (!status && b->world.rank == 0 && repeat >= 0) print_run(b, a, repeat, &stats);
  pdt_request_free(&request);
  return status;
}

/* All arms of one repeat; the first, number -1, only warms up. */
static int repeat_all(bench *b, int32_t repeat, pdt_error *err) {
  for (int32_t i = 0; i < b->streams.n; i++)
    for (int32_t j = 0; j < b->blocks.n; j++)
      for (int32_t l = 0; l < b->delays.n; l++) {
        int32_t K = b->streams.at[i], block = b->blocks.at[j], delay = b->delays.at[l];
        const arm arms[] = {{"serial", K, 1, block, delay, true, false},
                            {"pdt", K, K, block, delay, false, false},
                            {"blind", K, K, block, delay, true, false},
                            {"drafted", K, 1, block, delay, true, true}};
        for (int32_t a = 0; a < (b->options.draft ? 4 : 3); a++)
          if (run_arm(b, &arms[a], repeat, err)) return -1;
        if (repeat < 0) return 0;
      }
  return 0;
}

static int run(void *context, pdt_error *err) {
  bench *b = context;
  int status = 0;
  if (pdt_engine_new(&b->engine, &b->world, &b->options, err)) return -1;
  for (int32_t r = -1; r < b->repeats && !status; r++) status = repeat_all(b, r, err);
  pdt_engine_free(b->engine);
  return status;
}

enum {
  MODEL = 256,
  SIDECAR,
  DEVICE,
  WEAK,
  SETTINGS,
  STREAMS,
  BLOCKS,
  DELAYS,
  TP,
  THREADS,
  TOKENS,
  PROMPT,
  REPEATS,
  DRAFT,
  DRAFT_TOKENS
};

static const struct argp_option words[] = {
    {"model", MODEL, "DIR", 0, "Model", 0},
    {"sidecar", SIDECAR, "FILE", 0, "Sidecar", 0},
    {"draft", DRAFT, "DIR", 0, "A model that proposes tokens to one stream: one more arm", 0},
    {"draft-tokens", DRAFT_TOKENS, "N", 0, "How many at once (4)", 0},
    {"device", DEVICE, "NAME", 0, "cpu, cuda or auto", 0},
    {"tp", TP, "T", 0, "Ranks of a shard group", 0},
    {"threads", THREADS, "N", 0, "Threads of a rank", 0},
    {"streams", STREAMS, "K,..", 0, "Numbers of streams (1,2,4)", 0},
    {"block-tokens", BLOCKS, "N,..", 0, "Tokens of a block (16)", 0},
    {"reveal-delay", DELAYS, "N,..", 0, "Rounds until others see a note (1)", 0},
    {"tokens", TOKENS, "N", 0, "Tokens of the text, or with --weak of a stream (128)", 0},
    {"weak", WEAK, NULL, 0, "Weak scaling", 0},
    {"prompt", PROMPT, "N", 0, "Tokens of the prompt (32)", 0},
    {"repeats", REPEATS, "N", 0, "Runs of each arm (5)", 0},
    {"settings", SETTINGS, "JSON", 0, "More settings of the requests, as in a request file", 0},
    {0}};

/* "1,2,4" */
static bool parse_list(list *l, char *text) {
  l->n = 0;
  for (char *end = text;; text = end + 1) {
    long n = strtol(text, &end, 10);
    if (end == text || n < 1 || n > INT32_MAX || l->n == MOST) return false;
    l->at[l->n++] = (int32_t)n;
    if (!*end) return true;
    if (*end != ',') return false;
  }
}

static bool parse_number(bench *b, int key, char *arg) {
  list one;
  if (!parse_list(&one, arg) || one.n != 1) return false;
  int32_t *numbers[] = {&b->options.machine.tensor_parallel, &b->options.machine.threads,
                        &b->tokens, &b->prompt, &b->repeats};
  *numbers[key - TP] = one.at[0];
  return true;
}

static bool parse_settings(bench *b, const char *arg) {
  json_decref(b->settings);
  b->settings = json_loads(arg, 0, NULL);
  return json_is_object(b->settings);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  bench *b = state->input;
  list *lists[] = {&b->streams, &b->blocks, &b->delays};
  bool sound = true;
  list one;
  switch (key) {
  case MODEL:
    b->options.model = arg;
    break;
  case SIDECAR:
    b->options.sidecar = arg;
    break;
  case DRAFT:
    b->options.draft = arg;
    break;
  case DRAFT_TOKENS:
    sound = parse_list(&one, arg) && one.n == 1 && one.at[0] <= PDT_MOST_DRAFT_TOKENS;
    if (sound) b->options.draft_tokens = one.at[0];
    break;
  case DEVICE:
    b->options.machine.device = arg;
    break;
  case WEAK:
    b->weak = true;
    break;
  case SETTINGS:
    sound = parse_settings(b, arg);
    break;
  case ARGP_KEY_END:
    if (b->options.model && b->options.sidecar) return 0;
    argp_error(state, "expected --model DIR and --sidecar FILE");
    return EINVAL;
  default:
    if (key < STREAMS || key > REPEATS) return ARGP_ERR_UNKNOWN;
    sound = key < TP ? parse_list(lists[key - STREAMS], arg) : parse_number(b, key, arg);
  }
  if (!sound) argp_error(state, "not a value that can be: '%s'", arg);
  return sound ? 0 : EINVAL;
}

int main(int argc, char **argv) {
  static const struct argp argp = {
      words,
      parse,
      NULL,
      "The same text written by one stream, by K streams, by K that know nothing of one another, "
      "and by one with a draft; a JSON line a run.",
      NULL,
      NULL,
      NULL};
  bench b = {.streams = {{1, 2, 4}, 3},
             .blocks = {{16}, 1},
             .delays = {{1}, 1},
             .tokens = 128,
             .prompt = 32,
             .repeats = 5,
             .options = {.max_sessions = 1},
             .settings = json_object()};
  const work_main_of m = {"bench_scaling", &argp, run, &b};
  int status = work_main(&m, argc, argv, &b.world);
  json_decref(b.settings);
  return status;
}
