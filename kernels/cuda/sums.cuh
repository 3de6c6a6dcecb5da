/* Sums and maxima over the threads of a warp and of a block, in trees that only their number
 * shapes.
 */
#ifndef PDT_KERNELS_CUDA_SUMS_CUH
#define PDT_KERNELS_CUDA_SUMS_CUH

#include "kernels/cuda/instructions.cuh"

/* All 32 lanes get the sum. */
template <class T> __device__ inline T warp_sum(T v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}

__device__ inline float warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
  return v;
}

/* All threads of a block of whole warps get the largest. room: shared [32]. */
__device__ inline float block_max(float v, float *room) {
  v = warp_max(v);
  __syncthreads(); /* the room may hold an earlier one */
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
  __syncthreads();
  float largest = room[0];
  for (unsigned w = 1; w < blockDim.x / 32; w++) largest = fmaxf(largest, room[w]);
  return largest;
}

/* All threads of a block of whole warps get the sum. room: shared [32]. */
template <class T> __device__ inline T block_sum(T v, T *room) {
  v = warp_sum(v);
  __syncthreads(); /* the room may hold an earlier sum */
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
  __syncthreads();
  T sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; w++) sum += room[w];
  return sum;
}

/* What a sum of 2^(exponent - own), own its largest exponent, weighs beside the `largest` of more
 * of them. -inf is the largest of none. */
__device__ inline float weight_beside(float own, float largest) {
  return own == largest ? 1 : exp2f(own - largest);
}

#endif
