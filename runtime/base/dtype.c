#include "base/dtype.h"

#include <string.h>

const char *pdt_dtype_name(pdt_dtype t) {
  return t == PDT_F32 ? "F32" : t == PDT_F16 ? "F16" : "BF16";
}

bool pdt_dtype_parse(const char *name, pdt_dtype *out) {
  for (pdt_dtype t = PDT_F32; t <= PDT_BF16; t++)
    if (strcmp(name, pdt_dtype_name(t)) == 0) {
      *out = t;
      return true;
    }
  return false;
}

static float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static uint32_t bits_of_float(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 31) return float_of_bits(sign | 0x7F800000u | fraction << 13);
  if (exponent) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
  float magnitude = (float)fraction * 0x1p-24f; /* zero or subnormal: exact */
  return sign ? -magnitude : magnitude;
}

static uint16_t bf16_of_float(float f) {
  uint32_t bits = bits_of_float(f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40); /* quiet NaN */
  return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static uint16_t half_of_float(float f) {
  uint32_t bits = bits_of_float(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00);
  if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00); /* 65520 and more: infinity */
  if (magnitude <
      0x38800000u) { /* subnormal half: adding 0.5 leaves the fraction rounded to 2^-24 */
    uint32_t rounded = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3F000000u;
    return (uint16_t)(sign | rounded);
  }
  uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

void pdt_to_float(pdt_dtype t, const void *src, int64_t n_elems, float *dst) {
  if (t == PDT_F32) {
    memcpy(dst, src, (size_t)n_elems * 4);
    return;
  }
  const unsigned char *bytes = src;
  for (int64_t i = 0; i < n_elems; i++) {
    uint16_t half;
    memcpy(&half, bytes + 2 * i, 2);
    dst[i] = t == PDT_BF16 ? float_of_bits((uint32_t)half << 16) : half_to_float(half);
  }
}

void pdt_from_float(pdt_dtype t, const float *src, int64_t n_elems, void *dst) {
  if (t == PDT_F32) {
    memcpy(dst, src, (size_t)n_elems * 4);
    return;
  }
  uint16_t *halves = dst;
  for (int64_t i = 0; i < n_elems; i++)
    halves[i] = t == PDT_BF16 ? bf16_of_float(src[i]) : half_of_float(src[i]);
}
