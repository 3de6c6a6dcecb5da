#include "base/dtype.h"

#include <string.h>

#include "base/quantized.h"

static const struct {
  const char *name;
  pdt_dtype_block block;
} types[PDT_DTYPES] = {
    [PDT_F32] = {"F32", {1, 4}},
    [PDT_F16] = {"F16", {1, 2}},
    [PDT_BF16] = {"BF16", {1, 2}},
    [PDT_Q8_0] = {"Q8_0", {32, 34}},
    [PDT_Q4_0] = {"Q4_0", {32, 18}},
    [PDT_Q4_1] = {"Q4_1", {32, 20}},
    [PDT_Q5_0] = {"Q5_0", {32, 22}},
    [PDT_Q5_1] = {"Q5_1", {32, 24}},
    [PDT_Q4_K] = {"Q4_K", {256, 144}},
    [PDT_Q5_K] = {"Q5_K", {256, 176}},
    [PDT_Q6_K] = {"Q6_K", {256, 210}},
    [PDT_Q4_K32] = {"Q4_K in 32s", {32, 22}},
    [PDT_Q5_K32] = {"Q5_K in 32s", {32, 26}},
    [PDT_Q6_K32] = {"Q6_K in 32s", {32, 28}},
};

pdt_dtype_block pdt_dtype_block_of(pdt_dtype t) {
  return types[t].block;
}

const char *pdt_dtype_name(pdt_dtype t) {
  return types[t].name;
}

/* Parses the name of a type up to `last`. */
static bool parse(const char *name, pdt_dtype last, pdt_dtype *out) {
  for (pdt_dtype t = PDT_F32; t <= last; t++)
    if (strcmp(name, types[t].name) == 0) {
      *out = t;
      return true;
    }
  return false;
}

bool pdt_dtype_parse(const char *name, pdt_dtype *out) {
  return parse(name, PDT_Q6_K, out);
}

bool pdt_dtype_parse_float(const char *name, pdt_dtype *out) {
  return parse(name, PDT_BF16, out);
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

float pdt_half_to_float(uint16_t h) {
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

uint16_t pdt_half_of_float(float f) {
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
  if (pdt_dtype_quantized(t)) {
    pdt_dequantize(t, src, n_elems, dst);
    return;
  }
  if (t == PDT_F32) {
    memcpy(dst, src, (size_t)n_elems * 4);
    return;
  }
  const unsigned char *bytes = src;
  for (int64_t i = 0; i < n_elems; i++) {
    uint16_t half;
    memcpy(&half, bytes + 2 * i, 2);
    dst[i] = t == PDT_BF16 ? float_of_bits((uint32_t)half << 16) : pdt_half_to_float(half);
  }
}

bool pdt_from_float(pdt_dtype t, const float *src, int64_t n_elems, void *dst) {
  if (pdt_dtype_quantized(t)) return pdt_quantize(t, src, n_elems, dst);
  if (t == PDT_F32) {
    memcpy(dst, src, (size_t)n_elems * 4);
    return true;
  }
  uint16_t *halves = dst;
  for (int64_t i = 0; i < n_elems; i++)
    halves[i] = t == PDT_BF16 ? bf16_of_float(src[i]) : pdt_half_of_float(src[i]);
  return true;
}
