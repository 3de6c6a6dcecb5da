#include "base/quantized.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { HALF_PIECE = PDT_PIECE / 2 };

static uint16_t half_at(const unsigned char *p) {
  return (uint16_t)(p[0] | p[1] << 8);
}

static void put_half(unsigned char *p, uint16_t h) {
  p[0] = (unsigned char)h;
  p[1] = (unsigned char)(h >> 8);
}

/* Codes of a block of 32: byte j of `nibbles` has element j low and element j + 16 high. */
static void read_nibbles(const unsigned char *nibbles, pdt_piece *out) {
  for (int j = 0; j < HALF_PIECE; j++) {
    out->code[j] = nibbles[j] & 15;
    out->code[j + HALF_PIECE] = nibbles[j] >> 4;
  }
}

/* The same with bit i of `fifths`, 32 bits, as the fifth bit of element i. */
static void read_fives(const unsigned char *fifths, const unsigned char *nibbles, pdt_piece *out) {
  read_nibbles(nibbles, out);
  for (int i = 0; i < PDT_PIECE; i++) out->code[i] |= (fifths[i / 8] >> i % 8 & 1) << 4;
}

/* Scale and min of 6 bits each of piece j of eight, in the 12 bytes of Q4_K and Q5_K: the first
 * four have theirs in bits 0 .. 5 of bytes j and j + 4; the others in byte j + 4, and in the upper
 * bits that the first four leave. */
static void read_subs(const unsigned char *subs, int64_t j, pdt_piece *out) {
  if (j < 4) {
    out->sub[0] = (int8_t)(subs[j] & 63);
    out->sub_min = subs[j + 4] & 63;
  } else {
    out->sub[0] = (int8_t)((subs[j + 4] & 15) | subs[j - 4] >> 6 << 4);
    out->sub_min = (uint8_t)(subs[j + 4] >> 4 | subs[j] >> 6 << 4);
  }
  out->sub[1] = out->sub[0];
}

/* Piece j of a block of Q4_K or Q5_K: d, min, subs[12], of Q5_K fifths[32] whose bit j is that of
 * this piece's, nibbles[128]: 32 bytes for two pieces. */
static void read_k(const unsigned char *block, int64_t j, bool fives, pdt_piece *out) {
  const unsigned char *fifths = block + 16, *nibbles = fifths + (fives ? 32 : 0) + j / 2 * 32;
  out->d = half_at(block);
  out->min = half_at(block + 2);
  read_subs(block + 4, j, out);
  for (int i = 0; i < PDT_PIECE; i++) {
    out->code[i] = nibbles[i] >> j % 2 * 4 & 15;
    if (fives) out->code[i] |= (fifths[i] >> j & 1) << 4;
  }
}

/* Piece j of a block of Q6_K: nibbles[128], twos[64], subs[16], d. A half of the block has four
 * pieces: 64 bytes of nibbles, low ones for the first two pieces; 32 bytes of twos, two bits each.
 */
static void read_q6_k(const unsigned char *block, int64_t j, pdt_piece *out) {
  const unsigned char *nibbles = block + j / 4 * 64 + j % 2 * 32;
  const unsigned char *twos = block + 128 + j / 4 * 32;
  out->d = half_at(block + 208);
  memcpy(out->sub, block + 192 + 2 * j, 2);
  for (int i = 0; i < PDT_PIECE; i++)
    out->code[i] = (uint8_t)((nibbles[i] >> j % 4 / 2 * 4 & 15) | (twos[i] >> j % 4 * 2 & 3) << 4);
}

/* A block of Q4_K32, Q5_K32: d, min, sub, sub_min, of the latter fifths[4]; nibbles[16]. Of Q6_K32:
 * d, subs[2], nibbles[16], twos[8]: of element i at bits 2 (i % 4) of byte i / 4. */
