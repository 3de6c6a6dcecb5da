#include "base/finite.h"

#include <string.h>

#include "base/quantized.h"

/* The bits that are all set in NaN and infinity, and in nothing else. */
static uint32_t exponent_mask(pdt_dtype t) {
  return t == PDT_F32 ? 0x7F800000u : t == PDT_BF16 ? 0x7F80u : 0x7C00u;
}

static bool finite_words(const unsigned char *data, int64_t n, uint32_t mask) {
  uint32_t bad = 0; /* no branch in the loop, so that it becomes vector code */
  for (int64_t i = 0; i < n; i++) {
    uint32_t word;
    memcpy(&word, data + 4 * i, 4);
    bad |= (word & mask) == mask;
  }
  return !bad;
}

static bool finite_halves(const unsigned char *data, int64_t n, uint16_t mask) {
  uint16_t bad = 0;
  for (int64_t i = 0; i < n; i++) {
    uint16_t half;
    memcpy(&half, data + 2 * i, 2);
    bad |= (uint16_t)((half & mask) == mask);
  }
  return !bad;
}

bool pdt_all_finite(pdt_dtype t, const void *data, int64_t n_elems) {
  if (pdt_dtype_quantized(t)) return pdt_quantized_finite(t, data, n_elems);
  if (t == PDT_F32) return finite_words(data, n_elems, exponent_mask(t));
  return finite_halves(data, n_elems, (uint16_t)exponent_mask(t));
}

int64_t pdt_first_not_finite(pdt_dtype t, const void *data, int64_t n_elems) {
  enum { BLOCK = 4096 };
  const unsigned char *bytes = data;
  int32_t step = pdt_dtype_block_of(t).elems;
  for (int64_t at = 0; at < n_elems; at += BLOCK) {
    int64_t n = n_elems - at < BLOCK ? n_elems - at : BLOCK;
    if (pdt_all_finite(t, bytes + pdt_dtype_row_bytes(t, at), n)) continue;
    while (pdt_all_finite(t, bytes + pdt_dtype_row_bytes(t, at), step)) at += step;
    return at;
  }
  return -1;
}
