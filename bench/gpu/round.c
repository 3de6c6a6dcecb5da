/* What the sidecar adds to a round on the first GPU: K streams write a block each after one prompt,
 * once as the plain trunk and once with notes, adapters and the heads that close blocks. Weights of
 * the trunk are made on the card; the sidecar, random too, is a file that is loaded as any.
 *
 *   bench_round [--shapes llama-8b] [--streams 1,8,64] [--block 32] [--prompt N] [--rounds N]
 *               [--out FILE]
 *
 * A round is what the engine does on one rank between two boundaries (engine/emit.c): project the
 * window, steps of all streams with their tokens chosen and their states kept, close the blocks.
 * What is left out is the boundary itself, host work that no device waits for beyond it: decisions,
 * journal. The correctness column: every token is one, and every readiness lies in [0, 1]. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "random_trunk.h"
#include "sidecar/init.h"
#include "sidecar/sidecar.h"
#include "trunk/trunk.h"

enum { MOST_STREAMS = 64, PROMPT_ROWS = 128, MOST_ROUNDS = 16, MOST_BLOCK = 256, SLOTS = 16 };

typedef struct bench {
  const char *shapes, *streams;
  FILE *out; /* JSON lines, or NULL */
  int32_t prompt, block, rounds, most_streams;
  pdt_device device;
  pdt_comm alone;
  pdt_trunk_weights weights;
  pdt_kv_cache kv;
  pdt_trunk trunk;
  pdt_sidecar sidecar;
  pdt_window window;
  pdt_plan plan;
  pdt_array hidden, states; /* of a step; of a round's blocks, [K, block, d] */
  pdt_kv_sequence prompt_sequence, sequences[MOST_STREAMS];
  float *notes, *coverage, *readiness; /* results of K blocks */
  bool wrong;
} bench;

/* Median seconds of a round and of its parts. */
typedef struct timing {
  double all, project, close;
} timing;

/* ---- setting up ---- */

/* Eight of 32 layers and so on, every other one up to the last; else as `pdt sidecar init` has it.
 */
static pdt_sidecar_config config_of(const bench *b, pdt_layer *layers) {
  const pdt_model_config *m = &b->weights.config;
  int32_t n = m->layers >= 4 ? m->layers / 4 : 1;
  for (int32_t i = 0; i < n; i++) layers[i] = m->layers - 1 - (n - 1 - i) * (m->layers / (2 * n));
  return (pdt_sidecar_config){.hidden_size = m->hidden_size,
                              .streams = b->most_streams,
                              .notes_dim = 256,
                              .snc_heads = 8,
                              .snc_head_dim = 32,
                              .n_instrumented = n,
                              .instrumented = layers,
                              .adapter_dim = 64,
                              .planner = PDT_PLANNER_TIED,
                              .plan_slots = SLOTS,
                              .plan_vocab_size = 1024,
                              .plan_dim = 128,
                              .plan_hash_salt = "bench",
                              .pool = PDT_POOL_ATTENTION,
                              .pool_heads = 4,
                              .pool_dim = 64,
                              .coverage_dim = 64,
                              .agree_dim = 128,
                              .defaults = {b->block, 1, 1 + b->most_streams, 4 * b->block, 0, 0.5}};
}

/* A random sidecar, by way of a file that is gone afterwards. */
static int make_sidecar(bench *b, pdt_error *err) {
  const pdt_sidecar_init_options options = {
      .dtype = PDT_BF16, .seed = 3, .start = PDT_SIDECAR_RANDOM};
  char folder[] = "/tmp/bench_round-XXXXXX", path[sizeof folder + 32];
  pdt_layer *layers;
  pdt_safetensors *file = NULL;
  if (!mkdtemp(folder)) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot be made", folder);
  snprintf(path, sizeof path, "%s/sidecar.safetensors", folder);
  int status = PDT_NEW(&layers, b->weights.config.layers, "layers", err);
  if (!status) {
    const pdt_sidecar_config config = config_of(b, layers);
    status = pdt_sidecar_init(path, &config, &options, NULL, NULL, err) ||
             pdt_safetensors_open(&file, path, err) ||
             pdt_sidecar_load(&b->sidecar, &b->device, file, &b->weights.config, 0, 1, err);
  }
  pdt_safetensors_close(file);
  free(layers);
  unlink(path);
  rmdir(folder);
  return status;
}

