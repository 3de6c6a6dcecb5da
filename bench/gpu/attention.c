/* Attention of one layer on the first GPU, by itself: K streams in the middle of their own text
 * behind one prompt, and a whole prompt at once. Beside it the time in which the keys and values
 * are read at the card's read bandwidth, and the rate of products of the tensor cores, of which
 * each multiplication of two floats takes three.
 *
 *   bench_attention [--shapes llama-8b,llama-1b] [--streams 1,8,64,0] [--prompt N] [--out FILE]
 *                   [--read-bandwidth BYTES/S] [--quick]
 *
 * 0 streams: the prompt. --quick: just so often as to see that it is right. The correctness column:
 * some rows are as the reference has them. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/preset.h"

/* Layers, so that one's pages are not what the cache has of the one before; calls of each that are
 * timed together; positions of a stream, half of them written; rows that are compared. */
enum {
  LAYERS = 8,
  CALLS = 4,
  OWN = 64,
  MOST_STREAMS = 64,
  REPEATS = 12,
  CHECKED = 3,
  MOST_HALF = 256
};

typedef struct bench {
  const char *shapes, *streams;
  FILE *out; /* JSON lines, or NULL */
  double read_bandwidth;
  int32_t prompt, layers, repeats, most_streams;
  bool wrong;
} bench;

/* A shape, and where everything lies. */
typedef struct setting {
  const char *name;
  pdt_attention attention;
  pdt_kv_shape kv;
  int32_t width, out_width, most_rows; /* of a row of qkv, of the result; rows of a batch */
  int32_t prompt, prompt_pages, own_pages;
  int32_t *pages; /* [prompt_pages + MOST_STREAMS * own_pages]: 0, 1, 2 .. */
  pdt_row_place *rows;
  float *qkv; /* [most_rows, width] */
} setting;

/* One device's side of it. */
typedef struct side {
  pdt_device device;
  pdt_kv_pool kv;
  pdt_batch *batch;
  pdt_array qkv, out;
} side;

static int read_shape(setting *s, const char *name, pdt_error *err) {
  char *text;
  pdt_model_config c;
  if (pdt_model_preset(name, &text, err)) return -1;
  json_t *json = json_loads(text, 0, NULL);
  int status = pdt_model_config_parse(&c, json, NULL, name, NULL, err);
  json_decref(json);
  free(text);
  s->name = name;
  s->attention = (pdt_attention){.n_heads = c.heads, .per_kv = c.heads / c.kv_heads};
  s->kv = (pdt_kv_shape){1, c.kv_heads, c.head_dim};
  s->width = (c.heads + 2 * c.kv_heads) * c.head_dim;
  s->out_width = c.heads * c.head_dim;
  return status;
}

static int new_setting(const bench *b, setting *s, const char *name, pdt_error *err) {
  *s = (setting){.prompt = b->prompt};
  if (read_shape(s, name, err)) return -1;
  s->kv.layers = b->layers;
  s->prompt_pages = (b->prompt + PDT_PAGE_TOKENS - 1) / PDT_PAGE_TOKENS;
  s->own_pages = OWN / PDT_PAGE_TOKENS;
  s->most_rows = b->prompt > MOST_STREAMS * OWN ? b->prompt : MOST_STREAMS * OWN;
  int32_t pages = s->prompt_pages + MOST_STREAMS * s->own_pages;
  uint64_t state = 1;
  if (PDT_NEW(&s->pages, pages, "pages", err) || PDT_NEW(&s->rows, s->most_rows, "rows", err) ||
      PDT_NEW(&s->qkv, (int64_t)s->most_rows * s->width, "qkv", err))
    return -1;
  for (int32_t i = 0; i < pages; i++) s->pages[i] = i;
  for (int64_t i = 0; i < (int64_t)s->most_rows * s->width; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    s->qkv[i] = (float)(state >> 40) / 0x1p23f - 1;
  }
  return 0;
}

static int open_side(side *d, const setting *s, pdt_error *err) {
  const pdt_kernels *ops = d->device.ops;
  int32_t pages = s->prompt_pages + MOST_STREAMS * s->own_pages;
  double inv_freq[MOST_HALF];
  for (int j = 0; j < s->kv.head_dim / 2; j++) inv_freq[j] = pow(1e4, -2.0 * j / s->kv.head_dim);
  const pdt_rotary rotary = {inv_freq, 1};
  const pdt_room most = {.heads = s->attention.per_kv, .positions = s->prompt + OWN};
  d->kv.shape = s->kv;
  return ops->reserve(&d->device, &most, err) ||
                 ops->batch_new(&d->device, s->most_rows, most.positions, s->kv.head_dim, &rotary,
                                &d->batch, err) ||
                 ops->alloc(&d->device, pages * pdt_kv_page_elems(&s->kv), "pages", &d->kv.data,
                            err) ||
                 ops->alloc(&d->device, (int64_t)s->most_rows * s->width, "qkv", &d->qkv, err) ||
                 ops->alloc(&d->device, (int64_t)s->most_rows * s->out_width, "out", &d->out, err)
             ? -1
             : 0;
}

