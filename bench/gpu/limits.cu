/* What the card can do, each measured in the best of several ways. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "gpu.h"
#include "kernels/cuda/instructions.cuh"

namespace {

/* Reads n blocks of 16 bytes, DEPTH loads of a thread in flight at a time. The sum goes out only if
 * it is a number that it will not be. */
template <int DEPTH>
__global__ void __launch_bounds__(512) read_all(const uint4 *x, int64_t n, unsigned *out) {
  int64_t step = (int64_t)gridDim.x * blockDim.x * DEPTH;
  unsigned sum = 0;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x * DEPTH + threadIdx.x; i < n; i += step) {
    uint4 v[DEPTH];
#pragma unroll
    for (int j = 0; j < DEPTH; j++) {
      int64_t at = i + (int64_t)j * blockDim.x;
      v[j] = at < n ? load_once(x + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < DEPTH; j++) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345678) *out = sum;
}

/* The same through the bulk copy engine: each block has STAGES pieces of `piece` bytes in flight.
 */
__device__ void bring(void *to, const void *from, int bytes, uint64_t *barrier) {
  copies_announce(barrier, bytes);
  copy_block(to, from, bytes, barrier);
  copies_end(barrier);
}

template <int STAGES>
__global__ void __launch_bounds__(128)
    read_bulk(const unsigned char *x, int64_t pieces, int piece, unsigned *out) {
  DYNAMIC_SHARED(unsigned char, ring);
  uint64_t *barriers = reinterpret_cast<uint64_t *>(ring + (size_t)STAGES * piece);
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) barrier_init(&barriers[s], copy_arrivals());
    barrier_fence();
  }
  __syncthreads();
  for (int s = 0; s < STAGES && threadIdx.x < 32; s++) {
    int64_t p = blockIdx.x + (int64_t)s * gridDim.x;
    if (p < pieces) bring(ring + (size_t)s * piece, x + p * piece, piece, &barriers[s]);
  }
  unsigned sum = 0;
  int64_t k = 0;
  for (int64_t p = blockIdx.x; p < pieces; p += gridDim.x, k++) {
    int s = (int)(k % STAGES);
    barrier_wait(&barriers[s], (unsigned)(k / STAGES % 2));
    const uint4 *at = reinterpret_cast<const uint4 *>(ring + (size_t)s * piece);
    for (int i = threadIdx.x; i < piece / 16; i += blockDim.x)
      sum ^= at[i].x ^ at[i].y ^ at[i].z ^ at[i].w;
    __syncthreads();
    int64_t next = p + (int64_t)STAGES * gridDim.x;
    if (threadIdx.x < 32 && next < pieces)
      bring(ring + (size_t)s * piece, x + next * piece, piece, &barriers[s]);
  }
  if (sum == 0x12345678) *out = sum;
}

template <int DEPTH>
__global__ void __launch_bounds__(512) copy_all(const uint4 *x, uint4 *y, int64_t n) {
  int64_t step = (int64_t)gridDim.x * blockDim.x * DEPTH;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x * DEPTH + threadIdx.x; i < n; i += step) {
    uint4 v[DEPTH];
#pragma unroll
    for (int j = 0; j < DEPTH; j++)
      if (i + (int64_t)j * blockDim.x < n) v[j] = load_once(x + i + (int64_t)j * blockDim.x);
#pragma unroll
    for (int j = 0; j < DEPTH; j++)
      if (i + (int64_t)j * blockDim.x < n) y[i + (int64_t)j * blockDim.x] = v[j];
  }
}

__global__ void nothing() {
  grid_release();
  grid_wait();
}

void report(gpu_bench *b, const char *name, const char *variant, double value, const char *unit) {
  fprintf(b->out,
          "{\"part\": \"limits\", \"name\": \"%s\", \"variant\": \"%s\", \"value\": %.6g, "
          "\"unit\": \"%s\"}\n",
          name, variant, value, unit);
  printf("%-24s %-28s %12.4g %s\n", name, variant, value, unit);
}

struct memory {
  unsigned char *a, *b; /* device, `bytes` each */
  int64_t bytes;
  unsigned *sink;
  int processors;
};

template <int DEPTH> void try_read(gpu_bench *b, const memory *m, int blocks, double *best) {
  double s = gpu_time(b, 1, 3, [&](int) {
    read_all<DEPTH><<<m->processors * blocks, 512, 0, b->stream>>>((const uint4 *)m->a,
                                                                   m->bytes / 16, m->sink);
    CHECK(cudaGetLastError());
  });
  char variant[64];
  snprintf(variant, sizeof variant, "%d x 16 B, %d blocks", DEPTH, blocks);
  report(b, "read", variant, m->bytes / s / 1e9, "GB/s");
  if (m->bytes / s > *best) *best = m->bytes / s;
}