static void read_recut(const unsigned char *block, int32_t bits, pdt_piece *out) {
  out->d = half_at(block);
  if (bits == 6) {
    memcpy(out->sub, block + 2, 2);
    read_nibbles(block + 4, out);
    for (int i = 0; i < PDT_PIECE; i++) out->code[i] |= (block[20 + i / 4] >> i % 4 * 2 & 3) << 4;
    return;
  }
  out->min = half_at(block + 2);
  out->sub[0] = out->sub[1] = (int8_t)block[4];
  out->sub_min = block[5];
  if (bits == 5)
    read_fives(block + 6, block + 10, out);
  else
    read_nibbles(block + 6, out);
}

/* A block of the types with one scale: d, with low also min; of five bits fifths[4]; codes. */
static void read_plain(const unsigned char *block, pdt_quantized_form form, pdt_piece *out) {
  const unsigned char *codes = block + (form.low ? 4 : 2);
  out->d = half_at(block);
  if (form.low) out->min = half_at(block + 2);
  if (form.bits == 8)
    for (int i = 0; i < PDT_PIECE; i++) out->code[i] = codes[i] ^ 0x80;
  else if (form.bits == 5)
    read_fives(codes, codes + 4, out);
  else
    read_nibbles(codes, out);
}

void pdt_piece_read(pdt_dtype t, const void *row, int64_t index, pdt_piece *out) {
  pdt_quantized_form form = pdt_quantized_form_of(t);
  int64_t pieces = form.pieces;
  const unsigned char *at =
      (const unsigned char *)row + index / pieces * pdt_dtype_block_of(t).bytes;
  *out = (pdt_piece){.sub = {1, 1}, .sub_min = 1};
  if (t == PDT_Q4_K || t == PDT_Q5_K)
    read_k(at, index % pieces, t == PDT_Q5_K, out);
  else if (t == PDT_Q6_K)
    read_q6_k(at, index % pieces, out);
  else if (form.subs)
    read_recut(at, form.bits, out);
  else
    read_plain(at, form, out);
}

void pdt_piece_widen(pdt_dtype t, const pdt_piece *piece, float dst[PDT_PIECE]) {
  pdt_quantized_form form = pdt_quantized_form_of(t);
  float d = pdt_half_to_float(piece->d), low = pdt_half_to_float(piece->min);
  if (form.subs) low = -(low * (float)piece->sub_min);
  for (int i = 0; i < PDT_PIECE; i++) {
    int half = i / HALF_PIECE;
    float scale = d * (float)piece->sub[half];
    float value = scale * (float)(piece->code[i] - form.offset);
    dst[i] = form.low ? value + low : value;
  }
}

void pdt_dequantize(pdt_dtype t, const void *src, int64_t n_elems, float *dst) {
  pdt_piece piece;
  for (int64_t i = 0; i < n_elems / PDT_PIECE; i++) {
    pdt_piece_read(t, src, i, &piece);
    pdt_piece_widen(t, &piece, dst + i * PDT_PIECE);
  }
}

/* ---- recutting ---- */

pdt_dtype pdt_recut_dtype(pdt_dtype t) {
  return t == PDT_Q4_K ? PDT_Q4_K32 : t == PDT_Q5_K ? PDT_Q5_K32 : t == PDT_Q6_K ? PDT_Q6_K32 : t;
}

static void write_nibbles(const pdt_piece *piece, unsigned char *nibbles) {
  for (int j = 0; j < HALF_PIECE; j++)
    nibbles[j] = (unsigned char)((piece->code[j] & 15) | (piece->code[j + HALF_PIECE] & 15) << 4);
}

/* As read_recut reads it. */
static void write_recut(const pdt_piece *piece, int32_t bits, unsigned char *block) {
  put_half(block, piece->d);
  if (bits == 6) {
    memcpy(block + 2, piece->sub, 2);
    write_nibbles(piece, block + 4);
    memset(block + 20, 0, 8);
    for (int i = 0; i < PDT_PIECE; i++)
      block[20 + i / 4] |= (unsigned char)(piece->code[i] >> 4 << i % 4 * 2);
    return;
  }
  put_half(block + 2, piece->min);
  block[4] = (unsigned char)piece->sub[0];
  block[5] = piece->sub_min;
  if (bits == 5) {
    memset(block + 6, 0, 4);
    for (int i = 0; i < PDT_PIECE; i++)
      block[6 + i / 8] |= (unsigned char)(piece->code[i] >> 4 << i % 8);
  }
  write_nibbles(piece, block + (bits == 5 ? 10 : 6));
}

