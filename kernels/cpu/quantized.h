/* Products of quantized weights on the CPU (quantized.c, isa/quantized.c).
 *
 * By default the rows of x are quantized too: a piece of 32 inputs becomes whole numbers of 8 bits
 * and a scale, which depend on nothing but the piece. Then the product of a piece of weights and a
 * piece of x is a whole number, the same on every instruction set; it is multiplied by both scales
 * and added in float, piece by piece in the order of the matrix's tree. Otherwise (dev->full_rows)
 * weights are widened, a few panels at a time, and multiplied as F32 weights are: the same bits. */
#ifndef PDT_KERNELS_CPU_QUANTIZED_H
#define PDT_KERNELS_CPU_QUANTIZED_H

#include "base/quantized.h"
#include "kernels/cpu/primitives.h"

/* A panel of 16 outputs is a row of units, each of some pieces of every output: of 8 where a block
 * of 256 has one d, else of 2, so that everything begins at a multiple of 64 bytes. In a unit lie,
 * for its pieces one behind the other and in each for 16 lanes side by side:
 *   d         half precision; one for all of 8
 *   min       the same, with low
 *   subs      with subs: sub[0] then sub_min, bytes; without low sub[0] then sub[1]
 * and then, of each piece, codes in words of 4 bytes, which are 4 inputs of one lane: group g of a
 * piece is its inputs 4g .. 4g + 3.
 *   8 bits:   8 vectors of 16 words, group by group
 *   others:   4 vectors; vector v has group v in the low nibbles of its bytes, group v + 4 in the
 * high 5 bits:   and a vector whose bytes have in bit g the fifth bit of group g 6 bits:   and 2
 * vectors; vector h has in bits 2j, 2j + 1 the upper bits of group 4h + j */
typedef struct pdt_cpu_unit {
  int32_t pieces;      /* a power of 2 */
  int32_t d_step;      /* bytes from the d of a piece to that of the next; 0: it has the same */
  int32_t min, subs;   /* where these begin in a unit */
  int32_t codes;       /* where those of the first piece begin */
  int32_t piece_bytes; /* of codes of a piece */
  int32_t bytes;       /* of a unit */
} pdt_cpu_unit;

static inline pdt_cpu_unit pdt_cpu_unit_of(pdt_dtype t) {
  enum { D_BYTES = PDT_PANEL * 2, SUBS_BYTES = PDT_PANEL * 2, VECTOR = PDT_PANEL * 4 };
  pdt_quantized_form form = pdt_quantized_form_of(t);
  bool shared = form.pieces > 1;
  pdt_cpu_unit u = {.pieces = shared ? form.pieces : 2, .d_step = shared ? 0 : D_BYTES};
  int32_t d_bytes = shared ? D_BYTES : u.pieces * D_BYTES;
  u.min = d_bytes;
  u.subs = u.min + (form.low ? d_bytes : 0);
  int32_t head = u.subs + (form.subs ? u.pieces * SUBS_BYTES : 0);
  u.codes = (head + VECTOR - 1) / VECTOR * VECTOR;
  u.piece_bytes = VECTOR * (form.bits == 8 ? 8 : form.bits == 6 ? 6 : form.bits);
  u.bytes = u.codes + u.pieces * u.piece_bytes;
  return u;
}

/* What a piece of x became: x[i] is about scale * code[i]. */
typedef struct pdt_cpu_piece {
  float scale; /* of the largest magnitude, / 127; NaN where one is not finite */
  float sum;   /* scale * the sum of the codes */
  int32_t
      start[2]; /* - offset * the sum of the codes of either half, where the integer sum starts */
} pdt_cpu_piece;

/* Rows of x, quantized. */
typedef struct pdt_cpu_rows8 {
  int8_t *codes;         /* [rows, in] */
  pdt_cpu_piece *pieces; /* [rows, in / 32] */
} pdt_cpu_rows8;

/* A product of quantized rows. */
typedef struct pdt_cpu_product8 {
  const pdt_matrix *w;
  pdt_bytes panel_bytes;
  pdt_cpu_unit unit;
  pdt_cpu_rows8 x;
  int32_t rows;
  float *y;
  int64_t y_stride;
} pdt_cpu_product8;

/* The primitives of one instruction set. All give the same codes and whole numbers. */
typedef struct pdt_cpu_quantized {
  const char *name; /* of the instructions for the integer sums */

  /* x[0 .. in) into codes and pieces; in is a multiple of 32. */
  void (*quantize_row)(const float *x, int32_t in, int32_t offset, int8_t *codes,
                       pdt_cpu_piece *pieces);

  /* y of all rows for panels begin .. end - 1. */
  void (*panels8)(const pdt_cpu_product8 *p, int64_t begin, int64_t end);

  /* A panel of a matrix as one of F32: to[i * PANEL + lane]. */
  void (*widen_panel)(const pdt_matrix *w, const void *panel, float *to);
} pdt_cpu_quantized;

/* The best of this machine for an instruction set that it has. Static storage. */
const pdt_cpu_quantized *pdt_cpu_quantized_of(pdt_cpu_isa isa);

/* Room of a device for these products: grows with its matrices. */
typedef struct pdt_cpu_quantized_room {
  int32_t in;          /* the widest matrix */
  pdt_cpu_rows8 rows8; /* [PDT_CPU_ROWS8, in] */
  float *widened;      /* with full rows: [threads, in, PDT_CPU_WIDENED PANEL] */
} pdt_cpu_quantized_room;
enum { PDT_CPU_ROWS8 = 128, PDT_CPU_WIDENED = 4 };

/* Refuses a shape whose blocks are not whole. Makes room for products with it. Errors: RUNTIME,
 * MEMORY. */
int pdt_cpu_quantized_reserve(pdt_device *dev, pdt_dtype dtype, int32_t in, int32_t leaf_width,
                              pdt_error *err);
void pdt_cpu_quantized_free(pdt_cpu_quantized_room *room);

pdt_bytes pdt_cpu_quantized_panel_bytes(int32_t in, pdt_dtype dtype);

/* Row `lane` of a panel from a row as files have it, and back, widened. */
void pdt_cpu_quantized_pack(pdt_dtype dtype, char *panel, int32_t lane, const void *row,
                            int32_t in);
void pdt_cpu_quantized_read(pdt_dtype dtype, const char *panel, int32_t lane, int32_t in,
                            float *row);

/* matmul of kernels.h. */
void pdt_cpu_quantized_matmul(pdt_device *dev, const pdt_matrix *w, const float *x,
                              int64_t x_stride, int32_t rows, float *y);

#endif