template <int STAGES>
void try_bulk(gpu_bench *b, const memory *m, int blocks, int piece, double *best) {
  size_t shared = (size_t)STAGES * piece + 128;
  CHECK(cudaFuncSetAttribute(read_bulk<STAGES>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared));
  double s = gpu_time(b, 1, 3, [&](int) {
    read_bulk<STAGES><<<m->processors * blocks, 128, shared, b->stream>>>(m->a, m->bytes / piece,
                                                                          piece, m->sink);
    CHECK(cudaGetLastError());
  });
  char variant[64];
  snprintf(variant, sizeof variant, "bulk %d x %d KiB, %d blocks", STAGES, piece >> 10, blocks);
  report(b, "read", variant, m->bytes / s / 1e9, "GB/s");
  if (m->bytes / s > *best) *best = m->bytes / s;
}

void reads(gpu_bench *b, const memory *m) {
  double best = 0;
  try_read<4>(b, m, 4, &best);
  try_read<8>(b, m, 2, &best);
  try_read<8>(b, m, 4, &best);
  try_read<16>(b, m, 1, &best);
  try_read<16>(b, m, 2, &best);
  try_read<8>(b, m, 64, &best);
  try_bulk<4>(b, m, 1, 16 << 10, &best);
  try_bulk<8>(b, m, 1, 16 << 10, &best);
  try_bulk<8>(b, m, 1, 8 << 10, &best);
  try_bulk<4>(b, m, 2, 16 << 10, &best);
  try_bulk<8>(b, m, 2, 4 << 10, &best);
  report(b, "read", "best", best / 1e9, "GB/s");
  /* One product is no larger than this: what its bytes take to read, launch included. */
  for (int mib = 8; mib <= 256; mib *= 2) {
    int64_t bytes = (int64_t)mib << 20, copies = m->bytes / bytes;
    double s = gpu_time(b, 16, 3, [&](int i) {
      read_all<8><<<m->processors * 2, 512, 0, b->stream>>>(
          (const uint4 *)(m->a + i % copies * bytes), bytes / 16, m->sink);
      CHECK(cudaGetLastError());
    });
    char variant[64];
    snprintf(variant, sizeof variant, "%d MiB a launch, in a graph", mib);
    report(b, "read in pieces", variant, bytes / s / 1e9, "GB/s");
  }
}

void copies(gpu_bench *b, const memory *m) {
  double s = gpu_time(b, 1, 3, [&](int) {
    copy_all<4><<<m->processors * 4, 512, 0, b->stream>>>((const uint4 *)m->a, (uint4 *)m->b,
                                                          m->bytes / 16);
    CHECK(cudaGetLastError());
  });
  report(b, "copy", "kernel, read + written", 2 * m->bytes / s / 1e9, "GB/s");
  s = gpu_time(b, 1, 3, [&](int) {
    CHECK(cudaMemcpyAsync(m->b, m->a, m->bytes, cudaMemcpyDeviceToDevice, b->stream));
  });
  report(b, "copy", "cudaMemcpy, read + written", 2 * m->bytes / s / 1e9, "GB/s");
}

void launches(gpu_bench *b) {
  auto plain = [&](int) {
    nothing<<<1, 32, 0, b->stream>>>();
    CHECK(cudaGetLastError());
  };
  auto wide = [&](int) {
    nothing<<<264, 256, 0, b->stream>>>();
    CHECK(cudaGetLastError());
  };
  auto ahead = [&](int) { CHECK(launch_ahead(nothing, dim3(264), dim3(256), 0, &b->queue)); };
  report(b, "launch in a graph", "1 block", 1e6 * gpu_time(b, 256, 5, plain), "us");
  report(b, "launch in a graph", "264 blocks", 1e6 * gpu_time(b, 256, 5, wide), "us");
  report(b, "launch in a graph", "264 blocks, ahead", 1e6 * gpu_time(b, 256, 5, ahead), "us");
  CHECK(cudaStreamSynchronize(b->stream));
  double start = gpu_now();
  for (int i = 0; i < 2000; i++) plain(i);
  double called = gpu_now() - start;
  CHECK(cudaStreamSynchronize(b->stream));
  report(b, "launch from a stream", "host's call", 1e6 * called / 2000, "us");
  report(b, "launch from a stream", "until done", 1e6 * (gpu_now() - start) / 2000, "us");
  cudaGraph_t graph;
  cudaGraphExec_t ready;
  CHECK(cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal));
  plain(0);
  CHECK(cudaStreamEndCapture(b->stream, &graph));
  CHECK(cudaGraphInstantiate(&ready, graph, 0));
  for (int round = 0; round < 2; round++) {
    start = gpu_now();
    for (int i = 0; i < 500; i++) {
      CHECK(cudaGraphLaunch(ready, b->stream));
      CHECK(cudaStreamSynchronize(b->stream));
    }
  }
  report(b, "graph of one kernel", "launched and waited for", 1e6 * (gpu_now() - start) / 500,
         "us");
  CHECK(cudaGraphExecDestroy(ready));
  CHECK(cudaGraphDestroy(graph));
}

