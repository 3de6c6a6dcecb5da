/* Prompts and decode steps of a known shape on the first GPU, weights made there, as the trunk runs
 * them: a prompt in the largest pieces, with activations in full and rounded to bf16, beside the
 * card's rate of bf16 products; and K streams after it, tokens chosen included, beside the time in
 * which the weights of a step are read at the card's read bandwidth. A step begins before the
 * tokens of the last one are known, as within a block. The last number of streams runs once more
 * with tokens that are drawn, by top_p.
 *
 *   bench_step [--shapes llama-8b,llama-1b] [--streams 1,8,64] [--out FILE]
 *              [--read-bandwidth BYTES/S] [--matrix-rate FLOP/S] [--prompt N] [--steps N]
 *              [--profile]
 *
 * --profile shows the last two steps of every row to a profiler, and nothing else:
 *   ncu --profile-from-start off --metrics gpu__time_duration.sum bench_step --profile
 *
 * The correctness columns: the states of a prompt are the same to the bit however it is cut;
 * stream 0 writes the same tokens whatever the number of its siblings; where tokens are drawn, a
 * second run writes what the first one did. */
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "protocol/philox.h"
#include "random_trunk.h"
#include "trunk/trunk.h"

enum { MOST_STREAMS = 64, MOST_ROWS = 2048, BETWEEN_ROUNDS = 512, MOST_STEPS = 256 };

typedef struct bench {
  const char *shapes, *streams;
  FILE *out; /* JSON lines, or NULL */
  double read_bandwidth, matrix_rate;
  int32_t prompt, steps;
  pdt_device device;
  pdt_comm alone;
  pdt_trunk_weights weights;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_array states;   /* of the prompt, or of a step */
  pdt_chosen *chosen; /* [MOST_STEPS, MOST_STREAMS] */
  pdt_kv_sequence prompt_sequence, sequences[MOST_STREAMS];
  pdt_token first[MOST_STEPS]; /* what stream 0 wrote when it was first run so */
  bool any, wrong, profile;
} bench;

/* One way to run: so many streams, and how their tokens are chosen. */
typedef struct sweep {
  int32_t streams;
  pdt_sampling how;
  double seconds; /* of a step */
  bool same;      /* stream 0 wrote what it wrote before */
} sweep;

static int set_up(bench *b, const char *shape, pdt_error *err) {
  if (pdt_cuda_device_new(&b->device, 0, err) ||
      gpu_random_trunk(&b->weights, &b->device, shape, err))
    return -1;
  const pdt_model_config *c = &b->weights.config;
  const pdt_kv_shape kv = {c->layers, c->kv_heads, c->head_dim};
  int32_t pages = pdt_kv_pages(b->prompt) + MOST_STREAMS * pdt_kv_pages(b->steps);
  int32_t rows = b->prompt > MOST_STREAMS ? b->prompt : MOST_STREAMS;
  const pdt_trunk_limits limits = {MOST_ROWS, MOST_STREAMS, b->prompt + b->steps};
  b->alone = (pdt_comm){.rank = 0, .size = 1};
  return pdt_kv_new(&b->kv, &b->device, &kv, pages, err) ||
                 pdt_trunk_new(&b->trunk, &b->weights, &b->alone, &b->kv, &limits, err) ||
                 b->device.ops->alloc(&b->device, (int64_t)rows * c->hidden_size, "states",
                                      &b->states, err) ||
                 b->device.ops->chosen_new(&b->device, MOST_STEPS * MOST_STREAMS, &b->chosen, err)
             ? -1
             : 0;
}

static void tear_down(bench *b) {
  pdt_trunk_free(&b->trunk);
  pdt_kv_sequence_free(&b->prompt_sequence, &b->kv);
  pdt_kv_free(&b->kv);
  if (b->device.ops) b->device.ops->release(&b->device, b->states);
  if (b->device.ops) b->device.ops->chosen_free(&b->device, b->chosen);
  b->chosen = NULL;
  pdt_trunk_weights_free(&b->weights);
  if (b->device.ops) b->device.ops->close(&b->device);
}

/* ---- the prompt ---- */

