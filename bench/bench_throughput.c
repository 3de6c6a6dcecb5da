/* What a machine or cluster serves: many sessions, all at once or arriving at a given rate, decoded
 * by one engine, some in flight at a time.
 *
 *   [mpirun -n P] bench_throughput --model DIR --sidecar FILE --sessions 64 --rate 2
 *
 * Times are those of the sessions, from when each arrives: until its first committed block; a token
 * of all its streams together after that; and between two rounds that commit something. Goodput
 * counts the sessions that kept within the limits. What the sessions write does not depend on what
 * runs beside them: the hash of all tokens is the same at every rate and on every layout that gives
 * the same bits. */
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/memory.h"
#include "work.h"

/* One session's times, in seconds since the run began. */
typedef struct times {
  double arrives, first, last;
  int64_t tokens, first_tokens; /* committed; of the first chunk */
  double longest_gap;
  uint64_t hash;
} times;

typedef struct bench {
  pdt_comm world;
  pdt_engine *engine;
  pdt_engine_options options;
  int32_t sessions, prompt, longest_prompt;
  double rate, limit_first, limit_gap;
  int64_t seed;
  bool json;
  json_t *settings;
  pdt_request *requests; /* [sessions], rank 0's */
  times *times;          /* [sessions] */
  double *gaps;          /* of all sessions */
  int64_t n_gaps, room;
  double began, seconds; /* of all of it */
  int32_t next;          /* of the requests */
} bench;

/* ---- the source ---- */

static void sleep_until(double due) {
  double left = due - pdt_seconds();
  if (left <= 0) return;
  struct timespec span = {(time_t)left, (long)(fmod(left, 1) * 1e9)};
  while (nanosleep(&span, &span)) continue;
}

static pdt_next next_request(void *context, bool may_wait, const pdt_request **request,
                             pdt_error *err) {
  bench *b = context;
  (void)err;
  if (b->next == b->sessions) return PDT_NEXT_END;
  double due = b->began + b->times[b->next].arrives;
  if (may_wait) sleep_until(due);
  if (pdt_seconds() < due) return PDT_NEXT_LATER;
  *request = &b->requests[b->next++];
  return PDT_NEXT_REQUEST;
}

/* Poisson arrivals; all at once without a rate. */
static void plan_arrivals(bench *b) {
  double at = 0;
  for (int32_t i = 0; i < b->sessions; i++) {
    b->times[i].arrives = at;
    if (b->rate > 0) at -= log(work_uniform((uint64_t)b->seed + 1, (uint32_t)i)) / b->rate;
  }
}

static int make_requests(bench *b, pdt_capacity *capacity, pdt_error *err) {
  pdt_capacity_maker maker = pdt_capacity_maker_of(
      b->options.max_sessions, pdt_machine_spread(pdt_engine_machine(b->engine)));
  int status = PDT_NEW(&b->requests, b->sessions, "requests", err) ||
               PDT_NEW(&b->times, b->sessions, "times", err);
  for (int32_t i = 0; i < b->sessions && !status; i++) {
    double u = work_uniform((uint64_t)b->seed + 2, (uint32_t)i);
    int32_t prompt = b->prompt + (int32_t)(u * (b->longest_prompt - b->prompt + 1));
    status = work_request(b->engine, prompt, (uint64_t)b->seed + 3 + (uint64_t)i, (uint64_t)i,
                          b->settings, &b->requests[i], err) ||
             pdt_capacity_maker_add(&maker, &b->requests[i], err);
  }
  *capacity = pdt_capacity_made(&maker);
  pdt_capacity_maker_free(&maker);
  return status ? -1 : 0;
}

/* ---- the observer ---- */

static int keep_gap(bench *b, double gap, pdt_error *err) {
  if (b->n_gaps == b->room) {
    int64_t room = b->room ? 2 * b->room : 1024;
    double *more = realloc(b->gaps, (size_t)room * sizeof *more);
    if (!more) return pdt_fail(err, PDT_ERROR_MEMORY, "bench: no memory for times");
    b->gaps = more;
    b->room = room;
  }
  b->gaps[b->n_gaps++] = gap;
  return 0;
}

