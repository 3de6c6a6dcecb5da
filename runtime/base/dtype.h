/* Types of weights as they stand in files and in memory. Arithmetic is in float.
 *
 * A row of weights is a row of blocks. Of the float types a block is one element; of the quantized
 * ones, which are ggml's, it is 32 or 256 elements that share a scale (quantized.h), so that a row
 * has whole blocks and only a whole block has an address. */
#ifndef PDT_BASE_DTYPE_H
#define PDT_BASE_DTYPE_H

#include "base/types.h"

typedef enum pdt_dtype {
  PDT_F32,
  PDT_F16,
  PDT_BF16,
  PDT_Q8_0, /* the first quantized type */
  PDT_Q4_0,
  PDT_Q4_1,
  PDT_Q5_0,
  PDT_Q5_1,
  PDT_Q4_K,
  PDT_Q5_K,
  PDT_Q6_K,
  /* What Q4_K, Q5_K and Q6_K become where a matrix ends inside a block of 256 (pdt_recut): in
   * memory only. */
  PDT_Q4_K32,
  PDT_Q5_K32,
  PDT_Q6_K32,
} pdt_dtype;
enum { PDT_DTYPES = PDT_Q6_K32 + 1 };

/* What weights of a type come in. */
typedef struct pdt_dtype_block {
  int32_t elems, bytes;
} pdt_dtype_block;

pdt_dtype_block pdt_dtype_block_of(pdt_dtype t);

static inline bool pdt_dtype_quantized(pdt_dtype t) {
  return t >= PDT_Q8_0;
}

/* Bytes of one element of a float type: 4, 2, 2. */
static inline size_t pdt_dtype_bytes(pdt_dtype t) {
  return t == PDT_F32 ? 4 : 2;
}

/* Bytes of n_elems elements of any type, whole blocks of them. */
static inline pdt_bytes pdt_dtype_row_bytes(pdt_dtype t, int64_t n_elems) {
  pdt_dtype_block block = pdt_dtype_block_of(t);
  return n_elems / block.elems * block.bytes;
}

/* "F32", "F16", "BF16", as safetensors and ggml have it; "Q8_0", "Q4_K" .. as ggml has it. */
const char *pdt_dtype_name(pdt_dtype t);

/* Parses the name of a type that files may have; false when it is another. */
bool pdt_dtype_parse(const char *name, pdt_dtype *out);

/* The same of a float type. */
bool pdt_dtype_parse_float(const char *name, pdt_dtype *out);

/* Widens n elements, whole blocks of type t at any alignment, to float. Exact for the float types;
 * for the others it is the value that ggml gives them: what is rounded is rounded once. */
void pdt_to_float(pdt_dtype t, const void *src, int64_t n_elems, float *dst);

/* Rounds n floats to type t: a float type to nearest, ties to even; Q8_0 and Q4_0 as ggml's
 * reference does, n a multiple of 32. Of no other type: false then, and nothing is written. Floats
 * that are not finite, or too large for a scale in half precision, give what is not finite. */
bool pdt_from_float(pdt_dtype t, const float *src, int64_t n_elems, void *dst);

#endif
