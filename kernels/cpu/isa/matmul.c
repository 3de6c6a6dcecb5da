/* Matrix products. A tile of R rows by P panels is accumulated in registers, one input after
 * another; at the end of a leaf of the sum tree it is merged with the tiles on a stack. Every
 * element of y is its own lane with its own chain of additions, so neither R nor P nor the
 * neighbors show in it. */
#include "kernels/cpu/isa/vector.h"

enum {
  MAX_DEPTH = 33,          /* of a tree over at most 2^31 leaves */
  MAX_VECTORS = 24,        /* R * P * SUBS of any tile */
  CHUNK_BYTES = 192 << 10, /* weights that stay in the cache while several row tiles use them */
  CHUNK_PANELS = 12,       /* at the least, however long: a whole number of tiles */
  NEAR_BYTES = 2048,       /* how far ahead to ask within one long panel */
  THREAD_WEIGHTS = 32768   /* fewer weights than this are not worth a thread of their own */
};

/* Panels P of a tile of R rows: TILE(R, P). R * P chains hide the latency of the multiply-add, and
 * with the weights in hand they fit the registers. */
#if defined(__AVX512F__)
#define LOW_TILES(TILE)                                                                            \
  TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4) TILE(7, 3) TILE(8, 3)
#define TILES(TILE) LOW_TILES(TILE) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2)
enum { MAX_ROWS = 12 };
#elif defined(__AVX2__)
#define TILES(TILE) TILE(1, 4) TILE(2, 3) TILE(3, 2) TILE(4, 1) TILE(5, 1) TILE(6, 1)
enum { MAX_ROWS = 6 };
#else
#define TILES(TILE) TILE(1, 2) TILE(2, 1) TILE(3, 1)
enum { MAX_ROWS = 3 };
#endif

typedef struct product {
  const pdt_matrix *w;
  pdt_bytes panel_bytes;
  const float *x;
  int64_t x_stride;
  float *y;
  int64_t y_stride;
} product;

/* Asks for the weights that the next tile of N vectors needs at the place where this one is. A tile
 * computes for as long as its weights take to arrive, so that the wait and the work overlap; the
 * hardware alone looks too short a way ahead. Where a tile is too large to wait in the cache, the
 * hardware has long streams to follow, and the request is for a little further along them. May ask
 * for addresses past the matrix, which does nothing. */
INLINE void fetch_ahead(const product *p, const char *panel, int64_t offset, const int N) {
  pdt_bytes tile_bytes = N / SUBS * p->panel_bytes;
  pdt_bytes ahead = tile_bytes <= CHUNK_BYTES ? tile_bytes : NEAR_BYTES;
#pragma GCC unroll 16
  for (int n = 0; n < N; n += SUBS)
    __builtin_prefetch(
        (const void *)((uintptr_t)panel + (uintptr_t)(n / SUBS * p->panel_bytes + offset + ahead)));
}

/* Weights of input i, or of the pair (i, i + 1) in bf16, for one vector of outputs. */
INLINE uvec load_pair(const char *panel, int32_t i, int sub) {
  return *(const uvec_any *)(panel + (int64_t)(i / 2) * (4 * PDT_PANEL) + sub * (4 * LANES));
}

INLINE vec load_weights(const pdt_dtype dtype, const char *panel, int32_t i, int sub) {
  if (dtype == PDT_F32) return load(panel + ((int64_t)i * PDT_PANEL + sub * LANES) * 4);
  if (dtype == PDT_F16) return widen_f16(panel + ((int64_t)i * PDT_PANEL + sub * LANES) * 2);
  uvec pair = load_pair(panel, i, sub);
  return (vec)(i % 2 ? pair & 0xffff0000u : pair << 16);
}

/* sums += weights * x for one input. */
INLINE void add_products(vec *sums, const vec *w, const float *x, int64_t x_stride, const int R,
                         const int N) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    vec value = splat(x[r * x_stride]);
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) sums[r * N + n] = madd(w[n], value, sums[r * N + n]);
  }
}

/* One input, whatever its type and place. */
INLINE void add_input(vec *sums, const product *p, const char *panel, const float *x, int32_t i,
                      const pdt_dtype dtype, const int R, const int N) {
  vec w[MAX_VECTORS];
  fetch_ahead(p, panel, (int64_t)i * PDT_PANEL * (int64_t)pdt_dtype_bytes(dtype), N);
#pragma GCC unroll 16
  for (int n = 0; n < N; n++)
    w[n] = load_weights(dtype, panel + n / SUBS * p->panel_bytes, i, n % SUBS);
  add_products(sums, w, x + i, p->x_stride, R, N);
}