static int round_done(void *context, const pdt_round_report *report, pdt_error *err) {
  bench *b = context;
  times *t = &b->times[report->running->index];
  const pdt_session *s = &report->running->session;
  double now = pdt_seconds() - b->began;
  int64_t tokens = 0;
  for (int32_t k = 0; k < s->settings.streams; k++) tokens += s->streams[k].n_committed;
  if (tokens == t->tokens) return 0;
  double gap = now - t->last;
  if (t->tokens == 0) {
    t->first = now;
    t->first_tokens = tokens;
  } else {
    t->longest_gap = fmax(t->longest_gap, gap);
    if (keep_gap(b, gap, err)) return -1;
  }
  t->tokens = tokens;
  t->last = now;
  return 0;
}

static int session_ended(void *context, const pdt_running *running, pdt_error *err) {
  bench *b = context;
  (void)err;
  b->times[running->index].hash = work_hash(&running->session);
  return 0;
}

/* ---- what comes out ---- */

typedef struct figures {
  work_spread first, token, gap, whole;
  int64_t tokens;
  int32_t good;
  uint64_t hash;
} figures;

static int figure(bench *b, figures *f, pdt_error *err) {
  double *first, *token = NULL, *whole = NULL;
  int32_t n = b->sessions;
  *f = (figures){0};
  int status = PDT_NEW(&first, n, "figures", err) || PDT_NEW(&token, n, "figures", err) ||
               PDT_NEW(&whole, n, "figures", err);
  int64_t n_token = 0;
  for (int32_t i = 0; i < n && !status; i++) {
    const times *t = &b->times[i];
    int64_t later = t->tokens - t->first_tokens;
    first[i] = t->first - t->arrives;
    whole[i] = t->last - t->arrives;
    if (later > 0) token[n_token++] = (t->last - t->first) / (double)later;
    f->tokens += t->tokens;
    f->good += first[i] <= b->limit_first && t->longest_gap <= b->limit_gap;
    f->hash = XXH3_64bits_withSeed(&t->hash, sizeof t->hash, f->hash);
  }
  if (!status) {
    f->first = work_spread_of(first, n);
    f->token = work_spread_of(token, n_token);
    f->gap = work_spread_of(b->gaps, b->n_gaps);
    f->whole = work_spread_of(whole, n);
  }
  free(first);
  free(token);
  free(whole);
  return status ? -1 : 0;
}

static void print_spread(const char *name, const work_spread *s) {
  printf("%-34s %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, s->mean * 1e3, s->p50 * 1e3,
         s->p90 * 1e3, s->p99 * 1e3, s->max * 1e3);
}

static void print_table(const bench *b, const figures *f) {
  const pdt_engine_layout l = pdt_engine_layout_of(b->engine);
  printf("# %d sessions, %d at a time, ", b->sessions, b->options.max_sessions);
  if (b->rate > 0)
    printf("%.3g arriving a second (Poisson)", b->rate);
  else
    printf("all at once");
  printf("; prompts of %d to %d tokens; %d ranks, tp %d, %d threads, %s\n", b->prompt,
         b->longest_prompt, l.ranks, l.tensor_parallel, l.threads, l.kernels);
  printf("%.1f tokens/s committed, %.3f sessions/s, %.3f sessions/s within the limits (goodput); "
         "%.2f s\n",
         (double)f->tokens / b->seconds, b->sessions / b->seconds, f->good / b->seconds,
         b->seconds);
  printf("%-34s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99", "most");
  print_spread("to the first committed block", &f->first);
  print_spread("a token after that, all streams", &f->token);
  print_spread("between committed chunks", &f->gap);
  print_spread("until the session's end", &f->whole);
  printf("# hash of all tokens: %016llx\n", (unsigned long long)f->hash);
}

