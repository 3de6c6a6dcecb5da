/* Weights made on the GPU: a model of any shape without a file. */
#ifndef PDT_BENCH_GPU_RANDOM_WEIGHTS_H
#define PDT_BENCH_GPU_RANDOM_WEIGHTS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/cuda/products.h"

/* Fills weights with numbers of that standard deviation, evenly spread; blocking. */
cudaError_t gpu_random_weights(const pdt_cuda_weights *w, float deviation, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
