/* Products, and what works row by row or element by element. */
#include "kernels/cpu/operations.h"
#include "kernels/host_memory.h"

void pdt_cpu_matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                    int32_t rows, pdt_array y) {
  if (pdt_dtype_quantized(w->dtype)) {
    pdt_cpu_quantized_matmul(dev, w, x.at, x_stride, rows, y.at);
    return;
  }
  if (pdt_cpu_rounds(dev, w->dtype)) {
    pdt_cpu_rounded_matmul(dev, w, x.at, x_stride, rows, y.at);
    return;
  }
  pdt_cpu_of(dev)->matmul(w, x.at, x_stride, rows, y.at, w->out, dev->threads);
}

void pdt_cpu_rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                          pdt_array x, pdt_array y) {
  pdt_cpu_of(dev)->matvec_unpacked(rows->dtype, pdt_host_row(rows, first), rows->width, n,
                                   rows->width, x.at, y.at, dev->threads);
}

void pdt_cpu_norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                       int32_t width, pdt_array y) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && rows >= 16)
  for (int32_t r = 0; r < rows; r++)
    pdt_cpu_of(dev)->rms_norm(x.at + (int64_t)r * width, weight.at, eps, width,
                              y.at + (int64_t)r * width);
}

void pdt_cpu_add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias) {
  (void)dev;
  for (int32_t r = 0; r < rows; r++)
    for (int32_t i = 0; i < width; i++) y.at[(int64_t)r * width + i] += bias.at[i];
}

void pdt_cpu_add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n) {
  (void)dev;
  for (int64_t i = 0; i < n; i++) y.at[i] += x.at[i];
}

void pdt_cpu_sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                        pdt_array out) {
  (void)dev;
  pdt_sum_shares(parts, T, n, out);
}

void pdt_cpu_swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && rows > 1)
  for (int32_t r = 0; r < rows; r++) {
    float *gate = gate_up.at + (int64_t)r * 2 * width;
    pdt_cpu_of(dev)->silu_mul(gate, gate + width, width, gate);
  }
}
