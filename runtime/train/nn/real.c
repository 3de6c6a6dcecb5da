#include "train/nn/real.h"

#include <cblas.h>

#ifdef PDT_TRAIN_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

void pdt_nn_gemm(pdt_nn_product product, int64_t m, int64_t n, int64_t k, pdt_real alpha,
                 const pdt_real *a, int64_t a_stride, const pdt_real *b, int64_t b_stride,
                 pdt_real beta, pdt_real *c, int64_t c_stride) {
  if (m == 0 || n == 0) return;
  if (k == 0) { /* not every BLAS scales C then */
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < n; j++)
        c[i * c_stride + j] = beta == 0 ? 0 : beta * c[i * c_stride + j];
    return;
  }
  GEMM(CblasRowMajor, product == PDT_NN_TN ? CblasTrans : CblasNoTrans,
       product == PDT_NN_NT ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha,
       a, (blasint)a_stride, b, (blasint)b_stride, beta, c, (blasint)c_stride);
}

void pdt_nn_set_threads(int threads) {
  openblas_set_num_threads(threads);
}

PDT_NN_VECTOR
double pdt_nn_exp_row(pdt_real *x, int64_t n, pdt_real shift) {
  for (int64_t i = 0; i < n; i++) x[i] = pdt_nn_exp(x[i] - shift);
  double sums[4] = {0}; /* side by side, in an order the compiler need not be told to keep */
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int64_t j = 0; j < 4; j++) sums[j] += (double)x[i + j];
  for (; i < n; i++) sums[0] += (double)x[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}