static json_t *spread_json(const work_spread *s) {
  return json_pack("{s:f,s:f,s:f,s:f,s:f}", "mean", s->mean, "p50", s->p50, "p90", s->p90, "p99",
                   s->p99, "max", s->max);
}

static void print_json(const bench *b, const figures *f) {
  const pdt_engine_layout l = pdt_engine_layout_of(b->engine);
  char hash[17];
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)f->hash);
  json_t *out = json_pack(
      "{s:i,s:i,s:i,s:s,s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:o,s:o,s:o,s:o,s:s}", "ranks", l.ranks,
      "tensor_parallel", l.tensor_parallel, "threads", l.threads, "kernels", l.kernels, "sessions",
      b->sessions, "max_sessions", b->options.max_sessions, "rate", b->rate, "seconds", b->seconds,
      "tokens_per_second", (double)f->tokens / b->seconds, "sessions_per_second",
      b->sessions / b->seconds, "goodput", f->good / b->seconds, "first_block_seconds",
      spread_json(&f->first), "token_seconds", spread_json(&f->token), "gap_seconds",
      spread_json(&f->gap), "session_seconds", spread_json(&f->whole), "hash", hash);
  if (out) json_dumpf(out, stdout, JSON_COMPACT);
  printf("\n");
  json_decref(out);
}

/* ---- the run ---- */

static int run(void *context, pdt_error *err) {
  bench *b = context;
  const pdt_engine_variant variant = {.n_ends = 1, .ends = {-1}}; /* all write what is asked */
  pdt_run_stats stats;
  figures f;
  pdt_run_setup setup = {0};
  if (pdt_engine_new(&b->engine, &b->world, &b->options, err)) return -1;
  if (b->world.rank == 0 && !make_requests(b, &setup.capacity, err)) {
    setup.requests = (pdt_request_source){b, next_request};
    setup.observer =
        (pdt_observer){.context = b, .round_done = round_done, .session_ended = session_ended};
    plan_arrivals(b);
  }
  pdt_engine_vary(b->engine, &variant);
  int status = pdt_comm_agree(&b->world, err);
  b->began = pdt_seconds();
  if (!status) status = pdt_engine_run(b->engine, &setup, &stats, err);
  b->seconds = pdt_seconds() - b->began;
  if (!status && b->world.rank == 0 && !(status = figure(b, &f, err))) {
    if (b->json)
      print_json(b, &f);
    else
      print_table(b, &f);
  }
  for (int32_t i = 0; b->requests && i < b->sessions; i++) pdt_request_free(&b->requests[i]);
  free(b->requests);
  free(b->times);
  free(b->gaps);
  pdt_engine_free(b->engine);
  return status;
}

enum {
  MODEL = 256,
  SIDECAR,
  DEVICE,
  TP,
  THREADS,
  SESSIONS,
  AT_A_TIME,
  RATE,
  PROMPT,
  SETTINGS,
  FIRST,
  GAP,
  SEED,
  JSON
};

static const struct argp_option words[] = {
    {"model", MODEL, "DIR", 0, "Model", 0},
    {"sidecar", SIDECAR, "FILE", 0, "Sidecar", 0},
    {"device", DEVICE, "NAME", 0, "cpu, cuda or auto", 0},
    {"tp", TP, "T", 0, "Ranks of a shard group", 0},
    {"threads", THREADS, "N", 0, "Threads of a rank", 0},
    {"sessions", SESSIONS, "N", 0, "Sessions in all (32)", 0},
    {"max-sessions", AT_A_TIME, "N", 0, "Most of them in flight (8)", 0},
    {"rate", RATE, "R", 0, "Sessions that arrive a second; 0: all at once (0)", 0},
    {"prompt", PROMPT, "N[:M]", 0, "Tokens of a prompt, or from N to M (32)", 0},
    {"settings", SETTINGS, "JSON", 0, "Settings of every request, as in a request file", 0},
    {"limit-first", FIRST, "S", 0, "Goodput: most seconds to the first committed block (1)", 0},
    {"limit-gap", GAP, "S", 0, "Goodput: most seconds between committed chunks (0.5)", 0},
    {"seed", SEED, "N", 0, "Of prompts and arrivals (1)", 0},
    {"json", JSON, NULL, 0, "One JSON object", 0},
    {0}};

