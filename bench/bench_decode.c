/* Decode speed for a sweep over the number of streams: tokens a second of K parallel streams, with
 * all that PDT adds, beside plain batched decoding of K rows by the same trunk, and beside the
 * machine's limits measured in the same run: bytes of weights read a second against its read
 * bandwidth, arithmetic against its peak.
 *
 *   [mpirun -n P] bench_decode --model DIR --sidecar FILE [--tp T] [--threads N]
 *       [--streams 1,2,4,8,16] [--tokens 64] [--prompt 32] [--repeats 3] [--quantize Q4_0]
 *       [--compute f32|bf16] [--json] [--break-rows N]
 *
 * %limit: of the larger of the two, the time to read the weights and the time to multiply.
 *
 * The correctness column: each stream must write the same whatever the number of its siblings when
 * no note reaches it, so gamma is 0 and the window holds the plan note alone. Greedy text of a
 * random model soon repeats itself and would hide a wrong kernel, so the column is decided by a run
 * apart from the timed ones, at a temperature that makes the text vary; how many different tokens
 * it has and a hash of them are printed, to compare runs, layouts and machines by. With
 * --break-rows products of N rows or more are a little wrong, and the column must say NO from there
 * on. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/engine.h"
#include "machine.h"
#include "request/parse.h"
#include "trunk/trunk.h"

enum { MOST_SWEEP = 16 };

/* High enough for a random model's text to vary. */
static const double VARIED_TEMPERATURE = 2;

/* What streams write. */
typedef struct written {
  pdt_token *tokens; /* [streams, most]: each stream's, of the first run that had it */
  int32_t *n;        /* [streams] */
  int32_t most, streams;
  bool same; /* the last run against it */
} written;

typedef struct bench {
  pdt_comm world;
  pdt_engine *engine;
  pdt_engine_options options;
  int32_t sweep[MOST_SWEEP], n_sweep;
  int32_t tokens, prompt, repeats;
  int32_t broken_rows; /* products of so many rows or more are wrong; 0: none is */
  bool json;
  machine_piece *pieces;
  int32_t n_pieces;
  double weight_bytes;    /* of one step, all ranks of a group together */
  double bandwidth, peak; /* best seen in this run, all ranks together */
  written timed, varied;  /* greedy, as timed; sampled, for the correctness column */
} bench;

/* One figure of the sweep. */
typedef struct figure {
  int32_t streams;
  double seconds, plain_seconds;             /* a step, best of the repeats */
  double sidecar, boundary, exchange, trunk; /* shares of the best run's seconds */
  bool correct;
} figure;

static int written_new(written *t, int32_t streams, int32_t most, pdt_error *err) {
  *t = (written){.most = most};
  return PDT_NEW(&t->tokens, (int64_t)streams * most, "text", err) ||
                 PDT_NEW(&t->n, streams, "text", err)
             ? -1
             : 0;
}

static void written_free(written *t) {
  free(t->tokens);
  free(t->n);
}

/* Remembers or checks what the streams wrote. Called on rank 0. */
static int check_tokens(void *context, const pdt_running *s, pdt_error *err) {
  written *t = context;
  (void)err;
  t->same = true;
  for (int32_t k = 0; k < s->session.settings.streams; k++) {
    const pdt_stream_state *stream = &s->session.streams[k];
    pdt_token *tokens = t->tokens + (int64_t)k * t->most;
    size_t bytes = (size_t)stream->n_committed * sizeof *tokens;
    if (k == t->streams) {
      t->n[t->streams++] = stream->n_committed;
      memcpy(tokens, stream->tokens, bytes);
    }
    t->same =
        t->same && stream->n_committed == t->n[k] && memcmp(tokens, stream->tokens, bytes) == 0;
  }
  return 0;
}

/* How many different tokens stream 0 wrote. */
static int32_t count_kinds(const written *t) {
  int32_t kinds = 0;
  for (int32_t i = 0; i < t->n[0]; i++) {
    int32_t j = 0;
    while (t->tokens[j] != t->tokens[i]) j++;
    kinds += j == i;
  }
  return kinds;
}

