/* The simple modules, forward and backward, on rows [rows, width], row-major and dense unless a
 * stride is named. A forward function writes its output; a backward function gets the output's
 * gradient and ADDS to the gradients of parameters and, where it says so, of inputs. Nothing is
 * recorded: who calls backward hands in what forward saw.
 *
 * All functions here are pure but for what they write, and use one thread (products: as many as
 * CBLAS was told). */
#ifndef PDT_TRAIN_NN_OPS_H
#define PDT_TRAIN_NN_OPS_H

#include "train/nn/real.h"

/* A parameter and where its gradient goes. w == NULL: there is no such parameter; g == NULL: it is
 * frozen, and its gradient is not computed. */
typedef struct pdt_nn_weight {
  const pdt_real *w;
  pdt_real *g;
} pdt_nn_weight;

/* A weight matrix [out, in] and a bias [out], which may be absent. */
typedef struct pdt_nn_affine {
  pdt_nn_weight w, b;
  int64_t in, out;
} pdt_nn_affine;

/* y[rows, out] (+)= x[rows, in] W^T + b. add: keep what y holds. */
void pdt_nn_linear(const pdt_nn_affine *map, const pdt_real *x, int64_t rows, bool add,
                   pdt_real *y);

/* From dy [rows, out]: W.g += dy^T x, b.g += sum of dy over rows, dx (+)= dy W unless dx is NULL.
 */
void pdt_nn_linear_back(const pdt_nn_affine *map, const pdt_real *x, int64_t rows,
                        const pdt_real *dy, bool add, pdt_real *dx);

/* y = x / sqrt(mean(x^2) + eps) * w, a row at a time; w.w NULL: Norm(x). y may be x. */
void pdt_nn_rms_norm(pdt_nn_weight w, double eps, int64_t width, const pdt_real *x, int64_t rows,
                     pdt_real *y);

/* x as it went in. dx += ..., dx NULL: not wanted. dx may not be dy. */
void pdt_nn_rms_norm_back(pdt_nn_weight w, double eps, int64_t width, const pdt_real *x,
                          int64_t rows, const pdt_real *dy, pdt_real *dx);

/* y = silu(gate) * up. */
void pdt_nn_swiglu(const pdt_real *gate, const pdt_real *up, int64_t n, pdt_real *y);

/* Turns dy into the gradients: dgate and dup are written; either may be dy. */
void pdt_nn_swiglu_back(const pdt_real *gate, const pdt_real *up, int64_t n, const pdt_real *dy,
                        pdt_real *dgate, pdt_real *dup);

/* y = gelu(x), the exact one. */
void pdt_nn_gelu(const pdt_real *x, int64_t n, pdt_real *y);

/* dx = dy * gelu'(x); dx may be dy. */
void pdt_nn_gelu_back(const pdt_real *x, int64_t n, const pdt_real *dy, pdt_real *dx);

/* y += a * x over n elements. */
void pdt_nn_axpy(pdt_real a, const pdt_real *x, int64_t n, pdt_real *y);

/* Sum of x[i] * y[i], in double. */
double pdt_nn_dot(const pdt_real *x, const pdt_real *y, int64_t n);

/* Softmax over each of `rows` rows of n <= stride elements, in place. */
void pdt_nn_softmax(pdt_real *x, int64_t rows, int64_t n, int64_t stride);

/* From probabilities p and dp, both [rows, n] with the stride: dp becomes the scores' gradient. */
void pdt_nn_softmax_back(const pdt_real *p, int64_t rows, int64_t n, int64_t stride, pdt_real *dp);

/* y[i] = x[index[i]], rows of `width`. */
void pdt_nn_gather(const pdt_real *x, const int32_t *index, int64_t n, int64_t width, pdt_real *y);

/* y[index[i]] += a * x[i]. */
void pdt_nn_scatter_add(pdt_real a, const pdt_real *x, const int32_t *index, int64_t n,
                        int64_t width, pdt_real *y);

#endif
