/* Operations that wait for the next one. A residual's sum is done by the norm that follows; norms,
 * gated units and attention's merge write the x of the product that follows in the form in which
 * products read it. What is pending has happened for every caller: whatever else comes first does
 * it plainly, by pdt_cuda_begin. */
#include "kernels/cuda/backend.h"

/* Launches it; `prepared` takes its rows, too, where it has some. */
static cudaError_t launch(pdt_cuda *c, const pdt_cuda_pending *p,
                          const pdt_cuda_prepared *prepared) {
  const pdt_cuda_norm *n = &p->norm;
  switch (p->what) {
  case PDT_CUDA_NOTHING:
    break;
  case PDT_CUDA_SUM:
    if (n->noted)
      return pdt_launch_add_noted(n->noted, n->rows, n->x, n->added, n->gate, n->width, &c->queue);
    return pdt_launch_add(n->x, n->added, p->n, NULL, 1, 1, p->n, &c->queue);
  case PDT_CUDA_NORM:
    return pdt_launch_norm(n, prepared, &c->queue);
  case PDT_CUDA_SWIGLU:
    return pdt_launch_swiglu(n->y, n->rows, n->width, prepared, &c->queue);
  case PDT_CUDA_MERGE:
    return pdt_launch_merge(&p->merge, n->width / p->head_dim, p->head_dim, n->y, prepared,
                            &c->queue);
  }
  return cudaSuccess;
}

static const char *name_of(pdt_cuda_work what) {
  static const char *const names[] = {"nothing", "sum", "norm", "gated units", "attention"};
  return names[what];
}

static bool launch_pending(pdt_cuda *c, const pdt_cuda_prepared *prepared) {
  const pdt_cuda_pending p = c->pending;
  c->pending = (pdt_cuda_pending){0};
  return p.what == PDT_CUDA_NOTHING || pdt_cuda_ok(c, launch(c, &p, prepared), name_of(p.what));
}

bool pdt_cuda_begin(pdt_device *dev) {
  const pdt_cuda_prepared nowhere = {0};
  pdt_cuda *c = pdt_cuda_of(dev);
  c->x = (pdt_cuda_x){0};
  return c->failure.code == PDT_ERROR_NONE && launch_pending(c, &nowhere);
}

static bool same_x(const pdt_cuda_x *a, const pdt_cuda_x *b) {
  return a->at == b->at && a->stride == b->stride && a->rows == b->rows && a->width == b->width &&
         a->step == b->step;
}

/* Are the rows of x what is pending? */
static bool makes(const pdt_cuda_pending *p, const pdt_cuda_x *x) {
  return p->what > PDT_CUDA_SUM && p->norm.y == x->at && p->stride == x->stride &&
         p->norm.rows == x->rows && p->norm.width == x->width && x->rows <= PDT_CUDA_ROWS;
}

bool pdt_cuda_begin_product(pdt_device *dev, const pdt_cuda_x *x) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (c->failure.code != PDT_ERROR_NONE) return false;
  return same_x(&c->x, x) || makes(&c->pending, x) || pdt_cuda_begin(dev);
}

bool pdt_cuda_prepare_x(pdt_cuda *c, pdt_dtype dtype, const pdt_cuda_x *x, void *prepared) {
  const pdt_cuda_prepared to = pdt_cuda_prepared_at(prepared, dtype, x->rows);
  if (same_x(&c->x, x)) return true;
  c->x = *x;
  if (makes(&c->pending, x)) return launch_pending(c, &to);
  return pdt_cuda_ok(
      c, pdt_cuda_prepare(dtype, x->at, x->stride, x->rows, x->width, prepared, &c->queue),
      "product");
}