/* ---- a kernel that is wrong, to see that the column says so ---- */

/* A device's table in whose place this one stands; what is wrapped is found behind it. */
typedef struct broken {
  pdt_kernels table;
  const pdt_kernels *sound;
  int32_t rows;
} broken;

/* Of a batch that is large enough, the first row is a hundredth off. */
static void broken_matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                          int32_t rows, pdt_array y) {
  const broken *b = (const broken *)(const void *)dev->ops;
  b->sound->matmul(dev, w, x, x_stride, rows, y);
  for (int32_t o = 0; rows >= b->rows && o < w->out; o++) y.at[o] *= 1.01f;
}

static void break_products(broken *b, pdt_device *dev, int32_t rows) {
  *b = (broken){*dev->ops, dev->ops, rows};
  b->table.matmul = broken_matmul;
  dev->ops = &b->table;
}

/* A request of K streams that never end early but at an end-of-sequence token. */
static int make_request(const bench *b, int32_t K, double temperature, pdt_request *r,
                        pdt_error *err) {
  const pdt_request_context context = {&pdt_engine_loaded(b->engine)->model,
                                       &pdt_engine_loaded(b->engine)->sidecar.config, NULL};
  json_t *ids = json_array();
  uint32_t state = 12345;
  for (int32_t i = 0; i < b->prompt; i++) {
    state = state * 1664525u + 1013904223u;
    json_array_append_new(ids, json_integer((state >> 8) % (uint32_t)context.model->vocab_size));
  }
  json_t *json =
      json_pack("{s:o,s:{s:i,s:i,s:i,s:f,s:f}}", "prompt_ids", ids, "settings", "streams", K,
                "max_tokens", b->tokens, "window", 1, "gamma", 0.0, "temperature", temperature);
  int status = pdt_request_parse(r, json, "bench", 0, &context, err);
  json_decref(json);
  return status;
}

/* K streams to their token limit; what they write is remembered or checked in `t`. */
static int run_streams(bench *b, int32_t K, double temperature, written *t, pdt_run_stats *stats,
                       pdt_error *err) {
  pdt_request request;
  const pdt_observer observer = {.context = t, .session_ended = check_tokens};
  if (make_request(b, K, temperature, &request, err)) return -1;
  int status = pdt_engine_run_list(b->engine, &request, 1, &observer, stats, err);
  pdt_request_free(&request);
  return status;
}

/* PDT: seconds a decode step. */
static int time_streams(bench *b, int32_t K, figure *f, pdt_error *err) {
  pdt_run_stats stats;
  if (run_streams(b, K, 0, &b->timed, &stats, err)) return -1;
  double steps = (double)stats.emitted_tokens / K, seconds = stats.round_seconds / steps;
  f->correct = f->correct && b->timed.same;
  if (seconds < f->seconds) {
    f->seconds = seconds;
    f->trunk = stats.trunk_seconds / stats.round_seconds;
    f->sidecar = stats.sidecar_seconds / stats.round_seconds;
    f->exchange = stats.exchange_seconds / stats.round_seconds;
    f->boundary = stats.boundary_seconds / stats.round_seconds;
  }
  return 0;
}

/* What plain batched decoding of K rows needs. */
typedef struct plain {
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_kv_sequence prompt;     /* shared by all rows, as by the streams of a session */
  pdt_kv_sequence *sequences; /* [K] */
  pdt_trunk_row *rows;        /* [K] by owner */
  int32_t *begin;             /* [T+1] */
  pdt_bytes *bytes;           /* [T] */
  pdt_token *chosen;          /* [K] */
  pdt_array hidden;           /* [K, d] */
} plain;

