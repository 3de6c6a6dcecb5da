/* How fast weights come from a file in the page cache onto the first GPU, beside what the bus gives
 * to copies from pinned memory.
 *
 *   bench_load [--bytes N] [--folder DIR] [--repeats N] [--out FILE]
 *
 * Writes a file of bf16 matrices of that many bytes (default 2 GiB) into DIR (default /tmp) and
 * loads it as the runtime does (model/load.h): by one thread, and by as many as there are
 * processors. The file is gone afterwards. The correctness column: a row of every matrix comes back
 * as it was written. */
#include <cuda_runtime_api.h>
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "model/load.h"

enum { WIDTH = 4096, MOST_ROWS = 14336, MOST_TENSORS = 4096, NAME_BYTES = 16 };

typedef struct bench {
  pdt_bytes bytes;
  const char *folder;
  FILE *out; /* JSON lines, or NULL */
  int repeats;
  pdt_device device;
  int32_t n, rows; /* matrices, and rows of each */
  pdt_safetensors *file;
  bool wrong;
} bench;

/* Element i of matrix m: a bf16 number between 1 and 2, or its negative. */
static uint16_t element(int32_t m, int64_t i) {
  uint64_t x = ((uint64_t)i + ((uint64_t)m << 40)) * 0x9e3779b97f4a7c15u;
  return (uint16_t)(0x3f80u | (x >> 57 & 0x7fu) | (x >> 41 & 0x8000u));
}

static int make_elements(void *context, int32_t index, int64_t first, int64_t n, void *chunk,
                         pdt_error *err) {
  uint16_t *to = chunk;
  (void)context, (void)err;
#pragma omp parallel for
  for (int64_t i = 0; i < n; i++) to[i] = element(index, first + i);
  return 0;
}

static int write_file(const bench *b, const char *path, pdt_error *err) {
  pdt_tensor_spec *specs;
  char(*names)[NAME_BYTES] = calloc((size_t)b->n, sizeof *names);
  int status = PDT_NEW(&specs, b->n, "list of tensors", err);
  if (!status && !names) status = pdt_fail(err, PDT_ERROR_MEMORY, "list of tensors: no memory");
  for (int32_t i = 0; i < b->n && !status; i++) {
    snprintf(names[i], sizeof names[i], "w%d", i);
    specs[i] = (pdt_tensor_spec){names[i], PDT_BF16, 2, {b->rows, WIDTH}};
  }
  if (!status) status = pdt_safetensors_write(path, specs, b->n, NULL, 0, make_elements, NULL, err);
  free(specs);
  free(names);
  return status;
}

/* The file, open and without a name. */
static int make_file(bench *b, pdt_error *err) {
  char folder[512], path[sizeof folder + 32];
  snprintf(folder, sizeof folder, "%.480s/bench_load-XXXXXX", b->folder);
  if (!mkdtemp(folder)) return pdt_fail(err, PDT_ERROR_IO, "%s: cannot be made", folder);
  snprintf(path, sizeof path, "%s/weights.safetensors", folder);
  int status = write_file(b, path, err) || pdt_safetensors_open(&b->file, path, err);
  unlink(path);
  rmdir(folder);
  return status;
}

static const pdt_tensor *tensor_of(const bench *b, int32_t i) {
  char name[NAME_BYTES];
  snprintf(name, sizeof name, "w%d", i);
  return pdt_safetensors_find(b->file, name);
}

/* Is the last row of m what was written? */
static int check(bench *b, const pdt_matrix *m, int32_t i, pdt_error *err) {
  float host[WIDTH];
  pdt_array row;
  int32_t last = b->rows - 1;
  if (b->device.ops->alloc(&b->device, WIDTH, "row", &row, err)) return -1;
  b->device.ops->gather_rows(&b->device, m, &last, 1, row);
  b->device.ops->download(&b->device, host, row, WIDTH);
  b->device.ops->release(&b->device, row);
  for (int32_t j = 0; j < WIDTH; j++) {
    uint32_t bits = (uint32_t)element(i, (int64_t)last * WIDTH + j) << 16;
    b->wrong = b->wrong || memcmp(&host[j], &bits, sizeof bits) != 0;
  }
  return 0;
}