/* Seconds that the prompt takes in pieces of so many rows; its states are in b->states then. */
static int read_prompt(bench *b, int32_t piece, double *seconds, pdt_error *err) {
  int32_t d = b->weights.config.hidden_size;
  pdt_kv_sequence_free(&b->prompt_sequence, &b->kv);
  if (pdt_kv_sequence_new(&b->prompt_sequence, &b->kv, NULL, 0, b->prompt, err)) return -1;
  if (b->device.ops->sync(&b->device, err)) return -1;
  double start = pdt_seconds();
  for (int32_t at = 0; at < b->prompt; at += piece) {
    pdt_trunk_row rows[MOST_ROWS];
    int32_t n = b->prompt - at < piece ? b->prompt - at : piece, begin[2] = {0, n};
    for (int32_t i = 0; i < n; i++)
      rows[i] = (pdt_trunk_row){&b->prompt_sequence, at + i,
                                (at + i) * 7919 % b->weights.config.vocab_size};
    const pdt_trunk_batch batch = {.rows = rows, .begin = begin, .bulk = true};
    if (pdt_trunk_forward(&b->trunk, &batch, NULL, pdt_array_at(b->states, (int64_t)at * d), err))
      return -1;
  }
  if (b->device.ops->sync(&b->device, err)) return -1;
  *seconds = pdt_seconds() - start;
  return 0;
}

/* How the prompt went: whole, and in the pieces that are read between rounds. */
typedef struct reading {
  bool rounded, same; /* same: to the bit however it is cut */
  double whole, pieces;
} reading;

/* Reads the prompt in pieces and compares its states with those of the whole. */
static int read_cut(bench *b, int32_t piece, const float *whole, reading *r, double *seconds,
                    pdt_error *err) {
  int64_t n = (int64_t)b->prompt * b->weights.config.hidden_size;
  float *states;
  if (read_prompt(b, piece, seconds, err) || PDT_NEW(&states, n, "states", err)) return -1;
  b->device.ops->download(&b->device, states, b->states, n);
  r->same = r->same && memcmp(states, whole, (size_t)n * sizeof *states) == 0;
  free(states);
  return b->device.ops->sync(&b->device, err);
}

static int measure_prompt(bench *b, reading *r, pdt_error *err) {
  enum { TIMES = 3, ODD = 37, SMALL = 128 };
  int64_t n = (int64_t)b->prompt * b->weights.config.hidden_size;
  double seconds;
  float *whole;
  pdt_cuda_round_rows(&b->device, r->rounded);
  r->same = true;
  for (int i = 0; i <= TIMES; i++) { /* once to find algorithms and room */
    if (read_prompt(b, MOST_ROWS, &seconds, err)) return -1;
    if (i == 1 || (i > 0 && seconds < r->whole)) r->whole = seconds;
  }
  if (PDT_NEW(&whole, n, "states", err)) return -1;
  b->device.ops->download(&b->device, whole, b->states, n);
  int status = read_cut(b, ODD, whole, r, &seconds, err) ||
                       read_cut(b, SMALL, whole, r, &seconds, err) ||
                       read_cut(b, BETWEEN_ROUNDS, whole, r, &r->pieces, err)
                   ? -1
                   : 0;
  free(whole);
  return status;
}

/* Of the products with every layer's weights, a multiplication and an addition each, once: in full
 * they are made of two. */
static double prompt_flops(const bench *b) {
  double weights = 0;
  for (pdt_layer l = 0; l < b->weights.config.layers; l++) {
    const pdt_layer_weights *w = &b->weights.layers[l];
    const pdt_matrix *all[] = {&w->qkv, &w->attention_out, &w->gate_up, &w->down};
    for (int i = 0; i < 4; i++) weights += (double)all[i]->out * all[i]->in;
  }
  return 2 * weights * b->prompt;
}

static void report_prompt(bench *b, const char *shape, const reading *r) {
  const char *compute = r->rounded ? "bf16" : "f32";
  double rate = prompt_flops(b) / r->whole;
  double percent = b->matrix_rate > 0 ? 100 * rate / b->matrix_rate : 0;
  if (!r->same) b->wrong = true;
  printf("%-9s prompt of %d, %-4s  %8.2f ms, %9.0f tokens/s, %6.1f TFLOP/s of products, %5.1f%% of "
         "%.0f; in pieces of %d %.2f ms; %s\n",
         shape, b->prompt, compute, r->whole * 1e3, b->prompt / r->whole, rate * 1e-12, percent,
         b->matrix_rate * 1e-12, BETWEEN_ROUNDS, r->pieces * 1e3,
         r->same ? "same" : "OTHER STATES");
  if (!b->out) return;
  fprintf(b->out,
          "{\"part\": \"prompt\", \"shape\": \"%s\", \"prompt\": %d, \"compute\": \"%s\", \"ms\": "
          "%.3f, \"tokens_per_second\": %.1f, \"tflops\": %.2f, \"percent_of_matrix_rate\": %.2f, "
          "\"piece\": %d, \"pieces_ms\": %.3f, \"correct\": %s}\n",
          shape, b->prompt, compute, r->whole * 1e3, b->prompt / r->whole, rate * 1e-12, percent,
          BETWEEN_ROUNDS, r->pieces * 1e3, r->same ? "true" : "false");
}

