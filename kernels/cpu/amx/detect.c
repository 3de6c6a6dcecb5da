/* Whether this process can use the tiles. */
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/amx/tiles.h"

/* The processor has tiles and their bf16 product, and the system saves their state. */
static bool machine_has_tiles(void) {
  enum { OSXSAVE = 1 << 27, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, TILE_STATE = 3 << 17 };
  uint32_t a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d & AMX_BF16) || !(d & AMX_TILE)) return false;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & TILE_STATE) == TILE_STATE;
}

/* Linux gives the large state of the tiles to processes that ask; the leave is the process's, and
 * asking again does no harm. */
static bool system_gives_leave(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static uint16_t small_bf16(int value) {
  float x = (float)value;
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(bits >> 16);
}

/* A product of small whole numbers, which every order of sums makes exactly. */
static bool product_is_right(void) {
  enum { K = 2 * TILE_ROWS };
  _Alignas(64) uint16_t x[TILE_ROWS][K], w[TILE_ROWS][K];
  _Alignas(64) float sums[TILE_ROWS][TILE_ROWS];
  for (int i = 0; i < TILE_ROWS; i++)
    for (int k = 0; k < K; k++) {
      x[i][k] = small_bf16((3 * i + k) % 11 - 5);
      w[i][k] = small_bf16((5 * i + 2 * k) % 13 - 6);
    }
  tiles_begin();
  TILE_ZERO(0);
  TILE_LOAD(1, x);
  TILE_LOAD(2, w);
  TILE_MULTIPLY(0, 1, 2);
  TILE_STORE(0, sums);
  tiles_end();
  for (int m = 0; m < TILE_ROWS; m++)
    for (int n = 0; n < TILE_ROWS; n++) {
      int want = 0;
      for (int k = 0; k < K; k++)
        want += ((3 * m + k) % 11 - 5) * ((5 * (k / 2) + 2 * (2 * n + k % 2)) % 13 - 6);
      if (sums[m][n] != (float)want) return false;
    }
  return true;
}

bool pdt_cpu_amx_works(void) {
  return machine_has_tiles() && system_gives_leave() && product_is_right();
}
