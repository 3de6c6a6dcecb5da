/* Quantized weights: how they stand in panels, and how threads share their products. */
#include "kernels/cpu/quantized.h"

#include <stdlib.h>
#include <string.h>
#ifdef PDT_X86
#include <cpuid.h>
#endif

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/operations.h"
#include "kernels/host_memory.h"

/* ---- panels ---- */

pdt_bytes pdt_cpu_quantized_panel_bytes(int32_t in, pdt_dtype dtype) {
  pdt_cpu_unit u = pdt_cpu_unit_of(dtype);
  int64_t pieces = in / PDT_PIECE;
  return (pieces + u.pieces - 1) / u.pieces * u.bytes;
}

/* Where the parts of a piece stand in its panel. */
typedef struct place {
  int64_t d, min, subs, codes;
} place;

static place place_of(const pdt_cpu_unit *u, int64_t piece) {
  int64_t unit = piece / u->pieces * u->bytes, j = piece % u->pieces;
  return (place){unit + j * u->d_step, unit + u->min + j * u->d_step,
                 unit + u->subs + j * 2 * PDT_PANEL, unit + u->codes + j * u->piece_bytes};
}

/* The word of a lane in vector v of codes. */
static unsigned char *word(char *codes, int v, int32_t lane) {
  return (unsigned char *)codes + (v * PDT_PANEL + lane) * 4;
}

/* Codes of a piece into the words of a lane. */
static void put_codes(int32_t bits, const uint8_t *code, char *codes, int32_t lane) {
  enum { HALF = PDT_PIECE / 2, GROUP = 4 };
  unsigned char low[HALF], high[2][GROUP] = {{0}};
  if (bits == 8) {
    for (int g = 0; g < PDT_PIECE / GROUP; g++)
      memcpy(word(codes, g, lane), code + g * GROUP, GROUP);
    return;
  }
  for (int j = 0; j < HALF; j++) low[j] = (unsigned char)((code[j] & 15) | code[j + HALF] << 4);
  for (int v = 0; v < HALF / GROUP; v++)
    memcpy(word(codes, v, lane), low + (size_t)v * GROUP, GROUP);
  for (int i = 0; i < PDT_PIECE && bits > 4; i++) {
    int g = i / GROUP, k = i % GROUP;
    if (bits == 5)
      high[0][k] |= (unsigned char)(code[i] >> 4 << g);
    else
      high[g / GROUP][k] |= (unsigned char)(code[i] >> 4 << g % GROUP * 2);
  }
  for (int v = 0; v < bits - 4; v++) memcpy(word(codes, HALF / GROUP + v, lane), high[v], GROUP);
}

static void get_codes(int32_t bits, char *codes, int32_t lane, uint8_t *code) {
  for (int i = 0; i < PDT_PIECE; i++) {
    int g = i / 4, k = i % 4;
    if (bits == 8) {
      code[i] = word(codes, g, lane)[k];
      continue;
    }
    code[i] = word(codes, g % 4, lane)[k] >> g / 4 * 4 & 15;
    if (bits == 5) code[i] |= (word(codes, 4, lane)[k] >> g & 1) << 4;
    if (bits == 6) code[i] |= (word(codes, 4 + g / 4, lane)[k] >> g % 4 * 2 & 3) << 4;
  }
}

void pdt_cpu_quantized_pack(pdt_dtype dtype, char *panel, int32_t lane, const void *row,
                            int32_t in) {
  pdt_quantized_form form = pdt_quantized_form_of(dtype);
  pdt_cpu_unit u = pdt_cpu_unit_of(dtype);
  for (int64_t i = 0; i < in / PDT_PIECE; i++) {
    place at = place_of(&u, i);
    pdt_piece piece;
    pdt_piece_read(dtype, row, i, &piece);
    memcpy(panel + at.d + lane * 2, &piece.d, 2);
    if (form.low) memcpy(panel + at.min + lane * 2, &piece.min, 2);
    if (form.subs) {
      panel[at.subs + lane] = piece.sub[0];
      panel[at.subs + PDT_PANEL + lane] = form.low ? (char)piece.sub_min : piece.sub[1];
    }
    put_codes(form.bits, piece.code, panel + at.codes, lane);
  }
}

