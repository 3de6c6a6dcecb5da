/* The tile instructions that products by AMX are written in. A tile is named by a literal number;
 * each is 16 rows of 64 bytes. tests/amx_on_host/tiles.h has the same in plain C, as documented by
 * the maker, so that the kernels are tested where no such unit is. */
#ifndef PDT_KERNELS_CPU_AMX_TILES_H
#define PDT_KERNELS_CPU_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

/* What LDTILECFG reads. */
typedef struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_config;

/* Makes the calling thread's eight tiles whole. */
static inline void tiles_begin(void) {
  tile_config config = {.palette = 1};
  for (int t = 0; t < 8; t++) {
    config.row_bytes[t] = TILE_BYTES;
    config.rows[t] = TILE_ROWS;
  }
  _tile_loadconfig(&config);
}

/* Gives them back: their state need not be saved any more. */
static inline void tiles_end(void) {
  _tile_release();
}

#define TILE_ZERO(t) _tile_zero(t)
/* Rows follow one another at p, densely. */
#define TILE_LOAD(t, p)  _tile_loadd(t, p, TILE_BYTES)
#define TILE_STORE(t, p) _tile_stored(t, p, TILE_BYTES)
/* sums [16, 16] float += x [16, 32] bf16 times w [16 pairs, 16 columns, 2] bf16. */
#define TILE_MULTIPLY(sums, x, w) _tile_dpbf16ps(sums, x, w)

#endif
