#include "kernels/reference.h"

#include <math.h>

/* Element (o, i) of a packed matrix, by the formula of kernels.h. */
static double packed(const pdt_matrix *w, int32_t o, int32_t i) {
  const char *panel = (const char *)w->data + o / PDT_PANEL * w->panel_bytes;
  int64_t lane = o % PDT_PANEL, at = (int64_t)i * PDT_PANEL + lane;
  if (w->dtype == PDT_BF16) at = (int64_t)(i / 2) * 2 * PDT_PANEL + 2 * lane + i % 2;
  float value;
  pdt_to_float(w->dtype, panel + at * (int64_t)pdt_dtype_bytes(w->dtype), 1, &value);
  return (double)value;
}

static void matmul(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows, float *y,
                   int64_t y_stride, int threads) {
  (void)threads;
  for (int32_t r = 0; r < rows; r++)
    for (int32_t o = 0; o < w->out; o++) {
      double sum = 0;
      for (int32_t i = 0; i < w->in; i++) sum += packed(w, o, i) * (double)x[r * x_stride + i];
      y[r * y_stride + o] = (float)sum;
    }
}

static void matvec_unpacked(pdt_dtype dtype, const void *w, int64_t src_stride_elems, int32_t out,
                            int32_t in, const float *x, float *y, int threads) {
  (void)threads;
  int64_t size = (int64_t)pdt_dtype_bytes(dtype);
  for (int32_t o = 0; o < out; o++) {
    double sum = 0;
    for (int32_t i = 0; i < in; i++) {
      float value;
      pdt_to_float(dtype, (const char *)w + (o * src_stride_elems + i) * size, 1, &value);
      sum += (double)value * (double)x[i];
    }
    y[o] = (float)sum;
  }
}

static void rms_norm(const float *x, const float *weight, float eps, int32_t width, float *y) {
  double sum = 0;
  for (int32_t i = 0; i < width; i++) sum += (double)x[i] * (double)x[i];
  double scale = 1 / sqrt(sum / width + (double)eps);
  for (int32_t i = 0; i < width; i++)
    y[i] = (float)((double)x[i] * scale * (weight ? (double)weight[i] : 1));
}

static void silu_mul(const float *gate, const float *up, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++)
    y[i] = (float)((double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i]);
}

static void gelu(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] / 2 * erfc(-(double)x[i] / sqrt(2)));
}

static void rope(float *x, const float *cosine, const float *sine, int32_t head_dim) {
  int32_t half = head_dim / 2;
  for (int32_t j = 0; j < half; j++) {
    double a = (double)x[j], b = (double)x[half + j];
    x[j] = (float)(a * (double)cosine[j] - b * (double)sine[j]);
    x[half + j] = (float)(b * (double)cosine[j] + a * (double)sine[j]);
  }
}

static void softmax(float *x, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
  for (int64_t i = 0; i < n; i++) x[i] = (float)(exp((double)x[i] - top) / sum);
}

/* Feature d of the key and of the value at position i of a view. */
static void cached(const pdt_kv_view *kv, int32_t i, int32_t d, double *key, double *value) {
  const pdt_kv_span *span = &kv->spans[0];
  if (i >= span->tokens) {
    i -= span->tokens;
    span = &kv->spans[1];
  }
  i += span->skip;
  const float *page = kv->base + span->pages[i / PDT_PAGE_TOKENS] * kv->page_elems;
  int32_t slot = i % PDT_PAGE_TOKENS;
  *key = (double)page[(int64_t)d * PDT_PAGE_TOKENS + slot];
  *value = (double)page[(int64_t)(PDT_PAGE_TOKENS + slot) * kv->head_dim + d];
}

static void attention(const pdt_kv_view *kv, const float *q, int32_t n_heads, float *out,
                      float *scratch) {
  int32_t tokens = kv->spans[0].tokens + kv->spans[1].tokens, dim = kv->head_dim;
  for (int32_t h = 0; h < n_heads; h++) {
    double key, value;
    for (int32_t i = 0; i < tokens; i++) {
      double dot = 0;
      for (int32_t d = 0; d < dim; d++) {
        cached(kv, i, d, &key, &value);
        dot += (double)q[(int64_t)h * dim + d] * key;
      }
      scratch[i] = (float)(dot / sqrt(dim));
    }
    softmax(scratch, tokens);
    for (int32_t d = 0; d < dim; d++) {
      double sum = 0;
      for (int32_t i = 0; i < tokens; i++) {
        cached(kv, i, d, &key, &value);
        sum += (double)scratch[i] * value;
      }
      out[(int64_t)h * dim + d] = (float)sum;
    }
  }
}

const pdt_kernels *pdt_reference_kernels(void) {
  static const pdt_kernels table = {
      .name = "reference",
      .matmul = matmul,
      .matvec_unpacked = matvec_unpacked,
      .rms_norm = rms_norm,
      .silu_mul = silu_mul,
      .gelu = gelu,
      .rope = rope,
      .softmax = softmax,
      .attention = attention,
  };
  return &table;
}
