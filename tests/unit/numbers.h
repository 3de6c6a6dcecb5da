/* Random numbers for tests: the same on every machine, from a seed that the test names. */
#ifndef PDT_TESTS_NUMBERS_H
#define PDT_TESTS_NUMBERS_H

#include <stdint.h>

typedef struct numbers {
  uint64_t state;
} numbers;

/* SplitMix64. */
static inline uint64_t numbers_next(numbers *n) {
  uint64_t z = n->state += 0x9E3779B97F4A7C15U;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
  z = (z ^ z >> 27) * 0x94D049BB133111EBU;
  return z ^ z >> 31;
}

/* low .. high, both included. */
static inline int32_t numbers_int(numbers *n, int32_t low, int32_t high) {
  return low + (int32_t)(numbers_next(n) % (uint64_t)((int64_t)high - low + 1));
}

/* In [0, 1). */
static inline double numbers_real(numbers *n) {
  return (double)(numbers_next(n) >> 11) / 9007199254740992.0;
}

#endif
