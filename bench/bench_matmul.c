/* Matrix products of a whole SmolLM2-135M-shaped model of one type of weights, layer after layer,
 * so that weights come from memory as they do in decoding; beside the read bandwidth and the
 * multiply-add peak of the same threads in the same run. Every shape is compared with the plain
 * version before it is timed.
 *
 *   bench_matmul [--type BF16] [--full-rows] [--compute bf16] [--threads N] [--isa NAME]
 *                [--repeats N] [--json] */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/kernels.h"
#include "machine.h"

enum { LAYERS = 30, SHAPES = 5, BATCHES = 8, MOST_ROWS = 128, WIDEST = 49152, LONGEST = 1536 };

typedef struct shape {
  const char *name;
  int32_t out, in, leaf, copies;
} shape;

static const shape shapes[SHAPES] = {
    {"qkv", 960, 576, 576, LAYERS},
    {"attention out", 576, 576, 64, LAYERS},
    {"gate and up", 3072, 576, 576, LAYERS},
    {"down", 576, 1536, 64, LAYERS},
    {"head", 49152, 576, 576, 1},
};
static const int32_t batches[BATCHES] = {1, 2, 4, 8, 12, 16, 32, 128};

typedef struct bench {
  pdt_device device, reference;
  int threads, repeats;
  bool json, wrong;
  pdt_dtype dtype;
  pdt_matrix matrices[SHAPES][LAYERS];
  pdt_matrix plain[SHAPES]; /* a layer's, of the reference */
  float *x, *y, *want;
  double read_bandwidth, peak; /* bytes/s, flop/s */
  double single[SHAPES + 1];   /* seconds of one row, for the ratio column */
  json_t *results;
} bench;

static void fill(float *x, int64_t n, uint64_t seed) {
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x[i] = (float)(seed >> 40) / 0x1p23f - 1;
  }
}

/* n weights up to 1; of a type that is not made of floats blocks of random codes, with 2^-6 as
 * every number in half precision. */
static int make_weights(pdt_dtype dtype, int64_t n, uint64_t seed, char *out, pdt_error *err) {
  float *source;
  if (PDT_NEW(&source, n, "weights", err)) return -1;
  fill(source, n, seed);
  if (!pdt_from_float(dtype, source, n, out)) {
    static const unsigned char half[2] = {0x00, 0x24};
    pdt_dtype_block block = pdt_dtype_block_of(dtype);
    for (int64_t i = 0; i < pdt_dtype_row_bytes(dtype, n); i++)
      out[i] = (char)(int)(source[i % n] * 127);
    for (int64_t i = 0; i < n / block.elems; i++) {
      memcpy(out + i * block.bytes + (dtype == PDT_Q6_K ? 208 : 0), half, 2);
      if (dtype != PDT_Q6_K && dtype != PDT_Q5_0) memcpy(out + i * block.bytes + 2, half, 2);
    }
  }
  free(source);
  return 0;
}

/* The matrices of a shape: the same weights in every layer, each in a place of its own. */
static int set_up_shape(bench *b, int s, pdt_error *err) {
  const shape *sh = &shapes[s];
  pdt_device *dev = &b->device, *ref = &b->reference;
  int64_t n = (int64_t)sh->out * sh->in;
  char *weights;
  int rc = PDT_NEW(&weights, pdt_dtype_row_bytes(b->dtype, n), "weights", err) ||
           ref->ops->matrix_new(ref, &b->plain[s], sh->out, sh->in, b->dtype, sh->leaf, err) ||
           make_weights(b->dtype, n, 2 + (uint64_t)s, weights, err);
  if (!rc) ref->ops->matrix_pack(ref, &b->plain[s], 0, sh->out, weights, sh->in);
  for (int c = 0; c < sh->copies && !rc; c++) {
    pdt_matrix *m = &b->matrices[s][c];
    rc = dev->ops->matrix_new(dev, m, sh->out, sh->in, b->dtype, sh->leaf, err);
    if (!rc) dev->ops->matrix_pack(dev, m, 0, sh->out, weights, sh->in);
  }
  free(weights);
  return rc ? -1 : 0;
}

static int set_up(bench *b, pdt_error *err) {
  if (PDT_NEW(&b->x, MOST_ROWS * LONGEST, "inputs", err) ||
      PDT_NEW(&b->y, (int64_t)MOST_ROWS * WIDEST, "outputs", err) ||
      PDT_NEW(&b->want, (int64_t)MOST_ROWS * WIDEST, "outputs", err) ||
      pdt_reference_device_new(&b->reference, err))
    return -1;
  fill(b->x, MOST_ROWS * LONGEST, 1);
  for (int s = 0; s < SHAPES; s++)
    if (set_up_shape(b, s, err)) return -1;
  return 0;
}

