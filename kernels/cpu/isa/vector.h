/* Vectors of the width of the instruction set in hand, and what the kernels do with them.
 *
 * LANES floats make a vector, SUBS vectors make the 16 lanes of a panel. Sums are always made in 16
 * lanes, so that AVX2 and AVX-512 give the same bits: both fuse where madd() is written, and
 * nowhere else (the compiler is told not to contract). The portable set does not fuse. */
#ifndef PDT_KERNELS_CPU_ISA_VECTOR_H
#define PDT_KERNELS_CPU_ISA_VECTOR_H

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/cpu/isa/isa.h"

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { SUBS = PDT_PANEL / LANES };

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t hvec __attribute__((vector_size(LANES * 2)));
/* The same at any address and over any type. */
typedef float vec_any __attribute__((vector_size(LANES * 4), aligned(1), may_alias));
typedef uint32_t uvec_any __attribute__((vector_size(LANES * 4), aligned(1), may_alias));
typedef uint16_t hvec_any __attribute__((vector_size(LANES * 2), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline, unused))

INLINE vec load(const void *p) {
  return *(const vec_any *)p;
}

INLINE void store(float *p, vec v) {
  *(vec_any *)p = v;
}

/* The first n <= LANES floats of p, `fill` in the other lanes. */
INLINE vec load_first(const float *p, int64_t n, float fill) {
  float t[LANES];
  for (int i = 0; i < LANES; i++) t[i] = i < n ? p[i] : fill;
  return load(t);
}

/* Stores the first n lanes; none when n <= 0. */
INLINE void store_first(float *p, vec v, int64_t n) {
  if (n >= LANES) {
    store(p, v);
    return;
  }
  float t[LANES];
  store(t, v);
  for (int64_t i = 0; i < n; i++) p[i] = t[i];
}

INLINE vec splat(float x) {
#if defined(__AVX512F__)
  return (vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (vec)_mm256_set1_ps(x);
#else
  return (vec){x, x, x, x};
#endif
}

/* a * b + c, rounded once where the instruction set has it. */
INLINE vec madd(vec a, vec b, vec c) {
#if defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

/* Where mask (all ones or zeros a lane) is set a, else b. */
INLINE vec choose(ivec mask, vec a, vec b) {
  return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* The larger of each lane; b where they do not compare. */
INLINE vec larger(vec a, vec b) {
  return choose((ivec)(a > b), a, b);
}

/* Half precision to float, exact (NaNs stay NaN). */
INLINE vec widen_f16(const void *p) {
#if defined(__AVX512F__)
  return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#elif defined(__AVX2__)
  return (vec)_mm256_cvtph_ps(_mm_loadu_si128(p));
#else
  uvec h = __builtin_convertvector((hvec) * (const hvec_any *)p, uvec);
  uvec magnitude = h & 0x7fff;
  /* Exponent and fraction in float's place; the product mends the bias, subnormals included. */
  vec value = (vec)(magnitude << 13) * splat(0x1p112f);
  uvec special = (uvec)(magnitude >= 0x7c00) & 0x7f800000;
  return (vec)((uvec)value | special | (h & 0x8000) << 16);
#endif
}

/* bfloat16 to float: the upper half of its bits. */
INLINE vec widen_bf16(const void *p) {
  return (vec)(__builtin_convertvector((hvec) * (const hvec_any *)p, uvec) << 16);
}

/* LANES elements of type dtype, side by side at any address, to float. */
INLINE vec widen(pdt_dtype dtype, const void *p) {
  if (dtype == PDT_F32) return load(p);
  return dtype == PDT_F16 ? widen_f16(p) : widen_bf16(p);
}

/* Adds up 16 lanes in a fixed tree: lanes 8 apart, 4, 2, 1. */
INLINE float sum_lanes(const vec *v) {
  float t[PDT_PANEL];
  for (int s = 0; s < SUBS; s++) store(t + s * LANES, v[s]);
  for (int step = PDT_PANEL / 2; step > 0; step /= 2)
    for (int j = 0; j < step; j++) t[j] += t[j + step];
  return t[0];
}

/* exp(x), within 1 ulp of the true value where the result is normal; goes to 0 through the
 * subnormals and to infinity; NaN stays NaN. x = n log 2 + r, |r| <= log(2)/2; 2^n is multiplied
 * in two halves, since n reaches past the exponents of normal floats on both sides. */
INLINE vec exp_vec(vec x) {
  x = choose((ivec)(x < splat(-105.0f)), splat(-105.0f), x);
  x = choose((ivec)(x > splat(90.0f)), splat(90.0f), x);
  vec magic = splat(0x1.8p23f); /* adding it rounds to an integer, left in the low bits */
  vec shifted = madd(x, splat(0x1.715476p0f), magic);
  vec n = shifted - magic;
  vec r = madd(n, splat(-0x1.62e4p-1f), x); /* log 2 in two parts, the first with few bits */
  r = madd(n, splat(-0x1.7f7d1cp-20f), r);
  vec p = splat(1.0f / 5040);
  p = madd(p, r, splat(1.0f / 720));
  p = madd(p, r, splat(1.0f / 120));
  p = madd(p, r, splat(1.0f / 24));
  p = madd(p, r, splat(1.0f / 6));
  p = madd(p, r, splat(0.5f));
  p = madd(p, r * r, r);
  p = p + splat(1.0f);
  ivec exponent = (ivec)shifted - (ivec)magic;
  ivec half = exponent >> 1;
  vec a = (vec)(((half + 127) & 255) << 23), b = (vec)(((exponent - half + 127) & 255) << 23);
  return p * a * b;
}

#endif
