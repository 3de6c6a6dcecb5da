#include "train/nn/ops.h"

#include <math.h>
#include <string.h>

#ifdef PDT_TRAIN_DOUBLE
#define ERF erf

#else
#define ERF erff

#endif

void pdt_nn_linear(const pdt_nn_affine *map, const pdt_real *x, int64_t rows, bool add,
                   pdt_real *y) {
  int64_t in = map->in, out = map->out;
  pdt_nn_gemm(PDT_NN_NT, rows, out, in, 1, x, in, map->w.w, in, add ? 1 : 0, y, out);
  if (!map->b.w) return;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < out; i++) y[r * out + i] += map->b.w[i];
}

void pdt_nn_linear_back(const pdt_nn_affine *map, const pdt_real *x, int64_t rows,
                        const pdt_real *dy, bool add, pdt_real *dx) {
  int64_t in = map->in, out = map->out;
  if (map->w.g) pdt_nn_gemm(PDT_NN_TN, out, in, rows, 1, dy, out, x, in, 1, map->w.g, in);
  if (map->b.g)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < out; i++) map->b.g[i] += dy[r * out + i];
  if (dx) pdt_nn_gemm(PDT_NN_NN, rows, in, out, 1, dy, out, map->w.w, in, add ? 1 : 0, dx, in);
}

PDT_NN_VECTOR
double pdt_nn_dot(const pdt_real *x, const pdt_real *y, int64_t n) {
  double sums[4] = {0}; /* a fixed order that vectors keep */
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int64_t j = 0; j < 4; j++) sums[j] += (double)x[i + j] * (double)y[i + j];
  for (; i < n; i++) sums[0] += (double)x[i] * (double)y[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static pdt_real inverse_rms(const pdt_real *x, int64_t width, double eps) {
  return (pdt_real)(1 / sqrt(pdt_nn_dot(x, x, width) / (double)width + eps));
}

PDT_NN_VECTOR
void pdt_nn_rms_norm(pdt_nn_weight w, double eps, int64_t width, const pdt_real *x, int64_t rows,
                     pdt_real *y) {
  for (int64_t r = 0; r < rows; r++, x += width, y += width) {
    pdt_real inverse = inverse_rms(x, width, eps);
    if (w.w)
      for (int64_t i = 0; i < width; i++) y[i] = x[i] * inverse * w.w[i];
    else
      for (int64_t i = 0; i < width; i++) y[i] = x[i] * inverse;
  }
}

/* With s the inverse root and z = w * dy: dx = s z - s^3 x (x . z) / width. */
PDT_NN_VECTOR
void pdt_nn_rms_norm_back(pdt_nn_weight w, double eps, int64_t width, const pdt_real *x,
                          int64_t rows, const pdt_real *dy, pdt_real *dx) {
  for (int64_t r = 0; r < rows; r++, x += width, dy += width) {
    pdt_real s = inverse_rms(x, width, eps);
    if (w.g)
      for (int64_t i = 0; i < width; i++) w.g[i] += dy[i] * x[i] * s;
    if (!dx) continue;
    double dot = 0;
    if (w.w)
      for (int64_t i = 0; i < width; i++) dot += (double)(x[i] * w.w[i] * dy[i]);
    else
      dot = pdt_nn_dot(x, dy, width);
    pdt_real pull = (pdt_real)(dot / (double)width) * s * s * s;
    for (int64_t i = 0; i < width; i++)
      dx[i] += s * dy[i] * (w.w ? w.w[i] : (pdt_real)1) - pull * x[i];
    dx += width;
  }
}

PDT_NN_VECTOR
void pdt_nn_swiglu(const pdt_real *gate, const pdt_real *up, int64_t n, pdt_real *y) {
  for (int64_t i = 0; i < n; i++) y[i] = gate[i] * pdt_nn_sigmoid(gate[i]) * up[i];
}

PDT_NN_VECTOR
void pdt_nn_swiglu_back(const pdt_real *gate, const pdt_real *up, int64_t n, const pdt_real *dy,
                        pdt_real *dgate, pdt_real *dup) {
  for (int64_t i = 0; i < n; i++) {
    pdt_real g = gate[i], s = pdt_nn_sigmoid(g), d = dy[i];
    pdt_real to_gate = d * up[i] * s * (1 + g * (1 - s));
    dup[i] = d * g * s;
    dgate[i] = to_gate;
  }
}

void pdt_nn_gelu(const pdt_real *x, int64_t n, pdt_real *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] / 2 * (1 + ERF(x[i] * (pdt_real)M_SQRT1_2));
}

void pdt_nn_gelu_back(const pdt_real *x, int64_t n, const pdt_real *dy, pdt_real *dx) {
  const pdt_real density = (pdt_real)(M_2_SQRTPI * M_SQRT1_2 / 2); /* 1 / sqrt(2 pi) */
  for (int64_t i = 0; i < n; i++) {
    pdt_real z = x[i], normal = (1 + ERF(z * (pdt_real)M_SQRT1_2)) / 2;
    dx[i] = dy[i] * (normal + z * density * pdt_nn_exp(-z * z / 2));
  }
}

PDT_NN_VECTOR
void pdt_nn_axpy(pdt_real a, const pdt_real *x, int64_t n, pdt_real *y) {
  for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

void pdt_nn_softmax(pdt_real *x, int64_t rows, int64_t n, int64_t stride) {
  if (n == 0) return;
  for (int64_t r = 0; r < rows; r++, x += stride) {
    pdt_real most = x[0];
    for (int64_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    pdt_real scale = (pdt_real)(1 / pdt_nn_exp_row(x, n, most));
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
  }
}

void pdt_nn_softmax_back(const pdt_real *p, int64_t rows, int64_t n, int64_t stride, pdt_real *dp) {
  for (int64_t r = 0; r < rows; r++, p += stride, dp += stride) {
    pdt_real mean = (pdt_real)pdt_nn_dot(p, dp, n);
    for (int64_t i = 0; i < n; i++) dp[i] = p[i] * (dp[i] - mean);
  }
}

void pdt_nn_gather(const pdt_real *x, const int32_t *index, int64_t n, int64_t width, pdt_real *y) {
  for (int64_t i = 0; i < n; i++)
    memcpy(y + i * width, x + index[i] * width, (size_t)width * sizeof *y);
}

void pdt_nn_scatter_add(pdt_real a, const pdt_real *x, const int32_t *index, int64_t n,
                        int64_t width, pdt_real *y) {
  for (int64_t i = 0; i < n; i++) pdt_nn_axpy(a, x + i * width, width, y + index[i] * width);
}
