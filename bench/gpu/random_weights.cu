#include "random_weights.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/instructions.cuh"

static __device__ float number(uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return (float)((x ^ (x >> 31)) >> 40) / 8388608.0f - 1;
}

static __global__ void fill(const pdt_cuda_weights w, float scale, uint64_t seed) {
  int64_t n = (int64_t)w.out * w.in, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    int64_t at = pdt_cuda_place(w.dtype, w.out, w.in, (int32_t)(i / w.in), (int32_t)(i % w.in));
    float v = scale * number((uint64_t)i + seed);
    if (w.dtype == PDT_BF16)
      ((__nv_bfloat16 *)w.data)[at] = __float2bfloat16(v);
    else if (w.dtype == PDT_F16)
      ((__half *)w.data)[at] = __float2half(v);
    else
      ((float *)w.data)[at] = v;
  }
}

cudaError_t gpu_random_weights(const pdt_cuda_weights *w, float deviation, uint64_t seed) {
  int64_t blocks = ((int64_t)w->out * w->in + 255) / 256;
  pdt_cuda_queue queue = {};
  cudaError_t code = launch_ahead(fill, dim3((unsigned)(blocks < 2048 ? blocks : 2048)), dim3(256),
                                  0, &queue, *w, deviation * 1.7320508f, seed << 40);
  return code == cudaSuccess ? cudaStreamSynchronize(0) : code;
}
