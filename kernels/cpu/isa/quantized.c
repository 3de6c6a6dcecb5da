/* Products of quantized weights and quantized rows. A tile of R rows by P panels is accumulated in
 * registers: the whole numbers of a piece of 32 inputs first, which then are scaled and added to
 * the sums in float. What is exact is the same on every instruction set; the float operations are
 * those of vector.h, in an order that neither R nor P nor the neighbors show in.
 *
 * Compiled also for the extensions of AVX2 and AVX-512 that have dot products of bytes. */
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "kernels/cpu/isa/vector.h"
#include "kernels/cpu/quantized.h"

enum {
  GROUP = 4,                  /* inputs of a word */
  GROUPS = PDT_PIECE / GROUP, /* of a piece */
  HALF_GROUPS = GROUPS / 2,
  VECTOR_BYTES = PDT_PANEL * GROUP, /* the words of a group */
  MAX_DEPTH = 33,                   /* of a tree over at most 2^31 leaves */
  MAX_VECTORS = 16,                 /* R * P * SUBS of any tile */
  CHUNK_BYTES = 512 << 10           /* weights that stay in the cache while row tiles use them */
};

/* Panels P of a tile of R rows: TILE(R, P). */
#if defined(__AVX512F__)
#define TILES(TILE)                                                                                \
  TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2)
enum { MAX_ROWS = 8 };
#elif defined(__AVX2__)
#define TILES(TILE) TILE(1, 2) TILE(2, 2) TILE(3, 1) TILE(4, 1)
enum { MAX_ROWS = 4 };
#else
#define TILES(TILE) TILE(1, 1) TILE(2, 1)
enum { MAX_ROWS = 2 };
#endif

INLINE ivec splat_int(int32_t x) {
#if defined(__AVX512F__)
  return (ivec)_mm512_set1_epi32(x);
#elif defined(__AVX2__)
  return (ivec)_mm256_set1_epi32(x);
#else
  return (ivec){x, x, x, x};
#endif
}

/* ---- rows of x ---- */

/* The vectors of half a piece. */
enum { HALF_VECTORS = PDT_PIECE / 2 / LANES };

INLINE int32_t sum_ints(ivec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  int32_t sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
#endif
}

/* The largest magnitude of a piece as the bits of a float, which are in the order of magnitudes,
 * NaN above infinity. */
INLINE int32_t largest_bits(const float *x) {
  ivec most = splat_int(0);
  for (int i = 0; i < PDT_PIECE; i += LANES) {
    ivec bits = (ivec)load(x + i) & 0x7fffffff;
    ivec more = (ivec)(bits > most);
    most = (bits & more) | (most & ~more);
  }
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)most);
#else
  int32_t largest = 0;
  for (int i = 0; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
  return largest;
#endif
}

/* Codes of half a piece; returns their sum. Adding `magic` rounds to a whole number, ties to even,
 * and leaves it in the low bits. */
INLINE int32_t quantize_half(const float *x, float inverse, int8_t *codes) {
  typedef int8_t bytes __attribute__((vector_size(LANES)));
  typedef int8_t bytes_any __attribute__((vector_size(LANES), aligned(1), may_alias));
  const vec magic = splat(0x1.8p23f);
  ivec sum = splat_int(0);
  for (int i = 0; i < HALF_VECTORS; i++) {
    ivec code = (ivec)(load(x + i * LANES) * splat(inverse) + magic) - (ivec)magic;
    bytes low = __builtin_convertvector(code, bytes);
    *(bytes_any *)(codes + i * LANES) = low;
    sum += code;
  }
  return sum_ints(sum);
}