static void close_side(side *d) {
  if (!d->device.ops) return;
  d->device.ops->batch_free(&d->device, d->batch);
  d->device.ops->release(&d->device, d->kv.data);
  d->device.ops->release(&d->device, d->qkv);
  d->device.ops->release(&d->device, d->out);
  d->device.ops->close(&d->device);
}

/* The prompt's rows, or `each` rows of each of K streams, their position `at` the first. */
static int32_t set_rows(const setting *s, int32_t K, int32_t at, int32_t each) {
  int32_t n = 0;
  for (int32_t i = 0; K == 0 && i < s->prompt; i++)
    s->rows[n++] = (pdt_row_place){.position = i, .pages = s->pages};
  for (int32_t k = 0; k < K; k++)
    for (int32_t i = 0; i < each; i++)
      s->rows[n++] = (pdt_row_place){s->prompt + at + i, s->prompt, s->pages,
                                     s->pages + s->prompt_pages + k * s->own_pages};
  return n;
}

/* Rotates the heads of rows [n] and stores them in every layer; the first rows of qkv are theirs.
 */
static void store(side *d, const setting *s, const pdt_row_place *rows, int32_t n) {
  const pdt_kernels *ops = d->device.ops;
  for (pdt_layer l = 0; l < d->kv.shape.layers; l++) {
    ops->upload(&d->device, d->qkv, s->qkv, (int64_t)n * s->width);
    ops->batch_set(&d->device, d->batch, rows, n);
    ops->rotate_and_store(&d->device, d->batch, &d->kv, l, &s->attention, d->qkv);
  }
}

