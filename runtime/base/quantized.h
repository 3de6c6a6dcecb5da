/* ggml's quantized types, block by block.
 *
 * Every type can be read in pieces of 32 elements, which have small whole numbers ("codes") and,
 * for each 16 of them, a scale; and some types have a value `low` of code 0. With the type's
 * `offset`
 *
 *   element i = (d * sub[i / 16]) * (code[i] - offset) + low
 *
 * in float, where the product in brackets is exact, and of the rest one operation at most rounds.
 * d and what low is made of are in half precision; sub is 1 where a type has one scale for a block.
 */
#ifndef PDT_BASE_QUANTIZED_H
#define PDT_BASE_QUANTIZED_H

#include "base/dtype.h"

enum { PDT_PIECE = 32 }; /* elements of a piece */

/* What pieces of a type are made of. */
typedef struct pdt_quantized_form {
  int32_t bits;   /* of a code: 4, 5, 6 or 8 */
  int32_t offset; /* 0, 8, 16, 32 or 128 */
  int32_t pieces; /* of a block, which has one d and min */
  bool low;       /* has a low: min itself, or of the types with subs -(min * sub_min) */
  bool subs;      /* scales and mins of their own for pieces or halves of them */
} pdt_quantized_form;

static inline pdt_quantized_form pdt_quantized_form_of(pdt_dtype t) {
  switch (t) {
  case PDT_Q8_0:
    return (pdt_quantized_form){8, 128, 1, false, false};
  case PDT_Q4_0:
    return (pdt_quantized_form){4, 8, 1, false, false};
  case PDT_Q4_1:
    return (pdt_quantized_form){4, 0, 1, true, false};
  case PDT_Q5_0:
    return (pdt_quantized_form){5, 16, 1, false, false};
  case PDT_Q5_1:
    return (pdt_quantized_form){5, 0, 1, true, false};
  case PDT_Q4_K:
    return (pdt_quantized_form){4, 0, 8, true, true};
  case PDT_Q5_K:
    return (pdt_quantized_form){5, 0, 8, true, true};
  case PDT_Q6_K:
    return (pdt_quantized_form){6, 32, 8, false, true};
  case PDT_Q4_K32:
    return (pdt_quantized_form){4, 0, 1, true, true};
  case PDT_Q5_K32:
    return (pdt_quantized_form){5, 0, 1, true, true};
  case PDT_Q6_K32:
    return (pdt_quantized_form){6, 32, 1, false, true};
  default:
    return (pdt_quantized_form){.pieces = 1};
  }
}

/* One piece. Halves of a type with one scale for a piece have the same sub. */
typedef struct pdt_piece {
  uint16_t d, min; /* half precision's bits; min: 0 for a type without low */
  int8_t sub[2];   /* 1 without subs */
  uint8_t sub_min; /* 1 without subs */
  uint8_t code[PDT_PIECE];
} pdt_piece;

/* Piece `index` of a row of blocks of a quantized type, at any alignment. Pure. */
void pdt_piece_read(pdt_dtype t, const void *row, int64_t index, pdt_piece *out);

/* The piece's elements. Pure. */
void pdt_piece_widen(pdt_dtype t, const pdt_piece *piece, float dst[PDT_PIECE]);

/* What a type in blocks of 256 becomes in blocks of 32, which have the same values and a copy of
 * scales each: Q4_K32 of Q4_K and so on; any other type is itself. Pure. */
pdt_dtype pdt_recut_dtype(pdt_dtype t);

/* n pieces of a row of type t, from piece `first` on, as blocks of pdt_recut_dtype(t). */
void pdt_recut(pdt_dtype t, const void *row, int64_t first, int64_t n, void *dst);

/* Those of dtype.h and finite.h for the quantized types. */
void pdt_dequantize(pdt_dtype t, const void *src, int64_t n_elems, float *dst);
bool pdt_quantize(pdt_dtype t, const float *src, int64_t n_elems, void *dst);
bool pdt_quantized_finite(pdt_dtype t, const void *data, int64_t n_elems);

/* Half precision's bits to float, and float rounded to them. */
float pdt_half_to_float(uint16_t h);
uint16_t pdt_half_of_float(float f);

#endif
