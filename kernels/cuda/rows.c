/* Element by element, row by row. */
#include <string.h>

#include "kernels/cuda/backend.h"

void pdt_cuda_norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                        int32_t width, pdt_array y) {
  pdt_cuda *c = pdt_cuda_of(dev);
  const float *added = NULL;
  bool fits = c->pending.y == x.at && c->pending.n == (int64_t)rows * width && y.at != x.at &&
              y.at != c->pending.x;
  if (fits) { /* the sum that is pending is done on the way */
    added = c->pending.x;
    c->pending = (pdt_cuda_sum){0};
  }
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_ok(c, pdt_launch_norm(x.at, added, weight.at, eps, rows, width, y.at, &c->queue),
              "norm");
}

void pdt_cuda_add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_ok(c, pdt_launch_add(y.at, NULL, 0, bias.at, 1, rows, width, &c->queue), "bias");
}

void pdt_cuda_add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n > 0 && pdt_cuda_begin(dev)) c->pending = (pdt_cuda_sum){y.at, x.at, n};
}

/* The merges of pdt_sum_shares' tree: after which rank how many of the topmost sums are one. */
static void plan_merges(unsigned char *merges, int32_t first, int32_t n) {
  if (n == 1) return;
  int32_t left = n - n / 2;
  plan_merges(merges, first, left);
  plan_merges(merges, first + left, n - left);
  merges[first + n - 1]++;
}

void pdt_cuda_sum_shares(pdt_device *dev, const pdt_array *parts, int32_t T, int64_t n,
                         pdt_array out) {
  pdt_cuda *c = pdt_cuda_of(dev);
  pdt_cuda_parts list = {.n = T};
  if (!pdt_cuda_begin(dev)) return;
  if (T > PDT_CUDA_PARTS) {
    pdt_fail(&c->failure, PDT_ERROR_RUNTIME, "GPU %d: sums over %d ranks; at most %d are possible",
             c->index, T, PDT_CUDA_PARTS);
    return;
  }
  for (int32_t t = 0; t < T; t++) list.part[t] = parts[t].at;
  plan_merges(list.merges, 0, T);
  pdt_cuda_ok(c, pdt_launch_sum_shares(&list, n, out.at, &c->queue), "sum over ranks");
}

void pdt_cuda_swiglu(pdt_device *dev, pdt_array gate_up, int32_t rows, int32_t width) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_ok(c, pdt_launch_swiglu(gate_up.at, rows, width, &c->queue), "gated units");
}