static bool parse_prompt(bench *b, const char *arg) {
  char end;
  int n = sscanf(arg, "%d:%d%c", &b->prompt, &b->longest_prompt, &end);
  if (n == 1) b->longest_prompt = b->prompt;
  return (n == 2 || (n == 1 && !strchr(arg, ':'))) && b->prompt > 0 &&
         b->longest_prompt >= b->prompt;
}

static error_t parse_numbers(bench *b, int key, const char *arg) {
  double *reals[] = {&b->rate, &b->limit_first, &b->limit_gap};
  const int real_keys[] = {RATE, FIRST, GAP};
  char *end;
  for (int i = 0; i < 3; i++)
    if (key == real_keys[i]) {
      *reals[i] = strtod(arg, &end);
      return *end || end == arg || !(*reals[i] >= 0) ? EINVAL : 0;
    }
  long long n = strtoll(arg, &end, 10);
  if (*end || end == arg || n < (key == SEED ? 0 : 1) || n > INT32_MAX) return EINVAL;
  if (key == TP) b->options.machine.tensor_parallel = (int)n;
  if (key == THREADS) b->options.machine.threads = (int)n;
  if (key == SESSIONS) b->sessions = (int32_t)n;
  if (key == AT_A_TIME) b->options.max_sessions = (int32_t)n;
  if (key == SEED) b->seed = n;
  return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  bench *b = state->input;
  error_t code = 0;
  switch (key) {
  case MODEL:
    b->options.model = arg;
    return 0;
  case SIDECAR:
    b->options.sidecar = arg;
    return 0;
  case DEVICE:
    b->options.machine.device = arg;
    return 0;
  case JSON:
    b->json = true;
    return 0;
  case SETTINGS:
    json_decref(b->settings);
    b->settings = json_loads(arg, 0, NULL);
    code = json_is_object(b->settings) ? 0 : EINVAL;
    break;
  case PROMPT:
    code = parse_prompt(b, arg) ? 0 : EINVAL;
    break;
  case ARGP_KEY_END:
    if (!b->options.model || !b->options.sidecar)
      argp_error(state, "expected --model DIR and --sidecar FILE");
    return b->options.model && b->options.sidecar ? 0 : EINVAL;
  case ARGP_KEY_ARG:
    return ARGP_ERR_UNKNOWN;
  default:
    if (key < TP || key > SEED) return ARGP_ERR_UNKNOWN;
    code = parse_numbers(b, key, arg);
  }
  if (code) argp_error(state, "not a value that can be: '%s'", arg);
  return code;
}

int main(int argc, char **argv) {
  static const struct argp argp = {
      words,
      parse,
      NULL,
      "Decodes many sessions, all at once or as they arrive, and prints throughput and times.\v"
      "Examples:\n"
      "  bench_throughput --model build/bench/model --sidecar build/bench/sidecar.safetensors\n"
      "  launch/mpirun -n 4 build/release/bench_throughput --model M --sidecar S --rate 2 \\\n"
      "      --sessions 100 --prompt 32:256 --settings '{\"streams\": 4, \"max_tokens\": 64}'",
      NULL,
      NULL,
      NULL};
  bench b = {.sessions = 32,
             .prompt = 32,
             .longest_prompt = 32,
             .limit_first = 1,
             .limit_gap = 0.5,
             .seed = 1,
             .options = {.max_sessions = 8},
             .settings = json_object()};
  const work_main_of m = {"bench_throughput", &argp, run, &b};
  int status = work_main(&m, argc, argv, &b.world);
  json_decref(b.settings);
  return status;
}