static int plain_new(plain *p, const bench *b, int32_t K, pdt_error *err) {
  const pdt_trunk_weights *w = &pdt_engine_loaded(b->engine)->weights;
  const pdt_comm *group = &pdt_engine_machine(b->engine)->group;
  int32_t shared = b->prompt - 1, positions = b->prompt + b->tokens;
  int32_t pages = pdt_kv_pages(shared) + K * pdt_kv_pages(b->tokens + 1);
  const pdt_trunk_limits limits = {K, K, positions};
  const pdt_kv_shape shape = {w->config.layers, w->shard.kv_heads.end - w->shard.kv_heads.begin,
                              w->config.head_dim};
  *p = (plain){0};
  if (PDT_NEW(&p->sequences, K, "plain", err) || PDT_NEW(&p->rows, K, "plain", err) ||
      PDT_NEW(&p->begin, group->size + 1, "plain", err) ||
      PDT_NEW(&p->bytes, group->size, "plain", err) || PDT_NEW(&p->chosen, K, "plain", err) ||
      pdt_kv_new(&p->kv, w->device, &shape, pages, err) ||
      w->device->ops->alloc(w->device, (int64_t)K * w->config.hidden_size, "plain", &p->hidden,
                            err) ||
      pdt_trunk_new(&p->trunk, w, group, &p->kv, &limits, err) ||
      pdt_kv_sequence_new(&p->prompt, &p->kv, NULL, 0, shared, err))
    return -1;
  for (int32_t t = 0; t <= group->size; t++) p->begin[t] = K * t / group->size;
  for (int32_t k = 0; k < K; k++) {
    if (pdt_kv_sequence_new(&p->sequences[k], &p->kv, &p->prompt, shared, b->tokens + 1, err))
      return -1;
    p->rows[k] = (pdt_trunk_row){&p->sequences[k], shared, k};
  }
  return 0;
}

static void plain_free(plain *p, int32_t K) {
  for (int32_t k = 0; p->sequences && k < K; k++) pdt_kv_sequence_free(&p->sequences[k], &p->kv);
  pdt_kv_sequence_free(&p->prompt, &p->kv);
  if (p->kv.device) p->kv.device->ops->release(p->kv.device, p->hidden);
  pdt_trunk_free(&p->trunk);
  pdt_kv_free(&p->kv);
  free(p->sequences);
  free(p->rows);
  free(p->begin);
  free(p->bytes);
  free(p->chosen);
}

/* One greedy step of all rows. Every rank of the group needs every row's token. */
static int plain_step(plain *p, const pdt_comm *group, int32_t K, pdt_error *err) {
  const pdt_trunk_batch batch = {.rows = p->rows, .begin = p->begin};
  if (pdt_trunk_forward(&p->trunk, &batch, NULL, p->hidden, err)) return -1;
  pdt_token *own = p->chosen + p->begin[group->rank];
  pdt_trunk_choose(&p->trunk, p->begin, p->hidden, NULL, own);
  for (pdt_rank t = 0; t < group->size; t++)
    p->bytes[t] = (p->begin[t + 1] - p->begin[t]) * (pdt_bytes)sizeof *own;
  pdt_comm_all_gather(group, own, p->chosen, p->bytes);
  for (int32_t k = 0; k < K; k++) {
    p->rows[k].token = p->chosen[k] >= 0 ? p->chosen[k] : 0;
    p->rows[k].position++;
  }
  return 0;
}

/* Plain batched decoding of K rows from the same position on; seconds a step. */
static int run_plain(const bench *b, int32_t K, figure *f, pdt_error *err) {
  const pdt_comm *group = &pdt_engine_machine(b->engine)->group;
  plain p;
  int status = plain_new(&p, b, K, err);
  pdt_comm_barrier(&b->world);
  double start = pdt_seconds();
  for (int32_t i = 0; i < b->tokens && !status; i++) status = plain_step(&p, group, K, err);
  pdt_comm_barrier(&b->world);
  f->plain_seconds = fmin(f->plain_seconds, (pdt_seconds() - start) / b->tokens);
  plain_free(&p, K);
  return status;
}

/* Betters the best bandwidth and peak seen: all ranks at once, the slowest counts. As a step's
 * seconds are the mean of a run, a read's are the mean of several. */