static void quantize_row(const float *x, int32_t in, int32_t offset, int8_t *codes,
                         pdt_cpu_piece *pieces) {
  const int32_t infinity = 0x7f800000, tiny = 0x03800000; /* 2^-120: its inverse is a float */
  for (int32_t i = 0; i < in; i += PDT_PIECE) {
    int32_t bits = largest_bits(x + i);
    float largest, inverse = 0;
    memcpy(&largest, &bits, sizeof largest);
    bool number = bits >= tiny && bits < infinity;
    if (number) inverse = 127 / largest;
    int32_t sums[2] = {0, 0};
    if (number) {
      sums[0] = quantize_half(x + i, inverse, codes + i);
      sums[1] = quantize_half(x + i + PDT_PIECE / 2, inverse, codes + i + PDT_PIECE / 2);
    } else {
      memset(codes + i, 0, PDT_PIECE);
    }
    float scale = number ? largest / 127 : bits < tiny ? 0 : NAN;
    *pieces++ = (pdt_cpu_piece){.scale = scale,
                                .sum = scale * (float)(sums[0] + sums[1]),
                                .start = {-offset * sums[0], -offset * sums[1]}};
  }
}

/* ---- whole numbers ---- */

/* With dot products of bytes, of which one factor has no sign, codes are taken as they are, and
 * sums start at -offset * the codes of x. Without, products of two bytes are added in 16 bits,
 * which codes of 8 bits would overflow: those lose their offset and lend their sign to x. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || !defined(__AVX2__)
enum { BYTES_KEEP_OFFSET = true };
#else
enum { BYTES_KEEP_OFFSET = false };
#endif

#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
/* w and x with w >= 0 and w * x as before; w is a code of 8 bits with its offset. */
INLINE void move_sign(uvec *w, ivec *x) {
  uvec less = *w ^ 0x80808080u;
#if defined(__AVX512F__)
  __mmask64 negative = _mm512_movepi8_mask((__m512i)less);
  *x = (ivec)_mm512_mask_sub_epi8((__m512i)*x, negative, _mm512_setzero_si512(), (__m512i)*x);
  *w = (uvec)_mm512_abs_epi8((__m512i)less);
#else
  *x = (ivec)_mm256_sign_epi8((__m256i)*x, (__m256i)less);
  *w = (uvec)_mm256_abs_epi8((__m256i)less);
#endif
}
#endif

/* sum + the products of the four bytes of each word, w without sign, x with one. */
INLINE ivec add_dots(ivec sum, uvec w, ivec x, const int bits) {
#if defined(__AVX512VNNI__)
  (void)bits;
  return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVXVNNI__)
  (void)bits;
  return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#elif defined(__AVX512F__)
  if (bits == 8) move_sign(&w, &x);
  __m512i pairs = _mm512_maddubs_epi16((__m512i)w, (__m512i)x);
  return sum + (ivec)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__)
  if (bits == 8) move_sign(&w, &x);
  __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
  return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__SSE2__)
  /* Every second byte of a word, in 16 bits: x with its sign, w without. */
  (void)bits;
  __m128i x_even = _mm_srai_epi16(_mm_slli_epi16((__m128i)x, 8), 8);
  __m128i x_odd = _mm_srai_epi16((__m128i)x, 8);
  uvec w_even = w & 0x00ff00ffu, w_odd = w >> 8 & 0x00ff00ffu;
  return sum + (ivec)_mm_madd_epi16((__m128i)w_even, x_even) +
         (ivec)_mm_madd_epi16((__m128i)w_odd, x_odd);
#else
  (void)bits;
  for (int k = 0; k < GROUP; k++)
    sum += (ivec)(w >> 8 * k & 0xff) * ((ivec)((uvec)x << (24 - 8 * k)) >> 24);
  return sum;
#endif
}

INLINE uvec load_words(const char *p) {
  return *(const uvec_any *)p;
}