/* ---- steps ---- */

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Begins step i of K streams. */
static int begin_step(bench *b, const sweep *w, int32_t i, pdt_error *err) {
  pdt_trunk_row rows[MOST_STREAMS];
  pdt_row_draw draws[MOST_STREAMS];
  int32_t begin[2] = {0, w->streams}, from[MOST_STREAMS], to[MOST_STREAMS];
  for (int32_t k = 0; k < w->streams; k++) {
    rows[k] = (pdt_trunk_row){&b->sequences[k], b->prompt + i, 17 + k};
    from[k] = (i - 1) * MOST_STREAMS + k;
    to[k] = i * MOST_STREAMS + k;
    draws[k] = (pdt_row_draw){w->how, pdt_uniform(1, (uint32_t)i, k, 0, 0)};
  }
  const pdt_trunk_batch batch = {
      .rows = rows, .begin = begin, .chosen = i > 0 ? b->chosen : NULL, .from = from};
  if (pdt_trunk_forward(&b->trunk, &batch, NULL, b->states, err)) return -1;
  pdt_trunk_choose_ahead(&b->trunk, w->streams, b->states, draws, to, b->chosen);
  return 0;
}

/* Waits for the tokens of step i. */
static void end_step(bench *b, sweep *w, int32_t i, bool but_last) {
  pdt_token tokens[MOST_STREAMS];
  int32_t from[MOST_STREAMS];
  for (int32_t k = 0; k < w->streams; k++) from[k] = i * MOST_STREAMS + k;
  b->device.ops->chosen_read(&b->device, b->chosen, from, w->streams, but_last, tokens);
  if (!b->any) b->first[i] = tokens[0];
  w->same = w->same && tokens[0] >= 0 && tokens[0] == b->first[i];
}

/* Begins or ends what a profiler is to see, where the CUDA runtime can say so (its host twin
 * cannot). */
static void show(const char *call) {
  union {
    void *object;
    int (*function)(void);
  } found = {.object = dlsym(RTLD_DEFAULT, call)};
  if (found.object) found.function();
}

/* Lets K streams write, and tells the median step of the later half. */
static int decode(bench *b, sweep *w, pdt_error *err) {
  double times[MOST_STEPS], last = pdt_seconds();
  w->same = true;
  for (int32_t k = 0; k < w->streams; k++)
    if (pdt_kv_sequence_new(&b->sequences[k], &b->kv, &b->prompt_sequence, b->prompt, b->steps,
                            err))
      return -1;
  for (int32_t i = 0; i <= b->steps; i++) {
    if (b->profile && i == b->steps - 2) show("cudaProfilerStart");
    if (i < b->steps && begin_step(b, w, i, err)) return -1;
    if (i == 0) continue;
    end_step(b, w, i - 1, i < b->steps);
    double now = pdt_seconds();
    times[i - 1] = now - last;
    last = now;
  }
  if (b->profile) show("cudaProfilerStop");
  b->any = true;
  for (int32_t k = 0; k < w->streams; k++) pdt_kv_sequence_free(&b->sequences[k], &b->kv);
  qsort(times + b->steps / 2, (size_t)(b->steps - b->steps / 2), sizeof *times, compare_doubles);
  w->seconds = times[b->steps * 3 / 4];
  return b->device.ops->sync(&b->device, err);
}