/* Inputs begin .. end-1 of a leaf. bf16 goes by pairs; a leaf may begin or end inside one. */
INLINE void accumulate(vec *sums, const product *p, const char *panel, const float *x,
                       int32_t begin, int32_t end, const pdt_dtype dtype, const int R,
                       const int N) {
  int32_t i = begin;
  if (dtype == PDT_BF16) {
    if (i % 2) add_input(sums, p, panel, x, i++, dtype, R, N);
    for (; i + 1 < end; i += 2) {
      vec low[MAX_VECTORS], high[MAX_VECTORS];
      fetch_ahead(p, panel, (int64_t)(i / 2) * (4 * PDT_PANEL), N);
#pragma GCC unroll 16
      for (int n = 0; n < N; n++) {
        uvec pair = load_pair(panel + n / SUBS * p->panel_bytes, i, n % SUBS);
        low[n] = (vec)(pair << 16);
        high[n] = (vec)(pair & 0xffff0000u);
      }
      add_products(sums, low, x + i, p->x_stride, R, N);
      add_products(sums, high, x + i + 1, p->x_stride, R, N);
    }
  }
  for (; i < end; i++) add_input(sums, p, panel, x, i, dtype, R, N);
}

/* Writes a tile to y; lanes past the last output are dropped. */
INLINE void store_tile(const product *p, int32_t row, int64_t panel, const vec *sums, const int R,
                       const int N) {
  int64_t o = panel * PDT_PANEL, left = p->w->out - o;
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    float *y = p->y + (row + r) * p->y_stride + o;
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) {
      if (left >= N * LANES)
        store(y + n * LANES, sums[r * N + n]);
      else
        store_first(y + n * LANES, sums[r * N + n], left - n * LANES);
    }
  }
}

