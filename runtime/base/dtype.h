/* Element types of weights as they stand in files and in memory. Arithmetic is in float. */
#ifndef PDT_BASE_DTYPE_H
#define PDT_BASE_DTYPE_H

#include "base/types.h"

typedef enum pdt_dtype { PDT_F32, PDT_F16, PDT_BF16 } pdt_dtype;

/* Bytes of one element: 4, 2, 2. */
static inline size_t pdt_dtype_bytes(pdt_dtype t) {
  return t == PDT_F32 ? 4 : 2;
}

/* The name safetensors uses: "F32", "F16", "BF16". */
const char *pdt_dtype_name(pdt_dtype t);

/* Parses such a name; false when it is another. */
bool pdt_dtype_parse(const char *name, pdt_dtype *out);

/* Widens n elements of type t, at any alignment, to float. Exact. */
void pdt_to_float(pdt_dtype t, const void *src, int64_t n_elems, float *dst);

/* Rounds n floats to type t, to nearest, ties to even. */
void pdt_from_float(pdt_dtype t, const float *src, int64_t n_elems, void *dst);

#endif
