#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/operations.h"

static int64_t n_panels(const pdt_matrix *m) {
  return ((int64_t)m->out + PDT_PANEL - 1) / PDT_PANEL;
}

/* Where element (o, i) stands, in elements from the start of its panel. */
static int64_t place(pdt_dtype dtype, int32_t lane, int32_t i) {
  if (dtype == PDT_BF16) return (int64_t)(i / 2) * 2 * PDT_PANEL + 2 * lane + i % 2;
  return (int64_t)i * PDT_PANEL + lane;
}

static char *panel_of(const pdt_matrix *m, int32_t o) {
  return (char *)m->data + o / PDT_PANEL * pdt_cpu_panel_bytes(m->in, m->dtype);
}

pdt_bytes pdt_cpu_panel_bytes(int32_t in, pdt_dtype dtype) {
  if (pdt_dtype_quantized(dtype)) return pdt_cpu_quantized_panel_bytes(in, dtype);
  int64_t inputs = dtype == PDT_BF16 ? (int64_t)in + in % 2 : in;
  pdt_bytes bytes = inputs * PDT_PANEL * (int64_t)pdt_dtype_bytes(dtype);
  return (bytes + PDT_ALIGN_BYTES - 1) / PDT_ALIGN_BYTES * PDT_ALIGN_BYTES;
}

/* Zeroed memory for the panels of a matrix. Each thread's share of a product is touched first by
 * that thread, so that as far as whole pages allow it lies in the memory next to it. */
static int new_panels(pdt_device *dev, pdt_matrix *m, pdt_error *err) {
  m->data = pdt_cpu_slab_take(&((pdt_cpu *)dev->state)->slabs, m->bytes);
  if (!m->data)
    return pdt_fail(err, PDT_ERROR_MEMORY, "weight matrix: no memory for %lld bytes",
                    (long long)m->bytes);
  int64_t n = n_panels(m), panel = m->bytes / n;
  int team = n < dev->threads ? (int)n : dev->threads;
#pragma omp parallel for num_threads(team) schedule(static, 1) if (team > 1)
  for (int t = 0; t < team; t++) {
    int64_t begin = n * t / team, end = n * (t + 1) / team;
    memset((char *)m->data + begin * panel, 0, (size_t)((end - begin) * panel));
  }
  return 0;
}

int pdt_cpu_matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                       int32_t leaf_width, pdt_error *err) {
  *m = (pdt_matrix){0};
  if (out < 1 || in < 1)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "weight matrix: expected a shape of at least [1, 1], found [%d, %d]", out, in);
  if (pdt_dtype_quantized(dtype) && pdt_cpu_quantized_reserve(dev, dtype, in, leaf_width, err))
    return -1;
  if (pdt_cpu_rounds(dev, dtype) && pdt_cpu_rounded_reserve(dev, in, err)) return -1;
  pdt_matrix made = {.out = out, .in = in, .dtype = dtype};
  if (__builtin_mul_overflow(n_panels(&made), pdt_cpu_panel_bytes(in, dtype), &made.bytes))
    return pdt_fail(err, PDT_ERROR_MEMORY, "weight matrix: impossible size: [%d, %d] of %s", out,
                    in, pdt_dtype_name(dtype));
  if (new_panels(dev, &made, err)) return -1;
  if (pdt_sum_tree_new(&made.tree, in, leaf_width, err)) {
    pdt_cpu_slab_give(&((pdt_cpu *)dev->state)->slabs, made.data);
    return -1;
  }
  *m = made;
  return 0;
}

void pdt_cpu_matrix_free(pdt_device *dev, pdt_matrix *m) {
  pdt_cpu_slab_give(&((pdt_cpu *)dev->state)->slabs, m->data);
  pdt_sum_tree_free(&m->tree);
  *m = (pdt_matrix){0};
}

/* One row into its lane of a panel. Type and size are constants where this is called, so that the
 * copy of an element is one load and one store. */
static inline void pack_row(pdt_dtype dtype, size_t size, char *panel, int32_t lane,
                            const char *from, int32_t in) {
  for (int32_t i = 0; i < in; i++)
    memcpy(panel + place(dtype, lane, i) * (int64_t)size, from + i * (int64_t)size, size);
}

void pdt_cpu_matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                         const void *src, int64_t src_stride) {
  enum { MANY = 64 }; /* rows */
  pdt_bytes stride = pdt_dtype_row_bytes(m->dtype, src_stride);
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n_rows >= MANY)
  for (int32_t j = 0; j < n_rows; j++) {
    int32_t o = first_out + j, lane = o % PDT_PANEL;
    const char *from = (const char *)src + j * stride;
    char *panel = panel_of(m, o);
    switch (m->dtype) {
    case PDT_F32:
      pack_row(PDT_F32, 4, panel, lane, from, m->in);
      break;
    case PDT_F16:
      pack_row(PDT_F16, 2, panel, lane, from, m->in);
      break;
    case PDT_BF16:
      pack_row(PDT_BF16, 2, panel, lane, from, m->in);
      break;
    default:
      pdt_cpu_quantized_pack(m->dtype, panel, lane, from, m->in);
      break;
    }
  }
}

/* Row o widened. */
static void read_row(const pdt_matrix *m, int32_t o, float *dst) {
  const char *panel = panel_of(m, o);
  if (pdt_dtype_quantized(m->dtype)) {
    pdt_cpu_quantized_read(m->dtype, panel, o % PDT_PANEL, m->in, dst);
    return;
  }
  int64_t size = (int64_t)pdt_dtype_bytes(m->dtype);
  for (int32_t i = 0; i < m->in; i++)
    pdt_to_float(m->dtype, panel + place(m->dtype, o % PDT_PANEL, i) * size, 1, dst + i);
}

void pdt_cpu_gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                         pdt_array y) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n >= 16)
  for (int32_t r = 0; r < n; r++) read_row(w, ids[r], y.at + (int64_t)r * w->in);
}