static int make_trunk(bench *b, pdt_error *err) {
  const pdt_model_config *c = &b->weights.config;
  const pdt_kv_shape kv = {c->layers, c->kv_heads, c->head_dim};
  int32_t tokens = b->block * b->rounds;
  int32_t pages = pdt_kv_pages(b->prompt) + b->most_streams * pdt_kv_pages(tokens);
  const pdt_trunk_limits limits = {PROMPT_ROWS, MOST_STREAMS, b->prompt + tokens};
  b->alone = (pdt_comm){.rank = 0, .size = 1};
  return pdt_kv_new(&b->kv, &b->device, &kv, pages, err) ||
         pdt_trunk_new(&b->trunk, &b->weights, &b->alone, &b->kv, &limits, err);
}

static int make_room(bench *b, pdt_error *err) {
  int64_t d = b->weights.config.hidden_size, K = b->most_streams;
  const pdt_sidecar_limits limits = {PROMPT_ROWS, b->most_streams, b->block, 1 + b->most_streams};
  const pdt_kernels *ops = b->device.ops;
  return pdt_sidecar_reserve(&b->sidecar, &limits, err) ||
         pdt_window_new(&b->window, &b->sidecar, 1 + b->most_streams, err) ||
         pdt_plan_new(&b->plan, &b->sidecar, err) ||
         ops->alloc(&b->device, PROMPT_ROWS * d, "states", &b->hidden, err) ||
         ops->alloc(&b->device, K * b->block * d, "states", &b->states, err) ||
         PDT_NEW(&b->notes, K * b->sidecar.config.notes_dim, "notes", err) ||
         PDT_NEW(&b->coverage, K * SLOTS, "coverage", err) ||
         PDT_NEW(&b->readiness, K, "readiness", err);
}

static int set_up(bench *b, const char *shape, pdt_error *err) {
  if (pdt_cuda_device_new(&b->device, 0, err) ||
      gpu_random_trunk(&b->weights, &b->device, shape, err) || make_sidecar(b, err) ||
      make_trunk(b, err) || make_room(b, err))
    return -1;
  for (int32_t i = 0; i < SLOTS; i++) b->plan.ids[i] = 1 + i;
  return 0;
}

static void tear_down(bench *b) {
  pdt_trunk_free(&b->trunk);
  pdt_kv_sequence_free(&b->prompt_sequence, &b->kv);
  pdt_kv_free(&b->kv);
  pdt_window_free(&b->window);
  pdt_plan_free(&b->plan);
  if (b->device.ops) {
    b->device.ops->release(&b->device, b->hidden);
    b->device.ops->release(&b->device, b->states);
  }
  pdt_sidecar_free(&b->sidecar);
  pdt_trunk_weights_free(&b->weights);
  if (b->device.ops) b->device.ops->close(&b->device);
  free(b->notes);
  free(b->coverage);
  free(b->readiness);
  b->notes = b->coverage = b->readiness = NULL;
}

/* ---- running ---- */

static int read_prompt(bench *b, pdt_error *err) {
  const pdt_array none = {0};
  if (pdt_kv_sequence_new(&b->prompt_sequence, &b->kv, NULL, 0, b->prompt, err)) return -1;
  for (int32_t at = 0; at < b->prompt; at += PROMPT_ROWS) {
    pdt_trunk_row rows[PROMPT_ROWS];
    int32_t n = b->prompt - at < PROMPT_ROWS ? b->prompt - at : PROMPT_ROWS, begin[2] = {0, n};
    for (int32_t i = 0; i < n; i++)
      rows[i] = (pdt_trunk_row){&b->prompt_sequence, at + i,
                                (at + i) * 7919 % b->weights.config.vocab_size};
    const pdt_trunk_batch batch = {.rows = rows, .begin = begin, .bulk = true};
    if (pdt_trunk_forward(&b->trunk, &batch, NULL, none, err)) return -1;
  }
  return b->device.ops->sync(&b->device, err);
}

static void after_attention(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  bench *b = context;
  (void)rows;
  pdt_sidecar_snc(&b->sidecar, layer, h);
}

static void after_ffn(void *context, pdt_layer layer, pdt_array h, int32_t rows) {
  bench *b = context;
  (void)rows;
  pdt_sidecar_adapter(&b->sidecar, layer, h);
}

