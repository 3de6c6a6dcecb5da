#include "model/load.h"

#include <stdlib.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/quantized.h"

/* Of a file: in memory at once; that one thread reads at a time; asked of the disk ahead. */
enum { CHUNK_BYTES = 8 << 20, PIECE_BYTES = 256 << 10, AHEAD_BYTES = 64 << 20 };

static int64_t row_width(const pdt_tensor *tensor) {
  return tensor->shape[tensor->n_dims - 1];
}

static int refuse(const pdt_tensor *tensor, int64_t element, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected finite weights, found NaN or infinity at element %lld "
                  "(hint: the file is damaged, or training diverged)",
                  tensor->file->path, tensor->name, (long long)element);
}

/* Columns of a tensor that are read for a part: whole blocks, of which the first `skip` elements
 * may lie before it. */
typedef struct span {
  int64_t first;
  int32_t width, skip;
} span;

static span span_of(const pdt_tensor_part *part, int32_t in) {
  int32_t block = pdt_dtype_block_of(part->tensor->dtype).elems, skip = part->first_col % block;
  int32_t width = (skip + in + block - 1) / block * block;
  return (span){part->first_col - skip, width, skip};
}

/* Rows [row, row + n) of a part as they stand in the file, the span's columns of each, close
 * together; refuses NaN and infinity. */
static int read_piece(const pdt_tensor_part *part, span columns, int64_t row, int32_t n, char *rows,
                      pdt_error *err) {
  const pdt_tensor *tensor = part->tensor;
  int64_t width = row_width(tensor), first = row * width + columns.first, in = columns.width;
  int64_t at_once = in == width ? n * in : in;
  for (int64_t done = 0; done < n * in; done += at_once)
    if (pdt_tensor_read(tensor, first + done / in * width, at_once,
                        rows + pdt_dtype_row_bytes(tensor->dtype, done), err))
      return -1;
  int64_t bad = pdt_first_not_finite(tensor->dtype, rows, n * in);
  return bad < 0 ? 0 : refuse(tensor, first + bad / in * width + bad % in, err);
}

/* The same by several threads; of several errors the first in the file. */
static int read_rows(const pdt_device *dev, const pdt_tensor_part *part, span columns, int64_t row,
                     int32_t n, char *rows, pdt_error *err) {
  pdt_bytes row_bytes = pdt_dtype_row_bytes(part->tensor->dtype, columns.width);
  int64_t most = n * row_bytes / PIECE_BYTES + 1;
  int32_t pieces = most < n ? (int32_t)most : n, failed = pieces;
  pdt_error first = {0};
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && pieces > 1)
  for (int32_t p = 0; p < pieces; p++) {
    int32_t begin = (int32_t)((int64_t)n * p / pieces);
    int32_t end = (int32_t)((int64_t)n * (p + 1) / pieces);
    pdt_error own = {0};
    if (!read_piece(part, columns, row + begin, end - begin, rows + begin * row_bytes, &own))
      continue;
#pragma omp critical
    if (p < failed) {
      failed = p;
      first = own;
    }
  }
  if (failed == pieces) return 0;
  if (err) *err = first;
  return -1;
}

/* Asks the disk for rows [row, row + n) of a part, or those of them that there are. */
static void ask_ahead(const pdt_tensor_part *part, int64_t row, int64_t n) {
  int64_t width = row_width(part->tensor), end = part->first_row + part->rows;
  if (row + n > end) n = end - row;
  if (n > 0) pdt_tensor_will_read(part->tensor, row * width, n * width);
}

/* A matrix in the making. */
typedef struct packing {
  pdt_device *dev;
  pdt_matrix *m;
  int64_t rows;    /* of a piece */
  char *raw;       /* [rows] as in the file */
  char *converted; /* [rows] of the matrix's type */
} packing;