static void tear_down(bench *b) {
  pdt_device *dev = &b->device, *ref = &b->reference;
  for (int s = 0; s < SHAPES && ref->ops; s++) {
    for (int c = 0; c < LAYERS; c++) dev->ops->matrix_free(dev, &b->matrices[s][c]);
    ref->ops->matrix_free(ref, &b->plain[s]);
  }
  if (ref->ops) ref->ops->close(ref);
  dev->ops->close(dev);
  free(b->x);
  free(b->y);
  free(b->want);
  json_decref(b->results);
}

/* y = a matrix of a device's times rows of x, which are memory of this process for both. */
static void multiply(pdt_device *dev, const pdt_matrix *m, float *x, int32_t rows, float *y) {
  dev->ops->matmul(dev, m, (pdt_array){x}, LONGEST, rows, (pdt_array){y});
}

/* One product of a shape against the plain version, and each row against itself alone. */
static bool right(bench *b, int s, int32_t rows) {
  const pdt_matrix *m = &b->matrices[s][0];
  int32_t compared = s == SHAPES - 1 ? 1 : rows; /* the head's plain version takes long */
  multiply(&b->device, m, b->x, rows, b->y);
  multiply(&b->reference, &b->plain[s], b->x, compared, b->want);
  /* Products of numbers up to 1, as many as inputs: half an ulp of the running sum at each. Weights
   * of random codes are larger, up to 64 or so with their sub-scales; quantized rows are off by up
   * to 1 / 254 of 1, rounded ones by less, each its own way. */
  bool rounded = b->device.rounds || (pdt_dtype_quantized(b->dtype) && !b->device.full_rows);
  double largest = b->dtype <= PDT_Q4_0 ? 1 : 64;
  double tolerance = largest * (rounded ? 4 * sqrt(m->in) / 254 : 0x1p-24 * sqrt(m->in) * m->in);
  for (int64_t i = 0; i < (int64_t)compared * m->out; i++)
    if (!(fabs((double)b->y[i] - (double)b->want[i]) <= tolerance)) return false;
  for (int32_t r = 0; r < rows; r++) {
    multiply(&b->device, m, b->x + r * LONGEST, 1, b->want);
    if (memcmp(b->want, b->y + (int64_t)r * m->out, (size_t)m->out * sizeof(float)) != 0)
      return false;
  }
  return true;
}

/* Seconds of one pass over the model, a shape's share in by_shape. */
static double pass(bench *b, int32_t rows, double *by_shape) {
  double start = pdt_seconds();
  for (int s = 0; s < SHAPES; s++) by_shape[s] = 0;
  for (int c = 0; c < LAYERS; c++)
    for (int s = 0; s < SHAPES; s++) {
      if (c >= shapes[s].copies) continue;
      double begin = pdt_seconds();
      multiply(&b->device, &b->matrices[s][c], b->x, rows, b->y);
      by_shape[s] += pdt_seconds() - begin;
    }
  return pdt_seconds() - start;
}

static void report(bench *b, int s, int32_t rows, double seconds, bool ok) {
  double bytes = 0;
  for (int i = 0; i < SHAPES; i++)
    if (s == SHAPES || s == i) bytes += (double)b->matrices[i][0].bytes * shapes[i].copies;
  double flops = 0; /* two a weight */
  for (int i = 0; i < SHAPES; i++)
    if (s == SHAPES || s == i)
      flops += 2.0 * shapes[i].out * shapes[i].in * shapes[i].copies * rows;
  const char *name = s == SHAPES ? "whole model" : shapes[s].name;
  if (rows == 1) b->single[s] = seconds;
  if (!ok) b->wrong = true;
  if (b->json) {
    json_t *line = json_pack(
        "{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:b}", "shape", name, "rows", rows, "seconds",
        seconds, "bytes_per_second", bytes / seconds, "of_read_bandwidth",
        bytes / seconds / b->read_bandwidth, "flops_per_second", flops / seconds, "of_peak",
        flops / seconds / b->peak, "times_one_row", seconds / b->single[s], "correct", ok);
    json_array_append_new(b->results, line);
    return;
  }
  printf("%-14s %4d %9.3f %8.2f %7.1f %9.1f %6.1f %7.2f %8s\n", name, rows, seconds * 1e3,
         bytes / seconds * 1e-9, 100 * bytes / seconds / b->read_bandwidth, flops / seconds * 1e-9,
         100 * flops / seconds / b->peak, seconds / b->single[s], ok ? "yes" : "NO");
}

/* Betters the best read bandwidth and peak seen so far in this run. */
static void measure_machine(bench *b, int repeats) {
  machine_piece pieces[SHAPES * LAYERS];
  int32_t n = 0;
  double bytes = 0;
  for (int s = 0; s < SHAPES; s++)
    for (int c = 0; c < shapes[s].copies; c++) {
      const pdt_matrix *m = &b->matrices[s][c];
      pieces[n++] = (machine_piece){m->data, m->bytes};
      bytes += (double)m->bytes;
    }
  for (int i = 0; i < repeats; i++) {
    b->read_bandwidth =
        fmax(b->read_bandwidth, bytes / machine_read_seconds(pieces, n, b->threads));
    b->peak = fmax(b->peak, machine_peak_flops(b->device.name, b->threads));
  }
}

