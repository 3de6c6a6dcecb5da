/* Element by element, row by row. */
#include <string.h>

#include "kernels/cuda/backend.h"

static bool apart(const float *a, const float *b, int64_t n) {
  return a + n <= b || b + n <= a;
}

/* Is what is pending a sum of just the rows that a norm reads, and may it be done with it? Blocks
 * of the norm write y while others still read what is added. */
static bool adds_to(const pdt_cuda_pending *p, const pdt_cuda_norm *n) {
  return p->what == PDT_CUDA_SUM && p->norm.x == n->x && p->n == (int64_t)n->rows * n->width &&
         (!p->norm.noted || p->norm.width == n->width) && apart(n->y, n->x, p->n) &&
         apart(n->y, p->norm.added, p->n);
}

void pdt_cuda_norm_rows(pdt_device *dev, pdt_array x, pdt_array weight, float eps, int32_t rows,
                        int32_t width, pdt_array y) {
  pdt_cuda *c = pdt_cuda_of(dev);
  pdt_cuda_norm n = {.x = x.at, .weight = weight.at, .y = y.at, .gate = 1, .eps = eps};
  n.rows = rows;
  n.width = width;
  if (adds_to(&c->pending, &n)) { /* the sum that is pending is done on the way */
    n.added = c->pending.norm.added;
    n.noted = c->pending.norm.noted;
    n.gate = c->pending.norm.gate;
    c->pending = (pdt_cuda_pending){0};
  }
  if (pdt_cuda_begin(dev) && rows > 0)
    c->pending = (pdt_cuda_pending){.what = PDT_CUDA_NORM, .stride = width, .norm = n};
}

void pdt_cuda_add_bias(pdt_device *dev, pdt_array y, int32_t rows, int32_t width, pdt_array bias) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_ok(c, pdt_launch_add(y.at, NULL, 0, bias.at, 1, rows, width, &c->queue), "bias");
}

void pdt_cuda_add(pdt_device *dev, pdt_array y, pdt_array x, int64_t n) {
  pdt_cuda *c = pdt_cuda_of(dev);
  const pdt_cuda_norm sum = {.x = y.at, .added = x.at, .gate = 1};
  if (n > 0 && pdt_cuda_begin(dev))
    c->pending = (pdt_cuda_pending){.what = PDT_CUDA_SUM, .n = n, .norm = sum};
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
  const pdt_cuda_norm result = {.y = gate_up.at, .rows = rows, .width = width};
  if (pdt_cuda_begin(dev))
    c->pending =
        (pdt_cuda_pending){.what = PDT_CUDA_SWIGLU, .stride = 2 * (int64_t)width, .norm = result};
}