static void measure_machine(bench *b) {
  enum { READS = 16 };
  const pdt_engine_layout layout = pdt_engine_layout_of(b->engine);
  pdt_comm_barrier(&b->world);
  double seconds = 0, bytes = 0;
  for (int i = 0; i < READS; i++)
    seconds += machine_read_seconds(b->pieces, b->n_pieces, layout.threads) / READS;
  for (int32_t i = 0; i < b->n_pieces; i++) bytes += (double)b->pieces[i].bytes;
  int64_t worst = (int64_t)(seconds * 1e12), all = (int64_t)bytes;
  pdt_comm_all_reduce_i64(&b->world, &worst, 1, PDT_COMM_MAX);
  pdt_comm_all_reduce_i64(&b->world, &all, 1, PDT_COMM_SUM);
  b->bandwidth = fmax(b->bandwidth, (double)all / ((double)worst * 1e-12));
  b->weight_bytes = (double)all / layout.groups;
  int64_t peak = (int64_t)machine_peak_flops(layout.kernels, layout.threads);
  pdt_comm_all_reduce_i64(&b->world, &peak, 1, PDT_COMM_SUM);
  b->peak = fmax(b->peak, (double)peak);
}

/* Multiplications and additions of a step of K rows over all weights; attention left out. */
static double flops(const bench *b, int32_t K) {
  const pdt_model_config *c = &pdt_engine_loaded(b->engine)->model;
  double heads = c->heads + c->kv_heads, d = c->hidden_size; /* of q and o; of k and v */
  double layer = 2 * heads * c->head_dim * d + 3.0 * c->intermediate_size * d;
  return 2 * (c->layers * layer + c->vocab_size * d) * K;
}

static void print_head(const bench *b) {
  const pdt_engine_layout l = pdt_engine_layout_of(b->engine);
  printf("# %d ranks, tp %d, %d threads a rank, %s; %.1f MB of weights a step; %d tokens a stream "
         "after a prompt of %d; best of %d\n",
         l.ranks, l.tensor_parallel, l.threads, l.kernels, b->weight_bytes * 1e-6, b->tokens,
         b->prompt, b->repeats);
  printf("#%7s %9s %9s %8s %9s %8s %8s %7s %7s %9s %7s %6s %8s %8s %8s\n", "streams", "tok/s",
         "x one", "ms/step", "plain ms", "added %", "GB/s", "%read", "GF/s", "%peak", "%limit",
         "side %", "bound %", "exch %", "correct");
}

/* Seconds that a step of K rows takes at the least, as the run measured the machine. */
static double limit_seconds(const bench *b, int32_t K) {
  return fmax(b->weight_bytes / b->bandwidth, flops(b, K) / b->peak);
}

static json_t *figure_json(const bench *b, const figure *f) {
  return json_pack(
      "{s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:b}", "streams", f->streams,
      "tokens_per_second", f->streams / f->seconds, "step_seconds", f->seconds,
      "plain_step_seconds", f->plain_seconds, "bytes_per_second", b->weight_bytes / f->seconds,
      "of_read_bandwidth", b->weight_bytes / f->seconds / b->bandwidth, "flops_per_second",
      flops(b, f->streams) / f->seconds, "of_peak", flops(b, f->streams) / f->seconds / b->peak,
      "of_limit", limit_seconds(b, f->streams) / f->seconds, "sidecar_share", f->sidecar,
      "boundary_share", f->boundary, "exchange_share", f->exchange, "correct", f->correct);
}

static void print_figure(const bench *b, const figure *f, double one) {
  printf("%8d %9.1f %9.2f %8.3f %9.3f %8.1f %8.2f %7.1f %7.1f %9.1f %7.1f %6.1f %8.1f %8.1f %8s\n",
         f->streams, f->streams / f->seconds, f->streams / f->seconds / one, f->seconds * 1e3,
         f->plain_seconds * 1e3, 100 * (f->seconds / f->plain_seconds - 1),
         b->weight_bytes / f->seconds * 1e-9, 100 * b->weight_bytes / f->seconds / b->bandwidth,
         flops(b, f->streams) / f->seconds * 1e-9,
         100 * flops(b, f->streams) / f->seconds / b->peak,
         100 * limit_seconds(b, f->streams) / f->seconds, 100 * f->sidecar, 100 * f->boundary,
         100 * f->exchange, f->correct ? "yes" : "NO");
}