/* Codes of group g of a piece for one vector of outputs: codes points to the vector's lanes. */
INLINE uvec group_codes(const char *codes, const int g, const int bits) {
  if (bits == 8) return load_words(codes + g * VECTOR_BYTES);
  uvec nibbles = load_words(codes + g % HALF_GROUPS * VECTOR_BYTES);
  uvec low = (g < HALF_GROUPS ? nibbles : nibbles >> 4) & 0x0f0f0f0fu;
  if (bits == 4) return low;
  if (bits == 5) {
    uvec fifths = load_words(codes + 4 * VECTOR_BYTES);
    return low | ((g < 4 ? fifths << (4 - g) : fifths >> (g - 4)) & 0x10101010u);
  }
  const int j = g % HALF_GROUPS;
  uvec twos = load_words(codes + (4 + g / HALF_GROUPS) * VECTOR_BYTES);
  return low | ((j < 2 ? twos << (4 - 2 * j) : twos >> (2 * j - 4)) & 0x30303030u);
}

/* Groups first .. first + n - 1, each followed by the one whose nibbles lie beside its own when `n`
 * are the lower half of all. sums [R, N]. */
INLINE void add_groups(ivec *sums, const char *codes, pdt_bytes panel_bytes, const int8_t *x,
                       int64_t x_stride, const int first, const int n, const int bits, const int R,
                       const int N) {
#pragma GCC unroll 8
  for (int i = 0; i < n; i++) {
    const int g = n == GROUPS ? i / 2 + i % 2 * HALF_GROUPS : first + i;
    uvec w[MAX_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < N; v++)
      w[v] = group_codes(codes + v / SUBS * panel_bytes + v % SUBS * 4 * LANES, g, bits);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      int32_t word;
      memcpy(&word, x + r * x_stride + g * GROUP, sizeof word);
      ivec value = splat_int(word);
#pragma GCC unroll 16
      for (int v = 0; v < N; v++) sums[r * N + v] = add_dots(sums[r * N + v], w[v], value, bits);
    }
  }
}

/* ---- tiles ---- */

/* One piece of a tile: its panels' unit, and which piece of it; its place in x. */
typedef struct tile_piece {
  const char *unit;
  int32_t index;
  const int8_t *codes;
  const pdt_cpu_piece *x;
} tile_piece;

/* LANES bytes, with a sign or without, as floats. */
INLINE vec widen_bytes(const char *p, const bool with_sign) {
#if defined(__AVX512F__)
  __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
  __m512i ints = with_sign ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
  return (vec)_mm512_cvtepi32_ps(ints);
#elif defined(__AVX2__)
  __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)p);
  __m256i ints = with_sign ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
  return (vec)_mm256_cvtepi32_ps(ints);
#else
  vec v;
  for (int i = 0; i < LANES; i++)
    v[i] = with_sign ? (float)(int8_t)p[i] : (float)(unsigned char)p[i];
  return v;
#endif
}

/* Scales of half h of a piece for one vector of outputs; unit points to the unit. */
INLINE vec scales_of(const pdt_cpu_unit *u, const char *unit, int32_t index, int sub, int h,
                     bool subs, bool low) {
  vec d = widen_f16(unit + index * u->d_step + sub * 2 * LANES);
  if (!subs) return d;
  const char *at = unit + u->subs + index * 2 * PDT_PANEL + sub * LANES;
  return d * widen_bytes(at + (low ? 0 : h * PDT_PANEL), true);
}

/* The value of code 0. */
INLINE vec lows_of(const pdt_cpu_unit *u, const char *unit, int32_t index, int sub, bool subs) {
  vec min = widen_f16(unit + u->min + index * u->d_step + sub * 2 * LANES);
  if (!subs) return min;
  return -(min * widen_bytes(unit + u->subs + (index * 2 + 1) * PDT_PANEL + sub * LANES, false));
}