/* One step of K streams at a position, the i-th of its block. */
static int step(bench *b, int32_t K, int32_t position, int32_t i, bool conditioned,
                pdt_token *tokens, pdt_error *err) {
  const pdt_trunk_hooks hooks = {
      .context = b, .after_attention = after_attention, .after_ffn = after_ffn};
  pdt_trunk_row rows[MOST_STREAMS];
  pdt_conditioning conditioning[MOST_STREAMS];
  int32_t begin[2] = {0, K}, to[MOST_STREAMS];
  for (int32_t k = 0; k < K; k++) {
    rows[k] = (pdt_trunk_row){&b->sequences[k], position, tokens[k]};
    conditioning[k] = (pdt_conditioning){&b->window, k};
    to[k] = k * b->block + i;
  }
  const pdt_trunk_batch batch = {.rows = rows, .begin = begin};
  if (conditioned) pdt_sidecar_condition(&b->sidecar, conditioning, K);
  if (pdt_trunk_forward(&b->trunk, &batch, conditioned ? &hooks : NULL, b->hidden, err)) return -1;
  if (conditioned)
    b->device.ops->move_rows(&b->device, b->states, to, b->hidden, NULL, K,
                             b->weights.config.hidden_size);
  pdt_trunk_choose(&b->trunk, begin, b->hidden, NULL, tokens);
  for (int32_t k = 0; k < K; k++)
    b->wrong = b->wrong || tokens[k] < 0 || tokens[k] >= b->weights.config.vocab_size;
  return 0;
}

static void close_blocks(bench *b, int32_t K) {
  pdt_block blocks[MOST_STREAMS];
  int64_t d = b->weights.config.hidden_size, dn = b->sidecar.config.notes_dim;
  for (int32_t k = 0; k < K; k++) {
    blocks[k] = pdt_sidecar_block(&b->window, &b->plan);
    blocks[k].states = pdt_array_at(b->states, k * b->block * d);
    blocks[k].n_states = b->block;
    blocks[k].note = b->notes + k * dn;
    blocks[k].coverage = b->coverage + (int64_t)k * SLOTS;
    blocks[k].readiness = b->readiness + k;
  }
  pdt_sidecar_close_blocks(&b->sidecar, blocks, K);
  for (int32_t k = 0; k < K; k++)
    b->wrong = b->wrong || !(b->readiness[k] >= 0 && b->readiness[k] <= 1);
}

/* Round r of K streams, which write on from their tokens. */
static int run_round(bench *b, int32_t K, int32_t r, bool conditioned, pdt_token *tokens,
                     timing *took, pdt_error *err) {
  double start = pdt_seconds();
  if (conditioned) {
    int64_t dn = b->sidecar.config.notes_dim, n = (1 + K) * dn;
    for (int64_t i = 0; i < n; i++) b->window.notes[i] = (float)((i * 37 + r) % 19 - 9) / 9;
    pdt_window_project(&b->window, &b->sidecar, 1 + K);
    if (b->device.ops->sync(&b->device, err)) return -1;
  }
  double projected = pdt_seconds();
  for (int32_t i = 0; i < b->block; i++)
    if (step(b, K, b->prompt + r * b->block + i, i, conditioned, tokens, err)) return -1;
  double written = pdt_seconds();
  if (conditioned) close_blocks(b, K);
  if (b->device.ops->sync(&b->device, err)) return -1;
  double end = pdt_seconds();
  *took = (timing){end - start, projected - start, end - written};
  return 0;
}

static int compare_timings(const void *a, const void *b) {
  double x = ((const timing *)a)->all, y = ((const timing *)b)->all;
  return x < y ? -1 : x > y;
}

/* Rounds of K streams: the median one of those after the first. */
static int measure(bench *b, int32_t K, bool conditioned, timing *median, pdt_error *err) {
  pdt_token tokens[MOST_STREAMS];
  timing all[MOST_ROUNDS];
  int status = 0;
  for (int32_t k = 0; k < K && !status; k++) {
    status = pdt_kv_sequence_new(&b->sequences[k], &b->kv, &b->prompt_sequence, b->prompt,
                                 b->block * b->rounds, err);
    tokens[k] = 17 + k;
  }
  for (int32_t r = 0; r < b->rounds && !status; r++)
    status = run_round(b, K, r, conditioned, tokens, &all[r], err);
  for (int32_t k = 0; k < K; k++) pdt_kv_sequence_free(&b->sequences[k], &b->kv);
  if (status) return -1;
  qsort(all + 1, (size_t)b->rounds - 1, sizeof *all, compare_timings);
  *median = all[1 + (b->rounds - 1) / 2];
  return 0;
}