void pdt_cpu_quantized_read(pdt_dtype dtype, const char *panel, int32_t lane, int32_t in,
                            float *row) {
  pdt_quantized_form form = pdt_quantized_form_of(dtype);
  pdt_cpu_unit u = pdt_cpu_unit_of(dtype);
  for (int64_t i = 0; i < in / PDT_PIECE; i++) {
    place at = place_of(&u, i);
    pdt_piece piece = {.sub = {1, 1}, .sub_min = 1};
    memcpy(&piece.d, panel + at.d + lane * 2, 2);
    if (form.low) memcpy(&piece.min, panel + at.min + lane * 2, 2);
    if (form.subs) {
      piece.sub[0] = (int8_t)panel[at.subs + lane];
      piece.sub[1] = form.low ? piece.sub[0] : (int8_t)panel[at.subs + PDT_PANEL + lane];
      if (form.low) piece.sub_min = (uint8_t)panel[at.subs + PDT_PANEL + lane];
    }
    get_codes(form.bits, (char *)panel + at.codes, lane, piece.code);
    pdt_piece_widen(dtype, &piece, row + i * PDT_PIECE);
  }
}

/* ---- room ---- */

void pdt_cpu_quantized_free(pdt_cpu_quantized_room *room) {
  free(room->rows8.codes);
  free(room->rows8.pieces);
  free(room->widened);
  *room = (pdt_cpu_quantized_room){0};
}

int pdt_cpu_quantized_reserve(pdt_device *dev, pdt_dtype dtype, int32_t in, int32_t leaf_width,
                              pdt_error *err) {
  pdt_cpu_quantized_room *room = &((pdt_cpu *)dev->state)->quantized_room;
  int32_t block = pdt_dtype_block_of(dtype).elems;
  if (in % block || (leaf_width < in && leaf_width % PDT_PIECE))
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "weight matrix of %s: expected a multiple of %d inputs in leaves of a multiple "
                    "of %d, found %d in leaves of %d",
                    pdt_dtype_name(dtype), block, PDT_PIECE, in, leaf_width);
  if (in <= room->in) return 0;
  pdt_cpu_quantized_room made = {.in = in};
  int64_t widened = dev->full_rows ? (int64_t)dev->threads * in * PDT_CPU_WIDENED * PDT_PANEL : 0;
  const char *what = "room for products of quantized weights";
  if (PDT_NEW(&made.rows8.codes, (int64_t)PDT_CPU_ROWS8 * in, what, err) ||
      PDT_NEW(&made.rows8.pieces, (int64_t)PDT_CPU_ROWS8 * (in / PDT_PIECE), what, err) ||
      PDT_NEW(&made.widened, widened, what, err)) {
    pdt_cpu_quantized_free(&made);
    return -1;
  }
  pdt_cpu_quantized_free(room);
  *room = made;
  return 0;
}

/* ---- products ---- */

/* Threads worth starting for so many weights and rows: fewer weights than THREAD_WEIGHTS are not
 * worth a thread of their own, and a weight costs as much to fetch as a few rows cost to multiply.
 */
static int useful_threads(const pdt_device *dev, const pdt_matrix *w, int32_t rows) {
  enum { THREAD_WEIGHTS = 65536, ROWS = 8 };
  int64_t panels = ((int64_t)w->out + PDT_PANEL - 1) / PDT_PANEL;
  int64_t most = (int64_t)w->out * w->in / THREAD_WEIGHTS * (1 + rows / ROWS);
  if (most > panels) most = panels;
  return most < 1 ? 1 : most < dev->threads ? (int)most : dev->threads;
}

/* The part of `all` panels of thread t of n. */
static pdt_range part_of(int64_t all, int t, int n) {
  return (pdt_range){(int32_t)(all * t / n), (int32_t)(all * (t + 1) / n)};
}

/* Up to PDT_CPU_ROWS8 rows. */
static void matmul8(pdt_device *dev, pdt_cpu_product8 *p, const float *x, int64_t x_stride) {
  enum { ROWS_TO_SHARE = 4 };
  const pdt_cpu_quantized *k = ((const pdt_cpu *)dev->state)->quantized;
  int32_t in = p->w->in, offset = pdt_quantized_form_of(p->w->dtype).offset;
  int64_t panels = ((int64_t)p->w->out + PDT_PANEL - 1) / PDT_PANEL;
  int team = useful_threads(dev, p->w, p->rows);
#pragma omp parallel for num_threads(team) if (team > 1 && p->rows >= ROWS_TO_SHARE)
  for (int32_t r = 0; r < p->rows; r++)
    k->quantize_row(x + r * x_stride, in, offset, p->x.codes + (int64_t)r * in,
                    p->x.pieces + (int64_t)r * (in / PDT_PIECE));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1)
  for (int t = 0; t < team; t++) {
    pdt_range part = part_of(panels, t, team);
    k->panels8(p, part.begin, part.end);
  }
}