/* sums += scale of the weights * scale of x * whole numbers. */
INLINE void add_scaled(vec *sums, const ivec *whole, const pdt_cpu_product8 *p,
                       const tile_piece *at, const int h, const int R, const int N) {
  pdt_quantized_form form = pdt_quantized_form_of(p->w->dtype);
  int64_t x_stride = p->w->in / PDT_PIECE;
  vec scales[MAX_VECTORS];
#pragma GCC unroll 16
  for (int v = 0; v < N; v++)
    scales[v] = scales_of(&p->unit, at->unit + v / SUBS * p->panel_bytes, at->index, v % SUBS, h,
                          form.subs, form.low);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    vec scale = splat(at->x[r * x_stride].scale);
#pragma GCC unroll 16
    for (int v = 0; v < N; v++)
      sums[r * N + v] =
          madd(__builtin_convertvector(whole[r * N + v], vec), scales[v] * scale, sums[r * N + v]);
  }
}

/* sums += the value of code 0 * the sum of x. */
INLINE void add_lows(vec *sums, const pdt_cpu_product8 *p, const tile_piece *at, const int R,
                     const int N) {
  bool subs = pdt_quantized_form_of(p->w->dtype).subs;
  int64_t x_stride = p->w->in / PDT_PIECE;
#pragma GCC unroll 16
  for (int v = 0; v < N; v++) {
    vec low = lows_of(&p->unit, at->unit + v / SUBS * p->panel_bytes, at->index, v % SUBS, subs);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      sums[r * N + v] = madd(low, splat(at->x[r * x_stride].sum), sums[r * N + v]);
  }
}

/* Where the integer sums of half h, or of both halves, start. */
INLINE void start(ivec *whole, const pdt_cpu_product8 *p, const tile_piece *at, const int h,
                  const int bits, const int R, const int N) {
  int64_t x_stride = p->w->in / PDT_PIECE;
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    const int32_t *from = at->x[r * x_stride].start;
    ivec value = splat_int(bits == 8 && !BYTES_KEEP_OFFSET ? 0
                           : bits == 6                     ? from[h]
                                                           : from[0] + from[1]);
#pragma GCC unroll 16
    for (int v = 0; v < N; v++) whole[r * N + v] = value;
  }
}

INLINE void add_piece(vec *sums, const pdt_cpu_product8 *p, const tile_piece *at, const int bits,
                      const int R, const int N) {
  const int halves = bits == 6 ? 2 : 1, groups = GROUPS / halves;
  const char *codes = at->unit + p->unit.codes + at->index * p->unit.piece_bytes;
  if (bits < 6 && pdt_quantized_form_of(p->w->dtype).low) add_lows(sums, p, at, R, N);
#pragma GCC unroll 2
  for (int h = 0; h < halves; h++) {
    ivec whole[MAX_VECTORS];
    start(whole, p, at, h, bits, R, N);
    add_groups(whole, codes, p->panel_bytes, at->codes, p->w->in, h * groups, groups, bits, R, N);
    add_scaled(sums, whole, p, at, h, R, N);
  }
}

/* Asks for this piece of the tile that follows, with the first of a unit for its head. May ask for
 * addresses past the matrix, which does nothing. */
INLINE void fetch_ahead(const pdt_cpu_product8 *p, const tile_piece *at, const int P) {
  enum { LINE = 64, NEAR_BYTES = 4096 };
  const pdt_cpu_unit *u = &p->unit;
  pdt_bytes ahead = P * p->panel_bytes < CHUNK_BYTES ? P * p->panel_bytes : NEAR_BYTES;
  int32_t end = u->codes + (at->index + 1) * u->piece_bytes;
  int32_t begin = at->index == 0 ? 0 : end - u->piece_bytes;
  for (int n = 0; n < P; n++)
    for (int32_t line = begin; line < end; line += LINE)
      __builtin_prefetch(
          (const void *)((uintptr_t)at->unit + (uintptr_t)(n * p->panel_bytes + ahead + line)));
}