static void report(bench *b, const char *shape, const sweep *w, double prompt) {
  const char *choice = w->how.temperature == 0 ? "largest" : "top_p 0.9";
  const pdt_matrix *head = pdt_trunk_head(&b->weights);
  double bytes = (double)head->bytes, seconds = w->seconds;
  for (pdt_layer l = 0; l < b->weights.config.layers; l++) {
    const pdt_layer_weights *layer = &b->weights.layers[l];
    bytes += (double)(layer->qkv.bytes + layer->attention_out.bytes + layer->gate_up.bytes +
                      layer->down.bytes);
  }
  double least = b->read_bandwidth > 0 ? bytes / b->read_bandwidth : 0;
  double times = least > 0 ? seconds / least : 0;
  if (!w->same) b->wrong = true;
  printf("%-9s K %3d  %-9s %8.3f ms a step, %6.3f times the %.3f ms of reading, %9.1f tokens/s; "
         "prompt of %d in %.1f ms; %s\n",
         shape, w->streams, choice, seconds * 1e3, times, least * 1e3, w->streams / seconds,
         b->prompt, prompt * 1e3, w->same ? "same" : "OTHER TOKENS");
  if (!b->out) return;
  fprintf(
      b->out,
      "{\"part\": \"step\", \"shape\": \"%s\", \"streams\": %d, \"choice\": \"%s\", \"ms\": %.4f, "
      "\"times_reading\": %.4f, \"reading_ms\": %.4f, \"tokens_per_second\": %.1f, "
      "\"prompt\": %d, \"prompt_ms\": %.2f, \"correct\": %s}\n",
      shape, w->streams, choice, seconds * 1e3, times, least * 1e3, w->streams / seconds, b->prompt,
      prompt * 1e3, w->same ? "true" : "false");
}

static int run_shape(bench *b, const char *shape, pdt_error *err) {
  reading rounded = {.rounded = true}, full = {0};
  sweep w = {.how = {.top_p = 1}};
  b->any = false;
  if (set_up(b, shape, err) || measure_prompt(b, &rounded, err) || measure_prompt(b, &full, err))
    return -1;
  report_prompt(b, shape, &full);
  report_prompt(b, shape, &rounded);
  char *list = strdup(b->streams), *rest = NULL;
  int status = 0;
  for (char *k = strtok_r(list, ",", &rest); k && !status; k = strtok_r(NULL, ",", &rest)) {
    w.streams = atoi(k) < 1 ? 1 : atoi(k) > MOST_STREAMS ? MOST_STREAMS : atoi(k);
    status = decode(b, &w, err);
    if (!status) report(b, shape, &w, full.whole);
  }
  free(list);
  w.how = (pdt_sampling){.temperature = 1, .top_p = 0.9};
  b->any = false;
  if (status || decode(b, &w, err) || decode(b, &w, err)) return -1;
  report(b, shape, &w, full.whole);
  return 0;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {{"shapes", required_argument, NULL, 's'},
                                          {"streams", required_argument, NULL, 'k'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"read-bandwidth", required_argument, NULL, 'r'},
                                          {"matrix-rate", required_argument, NULL, 'm'},
                                          {"prompt", required_argument, NULL, 'p'},
                                          {"steps", required_argument, NULL, 'n'},
                                          {"profile", no_argument, NULL, 'P'},
                                          {0}};
  *b = (bench){.shapes = "llama-8b,llama-1b", .streams = "1,8,64", .prompt = 2048, .steps = 96};
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 's') b->shapes = optarg;
    if (c == 'k') b->streams = optarg;
    if (c == 'r') b->read_bandwidth = atof(optarg);
    if (c == 'm') b->matrix_rate = atof(optarg);
    if (c == 'p') b->prompt = atoi(optarg);
    if (c == 'n') b->steps = atoi(optarg);
    if (c == 'P') b->profile = true;
    if (c == 'o' && !(b->out = fopen(optarg, "a"))) return false;
    if (c == '?') return false;
  }
  return optind == argc && b->prompt > 0 && b->steps > 3 && b->steps <= MOST_STEPS;
}

int main(int argc, char **argv) {
  bench b;
  pdt_error err = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(
        stderr,
        "usage: bench_step [--shapes LIST] [--streams LIST] [--out FILE] "
        "[--read-bandwidth BYTES/S] [--matrix-rate FLOP/S] [--prompt N] [--steps N] [--profile]\n");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  char *list = strdup(b.shapes), *rest = NULL;
  int status = 0;
  for (char *shape = strtok_r(list, ",", &rest); shape && !status;
       shape = strtok_r(NULL, ",", &rest)) {
    status = run_shape(&b, shape, &err);
    tear_down(&b);
  }
  if (status) fprintf(stderr, "bench_step: %s\n", err.message);
  free(list);
  if (b.out) fclose(b.out);
  return status || b.wrong ? 1 : 0;
}