/* All figures; repeats go round the whole sweep, so that what else the machine does meanwhile falls
 * on all alike. */
static int sweep(bench *b, figure *figures, pdt_error *err) {
  for (int32_t i = 0; i < b->n_sweep; i++) {
    pdt_run_stats stats;
    if (run_streams(b, b->sweep[i], VARIED_TEMPERATURE, &b->varied, &stats, err)) return -1;
    figures[i] = (figure){b->sweep[i], INFINITY, INFINITY, 0, 0, 0, 0, b->varied.same};
  }
  for (int32_t r = 0; r < b->repeats; r++)
    for (int32_t i = 0; i < b->n_sweep; i++) {
      if (time_streams(b, b->sweep[i], &figures[i], err) ||
          run_plain(b, b->sweep[i], &figures[i], err))
        return -1;
      measure_machine(b);
    }
  return 0;
}

static bool report(const bench *b, const figure *figures) {
  bool correct = true;
  json_t *list = json_array();
  if (!b->json) print_head(b);
  for (int32_t i = 0; i < b->n_sweep; i++) {
    if (b->json)
      json_array_append_new(list, figure_json(b, &figures[i]));
    else
      print_figure(b, &figures[i], figures[0].streams / figures[0].seconds);
    correct = correct && figures[i].correct;
  }
  const pdt_engine_layout l = pdt_engine_layout_of(b->engine);
  char hash[17];
  snprintf(hash, sizeof hash, "%016llx",
           (unsigned long long)XXH3_64bits(b->varied.tokens,
                                           (size_t)b->varied.n[0] * sizeof *b->varied.tokens));
  if (b->json) {
    json_t *all =
        json_pack("{s:i,s:i,s:i,s:s,s:f,s:f,s:f,s:s,s:i,s:o}", "ranks", l.ranks, "tensor_parallel",
                  l.tensor_parallel, "threads", l.threads, "kernels", l.kernels, "weight_bytes",
                  b->weight_bytes, "read_bandwidth", b->bandwidth, "peak_flops", b->peak,
                  "text_hash", hash, "text_kinds", count_kinds(&b->varied), "figures", list);
    json_dumpf(all, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(all);
  } else {
    printf("# read bandwidth %.2f GB/s, multiply-add peak %.1f GFLOP/s, all ranks together\n",
           b->bandwidth * 1e-9, b->peak * 1e-9);
    printf("# text of the correctness column, stream 0's: %d tokens, %d different ones, hash %s\n",
           b->varied.n[0], count_kinds(&b->varied), hash);
    json_decref(list);
  }
  return correct;
}

/* "1,2,4" to numbers. */
static bool parse_sweep(bench *b, char *text) {
  b->n_sweep = 0;
  for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
    if (b->n_sweep == MOST_SWEEP || atoi(word) < 1) return false;
    b->sweep[b->n_sweep++] = atoi(word);
  }
  return b->n_sweep > 0;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {
      {"model", required_argument, NULL, 'm'},   {"sidecar", required_argument, NULL, 's'},
      {"tp", required_argument, NULL, 't'},      {"threads", required_argument, NULL, 'n'},
      {"streams", required_argument, NULL, 'k'}, {"tokens", required_argument, NULL, 'o'},
      {"prompt", required_argument, NULL, 'p'},  {"repeats", required_argument, NULL, 'r'},
      {"kernels", required_argument, NULL, 'i'}, {"quantize", required_argument, NULL, 'q'},
      {"compute", required_argument, NULL, 'c'}, {"break-rows", required_argument, NULL, 'b'},
      {"json", no_argument, NULL, 'j'},          {0}};
  char all[] = "1,2,4,8,16";
  bool sound = parse_sweep(b, all);
  b->tokens = 64;
  b->prompt = 32;
  b->repeats = 3;
  b->options.max_sessions = 1;
  opterr = b->world.rank == 0;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 'm') b->options.model = optarg;
    if (c == 's') b->options.sidecar = optarg;
    if (c == 't') b->options.machine.tensor_parallel = atoi(optarg);
    if (c == 'n') b->options.machine.threads = atoi(optarg);
    if (c == 'k') sound = parse_sweep(b, optarg);
    if (c == 'o') b->tokens = atoi(optarg);
    if (c == 'p') b->prompt = atoi(optarg);
    if (c == 'r') b->repeats = atoi(optarg);
    if (c == 'i') b->options.machine.kernels = optarg;
    if (c == 'b') b->broken_rows = atoi(optarg);
    if (c == 'q') sound = pdt_dtype_parse(optarg, &b->options.quantize) && sound;
    if (c == 'c') b->options.machine.compute = optarg;
    if (c == 'j') b->json = true;
    if (c == '?') sound = false;
  }
  return sound && b->options.model && b->options.sidecar && b->tokens > 0 && b->prompt > 0 &&
         b->repeats > 0 && optind == argc;
}