/* Pieces begin .. end - 1 of a leaf. */
INLINE void accumulate(vec *sums, const pdt_cpu_product8 *p, const char *panel, int32_t row,
                       int32_t begin, int32_t end, const int bits, const int R, const int N) {
  int32_t in = p->w->in, mask = p->unit.pieces - 1;
  for (int32_t i = begin; i < end; i++) {
    tile_piece at = {panel + (int64_t)(i / p->unit.pieces) * p->unit.bytes, i & mask,
                     p->x.codes + (int64_t)row * in + i * PDT_PIECE,
                     p->x.pieces + (int64_t)row * (in / PDT_PIECE) + i};
    if (row == 0) fetch_ahead(p, &at, N / SUBS); /* later rows find them in the cache */
    add_piece(sums, p, &at, bits, R, N);
  }
}

/* Writes a tile to y; lanes past the last output are dropped. */
INLINE void store_tile(const pdt_cpu_product8 *p, int32_t row, int64_t panel, const vec *sums,
                       const int R, const int N) {
  int64_t o = panel * PDT_PANEL, left = p->w->out - o;
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < N; v++)
      store_first(p->y + (row + r) * p->y_stride + o + v * LANES, sums[r * N + v],
                  left - v * LANES);
}

INLINE void tile(const pdt_cpu_product8 *p, int32_t row, int64_t panel, const int bits, const int R,
                 const int P) {
  const int N = P * SUBS;
  const pdt_sum_tree *tree = &p->w->tree;
  const char *weights = (const char *)p->w->data + panel * p->panel_bytes;
  vec stack[MAX_DEPTH][MAX_VECTORS];
  int top = 0;
  for (int32_t leaf = 0, begin = 0; leaf < tree->leaves; begin = tree->leaf_end[leaf++]) {
    vec sums[MAX_VECTORS] = {0};
    accumulate(sums, p, weights, row, begin / PDT_PIECE, tree->leaf_end[leaf] / PDT_PIECE, bits, R,
               N);
    for (int m = tree->merges[leaf]; m > 0; m--) {
      top--;
#pragma GCC unroll 32
      for (int n = 0; n < R * N; n++) sums[n] = stack[top][n] + sums[n];
    }
    if (leaf + 1 == tree->leaves) {
      store_tile(p, row, panel, sums, R, N);
    } else {
#pragma GCC unroll 32
      for (int n = 0; n < R * N; n++) stack[top][n] = sums[n];
      top++;
    }
  }
}

/* For each width of codes and R: the tile of P panels, and the one of a single panel. */
#define DEFINE(bits, R, P)                                                                         \
  static void tile_##bits##_##R##_wide(const pdt_cpu_product8 *p, int32_t row, int64_t panel) {    \
    tile(p, row, panel, bits, R, P);                                                               \
  }                                                                                                \
  static void tile_##bits##_##R##_one(const pdt_cpu_product8 *p, int32_t row, int64_t panel) {     \
    tile(p, row, panel, bits, R, 1);                                                               \
  }
#define DEFINE_4(R, P) DEFINE(4, R, P)
#define DEFINE_5(R, P) DEFINE(5, R, P)
#define DEFINE_6(R, P) DEFINE(6, R, P)
#define DEFINE_8(R, P) DEFINE(8, R, P)
TILES(DEFINE_4)
TILES(DEFINE_5)
TILES(DEFINE_6)
TILES(DEFINE_8)

typedef struct tile_entry {
  void (*wide)(const pdt_cpu_product8 *, int32_t, int64_t);
  void (*one)(const pdt_cpu_product8 *, int32_t, int64_t);
  int panels; /* of the wide one */
} tile_entry;

#define ENTRY(bits, R, P) [bits][R] = {tile_##bits##_##R##_wide, tile_##bits##_##R##_one, P},
#define ENTRY_4(R, P)     ENTRY(4, R, P)
#define ENTRY_5(R, P)     ENTRY(5, R, P)
#define ENTRY_6(R, P)     ENTRY(6, R, P)
#define ENTRY_8(R, P)     ENTRY(8, R, P)
static const tile_entry tiles[9][MAX_ROWS + 1] = {TILES(ENTRY_4) TILES(ENTRY_5) TILES(ENTRY_6)
                                                      TILES(ENTRY_8)};

