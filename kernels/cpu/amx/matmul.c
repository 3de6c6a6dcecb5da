/* Matrix products by tiles. A panel of bf16 weights (primitives.h) is a row of tiles as it stands:
 * 32 inputs by 16 outputs in 1,024 bytes. A tile of x holds 8 rows of 32 inputs, their high parts
 * and under them their low parts; the sums of both end up in one tile of sums. Rows that are bf16
 * numbers have no low parts: a tile holds 16 of them. Rows of a tile know nothing of one another,
 * so a row's bits do not depend on the batch; where there are fewer the tile is padded with zeros,
 * since reading the weights takes longer than multiplying a whole tile.
 *
 * A leaf of the sum tree is cut in chunks of 32 inputs from its own beginning, wherever that is, so
 * that a shard's leaves are cut like the whole matrix's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cpu/amx/amx.h"
#ifdef PDT_AMX_TILES
#include PDT_AMX_TILES
#else
#include "kernels/cpu/amx/tiles.h"
#endif

enum {
  CHUNK = 32, /* inputs of a tile */
  TILE_ELEMS = TILE_ROWS * CHUNK,
  MAX_DEPTH = 33,           /* of a tree over at most 2^31 leaves */
  BATCH_ROWS = 256,         /* rows whose parts are made at a time */
  CACHED_BYTES = 192 << 10, /* weights that stay in the cache while several row tiles use them */
  THREAD_WEIGHTS = 32768    /* fewer weights than this are not worth a thread of their own */
};

typedef struct product {
  const pdt_matrix *w;
  pdt_bytes panel_bytes;
  int64_t chunks; /* of all leaves */
  const float *x;
  int64_t x_stride;
  int32_t rows;
  int32_t height; /* rows of x in a tile: 8 in two parts, or 16 that are bf16 numbers */
  float *y;
  int64_t y_stride;
  uint16_t *parts; /* [tiles of rows, chunks] tiles of x; NULL: each is made where it is used */
} product;

/* The sums of a tile's rows of x and 16 outputs. */
typedef struct block {
  float at[TILE_ROWS * PDT_PANEL]; /* [rows, outputs], of which `height` rows are used */
} block;

static uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static float wide(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* x to the nearest bf16, ties to even; a finite x stays finite, and NaN stays NaN. */
static uint16_t nearest(float x) {
  uint32_t bits = bits_of(x), cut = bits >> 16;
  uint32_t rounded = (bits + 0x7fff + (cut & 1)) >> 16;
  uint32_t quiet = (bits & 0x7fffffff) > 0x7f800000 ? 0x40 : 0;
  bool overflows = (bits & 0x7fffffff) >= 0x7f7f8000;
  return (uint16_t)(overflows ? cut | quiet : rounded);
}

/* What the nearest bf16 leaves of x, which is its own; of what is no number that tells all. */
static uint16_t rest_of(float x, uint16_t high) {
  return (bits_of(x) & 0x7f800000) == 0x7f800000 ? 0 : nearest(x - wide(high));
}

/* Inputs begin .. begin+n-1 of the rows from `row` on as a tile; zeros where there are none. */
static void split(const product *p, int32_t row, int32_t begin, int32_t n, uint16_t *tile) {
  int32_t rows = p->rows - row < p->height ? p->rows - row : p->height;
  bool low_parts = p->height < TILE_ROWS;
  if (rows < p->height || n < CHUNK) memset(tile, 0, TILE_ELEMS * sizeof *tile);
  for (int32_t r = 0; r < rows; r++) {
    const float *x = p->x + (row + r) * p->x_stride + begin;
    uint16_t *high = tile + (int64_t)r * CHUNK;
    for (int32_t i = 0; i < n; i++) high[i] = nearest(x[i]);
    if (!low_parts) continue;
    uint16_t *low = high + (int64_t)p->height * CHUNK;
    for (int32_t i = 0; i < n; i++) low[i] = rest_of(x[i], high[i]);
  }
}

/* All tiles of x of one tile of rows. */
static void split_rows(const product *p, int32_t row) {
  const pdt_sum_tree *tree = &p->w->tree;
  uint16_t *tile = p->parts + row / p->height * p->chunks * TILE_ELEMS;
  for (int32_t leaf = 0, begin = 0; leaf < tree->leaves; begin = tree->leaf_end[leaf++])
    for (int32_t i = begin; i < tree->leaf_end[leaf]; i += CHUNK, tile += TILE_ELEMS) {
      int32_t left = tree->leaf_end[leaf] - i;
      split(p, row, i, left < CHUNK ? left : CHUNK, tile);
    }
}

/* The tile of x for chunk number `chunk`, which holds n inputs from i on; room for making it. */
static const uint16_t *x_tile(const product *p, int32_t row, int64_t chunk, int32_t i, int32_t n,
                              uint16_t *room) {
  if (p->parts) return p->parts + (row / p->height * p->chunks + chunk) * TILE_ELEMS;
  split(p, row, i, n, room);
  return room;
}

/* The tile of weights for n inputs from i on. Where it does not stand in the panel as a tile, being
 * short or beginning within a pair, it is copied, with zeros for what belongs to other leaves. */
static const uint16_t *weight_tile(const char *panel, int32_t i, int32_t n, uint16_t *room) {
  const uint16_t *weights =
      (const uint16_t *)(const void *)panel + (int64_t)(i / 2) * 2 * PDT_PANEL;
  if (n == CHUNK && i % 2 == 0) return weights;
  memset(room, 0, TILE_ELEMS * sizeof *room);
  for (int32_t j = 0; j < n; j++) {
    int32_t from = i % 2 + j;
    for (int32_t lane = 0; lane < PDT_PANEL; lane++)
      room[j / 2 * 2 * PDT_PANEL + 2 * lane + j % 2] =
          weights[from / 2 * 2 * PDT_PANEL + 2 * lane + from % 2];
  }
  return room;
}

/* Sums of high parts and of low parts, added; or those of high parts, which are all there are. */
static inline void add_parts(const product *p, const float *sums, block *b) {
  int n = p->height * PDT_PANEL;
  if (p->height == TILE_ROWS)
    memcpy(b->at, sums, sizeof b->at);
  else
    for (int i = 0; i < n; i++) b->at[i] = sums[i] + sums[n + i];
}

/* The sums of one leaf, for R tiles of rows by P panels: tiles 0 to 3 hold the sums, 4 and 5 x, 6
 * and 7 weights. Returns the number of the next leaf's first chunk. */
static inline __attribute__((always_inline)) int64_t leaf_sums(const product *p, int32_t row,
                                                               const char *panel, pdt_range leaf,
                                                               int64_t chunk, block *sums,
                                                               const int R, const int P) {
  _Alignas(64) uint16_t room[4][TILE_ELEMS];
  _Alignas(64) float out[TILE_ROWS * PDT_PANEL];
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  for (int32_t i = leaf.begin; i < leaf.end; i += CHUNK, chunk++) {
    int32_t n = leaf.end - i < CHUNK ? leaf.end - i : CHUNK;
    TILE_LOAD(4, x_tile(p, row, chunk, i, n, room[0]));
    if (R > 1) TILE_LOAD(5, x_tile(p, row + p->height, chunk, i, n, room[1]));
    TILE_LOAD(6, weight_tile(panel, i, n, room[2]));
    TILE_MULTIPLY(0, 4, 6);
    if (R > 1) TILE_MULTIPLY(2, 5, 6);
    if (P > 1) TILE_LOAD(7, weight_tile(panel + p->panel_bytes, i, n, room[3]));
    if (P > 1) TILE_MULTIPLY(1, 4, 7);
    if (R > 1 && P > 1) TILE_MULTIPLY(3, 5, 7);
  }
  TILE_STORE(0, out);
  add_parts(p, out, &sums[0]);
  if (P > 1) {
    TILE_STORE(1, out);
    add_parts(p, out, &sums[1]);
  }
  if (R > 1) {
    TILE_STORE(2, out);
    add_parts(p, out, &sums[2]);
  }
  if (R > 1 && P > 1) {
    TILE_STORE(3, out);
    add_parts(p, out, &sums[3]);
  }
  return chunk;
}

/* What stands in the matrix: rows past the last and outputs past the last are dropped. */
static void store_block(const product *p, int32_t row, int64_t panel, const block *b) {
  int64_t o = panel * PDT_PANEL, left = p->w->out - o;
  size_t outputs = (size_t)(left < PDT_PANEL ? left : PDT_PANEL);
  for (int32_t r = 0; r < p->height && row + r < p->rows; r++)
    memcpy(p->y + (row + r) * p->y_stride + o, b->at + r * PDT_PANEL, outputs * sizeof(float));
}

static inline __attribute__((always_inline)) void tile(const product *p, int32_t row, int64_t panel,
                                                       const int R, const int P) {
  const pdt_sum_tree *tree = &p->w->tree;
  const char *weights = (const char *)p->w->data + panel * p->panel_bytes;
  block stack[MAX_DEPTH][4];
  int64_t chunk = 0;
  int top = 0;
  for (int32_t leaf = 0, begin = 0; leaf < tree->leaves; begin = tree->leaf_end[leaf++]) {
    pdt_range inputs = {begin, tree->leaf_end[leaf]};
    chunk = leaf_sums(p, row, weights, inputs, chunk, stack[top++], R, P);
    for (int m = tree->merges[leaf]; m > 0; m--, top--)
      for (int b = 0; b < 4; b++)
        if (b / 2 < R && b % 2 < P)
          for (int i = 0; i < p->height * PDT_PANEL; i++)
            stack[top - 2][b].at[i] += stack[top - 1][b].at[i];
  }
  for (int b = 0; b < 4; b++)
    if (b / 2 < R && b % 2 < P)
      store_block(p, row + b / 2 * p->height, panel + b % 2, &stack[0][b]);
}

static void one_panel(const product *p, int32_t row, int64_t panel) {
  p->rows - row > p->height ? tile(p, row, panel, 2, 1) : tile(p, row, panel, 1, 1);
}

static void two_panels(const product *p, int32_t row, int64_t panel) {
  p->rows - row > p->height ? tile(p, row, panel, 2, 2) : tile(p, row, panel, 1, 2);
}

/* All rows for panels begin .. end-1, which are taken by as many as stay in the cache. */
static void panels(const product *p, int64_t begin, int64_t end) {
  int64_t chunk = CACHED_BYTES / p->panel_bytes / 2 * 2;
  if (chunk < 2) chunk = 2;
  tiles_begin();
  for (; begin < end; begin += chunk) {
    int64_t stop = end - begin < chunk ? end : begin + chunk;
    for (int32_t row = 0; row < p->rows; row += 2 * p->height) {
      int64_t panel = begin;
      for (; panel + 2 <= stop; panel += 2) two_panels(p, row, panel);
      if (panel < stop) one_panel(p, row, panel);
    }
  }
  tiles_end();
}

static int64_t count_chunks(const pdt_sum_tree *tree) {
  int64_t n = 0;
  for (int32_t leaf = 0, begin = 0; leaf < tree->leaves; begin = tree->leaf_end[leaf++])
    n += (tree->leaf_end[leaf] - begin + CHUNK - 1) / CHUNK;
  return n;
}

/* A batch of at most BATCH_ROWS rows. */
static void multiply(const product *p, int team) {
  int64_t n = ((int64_t)p->w->out + PDT_PANEL - 1) / PDT_PANEL;
#pragma omp parallel num_threads(team) if (team > 1)
  {
    if (p->parts) {
#pragma omp for schedule(static)
      for (int32_t row = 0; row < p->rows; row += p->height) split_rows(p, row);
    }
#pragma omp for schedule(static, 1)
    for (int t = 0; t < team; t++) panels(p, n * t / team, n * (t + 1) / team);
  }
}

/* Of rows whose tiles are of that height. */
static void matmul(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows, float *y,
                   int64_t y_stride, int threads, int32_t height) {
  if (rows < 1) return;
  product p = {.w = w,
               .panel_bytes = pdt_cpu_panel_bytes(w->in, w->dtype),
               .chunks = count_chunks(&w->tree),
               .x_stride = x_stride,
               .height = height,
               .y_stride = y_stride};
  int64_t batch = rows < BATCH_ROWS ? rows : BATCH_ROWS;
  int64_t worth = 1 + (int64_t)w->out * w->in / THREAD_WEIGHTS;
  int64_t panels = ((int64_t)w->out + PDT_PANEL - 1) / PDT_PANEL;
  int64_t team = threads < worth ? threads : worth;
  uint16_t *parts = NULL;
  if (!PDT_NEW(&parts, (batch + height - 1) / height * p.chunks * TILE_ELEMS, "parts", NULL))
    p.parts = parts;
  for (int32_t row = 0; row < rows; row += BATCH_ROWS) {
    p.x = x + row * x_stride;
    p.y = y + row * y_stride;
    p.rows = rows - row < BATCH_ROWS ? rows - row : BATCH_ROWS;
    multiply(&p, (int)(team < panels ? team : panels));
  }
  free(parts);
}

void pdt_cpu_amx_matmul_bf16(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                             float *y, int64_t y_stride, int threads) {
  matmul(w, x, x_stride, rows, y, y_stride, threads, TILE_ROWS / 2);
}

void pdt_cpu_amx_matmul_bf16_rows(const pdt_matrix *w, const float *x, int64_t x_stride,
                                  int32_t rows, float *y, int64_t y_stride, int threads) {
  matmul(w, x, x_stride, rows, y, y_stride, threads, TILE_ROWS);
}
