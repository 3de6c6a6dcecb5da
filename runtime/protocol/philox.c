#include "protocol/philox.h"

void pdt_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

double pdt_uniform(uint64_t seed, uint32_t position, pdt_stream stream, int32_t attempt,
                   uint64_t session) {
  uint32_t counter[4] = {position, (uint32_t)stream, (uint32_t)attempt, (uint32_t)session};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, x[4];
  pdt_philox4x32(counter, key, x);
  return ((x[0] >> 5) * 67108864.0 + (x[1] >> 6) + 0.5) / 9007199254740992.0;
}
