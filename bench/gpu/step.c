/* Decode steps of a known shape on the first GPU, weights made there: K streams after one prompt,
 * as the trunk runs them, tokens chosen included. Beside it the time in which the weights of a step
 * are read at the card's read bandwidth, and how fast the prompt went through.
 *
 *   bench_step [--shapes llama-8b,llama-1b] [--streams 1,8,64] [--out FILE]
 *              [--read-bandwidth BYTES/S] [--prompt N] [--steps N]
 *
 * The correctness column: stream 0 writes the same tokens whatever the number of its siblings. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/cuda/device.h"
#include "random_trunk.h"
#include "trunk/trunk.h"

enum { MOST_STREAMS = 64, PROMPT_ROWS = 128, MOST_STEPS = 256 };

typedef struct bench {
  const char *shapes, *streams;
  FILE *out; /* JSON lines, or NULL */
  double read_bandwidth;
  int32_t prompt, steps;
  pdt_device device;
  pdt_comm alone;
  pdt_trunk_weights weights;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_array hidden;
  pdt_kv_sequence prompt_sequence, sequences[MOST_STREAMS];
  pdt_token first[MOST_STEPS]; /* what stream 0 wrote in the first sweep */
  bool any, wrong;
} bench;

static int set_up(bench *b, const char *shape, pdt_error *err) {
  if (pdt_cuda_device_new(&b->device, 0, err) ||
      gpu_random_trunk(&b->weights, &b->device, shape, err))
    return -1;
  const pdt_model_config *c = &b->weights.config;
  const pdt_kv_shape kv = {c->layers, c->kv_heads, c->head_dim};
  int32_t pages = pdt_kv_pages(b->prompt) + MOST_STREAMS * pdt_kv_pages(b->steps);
  const pdt_trunk_limits limits = {PROMPT_ROWS, MOST_STREAMS, b->prompt + b->steps};
  b->alone = (pdt_comm){.rank = 0, .size = 1};
  return pdt_kv_new(&b->kv, &b->device, &kv, pages, err) ||
                 pdt_trunk_new(&b->trunk, &b->weights, &b->alone, &b->kv, &limits, err) ||
                 b->device.ops->alloc(&b->device, (int64_t)PROMPT_ROWS * c->hidden_size, "states",
                                      &b->hidden, err)
             ? -1
             : 0;
}

static void tear_down(bench *b) {
  pdt_trunk_free(&b->trunk);
  pdt_kv_sequence_free(&b->prompt_sequence, &b->kv);
  pdt_kv_free(&b->kv);
  if (b->device.ops) b->device.ops->release(&b->device, b->hidden);
  pdt_trunk_weights_free(&b->weights);
  if (b->device.ops) b->device.ops->close(&b->device);
}

