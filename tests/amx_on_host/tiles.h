/* The tile instructions of kernels/cpu/amx/tiles.h in plain C, by the pseudo-code of Intel's manual
 * (TDPBF16PS): for each row, an even and an odd chain of fused multiply-adds from zero, then their
 * sum is added; denormals count as zero and become zero; rounding to nearest even. */
#ifndef PDT_TESTS_AMX_ON_HOST_TILES_H
#define PDT_TESTS_AMX_ON_HOST_TILES_H

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

typedef struct tile_file {
  bool ready; /* between begin and end: elsewhere an instruction would fault */
  unsigned char tile[8][TILE_ROWS][TILE_BYTES];
} tile_file;

/* Each thread has its own registers, as on the machine. */
static _Thread_local tile_file tile_registers;

static inline unsigned char *host_tile(int t) {
  assert(tile_registers.ready);
  return tile_registers.tile[t][0];
}

static inline void tiles_begin(void) {
  assert(!tile_registers.ready);
  memset(&tile_registers, 0, sizeof tile_registers);
  tile_registers.ready = true;
}

static inline void tiles_end(void) {
  assert(tile_registers.ready);
  tile_registers.ready = false;
}

static inline float host_flushed(float x) {
  return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static inline float host_wide(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return host_flushed(x);
}

/* One row of x. Without the sanitizers, which would make it too slow: its loops are of fixed
 * length, over arrays of host_multiply. */
__attribute__((no_sanitize("address", "undefined"), noinline)) static void
host_multiply_row(const float *x, const float *w, float *total) {
  float chains[2 * TILE_ROWS] = {0};
  for (int k = 0; k < TILE_ROWS; k++) {
    float pair[2 * TILE_ROWS];
    for (int c = 0; c < 2 * TILE_ROWS; c++) pair[c] = x[2 * k + c % 2];
    for (int c = 0; c < 2 * TILE_ROWS; c++)
      chains[c] = host_flushed(fmaf(pair[c], w[2 * TILE_ROWS * k + c], chains[c]));
  }
  for (int n = 0; n < TILE_ROWS; n++)
    total[n] =
        host_flushed(host_flushed(total[n]) + host_flushed(chains[2 * n] + chains[2 * n + 1]));
}

static inline void host_widen(int t, float *x) {
  uint16_t bits[TILE_ROWS * 2 * TILE_ROWS];
  memcpy(bits, host_tile(t), sizeof bits);
  for (int i = 0; i < TILE_ROWS * 2 * TILE_ROWS; i++) x[i] = host_wide(bits[i]);
}

static inline void host_multiply(int sums, int x, int w) {
  float rows[TILE_ROWS * 2 * TILE_ROWS], weights[TILE_ROWS * 2 * TILE_ROWS];
  float total[TILE_ROWS * TILE_ROWS];
  host_widen(x, rows);
  host_widen(w, weights);
  memcpy(total, host_tile(sums), sizeof total);
  for (int m = 0; m < TILE_ROWS; m++)
    host_multiply_row(rows + (ptrdiff_t)m * 2 * TILE_ROWS, weights,
                      total + (ptrdiff_t)m * TILE_ROWS);
  memcpy(host_tile(sums), total, sizeof total);
}

#define TILE_ZERO(t)              memset(host_tile(t), 0, TILE_ROWS *TILE_BYTES)
#define TILE_LOAD(t, p)           memcpy(host_tile(t), p, TILE_ROWS *TILE_BYTES)
#define TILE_STORE(t, p)          memcpy(p, host_tile(t), TILE_ROWS *TILE_BYTES)
#define TILE_MULTIPLY(sums, x, w) host_multiply(sums, x, w)

#endif
