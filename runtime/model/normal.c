#include "model/normal.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "protocol/philox.h"

/* Two uniform words to two normal numbers, by 24 bits of each. u is above 0, so that its logarithm
 * is finite, and at most 1. */
static void box_muller(const uint32_t x[2], float out[2]) {
  float u = ((float)(x[0] >> 8) + 0.5f) * 0x1p-24f;
  float angle = (float)(x[1] >> 8) * (float)(2 * M_PI * 0x1p-24);
  float radius = sqrtf(-2 * logf(u));
  out[0] = radius * cosf(angle);
  out[1] = radius * sinf(angle);
}

void pdt_normal_fill(uint64_t seed, const char *name, int64_t first, int64_t n_elems, float mean,
                     float deviation, float *out) {
  const uint64_t id = XXH3_64bits(name, strlen(name));
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
#pragma omp parallel for schedule(static) if (n_elems > 4096)
  for (int64_t at = 0; at < n_elems; at += 4) {
    uint64_t block = (uint64_t)(first + at) / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)id,
                           (uint32_t)(id >> 32)};
    uint32_t words[4];
    float z[4];
    pdt_philox4x32(counter, key, words);
    box_muller(words, z);
    box_muller(words + 2, z + 2);
    for (int64_t j = 0; j < 4 && at + j < n_elems; j++) out[at + j] = mean + deviation * z[j];
  }
}