void transfers(gpu_bench *b, const memory *m) {
  size_t bytes = 256 << 20;
  void *host;
  CHECK(cudaMallocHost(&host, bytes));
  memset(host, 1, bytes);
  for (int back = 0; back < 2; back++) {
    double start = 0;
    for (int r = 0; r < 5; r++) {
      if (r == 1) start = gpu_now();
      CHECK(cudaMemcpyAsync(back ? host : m->b, back ? m->b : host, bytes,
                            back ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, b->stream));
      CHECK(cudaStreamSynchronize(b->stream));
    }
    report(b, back ? "device to host" : "host to device", "pinned, 256 MiB",
           4.0 * bytes / (gpu_now() - start) / 1e9, "GB/s");
  }
  double start = gpu_now();
  for (int i = 0; i < 500; i++) {
    CHECK(cudaMemcpyAsync(host, m->b, 64, cudaMemcpyDeviceToHost, b->stream));
    CHECK(cudaStreamSynchronize(b->stream));
  }
  report(b, "device to host", "64 bytes, waited for", 1e6 * (gpu_now() - start) / 500, "us");
  CHECK(cudaFreeHost(host));
}

/* The library is opened by name: a machine without it still measures the rest. */
struct cublas {
  void *library;
  template <class F> F *find(F *, const char *name) {
    F *f = (F *)dlsym(library, name);
    if (!f) fprintf(stderr, "bench_gpu: cublasLt without %s\n", name);
    return f;
  }
};
#define FIND(c, function) (c).find(function, #function)

__global__ void fill_bf16(__nv_bfloat16 *x, int64_t n, unsigned seed) {
  int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    unsigned v = ((unsigned)i ^ seed) * 2654435761u;
    v ^= v >> 15;
    v *= 2246822519u;
    x[i] = __float2bfloat16((float)(v >> 8) / 8388608.0f - 1);
  }
}

void matrix_rate(gpu_bench *b, int n) {
  cublas c = {dlopen("libcublasLt.so.13", RTLD_NOW)};
  if (!c.library) c.library = dlopen("libcublasLt.so", RTLD_NOW);
  if (!c.library) {
    printf("# no libcublasLt: %s\n", dlerror());
    return;
  }
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t layout;
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t found;
  int n_found = 0;
  __nv_bfloat16 *x, *w, *y;
  void *room;
  size_t room_bytes = 64 << 20;
  cublasOperation_t transposed = CUBLAS_OP_T;
  float one = 1, zero = 0;
  CHECK(cudaMalloc(&x, 2 * (size_t)n * n));
  CHECK(cudaMalloc(&w, 2 * (size_t)n * n));
  CHECK(cudaMalloc(&y, 2 * (size_t)n * n));
  CHECK(cudaMalloc(&room, room_bytes));
  fill_bf16<<<1024, 256, 0, b->stream>>>(x, (int64_t)n * n, 1);
  fill_bf16<<<1024, 256, 0, b->stream>>>(w, (int64_t)n * n, 2);
  FIND(c, cublasLtCreate)(&handle);
  FIND(c, cublasLtMatmulDescCreate)(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  FIND(c, cublasLtMatmulDescSetAttribute)
  (product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  FIND(c, cublasLtMatrixLayoutCreate)(&layout, CUDA_R_16BF, n, n, n);
  FIND(c, cublasLtMatmulPreferenceCreate)(&preference);
  FIND(c, cublasLtMatmulPreferenceSetAttribute)
  (preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room_bytes, sizeof room_bytes);
  cublasStatus_t status = FIND(c, cublasLtMatmulAlgoGetHeuristic)(
      handle, product, layout, layout, layout, layout, preference, 1, &found, &n_found);
  if (status == CUBLAS_STATUS_SUCCESS && n_found > 0) {
    auto multiply = FIND(c, cublasLtMatmul);
    double s = gpu_time(b, 10, 3, [&](int) {
      multiply(handle, product, &one, w, layout, x, layout, &zero, y, layout, y, layout,
               &found.algo, room, room_bytes, b->stream);
    });
    char variant[64];
    snprintf(variant, sizeof variant, "cublasLt, %d cubed, random", n);
    report(b, "bf16 products", variant, 2.0 * n * n * n / s / 1e12, "TFLOP/s");
  } else {
    printf("# cublasLt: no algorithm, status %d\n", (int)status);
  }
  void *all[] = {x, w, y, room};
  for (void *p : all) CHECK(cudaFree(p));
}

} // namespace

void measure_limits(gpu_bench *b) {
  cudaDeviceProp p;
  CHECK(cudaGetDeviceProperties(&p, 0));
  memory m = {};
  m.processors = p.multiProcessorCount;
  m.bytes = (int64_t)(b->quick ? 2 : 4) << 30;
  CHECK(cudaMalloc(&m.a, m.bytes));
  CHECK(cudaMalloc(&m.b, m.bytes));
  CHECK(cudaMalloc(&m.sink, 4));
  gpu_fill((float *)m.a, m.bytes / 4, 1, 1, b->stream);
  printf("# %-22s %-28s %12s\n", "limit", "how", "value");
  reads(b, &m);
  copies(b, &m);
  launches(b);
  transfers(b, &m);
  CHECK(cudaFree(m.a));
  CHECK(cudaFree(m.b));
  CHECK(cudaFree(m.sink));
  matrix_rate(b, 8192);
}