/* Best of the repeats, of each shape and of the whole; bandwidth and peak are measured between
 * them, so that what else the machine does falls on all alike. */
static void measure(bench *b, int32_t rows) {
  double best[SHAPES + 1], now[SHAPES + 1];
  for (int s = 0; s <= SHAPES; s++) best[s] = INFINITY;
  for (int i = 0; i < b->repeats; i++) {
    now[SHAPES] = pass(b, rows, now);
    for (int s = 0; s <= SHAPES; s++) best[s] = fmin(best[s], now[s]);
    measure_machine(b, 1);
  }
  bool all = true;
  for (int s = 0; s < SHAPES; s++) {
    bool ok = right(b, s, rows);
    all = all && ok;
    report(b, s, rows, best[s], ok);
  }
  report(b, SHAPES, rows, best[SHAPES], all);
}

static void run(bench *b) {
  b->results = json_array();
  measure_machine(b, b->repeats);
  if (!b->json) {
    printf("# %s, %s, %d threads, best of %d; read bandwidth %.2f GB/s, multiply-add peak %.1f "
           "GFLOP/s\n",
           pdt_dtype_name(b->dtype), b->device.name, b->threads, b->repeats,
           b->read_bandwidth * 1e-9, b->peak * 1e-9);
    printf("#%-13s %4s %9s %8s %7s %9s %6s %7s %8s\n", "shape", "rows", "ms", "GB/s", "%read",
           "GFLOP/s", "%peak", "x 1 row", "correct");
  }
  for (int i = 0; i < BATCHES; i++) measure(b, batches[i]);
  if (!b->json) {
    printf("# at the end: read bandwidth %.2f GB/s, multiply-add peak %.1f GFLOP/s\n",
           b->read_bandwidth * 1e-9, b->peak * 1e-9);
    double dot = machine_peak_flops(MACHINE_BF16_DOT, b->threads);
    if (dot > 0) printf("# dot products of bf16 pairs: at most %.1f GFLOP/s\n", dot * 1e-9);
    return;
  }
  json_t *all = json_pack("{s:s, s:s, s:i, s:f, s:f, s:O}", "type", pdt_dtype_name(b->dtype),
                          "kernels", b->device.name, "threads", b->threads, "read_bandwidth",
                          b->read_bandwidth, "peak_flops", b->peak, "results", b->results);
  json_dumpf(all, stdout, JSON_INDENT(1));
  printf("\n");
  json_decref(all);
}

/* A whole number of at least 1, or 0. */
static int positive(const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  return *text && !*end && value >= 1 && value <= 1024 ? (int)value : 0;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {
      {"threads", required_argument, NULL, 't'}, {"isa", required_argument, NULL, 'i'},
      {"repeats", required_argument, NULL, 'r'}, {"json", no_argument, NULL, 'j'},
      {"type", required_argument, NULL, 'T'},    {"full-rows", no_argument, NULL, 'f'},
      {"compute", required_argument, NULL, 'c'}, {0}};
  pdt_cpu_isa isa = pdt_cpu_best_isa();
  b->threads = omp_get_max_threads();
  b->repeats = 20;
  b->dtype = PDT_BF16;
  bool full_rows = false, rounds = false;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 't') b->threads = positive(optarg);
    if (c == 'r') b->repeats = positive(optarg);
    if (c == 'j') b->json = true;
    if (c == 'f') full_rows = true;
    if (c == 'c') rounds = strcmp(optarg, "bf16") == 0;
    if (c == 'c' && !rounds && strcmp(optarg, "f32") != 0) return false;
    if (c == 'T' && !pdt_dtype_parse(optarg, &b->dtype)) return false;
    if (c == '?' || (c == 'i' && !pdt_cpu_isa_parse(optarg, &isa))) return false;
  }
  bool made = b->threads && b->repeats && optind == argc &&
              !pdt_cpu_device_new(&b->device, isa, b->threads, NULL);
  b->device.full_rows = full_rows;
  if (made && rounds) pdt_cpu_round_rows(&b->device, true);
  return made;
}

int main(int argc, char **argv) {
  bench b = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(stderr,
            "usage: bench_matmul [--type NAME] [--full-rows] [--compute f32|bf16] [--threads N] "
            "[--isa portable|avx2|avx512|amx] [--repeats N] [--json]\n");
    return 2;
  }
  pdt_error err;
  int rc = set_up(&b, &err);
  if (rc)
    fprintf(stderr, "bench_matmul: %s\n", err.message);
  else
    run(&b);
  tear_down(&b);
  return rc || b.wrong ? 1 : 0;
}
