/* The number the trainer computes with: float in the program; double where PDT_TRAIN_DOUBLE is
 * defined, as the tests do to compare gradients with finite differences. Everything in train/nn/ is
 * written once and compiled for either; the two never meet in one program. */
#ifndef PDT_TRAIN_NN_REAL_H
#define PDT_TRAIN_NN_REAL_H

#ifdef PDT_TRAIN_DOUBLE
#include <math.h>
#endif

#include "base/types.h"

#ifdef PDT_TRAIN_DOUBLE
typedef double pdt_real;
#else
typedef float pdt_real;
#endif

/* Before a function of plain loops: compiled for several instruction sets, the machine's best
 * chosen when the program is loaded. Left out under sanitizers, which run before that choice can be
 * made.
 */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__)
#define PDT_NN_VECTOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PDT_NN_VECTOR
#endif

/* Which sides of a product are transposed as they stand in memory. */
typedef enum pdt_nn_product {
  PDT_NN_NT, /* C[m,n] = A[m,k] B[n,k]^T: rows through a weight matrix [out, in] */
  PDT_NN_NN, /* C[m,n] = A[m,k] B[k,n]: gradients of outputs back to inputs */
  PDT_NN_TN, /* C[m,n] = A[k,m]^T B[k,n]: gradients of a weight matrix */
} pdt_nn_product;

/* C = alpha * product + beta * C by CBLAS; strides in elements. Sizes may be 0. With beta 0, C need
 * not be initialized. The same sizes, strides and threads give the same bits. */
void pdt_nn_gemm(pdt_nn_product product, int64_t m, int64_t n, int64_t k, pdt_real alpha,
                 const pdt_real *a, int64_t a_stride, const pdt_real *b, int64_t b_stride,
                 pdt_real beta, pdt_real *c, int64_t c_stride);

/* Threads that CBLAS uses from now on, in the whole process. The products of a step are small:
 * ranks use a machine better than threads do. */
void pdt_nn_set_threads(int threads);

/* e^x to the last bits of the type, without branches, so that loops over it become vectors. In
 * float, x below -87 gives about 1e-38 and x above 88 about 1e38: callers subtract the largest
 * first.
 *
 * 2^n e^r with n the nearest integer to x / ln 2 and |r| <= ln 2 / 2; ln 2 stands in two parts, so
 * that n times the first is exact. The polynomial is e^r's Taylor series up to r^7/7!, whose
 * remainder is below 6e-9. */
static inline pdt_real pdt_nn_exp(pdt_real x) {
#ifdef PDT_TRAIN_DOUBLE
  return exp(x);
#else
  const float magic = 12582912; /* 1.5 * 2^23: what is added to it is rounded to an integer */
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float shifted = x * 1.44269504f + magic, whole = shifted - magic;
  float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1;
  p = p * r + 1;
  union {
    uint32_t bits;
    float value;
  } power = {.bits = (uint32_t)((int32_t)whole + 127) << 23};
  return p * power.value;
#endif
}

/* x[i] = e^(x[i] - shift); returns the sum, in double. */
double pdt_nn_exp_row(pdt_real *x, int64_t n, pdt_real shift);

/* 1 / (1 + e^-x). */
static inline pdt_real pdt_nn_sigmoid(pdt_real x) {
  return 1 / (1 + pdt_nn_exp(-x));
}

#endif
