/* Rows of x in the order in which products read them (pdt_cuda_prepared), as kernels write them. */
#ifndef PDT_KERNELS_CUDA_PREPARED_CUH
#define PDT_KERNELS_CUDA_PREPARED_CUH

#include "kernels/cuda/pairs.cuh"
#include "kernels/cuda/products.h"

/* Four neighbouring numbers as they stand there. */
__device__ inline uint4 prepared_quad(const pdt_cuda_prepared &p, float4 v) {
  if (p.quads == 4) return split_four(v.x, v.y, v.z, v.w);
  return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z),
                    __float_as_uint(v.w));
}

/* Where columns 4 * quad .. 4 * quad + 3 of a row stand. */
__device__ inline uint4 *prepared_place(const pdt_cuda_prepared &p, int row, int quad) {
  int step = quad / p.quads;
  return static_cast<uint4 *>(p.at) + ((int64_t)step * p.eights * 8 + row) * p.quads +
         (quad - step * p.quads);
}

__device__ inline void put_quad(const pdt_cuda_prepared &p, int row, int quad, float4 v) {
  *prepared_place(p, row, quad) = prepared_quad(p, v);
}

/* Columns `column`, which is even, and column + 1. */
__device__ inline void put_pair(const pdt_cuda_prepared &p, int row, int column, float a, float b) {
  unsigned *to = reinterpret_cast<unsigned *>(prepared_place(p, row, column / 4));
  int second = column % 4 / 2;
  if (p.quads == 4) {
    split_pair(a, b, &to[second], &to[second + 2]);
  } else {
    to[2 * second] = __float_as_uint(a);
    to[2 * second + 1] = __float_as_uint(b);
  }
}

/* Quads of a row of so many columns: whole steps of them. */
__device__ inline int prepared_quads(const pdt_cuda_prepared &p, int width) {
  int step = 4 * p.quads;
  return (width + step - 1) / step * p.quads;
}

/* Columns 4 * quad .. of a row, 0 behind its end. WHOLE: the row is a multiple of 16 bytes at a
 * multiple of 16. */
template <bool WHOLE> __device__ inline float4 load_quad(const float *row, int quad, int width) {
  if (WHOLE) return reinterpret_cast<const float4 *>(row)[quad];
  float v[4] = {};
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (4 * quad + k < width) v[k] = row[4 * quad + k];
  return make_float4(v[0], v[1], v[2], v[3]);
}

template <bool WHOLE> __device__ inline void store_quad(float *row, int quad, int width, float4 v) {
  if (WHOLE) {
    reinterpret_cast<float4 *>(row)[quad] = v;
    return;
  }
  const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (4 * quad + k < width) row[4 * quad + k] = values[k];
}

#endif
