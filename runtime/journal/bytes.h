/* Little-endian numbers in files, and a buffer that grows. */
#ifndef PDT_JOURNAL_BYTES_H
#define PDT_JOURNAL_BYTES_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

/* Eight bytes; the zero after them is not written. */
#define PDT_JOURNAL_MAGIC "PDTJRNL\n"

static inline void pdt_put_le32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static inline void pdt_put_le64(uint8_t *to, uint64_t value) {
  for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint32_t pdt_get_le32(const uint8_t *from) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) value |= (uint32_t)from[i] << (8 * i);
  return value;
}

static inline uint64_t pdt_get_le64(const uint8_t *from) {
  return pdt_get_le32(from) | (uint64_t)pdt_get_le32(from + 4) << 32;
}

/* Makes *buffer hold at least `bytes`, keeping nothing of what is in it; freed by the caller, also
 * after an error. Errors: MEMORY. */
int pdt_bytes_reserve(uint8_t **buffer, size_t *capacity, size_t bytes, const char *what,
                      pdt_error *err);

/* Reads exactly `bytes`. Errors: IO, also when the file ends before. */
int pdt_bytes_read(FILE *file, void *to, size_t bytes, const char *name, pdt_error *err);

#endif