INLINE void tile(const product *p, int32_t row, int64_t panel, const pdt_dtype dtype, const int R,
                 const int P) {
  const int N = P * SUBS;
  const pdt_sum_tree *tree = &p->w->tree;
  const char *weights = (const char *)p->w->data + panel * p->panel_bytes;
  const float *x = p->x + row * p->x_stride;
  vec stack[MAX_DEPTH][MAX_VECTORS];
  int top = 0;
  for (int32_t leaf = 0, begin = 0; leaf < tree->leaves; begin = tree->leaf_end[leaf++]) {
    vec sums[MAX_VECTORS] = {0};
    accumulate(sums, p, weights, x, begin, tree->leaf_end[leaf], dtype, R, N);
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

/* For each type and R: the tile of P panels, and the one of a single panel. */
#define DEFINE(dtype, R, P)                                                                        \
  static void tile_##dtype##_##R##_wide(const product *p, int32_t row, int64_t panel) {            \
    tile(p, row, panel, PDT_##dtype, R, P);                                                        \
  }                                                                                                \
  static void tile_##dtype##_##R##_one(const product *p, int32_t row, int64_t panel) {             \
    tile(p, row, panel, PDT_##dtype, R, 1);                                                        \
  }
#define DEFINE_F32(R, P)  DEFINE(F32, R, P)
#define DEFINE_F16(R, P)  DEFINE(F16, R, P)
#define DEFINE_BF16(R, P) DEFINE(BF16, R, P)
TILES(DEFINE_F32)
TILES(DEFINE_F16)
TILES(DEFINE_BF16)

typedef struct tile_entry {
  void (*wide)(const product *, int32_t, int64_t);
  void (*one)(const product *, int32_t, int64_t);
  int panels; /* of the wide one */
} tile_entry;

#define ENTRY(dtype, R, P)                                                                         \
  [PDT_##dtype][R] = {tile_##dtype##_##R##_wide, tile_##dtype##_##R##_one, P},
#define ENTRY_F32(R, P)  ENTRY(F32, R, P)
#define ENTRY_F16(R, P)  ENTRY(F16, R, P)
#define ENTRY_BF16(R, P) ENTRY(BF16, R, P)
static const tile_entry tiles[3][MAX_ROWS + 1] = {TILES(ENTRY_F32) TILES(ENTRY_F16)
                                                      TILES(ENTRY_BF16)};

/* All rows for panels begin .. end-1. Rows are cut into tiles of nearly equal height; when there
 * are several, panels are taken in chunks that stay in the cache from one row tile to the next. */
static void panels(const product *p, int32_t rows, int64_t begin, int64_t end) {
  int32_t n_tiles = rows / MAX_ROWS + (rows % MAX_ROWS != 0);
  int64_t chunk = n_tiles == 1 ? end - begin : CHUNK_BYTES / p->panel_bytes;
  if (chunk < CHUNK_PANELS) chunk = CHUNK_PANELS;
  for (; begin < end; begin += chunk) {
    int64_t stop = end - begin < chunk ? end : begin + chunk;
    for (int32_t t = 0, row = 0; t < n_tiles; t++) {
      int32_t height = rows / n_tiles + (t < rows % n_tiles);
      const tile_entry *entry = &tiles[p->w->dtype][height];
      int64_t panel = begin;
      for (; panel + entry->panels <= stop; panel += entry->panels) entry->wide(p, row, panel);
      for (; panel < stop; panel++) entry->one(p, row, panel);
      row += height;
    }
  }
}

/* Threads worth starting for a product of so many weights and rows. A weight costs as much to fetch
 * as some eight rows cost to multiply. */
static int useful_threads(int threads, int64_t n_parts, int64_t n_weights, int32_t rows) {
  int64_t most = n_weights / THREAD_WEIGHTS * (1 + (rows < 1024 ? rows : 1024) / 8);
  if (most > n_parts) most = n_parts;
  return most < 1 ? 1 : most < threads ? (int)most : threads;
}

void PDT_ISA_NAME(matmul)(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                          float *y, int64_t y_stride, int threads) {
  if (rows < 1) return;
  product p = {.w = w,
               .panel_bytes = pdt_cpu_panel_bytes(w->in, w->dtype),
               .x = x,
               .x_stride = x_stride,
               .y = y,
               .y_stride = y_stride};
  int64_t n = ((int64_t)w->out + PDT_PANEL - 1) / PDT_PANEL;
  int team = useful_threads(threads, n, (int64_t)w->out * w->in, rows);
  if (team == 1) {
    panels(&p, rows, 0, n);
    return;
  }
#pragma omp parallel for num_threads(team) schedule(static, 1)
  for (int t = 0; t < team; t++) panels(&p, rows, n * t / team, n * (t + 1) / team);
}

/* Dot product of one unpacked row with x: 16 lanes by index. */
static float dot_unpacked(pdt_dtype dtype, const char *w, int32_t in, const float *x) {
  int64_t size = (int64_t)pdt_dtype_bytes(dtype);
  vec sums[SUBS] = {0};
  int32_t i = 0;
  for (; i + PDT_PANEL <= in; i += PDT_PANEL)
#pragma GCC unroll 4
    for (int s = 0; s < SUBS; s++)
      sums[s] = madd(widen(dtype, w + (i + s * LANES) * size), load(x + i + s * LANES), sums[s]);
  if (i < in) {
    char rest[PDT_PANEL * sizeof(float)] = {0};
    float x_rest[PDT_PANEL] = {0};
    memcpy(rest, w + i * size, (size_t)((in - i) * size));
    memcpy(x_rest, x + i, (size_t)(in - i) * sizeof *x);
    for (int s = 0; s < SUBS; s++)
      sums[s] = madd(widen(dtype, rest + s * LANES * size), load(x_rest + s * LANES), sums[s]);
  }
  return sum_lanes(sums);
}

void PDT_ISA_NAME(matvec_unpacked)(pdt_dtype dtype, const void *w, int64_t src_stride_elems,
                                   int32_t out, int32_t in, const float *x, float *y, int threads) {
  int64_t stride = src_stride_elems * (int64_t)pdt_dtype_bytes(dtype);
  int team = useful_threads(threads, out, (int64_t)out * in, 1);
  if (team == 1) {
    for (int32_t o = 0; o < out; o++)
      y[o] = dot_unpacked(dtype, (const char *)w + o * stride, in, x);
    return;
  }
#pragma omp parallel for num_threads(team) schedule(static)
  for (int32_t o = 0; o < out; o++) y[o] = dot_unpacked(dtype, (const char *)w + o * stride, in, x);
}