/* One row of a span, of type t, as `in` elements of another type. */
static void convert_row(pdt_dtype t, const char *row, span columns, pdt_dtype to, int32_t in,
                        char *out) {
  enum { STEP = 256 }; /* whole blocks of any type */
  float widened[STEP];
  if (to == pdt_recut_dtype(t)) {
    pdt_recut(t, row, columns.skip / PDT_PIECE, in / PDT_PIECE, out);
    return;
  }
  for (int32_t at = 0; at < columns.width; at += STEP) {
    int32_t n = columns.width - at < STEP ? columns.width - at : STEP;
    int32_t begin = columns.skip > at ? columns.skip - at : 0;
    int32_t end = columns.skip + in - at < n ? columns.skip + in - at : n;
    pdt_to_float(t, row + pdt_dtype_row_bytes(t, at), n, widened);
    if (begin < end)
      pdt_from_float(to, widened + begin, end - begin,
                     out + pdt_dtype_row_bytes(to, at + begin - columns.skip));
  }
}

/* Rows that were read from `row` on, in the matrix's type. */
static int convert_rows(const packing *p, const pdt_tensor_part *part, span columns, int64_t row,
                        int32_t n, pdt_error *err) {
  const pdt_tensor *tensor = part->tensor;
  int32_t in = p->m->in;
  pdt_dtype from = tensor->dtype, to = p->m->dtype;
  pdt_bytes raw_bytes = pdt_dtype_row_bytes(from, columns.width);
  pdt_bytes bytes = pdt_dtype_row_bytes(to, in);
#pragma omp parallel for num_threads(p->dev->threads) if (p->dev->threads > 1 && n > 1)
  for (int32_t r = 0; r < n; r++)
    convert_row(from, p->raw + r * raw_bytes, columns, to, in, p->converted + r * bytes);
  int64_t bad = pdt_first_not_finite(to, p->converted, (int64_t)n * in);
  if (bad < 0) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected weights that %s can hold, found one too large near "
                  "element %lld",
                  tensor->file->path, tensor->name, pdt_dtype_name(to),
                  (long long)((row + bad / in) * row_width(tensor) + part->first_col + bad % in));
}

/* Packs rows [row, row + n) of a part, as what the matrix has. */
static int pack_rows(const packing *p, int32_t out_row, const pdt_tensor_part *part, int64_t row,
                     int32_t n, pdt_error *err) {
  span columns = span_of(part, p->m->in);
  bool same = p->m->dtype == part->tensor->dtype;
  if (read_rows(p->dev, part, columns, row, n, p->raw, err) ||
      (!same && convert_rows(p, part, columns, row, n, err)))
    return -1;
  p->dev->ops->matrix_pack(p->dev, p->m, out_row, n, same ? p->raw : p->converted, p->m->in);
  return 0;
}

static int pack_parts(const packing *p, const pdt_tensor_part *parts, int32_t n, pdt_error *err) {
  int32_t out_row = 0;
  for (int32_t i = 0; i < n; i++) {
    int64_t ahead = AHEAD_BYTES / (row_width(parts[i].tensor) * (int64_t)sizeof(float)) + 1;
    ask_ahead(&parts[i], parts[i].first_row, ahead);
    for (int32_t done = 0; done < parts[i].rows;) {
      int32_t left = parts[i].rows - done;
      int32_t rows = left < p->rows ? left : (int32_t)p->rows;
      ask_ahead(&parts[i], parts[i].first_row + done + ahead, rows);
      if (pack_rows(p, out_row, &parts[i], parts[i].first_row + done, rows, err)) return -1;
      done += rows;
      out_row += rows;
    }
  }
  return 0;
}

pdt_dtype pdt_load_dtype(const pdt_tensor_part *part, const pdt_matrix_form *form) {
  pdt_dtype t = part->tensor->dtype;
  int32_t in = form->in, leaf = form->leaf_width, block = pdt_dtype_block_of(t).elems;
  bool pieces = part->first_col % PDT_PIECE == 0 && in % PDT_PIECE == 0 &&
                (leaf >= in || leaf % PDT_PIECE == 0);
  if (!pdt_dtype_quantized(t)) return pieces && form->quantize != PDT_F32 ? form->quantize : t;
  if (!pieces) return PDT_F32;
  return part->first_col % block || in % block ? pdt_recut_dtype(t) : t;
}