void pdt_recut(pdt_dtype t, const void *row, int64_t first, int64_t n, void *dst) {
  pdt_dtype to = pdt_recut_dtype(t);
  pdt_bytes bytes = pdt_dtype_block_of(to).bytes;
  int32_t bits = pdt_quantized_form_of(t).bits;
  if (to == t) {
    memcpy(dst, (const char *)row + first * bytes, (size_t)(n * bytes));
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    pdt_piece piece;
    pdt_piece_read(t, row, first + i, &piece);
    write_recut(&piece, bits, (unsigned char *)dst + i * bytes);
  }
}

/* ---- quantizing ---- */

/* 1 / d, or 0 where that is no number: then d is 0 in half precision, and codes do not count. */
static float inverse(float d) {
  float inverse = 1 / d;
  return isfinite(inverse) ? inverse : 0;
}

/* The nearest whole number, halves away from zero; |x| < 2^31. */
static int nearest(float x) {
  int whole = (int)x;
  float rest = x - (float)whole; /* exact */
  return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static void quantize_q8_0(const float *x, unsigned char *block) {
  float most = 0;
  for (int i = 0; i < PDT_PIECE; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
  float d = most / 127, id = inverse(d);
  put_half(block, pdt_half_of_float(d));
  for (int i = 0; i < PDT_PIECE; i++) block[2 + i] = (unsigned char)nearest(x[i] * id);
}

/* The element of the largest magnitude, the first of equals, gets code 0: -8 times the scale. */
static void quantize_q4_0(const float *x, unsigned char *block) {
  float most = 0;
  pdt_piece piece;
  for (int i = 0; i < PDT_PIECE; i++)
    if (fabsf(x[i]) > fabsf(most)) most = x[i];
  float d = most / -8, id = inverse(d);
  put_half(block, pdt_half_of_float(d));
  for (int i = 0; i < PDT_PIECE; i++) {
    int code = (int)(x[i] * id + 8.5f);
    piece.code[i] = (uint8_t)(code < 15 ? code : 15);
  }
  write_nibbles(&piece, block + 2);
}

static bool all_finite(const float *x) {
  bool finite = true;
  for (int i = 0; i < PDT_PIECE; i++) finite &= fabsf(x[i]) <= FLT_MAX;
  return finite;
}

bool pdt_quantize(pdt_dtype t, const float *src, int64_t n_elems, void *dst) {
  if (t != PDT_Q8_0 && t != PDT_Q4_0) return false;
  pdt_bytes bytes = pdt_dtype_block_of(t).bytes;
  for (int64_t i = 0; i < n_elems / PDT_PIECE; i++) {
    const float *x = src + i * PDT_PIECE;
    unsigned char *block = (unsigned char *)dst + i * bytes;
    memset(block, 0, (size_t)bytes);
    if (!all_finite(x))
      put_half(block, 0x7E00); /* NaN */
    else if (t == PDT_Q8_0)
      quantize_q8_0(x, block);
    else
      quantize_q4_0(x, block);
  }
  return true;
}

bool pdt_quantized_finite(pdt_dtype t, const void *data, int64_t n_elems) {
  pdt_dtype_block block = pdt_dtype_block_of(t);
  const unsigned char *at = data;
  bool bad = false, low = pdt_quantized_form_of(t).low;
  for (int64_t i = 0; i < n_elems / block.elems; i++, at += block.bytes) {
    bad |= (half_at(at + (t == PDT_Q6_K ? 208 : 0)) & 0x7C00) == 0x7C00;
    if (low) bad |= (half_at(at + 2) & 0x7C00) == 0x7C00;
  }
  return !bad;
}
