/* What the parts of bench_gpu share. Every part measures something on the first GPU and writes one
 * JSON object a line. */
#ifndef PDT_BENCH_GPU_H
#define PDT_BENCH_GPU_H

#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/cuda/queue.h"

/* Ends the program with the call's text and the runtime's words when a call failed. */
#define CHECK(call) gpu_check((call), #call, __FILE__, __LINE__)
void gpu_check(cudaError_t code, const char *call, const char *file, int line);

typedef struct gpu_bench {
  cudaStream_t stream;
  pdt_cuda_queue queue; /* of the stream */
  FILE *out;            /* JSON lines */
  bool quick;
  double read_bandwidth; /* bytes/s, as measured by this run; 0 before */
  int wrong;             /* results that were not right */
} gpu_bench;

/* Median seconds of one of `inside` equal pieces of work that `enqueue(context, i)` puts on the
 * stream, recorded as a graph and replayed `repeats` times after a warm-up. */
double gpu_time(gpu_bench *b, int inside, int repeats, void (*enqueue)(void *context, int i),
                void *context);

/* The same for any callable. */
template <class Work> double gpu_time(gpu_bench *b, int inside, int repeats, Work work) {
  return gpu_time(
      b, inside, repeats, [](void *context, int i) { (*static_cast<Work *>(context))(i); }, &work);
}

double gpu_now(void);

/* Fills n elements of a device array with numbers that a formula gives: gpu_number of their place,
 * times scale, rounded to bf16 when asked. */
double gpu_number(uint64_t seed, uint64_t place); /* in [-1, 1) */
void gpu_fill(float *device, int64_t n, uint64_t seed, float scale, cudaStream_t stream);

void measure_limits(gpu_bench *b);
void measure_products(gpu_bench *b, bool cuts);
void measure_chains(gpu_bench *b);
void measure_rows(gpu_bench *b);

#endif
