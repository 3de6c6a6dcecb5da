/* Measures a GPU and the kernels that run on it. bench/gpu-check runs it in parts.
 *
 *   bench_gpu card|limits|products|cuts|chains|rows [--out FILE] [--quick] [--read-bandwidth
 * BYTES/S]
 *
 * card: what it is. limits: what it can do. products: matrix products of few rows against the read
 * bandwidth. cuts: the same in every cut, to choose from. chains: all products of a step. rows:
 * what stands between them. Results go to FILE, a JSON object a line, and as a table to standard
 * output. Exit status 1 when a result was wrong. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "gpu.h"

void gpu_check(cudaError_t code, const char *call, const char *file, int line) {
  if (code == cudaSuccess) return;
  fprintf(stderr, "bench_gpu: %s:%d: %s: %s (error %d)\n", file, line, call,
          cudaGetErrorString(code), (int)code);
  exit(3);
}

double gpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double gpu_time(gpu_bench *b, int inside, int repeats, void (*enqueue)(void *context, int i),
                void *context) {
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  CHECK(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < inside; i++) enqueue(context, i);
  CHECK(cudaStreamEndCapture(b->stream, &graph));
  CHECK(cudaGraphInstantiate(&ready, graph, 0));
  std::vector<float> times;
  for (int r = -1; r < repeats; r++) {
    float ms;
    CHECK(cudaEventRecord(begin, b->stream));
    CHECK(cudaGraphLaunch(ready, b->stream));
    CHECK(cudaEventRecord(end, b->stream));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (r >= 0) times.push_back(ms);
  }
  CHECK(cudaGraphExecDestroy(ready));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return 1e-3 * times[times.size() / 2] / inside;
}

static __host__ __device__ uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static __host__ __device__ float number(uint64_t seed, uint64_t place) {
  return (float)(mix(place * 0x9e3779b97f4a7c15u + seed) >> 40) / 8388608.0f - 1;
}

double gpu_number(uint64_t seed, uint64_t place) {
  return (double)number(seed, place);
}

static __global__ void fill(float *x, int64_t n, uint64_t seed, float scale) {
  int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    x[i] = scale * number(seed, (uint64_t)i);
}

void gpu_fill(float *device, int64_t n, uint64_t seed, float scale, cudaStream_t stream) {
  fill<<<1024, 256, 0, stream>>>(device, n, seed, scale);
  CHECK(cudaGetLastError());
}

static int attribute(cudaDeviceAttr what) {
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, what, 0));
  return value;
}

static void describe_card(gpu_bench *b) {
  cudaDeviceProp p;
  int driver, runtime;
  CHECK(cudaGetDeviceProperties(&p, 0));
  CHECK(cudaDriverGetVersion(&driver));
  CHECK(cudaRuntimeGetVersion(&runtime));
  int clock = attribute(cudaDevAttrClockRate), memory_clock = attribute(cudaDevAttrMemoryClockRate);
  fprintf(b->out,
          "{\"part\": \"card\", \"name\": \"%s\", \"compute\": \"%d.%d\", \"processors\": %d, "
          "\"memory_bytes\": %zu, \"l2_bytes\": %d, \"clock_khz\": %d, \"memory_clock_khz\": %d, "
          "\"memory_bus_bits\": %d, \"shared_bytes_per_processor\": %zu, \"driver\": %d, "
          "\"runtime\": %d}\n",
          p.name, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem, p.l2CacheSize, clock,
          memory_clock, p.memoryBusWidth, p.sharedMemPerMultiprocessor, driver, runtime);
  printf("# %s, sm_%d%d, %d processors, %.1f GiB, L2 %d MiB, %.0f MHz, memory %.0f MHz x %d bits "
         "(%.0f GB/s by these), driver %d, runtime %d\n",
         p.name, p.major, p.minor, p.multiProcessorCount, (double)p.totalGlobalMem / (1 << 30),
         p.l2CacheSize >> 20, clock / 1e3, memory_clock / 1e3, p.memoryBusWidth,
         2.0 * memory_clock * 1e3 * p.memoryBusWidth / 8 / 1e9, driver, runtime);
}

int main(int argc, char **argv) {
  gpu_bench b = {};
  const char *part = argc > 1 ? argv[1] : "", *out = NULL;
  for (int i = 2; i < argc; i++) {
    if (!strcmp(argv[i], "--out") && i + 1 < argc) out = argv[++i];
    if (!strcmp(argv[i], "--read-bandwidth") && i + 1 < argc) b.read_bandwidth = atof(argv[++i]);
    if (!strcmp(argv[i], "--quick")) b.quick = true;
  }
  b.out = out ? fopen(out, "a") : tmpfile();
  if (!b.out) {
    perror(out);
    return 2;
  }
  setvbuf(b.out, NULL, _IOLBF, 0);
  setvbuf(stdout, NULL, _IOLBF, 0);
  CHECK(cudaSetDevice(0));
  CHECK(cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking));
  b.queue.stream = b.stream;
  b.queue.ahead = attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  if (!strcmp(part, "card"))
    describe_card(&b);
  else if (!strcmp(part, "limits"))
    measure_limits(&b);
  else if (!strcmp(part, "products"))
    measure_products(&b, false);
  else if (!strcmp(part, "chains"))
    measure_chains(&b);
  else if (!strcmp(part, "rows"))
    measure_rows(&b);
  else if (!strcmp(part, "cuts"))
    measure_products(&b, true);
  else {
    fprintf(stderr, "usage: bench_gpu card|limits|products|cuts|chains|rows [--out FILE] [--quick] "
                    "[--read-bandwidth BYTES/S]\n");
    return 2;
  }
  CHECK(cudaDeviceSynchronize());
  if (b.wrong) fprintf(stderr, "bench_gpu: %d results are wrong\n", b.wrong);
  return b.wrong ? 1 : 0;
}