/* Rows are cut into tiles of nearly equal height; when there are several, panels are taken in
 * chunks that stay in the cache from one row tile to the next. */
static void panels8(const pdt_cpu_product8 *p, int64_t begin, int64_t end) {
  enum { LEAST_PANELS = 8 }; /* a whole number of tiles */
  int32_t n_tiles = p->rows / MAX_ROWS + (p->rows % MAX_ROWS != 0);
  int64_t chunk = n_tiles == 1 ? end - begin : CHUNK_BYTES / p->panel_bytes;
  const tile_entry *entries = tiles[pdt_quantized_form_of(p->w->dtype).bits];
  if (chunk < LEAST_PANELS) chunk = LEAST_PANELS;
  for (; begin < end; begin += chunk) {
    int64_t stop = end - begin < chunk ? end : begin + chunk;
    for (int32_t t = 0, row = 0; t < n_tiles; t++) {
      int32_t height = p->rows / n_tiles + (t < p->rows % n_tiles);
      const tile_entry *entry = &entries[height];
      int64_t panel = begin;
      for (; panel + entry->panels <= stop; panel += entry->panels) entry->wide(p, row, panel);
      for (; panel < stop; panel++) entry->one(p, row, panel);
      row += height;
    }
  }
}

/* ---- weights as floats ---- */

/* A group's four inputs for one vector of outputs, each operation as pdt_piece_widen has it. */
INLINE void widen_group(uvec codes, int32_t offset, vec scale, vec low, bool has_low, float *to) {
  for (int k = 0; k < GROUP; k++) {
    ivec code = (ivec)(codes >> 8 * k & 0xff) - offset;
    vec value = scale * __builtin_convertvector(code, vec);
    store(to + k * PDT_PANEL, has_low ? value + low : value);
  }
}

INLINE void widen_pieces(const pdt_matrix *w, const char *panel, float *to, const int bits) {
  pdt_quantized_form form = pdt_quantized_form_of(w->dtype);
  pdt_cpu_unit u = pdt_cpu_unit_of(w->dtype);
  for (int32_t i = 0; i < w->in / PDT_PIECE; i++, to += PDT_PIECE * PDT_PANEL) {
    const char *unit = panel + (int64_t)(i / u.pieces) * u.bytes;
    int32_t index = i % u.pieces;
    const char *codes = unit + u.codes + index * u.piece_bytes;
    for (int s = 0; s < SUBS; s++) {
      vec low = form.low ? lows_of(&u, unit, index, s, form.subs) : splat(0);
#pragma GCC unroll 8
      for (int g = 0; g < GROUPS; g++)
        widen_group(group_codes(codes + s * 4 * LANES, g, bits), form.offset,
                    scales_of(&u, unit, index, s, g / HALF_GROUPS, form.subs, form.low), low,
                    form.low, to + g * GROUP * PDT_PANEL + s * LANES);
    }
  }
}

static void widen_panel(const pdt_matrix *w, const void *panel, float *to) {
  switch (pdt_quantized_form_of(w->dtype).bits) {
  case 4:
    widen_pieces(w, panel, to, 4);
    break;
  case 5:
    widen_pieces(w, panel, to, 5);
    break;
  case 6:
    widen_pieces(w, panel, to, 6);
    break;
  default:
    widen_pieces(w, panel, to, 8);
    break;
  }
}

extern const pdt_cpu_quantized PDT_ISA_NAME(quantized);

const pdt_cpu_quantized PDT_ISA_NAME(quantized) = {.name = PDT_ISA_TEXT(PDT_ISA),
                                                   .quantize_row = quantize_row,
                                                   .panels8 = panels8,
                                                   .widen_panel = widen_panel};