/* Panels begin .. end - 1 by the kernels for F32. The matrix that these see is a few panels, with
 * the tree of w. */
static void panels_widened(const pdt_device *dev, const pdt_matrix *w, pdt_range part,
                           const float *x, int64_t x_stride, int32_t rows, float *y) {
  const pdt_cpu *cpu = dev->state;
  pdt_bytes panel_bytes = pdt_cpu_quantized_panel_bytes(w->in, w->dtype);
  int64_t floats = (int64_t)w->in * PDT_PANEL;
  float *widened = cpu->quantized_room.widened +
                   pdt_thread() * (int64_t)cpu->quantized_room.in * PDT_CPU_WIDENED * PDT_PANEL;
  for (int32_t panel = part.begin; panel < part.end; panel += PDT_CPU_WIDENED) {
    int32_t n = part.end - panel < PDT_CPU_WIDENED ? part.end - panel : PDT_CPU_WIDENED;
    int32_t first = panel * PDT_PANEL, left = w->out - first;
    for (int32_t i = 0; i < n; i++)
      cpu->quantized->widen_panel(w, (const char *)w->data + (panel + i) * panel_bytes,
                                  widened + i * floats);
    pdt_matrix few = {.out = n * PDT_PANEL < left ? n * PDT_PANEL : left,
                      .in = w->in,
                      .dtype = PDT_F32,
                      .tree = w->tree,
                      .data = widened};
    cpu->primitives->matmul(&few, x, x_stride, rows, y + first, w->out, 1);
  }
}

static void matmul_widened(pdt_device *dev, const pdt_matrix *w, const float *x, int64_t x_stride,
                           int32_t rows, float *y) {
  int64_t panels = ((int64_t)w->out + PDT_PANEL - 1) / PDT_PANEL;
  int team = useful_threads(dev, w, rows);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1)
  for (int t = 0; t < team; t++)
    panels_widened(dev, w, part_of(panels, t, team), x, x_stride, rows, y);
}

void pdt_cpu_quantized_matmul(pdt_device *dev, const pdt_matrix *w, const float *x,
                              int64_t x_stride, int32_t rows, float *y) {
  const pdt_cpu *cpu = dev->state;
  if (dev->full_rows) {
    if (rows > 0) matmul_widened(dev, w, x, x_stride, rows, y);
    return;
  }
  pdt_cpu_product8 p = {.w = w,
                        .panel_bytes = pdt_cpu_quantized_panel_bytes(w->in, w->dtype),
                        .unit = pdt_cpu_unit_of(w->dtype),
                        .x = cpu->quantized_room.rows8,
                        .y_stride = w->out};
  for (int32_t done = 0; done < rows; done += p.rows) {
    p.rows = rows - done < PDT_CPU_ROWS8 ? rows - done : PDT_CPU_ROWS8;
    p.y = y + (int64_t)done * w->out;
    matmul8(dev, &p, x + done * x_stride, x_stride);
  }
}

/* ---- the table ---- */

extern const pdt_cpu_quantized pdt_cpu_portable_quantized;
#ifdef PDT_X86
extern const pdt_cpu_quantized pdt_cpu_avx2_quantized, pdt_cpu_avxvnni_quantized;
extern const pdt_cpu_quantized pdt_cpu_avx512_quantized, pdt_cpu_avx512vnni_quantized;
#endif

#ifdef PDT_X86
/* AVX-VNNI, which not every compiler's __builtin_cpu_supports knows. */
static bool has_avxvnni(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

const pdt_cpu_quantized *pdt_cpu_quantized_of(pdt_cpu_isa isa) {
#ifdef PDT_X86
  if (isa >= PDT_CPU_AVX512)
    return __builtin_cpu_supports("avx512vnni") ? &pdt_cpu_avx512vnni_quantized
                                                : &pdt_cpu_avx512_quantized;
  if (isa == PDT_CPU_AVX2)
    return has_avxvnni() ? &pdt_cpu_avxvnni_quantized : &pdt_cpu_avx2_quantized;
#endif
  (void)isa;
  return &pdt_cpu_portable_quantized;
}
