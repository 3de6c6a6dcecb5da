/* Logits as whole numbers in their order, so that their digits and the best of them can be found.
 */
#ifndef PDT_KERNELS_CUDA_KEYS_CUH
#define PDT_KERNELS_CUDA_KEYS_CUH

#include "kernels/cuda/instructions.cuh"

/* 0 and -0 are the same. */
__device__ inline unsigned key_of(float logit) {
  unsigned bits = __float_as_uint(logit + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline float logit_of(unsigned key) {
  return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

#endif