int pdt_load_matrix(pdt_device *dev, pdt_matrix *m, const pdt_tensor_part *parts, int32_t n,
                    const pdt_matrix_form *form, pdt_error *err) {
  *m = (pdt_matrix){0};
  int32_t out = 0, in = form->in;
  pdt_dtype dtype = pdt_load_dtype(&parts[0], form);
  for (int32_t p = 0; p < n; p++) {
    out += parts[p].rows;
    if (pdt_load_dtype(&parts[p], form) != dtype) dtype = PDT_F32;
  }
  if (out == 0 || in == 0) return 0;
  enum { LARGEST_BLOCK = 256 }; /* of a type that the part may cut at both ends */
  const pdt_bytes row_bytes = (in + 2 * LARGEST_BLOCK) * (pdt_bytes)sizeof(float);
  packing p = {.dev = dev, .m = m, .rows = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1};
  if (p.rows > out) p.rows = out;
  int status = PDT_NEW(&p.raw, p.rows * row_bytes, "weights", err) ||
               PDT_NEW(&p.converted, p.rows * row_bytes, "weights", err) ||
               dev->ops->matrix_new(dev, m, out, in, dtype, form->leaf_width, err);
  if (!status) status = pack_parts(&p, parts, n, err);
  free(p.raw);
  free(p.converted);
  if (status) dev->ops->matrix_free(dev, m);
  return status ? -1 : 0;
}

int pdt_load_vector(float **out, const pdt_tensor *tensor, int64_t first, int64_t n_elems,
                    pdt_error *err) {
  char *raw;
  *out = NULL;
  if (PDT_NEW(&raw, pdt_dtype_row_bytes(tensor->dtype, n_elems), tensor->name, err)) return -1;
  int status = pdt_tensor_read(tensor, first, n_elems, raw, err);
  int64_t bad = status ? -1 : pdt_first_not_finite(tensor->dtype, raw, n_elems);
  if (bad >= 0) status = refuse(tensor, first + bad, err);
  if (!status) status = PDT_NEW(out, n_elems, tensor->name, err);
  if (!status) pdt_to_float(tensor->dtype, raw, n_elems, *out);
  free(raw);
  return status;
}

int pdt_load_array(pdt_device *dev, pdt_array *out, const pdt_tensor *tensor, int64_t first,
                   int64_t n_elems, pdt_error *err) {
  float *host;
  *out = (pdt_array){0};
  if (pdt_load_vector(&host, tensor, first, n_elems, err)) return -1;
  int status = dev->ops->alloc(dev, n_elems, tensor->name, out, err);
  if (!status) dev->ops->upload(dev, *out, host, n_elems);
  free(host);
  return status;
}

int pdt_load_rows(pdt_device *dev, pdt_rows *rows, const pdt_tensor *tensor, int64_t begin,
                  int64_t end, pdt_error *err) {
  int64_t width = row_width(tensor);
  pdt_bytes row_bytes = pdt_dtype_row_bytes(tensor->dtype, width);
  int64_t at_once = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1;
  const pdt_tensor_part part = {tensor, 0, 0, 0};
  char *raw;
  *rows = (pdt_rows){0};
  if (PDT_NEW(&raw, at_once * row_bytes, tensor->name, err)) return -1;
  int status = dev->ops->rows_new(dev, rows, end - begin, (int32_t)width, tensor->dtype, err);
  for (int64_t row = begin; row < end && !status; row += at_once) {
    int64_t n = end - row < at_once ? end - row : at_once;
    status = read_rows(dev, &part, span_of(&part, (int32_t)width), row, (int32_t)n, raw, err);
    if (!status) dev->ops->rows_write(dev, rows, row - begin, n, raw);
  }
  free(raw);
  if (status) dev->ops->rows_free(dev, rows);
  return status ? -1 : 0;
}