/* Was all correct, and would the column have told if it was not? */
static int judge(const bench *b, bool correct, pdt_error *err) {
  if (!correct)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "a stream wrote other tokens beside another number of streams");
  if (count_kinds(&b->varied) * 4 < b->varied.n[0])
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "the text hardly varies (%d different tokens of %d): the correctness column "
                    "tells nothing",
                    count_kinds(&b->varied), b->varied.n[0]);
  return 0;
}

static int run(bench *b, pdt_error *err) {
  figure figures[MOST_SWEEP];
  broken wrong;
  if (pdt_engine_new(&b->engine, &b->world, &b->options, err)) return -1;
  pdt_device *dev = &pdt_engine_machine(b->engine)->device;
  const pdt_kernels *sound = dev->ops;
  if (b->broken_rows > 0) break_products(&wrong, dev, b->broken_rows);
  b->n_pieces = machine_weight_pieces(&pdt_engine_loaded(b->engine)->weights, &b->pieces);
  int32_t most = 0;
  for (int32_t i = 0; i < b->n_sweep; i++) most = b->sweep[i] > most ? b->sweep[i] : most;
  int status = b->n_pieces < 0 ? pdt_fail(err, PDT_ERROR_MEMORY, "no memory")
                               : written_new(&b->timed, most, b->tokens, err) ||
                                     written_new(&b->varied, most, b->tokens, err);
  if (!status) status = sweep(b, figures, err);
  if (!status && b->world.rank == 0) status = judge(b, report(b, figures), err);
  free(b->pieces);
  written_free(&b->timed);
  written_free(&b->varied);
  dev->ops = sound;
  pdt_engine_free(b->engine);
  return status;
}

int main(int argc, char **argv) {
  bench b = {0};
  pdt_error err = {0};
  int status = 1;
  if (pdt_comm_start(&b.world, &argc, &argv, &err)) {
    fprintf(stderr, "bench_decode: %s\n", err.message);
    return 1;
  }
  if (!parse(&b, argc, argv)) {
    status = 2;
    if (b.world.rank == 0)
      fprintf(
          stderr,
          "usage: bench_decode --model DIR --sidecar FILE [--tp T] [--threads N] "
          "[--streams 1,2,4,8,16] [--tokens N] [--prompt N] [--repeats N] "
          "[--kernels NAME] [--quantize TYPE] [--compute f32|bf16] [--json] [--break-rows N]\n");
  } else if (run(&b, &err)) {
    if (b.world.rank == 0) fprintf(stderr, "bench_decode: %s\n", err.message);
  } else {
    status = 0;
  }
  pdt_comm_finish(&b.world);
  return status;
}
