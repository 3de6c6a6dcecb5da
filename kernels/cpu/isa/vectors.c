/* Kernels on one vector: norm, activations, rotary embedding, softmax. */
#include "kernels/cpu/isa/vector.h"

void PDT_ISA_NAME(rms_norm)(const float *x, const float *weight, float eps, int32_t width,
                            float *y) {
  vec sums[SUBS] = {0};
  int32_t i = 0;
  for (; i + PDT_PANEL <= width; i += PDT_PANEL)
    for (int s = 0; s < SUBS; s++) {
      vec v = load(x + i + s * LANES);
      sums[s] = madd(v, v, sums[s]);
    }
  for (int s = 0; i < width; s++, i += LANES) {
    vec v = load_first(x + i, width - i, 0);
    sums[s] = madd(v, v, sums[s]);
  }
  float scale = 1.0f / sqrtf(sum_lanes(sums) / (float)width + eps);
  for (int32_t j = 0; j < width; j++) {
    float v = x[j] * scale;
    y[j] = weight ? v * weight[j] : v;
  }
}

INLINE vec round_bf16_vec(vec x) {
  uvec bits = (uvec)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  ivec is_number = (ivec)(bits & 0x7fffffff) <= 0x7f800000;
  return choose(is_number, (vec)rounded, (vec)((bits & 0xffff0000u) | 0x400000u));
}

void PDT_ISA_NAME(round_bf16)(const float *x, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, round_bf16_vec(load(x + i)));
  if (i < n) store_first(y + i, round_bf16_vec(load_first(x + i, n - i, 0)), n - i);
}

INLINE vec silu_mul_vec(vec gate, vec up) {
  return gate / (splat(1.0f) + exp_vec(-gate)) * up;
}

void PDT_ISA_NAME(silu_mul)(const float *gate, const float *up, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, silu_mul_vec(load(gate + i), load(up + i)));
  if (i < n)
    store_first(y + i, silu_mul_vec(load_first(gate + i, n - i, 0), load_first(up + i, n - i, 0)),
                n - i);
}

void PDT_ISA_NAME(gelu)(float *x, int64_t n) {
  /* 1 + erf(z) = erfc(-z), which keeps its accuracy where the sum would cancel. */
  for (int64_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * erfcf(x[i] * -0x1.6a09e6p-1f);
}

INLINE void rope_vec(float *x, float *x2, const float *cosine, const float *sine, int64_t n) {
  bool whole = n >= LANES;
  vec a = whole ? load(x) : load_first(x, n, 0), b = whole ? load(x2) : load_first(x2, n, 0);
  vec c = whole ? load(cosine) : load_first(cosine, n, 0);
  vec s = whole ? load(sine) : load_first(sine, n, 0);
  store_first(x, madd(a, c, -(b * s)), n);
  store_first(x2, madd(b, c, a * s), n);
}

void PDT_ISA_NAME(rope)(float *x, const float *cosine, const float *sine, int32_t head_dim) {
  int32_t half = head_dim / 2;
  for (int32_t j = 0; j < half; j += LANES)
    rope_vec(x + j, x + half + j, cosine + j, sine + j, half - j);
}

/* The largest of x; a NaN is passed over here, and found again in the exponentials. */
static float largest(const float *x, int64_t n) {
  vec top = splat(-INFINITY);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) top = larger(load(x + i), top);
  if (i < n) top = larger(load_first(x + i, n - i, -INFINITY), top);
  float t[LANES], best = -INFINITY;
  store(t, top);
  for (int j = 0; j < LANES; j++) best = t[j] > best ? t[j] : best;
  return best;
}

float PDT_ISA_NAME(exp_shifted)(float *x, int64_t n) {
  vec shift = splat(largest(x, n)), sums[SUBS] = {0};
  int64_t i = 0;
  for (; i + PDT_PANEL <= n; i += PDT_PANEL)
    for (int s = 0; s < SUBS; s++) {
      vec e = exp_vec(load(x + i + s * LANES) - shift);
      store(x + i + s * LANES, e);
      sums[s] = sums[s] + e;
    }
  for (int s = 0; i < n; s++, i += LANES) {
    vec e = exp_vec(load_first(x + i, n - i, -INFINITY) - shift);
    store_first(x + i, e, n - i);
    sums[s] = sums[s] + e; /* 0 in the lanes past n */
  }
  return sum_lanes(sums);
}

void PDT_ISA_NAME(softmax)(float *x, int64_t n) {
  float sum = PDT_ISA_NAME(exp_shifted)(x, n);
  for (int64_t i = 0; i < n; i++) x[i] /= sum;
}