/* Some rows of the device's results beside the reference's. */
static bool is_right(side *d, side *ref, const setting *s, int32_t n) {
  const int32_t checked[CHECKED] = {0, n / 2, n - 1};
  const pdt_kernels *ops = ref->device.ops;
  float *got = malloc((size_t)s->out_width * sizeof *got),
        *want = malloc((size_t)s->out_width * sizeof *want);
  double root = sqrt(s->kv.head_dim), tolerance = 4e-6 * (1 + root) + 0x1p-17 * (1 + 3.2 * root);
  bool right = got && want;
  for (int i = 0; i < CHECKED && right; i++) {
    int32_t r = checked[i];
    d->device.ops->download(&d->device, got, pdt_array_at(d->out, (int64_t)r * s->out_width),
                            s->out_width);
    ops->upload(&ref->device, ref->qkv, s->qkv + (int64_t)r * s->width, s->width);
    ops->batch_set(&ref->device, ref->batch, &s->rows[r], 1);
    ops->rotate_and_store(&ref->device, ref->batch, &ref->kv, 0, &s->attention, ref->qkv);
    ops->attention(&ref->device, ref->batch, &ref->kv, 0, &s->attention, ref->qkv, ref->out);
    ops->download(&ref->device, want, ref->out, s->out_width);
    for (int32_t j = 0; j < s->out_width; j++)
      right = right && fabs((double)got[j] - (double)want[j]) <= tolerance;
  }
  free(got), free(want);
  return right;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Median seconds of attention in one layer, the batch's planning included as a step has it. */
static int time_attention(const bench *b, side *d, const setting *s, int32_t n, double *median,
                          pdt_error *err) {
  const pdt_kernels *ops = d->device.ops;
  int32_t calls = b->layers * (b->repeats > 1 ? CALLS : 1), first = b->repeats / 4;
  double times[REPEATS];
  for (int i = 0; i < b->repeats; i++) {
    double start = pdt_seconds();
    ops->batch_set(&d->device, d->batch, s->rows, n);
    for (int32_t c = 0; c < calls; c++)
      ops->attention(&d->device, d->batch, &d->kv, c % b->layers, &s->attention, d->qkv, d->out);
    if (ops->sync(&d->device, err)) return -1;
    times[i] = (pdt_seconds() - start) / calls;
  }
  qsort(times + first, (size_t)(b->repeats - first), sizeof *times, compare_doubles);
  *median = times[first + (b->repeats - first) / 2];
  return 0;
}

static void report(bench *b, const setting *s, int32_t K, int32_t n, double seconds, bool right) {
  const int32_t own = OWN / 2 + 1; /* of a stream, half-way */
  double positions = K > 0 ? (double)K * (s->prompt + own) : 0.5 * n * (n + 1.0);
  double read = (double)s->prompt + (double)K * own;
  double bytes = read * 2 * s->kv.heads * s->kv.head_dim * (double)sizeof(float);
  double products = 3 * 4 * positions * s->attention.n_heads * s->kv.head_dim;
  double least = b->read_bandwidth > 0 ? bytes / b->read_bandwidth : 0;
  if (!right) b->wrong = true;
  printf("%-9s attention, %-6s %3d  %9.2f us a layer; reading %.2f MB takes %.2f us; %.1f "
         "TFLOP/s; %s\n",
         s->name, K > 0 ? "K" : "prompt", K > 0 ? K : n, seconds * 1e6, bytes * 1e-6, least * 1e6,
         products / seconds * 1e-12, right ? "right" : "WRONG");
  if (!b->out) return;
  fprintf(b->out,
          "{\"part\": \"attention\", \"shape\": \"%s\", \"streams\": %d, \"prompt\": %d, "
          "\"rows\": %d, \"us\": %.3f, \"reading_us\": %.3f, \"TFLOP/s\": %.2f, "
          "\"correct\": %s}\n",
          s->name, K, s->prompt, n, seconds * 1e6, least * 1e6, products / seconds * 1e-12,
          right ? "true" : "false");
}

static int run_case(bench *b, side *d, side *ref, const setting *s, int32_t K, pdt_error *err) {
  double seconds = 0;
  int32_t n = set_rows(s, K, OWN / 2, 1);
  store(d, s, s->rows, n);
  store(ref, s, s->rows, n);
  if (time_attention(b, d, s, n, &seconds, err)) return -1;
  report(b, s, K, n, seconds, is_right(d, ref, s, n));
  return 0;
}

static int run_shape(bench *b, const char *name, pdt_error *err) {
  setting s;
  side d = {0}, ref = {0};
  int status = new_setting(b, &s, name, err) || pdt_cuda_device_new(&d.device, 0, err) ||
               pdt_reference_device_new(&ref.device, err) || open_side(&d, &s, err);
  if (!status) {
    s.kv.layers = 1;
    status = open_side(&ref, &s, err);
  }
  char *list = strdup(b->streams), *rest = NULL;
  if (!status) {
    int32_t n = set_rows(&s, 0, 0, 0);
    store(&d, &s, s.rows, n), store(&ref, &s, s.rows, n);
    n = set_rows(&s, b->most_streams, 0, OWN / 2);
    store(&d, &s, s.rows, n), store(&ref, &s, s.rows, n);
  }
  for (char *k = strtok_r(list, ",", &rest); k && !status; k = strtok_r(NULL, ",", &rest)) {
    int32_t K = atoi(k) < 0 ? 0 : atoi(k) > MOST_STREAMS ? MOST_STREAMS : atoi(k);
    status = run_case(b, &d, &ref, &s, K, err);
  }
  free(list);
  close_side(&d), close_side(&ref);
  free(s.pages), free(s.rows), free(s.qkv);
  return status;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {{"shapes", required_argument, NULL, 's'},
                                          {"streams", required_argument, NULL, 'k'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"read-bandwidth", required_argument, NULL, 'r'},
                                          {"prompt", required_argument, NULL, 'p'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {0}};
  *b = (bench){.shapes = "llama-8b,llama-1b",
               .streams = "1,8,64,0",
               .prompt = 2048,
               .layers = LAYERS,
               .repeats = REPEATS};
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 's') b->shapes = optarg;
    if (c == 'k') b->streams = optarg;
    if (c == 'r') b->read_bandwidth = atof(optarg);
    if (c == 'p') b->prompt = atoi(optarg);
    if (c == 'q') b->layers = b->repeats = 1;
    if (c == 'o' && !(b->out = fopen(optarg, "a"))) return false;
    if (c == '?') return false;
  }
  for (const char *k = b->streams; k; k = strchr(k, ',') ? strchr(k, ',') + 1 : NULL)
    if (atoi(k) > b->most_streams) b->most_streams = atoi(k);
  if (b->most_streams > MOST_STREAMS) b->most_streams = MOST_STREAMS;
  return optind == argc && b->prompt > 0;
}

int main(int argc, char **argv) {
  bench b;
  pdt_error err = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_attention [--shapes LIST] [--streams LIST] [--prompt N] "
                    "[--out FILE] [--read-bandwidth BYTES/S] [--quick]\n");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  char *list = strdup(b.shapes), *rest = NULL;
  int status = 0;
  for (char *shape = strtok_r(list, ",", &rest); shape && !status;
       shape = strtok_r(NULL, ",", &rest))
    status = run_shape(&b, shape, &err);
  if (status) fprintf(stderr, "bench_attention: %s\n", err.message);
  free(list);
  if (b.out) fclose(b.out);
  return status || b.wrong ? 1 : 0;
}