static void report(const bench *b, const char *shape, int32_t K, const timing *plain,
                   const timing *whole) {
  double added = whole->all - plain->all, share = added / whole->all;
  printf(
      "%-9s K %3d  round of %d: %9.3f ms, plain %9.3f ms: the sidecar is %5.2f%% (window %.3f ms, "
      "closing %.3f ms); %s\n",
      shape, K, b->block, whole->all * 1e3, plain->all * 1e3, share * 100, whole->project * 1e3,
      whole->close * 1e3, b->wrong ? "WRONG" : "right");
  if (!b->out) return;
  fprintf(
      b->out,
      "{\"part\": \"round\", \"shape\": \"%s\", \"streams\": %d, \"block\": %d, \"prompt\": %d, "
      "\"layers\": %d, \"instrumented\": %d, \"ms\": %.4f, \"plain_ms\": %.4f, \"share\": %.5f, "
      "\"project_ms\": %.4f, \"close_ms\": %.4f, \"correct\": %s}\n",
      shape, K, b->block, b->prompt, b->weights.config.layers, b->sidecar.config.n_instrumented,
      whole->all * 1e3, plain->all * 1e3, share, whole->project * 1e3, whole->close * 1e3,
      b->wrong ? "false" : "true");
}

static int run_shape(bench *b, const char *shape, pdt_error *err) {
  if (set_up(b, shape, err) || read_prompt(b, err)) return -1;
  char *list = strdup(b->streams), *rest = NULL;
  int status = 0;
  for (char *k = strtok_r(list, ",", &rest); k && !status; k = strtok_r(NULL, ",", &rest)) {
    timing plain, whole;
    status = measure(b, atoi(k), false, &plain, err) || measure(b, atoi(k), true, &whole, err);
    if (!status) report(b, shape, atoi(k), &plain, &whole);
  }
  free(list);
  return status;
}

/* ---- the command line ---- */

/* The largest of a list of streams; 0: there is something else in it. */
static int32_t most_of(const char *streams) {
  int32_t most = 0;
  for (const char *at = streams;; at++) {
    char *end;
    long n = strtol(at, &end, 10);
    if (end == at || n < 1 || n > MOST_STREAMS || (*end && *end != ',')) return 0;
    if (n > most) most = (int32_t)n;
    if (!*end) return most;
    at = end;
  }
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {{"shapes", required_argument, NULL, 's'},
                                          {"streams", required_argument, NULL, 'k'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"block", required_argument, NULL, 'b'},
                                          {"prompt", required_argument, NULL, 'p'},
                                          {"rounds", required_argument, NULL, 'n'},
                                          {0}};
  *b = (bench){.shapes = "llama-8b", .streams = "1,8,64", .prompt = 2048, .block = 32, .rounds = 4};
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 's') b->shapes = optarg;
    if (c == 'k') b->streams = optarg;
    if (c == 'p') b->prompt = atoi(optarg);
    if (c == 'b') b->block = atoi(optarg);
    if (c == 'n') b->rounds = atoi(optarg);
    if (c == 'o' && !(b->out = fopen(optarg, "a"))) return false;
    if (c == '?') return false;
  }
  b->most_streams = most_of(b->streams);
  return optind == argc && b->prompt > 0 && b->block > 0 && b->block <= MOST_BLOCK &&
         b->rounds > 1 && b->rounds <= MOST_ROUNDS && b->most_streams > 0;
}

int main(int argc, char **argv) {
  bench b;
  pdt_error err = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(stderr,
            "usage: bench_round [--shapes LIST] [--streams LIST, each up to 64] [--block N] "
            "[--prompt N] [--rounds N] [--out FILE]\n");
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
  if (status) fprintf(stderr, "bench_round: %s\n", err.message);
  free(list);
  if (b.out) fclose(b.out);
  return status || b.wrong ? 1 : 0;
}