/* Seconds that the prompt takes. */
static int read_prompt(bench *b, double *seconds, pdt_error *err) {
  const pdt_array none = {0};
  if (pdt_kv_sequence_new(&b->prompt_sequence, &b->kv, NULL, 0, b->prompt, err)) return -1;
  if (b->device.ops->sync(&b->device, err)) return -1;
  double start = pdt_seconds();
  for (int32_t at = 0; at < b->prompt; at += PROMPT_ROWS) {
    pdt_trunk_row rows[PROMPT_ROWS];
    int32_t n = b->prompt - at < PROMPT_ROWS ? b->prompt - at : PROMPT_ROWS, begin[2] = {0, n};
    for (int32_t i = 0; i < n; i++)
      rows[i] = (pdt_trunk_row){&b->prompt_sequence, at + i,
                                (at + i) * 7919 % b->weights.config.vocab_size};
    const pdt_trunk_batch batch = {rows, begin};
    if (pdt_trunk_forward(&b->trunk, &batch, NULL, none, err)) return -1;
  }
  if (b->device.ops->sync(&b->device, err)) return -1;
  *seconds = pdt_seconds() - start;
  return 0;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Lets K streams write, and tells the median step of the later half. */
static int decode(bench *b, int32_t K, double *median, bool *same, pdt_error *err) {
  pdt_token tokens[MOST_STREAMS];
  double times[MOST_STEPS];
  for (int32_t k = 0; k < K; k++) {
    if (pdt_kv_sequence_new(&b->sequences[k], &b->kv, &b->prompt_sequence, b->prompt, b->steps,
                            err))
      return -1;
    tokens[k] = 17 + k;
  }
  *same = true;
  for (int32_t i = 0; i < b->steps; i++) {
    pdt_trunk_row rows[MOST_STREAMS];
    int32_t begin[2] = {0, K};
    double start = pdt_seconds();
    for (int32_t k = 0; k < K; k++)
      rows[k] = (pdt_trunk_row){&b->sequences[k], b->prompt + i, tokens[k]};
    const pdt_trunk_batch batch = {rows, begin};
    if (pdt_trunk_forward(&b->trunk, &batch, NULL, b->hidden, err)) return -1;
    pdt_trunk_choose(&b->trunk, begin, b->hidden, NULL, tokens);
    times[i] = pdt_seconds() - start;
    if (!b->any) b->first[i] = tokens[0];
    *same = *same && tokens[0] == b->first[i];
  }
  b->any = true;
  for (int32_t k = 0; k < K; k++) pdt_kv_sequence_free(&b->sequences[k], &b->kv);
  qsort(times + b->steps / 2, (size_t)(b->steps - b->steps / 2), sizeof *times, compare_doubles);
  *median = times[b->steps * 3 / 4];
  return b->device.ops->sync(&b->device, err);
}

static void report(bench *b, const char *shape, int32_t K, double seconds, double prompt,
                   bool same) {
  const pdt_matrix *head = pdt_trunk_head(&b->weights);
  double bytes = (double)head->bytes;
  for (pdt_layer l = 0; l < b->weights.config.layers; l++) {
    const pdt_layer_weights *w = &b->weights.layers[l];
    bytes += (double)(w->qkv.bytes + w->attention_out.bytes + w->gate_up.bytes + w->down.bytes);
  }
  double least = b->read_bandwidth > 0 ? bytes / b->read_bandwidth : 0;
  double times = least > 0 ? seconds / least : 0;
  if (!same) b->wrong = true;
  printf(
      "%-9s K %3d  %8.3f ms a step, %6.3f times the %.3f ms of reading, %9.1f tokens/s; prompt of "
      "%d in %.1f ms; %s\n",
      shape, K, seconds * 1e3, times, least * 1e3, K / seconds, b->prompt, prompt * 1e3,
      same ? "same" : "OTHER TOKENS");
  if (!b->out) return;
  fprintf(b->out,
          "{\"part\": \"step\", \"shape\": \"%s\", \"streams\": %d, \"ms\": %.4f, "
          "\"times_reading\": %.4f, \"reading_ms\": %.4f, \"tokens_per_second\": %.1f, "
          "\"prompt\": %d, \"prompt_ms\": %.2f, \"correct\": %s}\n",
          shape, K, seconds * 1e3, times, least * 1e3, K / seconds, b->prompt, prompt * 1e3,
          same ? "true" : "false");
}

static int run_shape(bench *b, const char *shape, pdt_error *err) {
  double prompt = 0;
  b->any = false;
  if (set_up(b, shape, err) || read_prompt(b, &prompt, err)) return -1;
  char *list = strdup(b->streams), *rest = NULL;
  int status = 0;
  for (char *k = strtok_r(list, ",", &rest); k && !status; k = strtok_r(NULL, ",", &rest)) {
    int32_t K = atoi(k) < 1 ? 1 : atoi(k) > MOST_STREAMS ? MOST_STREAMS : atoi(k);
    double seconds = 0;
    bool same = false;
    status = decode(b, K, &seconds, &same, err);
    if (!status) report(b, shape, K, seconds, prompt, same);
  }
  free(list);
  return status;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {{"shapes", required_argument, NULL, 's'},
                                          {"streams", required_argument, NULL, 'k'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"read-bandwidth", required_argument, NULL, 'r'},
                                          {"prompt", required_argument, NULL, 'p'},
                                          {"steps", required_argument, NULL, 'n'},
                                          {0}};
  *b = (bench){.shapes = "llama-8b,llama-1b", .streams = "1,8,64", .prompt = 2048, .steps = 96};
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 's') b->shapes = optarg;
    if (c == 'k') b->streams = optarg;
    if (c == 'r') b->read_bandwidth = atof(optarg);
    if (c == 'p') b->prompt = atoi(optarg);
    if (c == 'n') b->steps = atoi(optarg);
    if (c == 'o' && !(b->out = fopen(optarg, "a"))) return false;
    if (c == '?') return false;
  }
  return optind == argc && b->prompt > 0 && b->steps > 3 && b->steps <= MOST_STEPS;
}

int main(int argc, char **argv) {
  bench b;
  pdt_error err = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_step [--shapes LIST] [--streams LIST] [--out FILE] "
                    "[--read-bandwidth BYTES/S] [--prompt N] [--steps N]\n");
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
