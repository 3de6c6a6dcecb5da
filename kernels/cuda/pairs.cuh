/* Floats as sums of two bf16 numbers, which is how tensor cores multiply them: nearest, and nearest
 * to what is left, so that 2^-17 of a number at most is lost. */
#ifndef PDT_KERNELS_CUDA_PAIRS_CUH
#define PDT_KERNELS_CUDA_PAIRS_CUH

#include <cuda_bf16.h>

#include "kernels/cuda/instructions.cuh"

/* Two floats at a time: both high parts, both low parts. */
__device__ inline void split_pair(float a, float b, unsigned *high, unsigned *low) {
  __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
  __nv_bfloat162 l = __floats2bfloat162_rn(a - __low2float(h), b - __high2float(h));
  *high = *reinterpret_cast<unsigned *>(&h);
  *low = *reinterpret_cast<unsigned *>(&l);
}

/* Four floats: two words of high parts, two of low ones. */
__device__ inline uint4 split_four(float a, float b, float c, float d) {
  uint4 v;
  split_pair(a, b, &v.x, &v.z);
  split_pair(c, d, &v.y, &v.w);
  return v;
}

#endif