/* Seconds in which all matrices are loaded. */
static int load(bench *b, int threads, double *seconds, pdt_error *err) {
  const pdt_matrix_form form = {.in = WIDTH, .leaf_width = WIDTH};
  pdt_matrix *all;
  b->device.threads = threads;
  if (PDT_NEW(&all, b->n, "matrices", err)) return -1;
  int status = b->device.ops->sync(&b->device, err);
  double start = pdt_seconds();
  for (int32_t i = 0; i < b->n && !status; i++) {
    const pdt_tensor_part part = {tensor_of(b, i), 0, b->rows, 0};
    status = pdt_load_matrix(&b->device, &all[i], &part, 1, &form, err);
  }
  if (!status) status = b->device.ops->sync(&b->device, err);
  *seconds = pdt_seconds() - start;
  for (int32_t i = 0; i < b->n && !status; i++) status = check(b, &all[i], i, err);
  for (int32_t i = 0; i < b->n; i++) b->device.ops->matrix_free(&b->device, &all[i]);
  free(all);
  return status;
}

/* Bytes/s of copies from pinned memory, 0 when they fail. */
static double bus_rate(void) {
  const size_t bytes = 64 << 20;
  const int copies = 16;
  void *host = NULL, *device = NULL;
  double best = 0;
  bool ok =
      cudaMallocHost(&host, bytes) == cudaSuccess && cudaMalloc(&device, bytes) == cudaSuccess;
  if (ok) memset(host, 1, bytes);
  for (int repeat = 0; repeat < 3 && ok; repeat++) {
    double start = pdt_seconds();
    for (int i = 0; i < copies && ok; i++)
      ok = cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, NULL) == cudaSuccess;
    ok = ok && cudaStreamSynchronize(NULL) == cudaSuccess;
    double rate = copies * (double)bytes / (pdt_seconds() - start);
    if (ok && rate > best) best = rate;
  }
  cudaFree(device);
  cudaFreeHost(host);
  return best;
}

static int measure(bench *b, int threads, double bus, pdt_error *err) {
  double best = 0, bytes = 2.0 * WIDTH * b->rows * b->n;
  for (int i = 0; i < b->repeats; i++) {
    double seconds;
    if (load(b, threads, &seconds, err)) return -1;
    if (bytes / seconds > best) best = bytes / seconds;
  }
  double share = bus > 0 ? best / bus : 0;
  printf("load %7.1f MB by %2d threads: %7.2f GB/s, %5.2f of the bus's %7.2f GB/s; %s\n",
         bytes / 1e6, threads, best / 1e9, share, bus / 1e9, b->wrong ? "WRONG" : "right");
  if (b->out)
    fprintf(b->out,
            "{\"part\": \"load\", \"bytes\": %.0f, \"threads\": %d, \"GB/s\": %.3f, "
            "\"bus_GB/s\": %.3f, \"of_bus\": %.4f, \"correct\": %s}\n",
            bytes, threads, best / 1e9, bus / 1e9, share, b->wrong ? "false" : "true");
  return 0;
}

static int run(bench *b, pdt_error *err) {
  if (pdt_cuda_device_new(&b->device, 0, err) || make_file(b, err)) return -1;
  double bus = bus_rate();
  int all = omp_get_num_procs();
  return measure(b, 1, bus, err) || (all > 1 && measure(b, all, bus, err)) ? -1 : 0;
}

static bool parse(bench *b, int argc, char **argv) {
  static const struct option options[] = {{"bytes", required_argument, NULL, 'b'},
                                          {"folder", required_argument, NULL, 'f'},
                                          {"repeats", required_argument, NULL, 'n'},
                                          {"out", required_argument, NULL, 'o'},
                                          {0}};
  *b = (bench){.bytes = (pdt_bytes)2 << 30, .folder = "/tmp", .repeats = 2};
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (c == 'b') b->bytes = atoll(optarg);
    if (c == 'f') b->folder = optarg;
    if (c == 'n') b->repeats = atoi(optarg);
    if (c == 'o' && !(b->out = fopen(optarg, "a"))) return false;
    if (c == '?') return false;
  }
  const int64_t rows = b->bytes / (2 * WIDTH);
  b->rows = rows < MOST_ROWS ? (int32_t)rows : MOST_ROWS;
  b->n = b->rows > 0 && rows / b->rows < MOST_TENSORS ? (int32_t)(rows / b->rows) : 0;
  return optind == argc && b->n > 0 && b->repeats > 0;
}

int main(int argc, char **argv) {
  bench b;
  pdt_error err = {0};
  if (!parse(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_load [--bytes N] [--folder DIR] [--repeats N] [--out FILE]\n");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  int status = run(&b, &err);
  pdt_safetensors_close(b.file);
  if (b.device.ops) b.device.ops->close(&b.device);
  if (status) fprintf(stderr, "bench_load: %s\n", err.message);
  if (b.out) fclose(b.out);
  return status || b.wrong ? 1 : 0;
}
