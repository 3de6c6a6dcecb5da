#include "model/load.h"

#include <stdlib.h>

#include "base/finite.h"
#include "base/memory.h"

/* Of a file: in memory at once; that one thread reads at a time; asked of the disk ahead. */
enum { CHUNK_BYTES = 8 << 20, PIECE_BYTES = 256 << 10, AHEAD_BYTES = 64 << 20 };

static int64_t row_width(const pdt_tensor *tensor) {
  return tensor->shape[tensor->n_dims - 1];
}

/* What weights of a type are in memory: quantized ones are widened. */
static pdt_dtype in_memory(pdt_dtype t) {
  return pdt_dtype_quantized(t) ? PDT_F32 : t;
}

static int refuse(const pdt_tensor *tensor, int64_t element, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected finite weights, found NaN or infinity at element %lld "
                  "(hint: the file is damaged, or training diverged)",
                  tensor->file->path, tensor->name, (long long)element);
}

/* Rows [row, row + n) of a part as they stand in the file, `in` columns of each, close together;
 * refuses NaN and infinity. */
static int read_piece(const pdt_tensor_part *part, int64_t row, int32_t n, int32_t in, char *rows,
                      pdt_error *err) {
  const pdt_tensor *tensor = part->tensor;
  int64_t width = row_width(tensor), first = row * width + part->first_col;
  int64_t at_once = in == width ? (int64_t)n * in : in;
  for (int64_t done = 0; done < (int64_t)n * in; done += at_once)
    if (pdt_tensor_read(tensor, first + done / in * width, at_once,
                        rows + pdt_dtype_row_bytes(tensor->dtype, done), err))
      return -1;
  int64_t bad = pdt_first_not_finite(tensor->dtype, rows, (int64_t)n * in);
  return bad < 0 ? 0 : refuse(tensor, first + bad / in * width + bad % in, err);
}

/* The same by several threads; of several errors the first in the file. */
static int read_rows(const pdt_device *dev, const pdt_tensor_part *part, int64_t row, int32_t n,
                     int32_t in, char *rows, pdt_error *err) {
  pdt_bytes row_bytes = pdt_dtype_row_bytes(part->tensor->dtype, in);
  int64_t most = n * row_bytes / PIECE_BYTES + 1;
  int32_t pieces = most < n ? (int32_t)most : n, failed = pieces;
  pdt_error first = {0};
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && pieces > 1)
  for (int32_t p = 0; p < pieces; p++) {
    int32_t begin = (int32_t)((int64_t)n * p / pieces);
    int32_t end = (int32_t)((int64_t)n * (p + 1) / pieces);
    pdt_error own = {0};
    if (!read_piece(part, row + begin, end - begin, in, rows + begin * row_bytes, &own)) continue;
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

/* Room for one piece of a part. */
typedef struct piece_room {
  int64_t rows;
  char *raw;      /* [rows, in] of any type */
  float *widened; /* [in] */
} piece_room;

/* A matrix in the making. */
typedef struct packing {
  pdt_device *dev;
  pdt_matrix *m;
  piece_room room;
} packing;

/* Packs rows [row, row + n) of a part, widening them when the matrix is wider than the file. */
static int pack_rows(const packing *p, int32_t out_row, const pdt_tensor_part *part, int64_t row,
                     int32_t n, pdt_error *err) {
  pdt_dtype dtype = part->tensor->dtype;
  const piece_room *room = &p->room;
  int32_t in = p->m->in;
  if (read_rows(p->dev, part, row, n, in, room->raw, err)) return -1;
  if (p->m->dtype == dtype) {
    p->dev->ops->matrix_pack(p->dev, p->m, out_row, n, room->raw, in);
    return 0;
  }
  for (int32_t r = 0; r < n; r++) {
    pdt_to_float(dtype, room->raw + r * pdt_dtype_row_bytes(dtype, in), in, room->widened);
    p->dev->ops->matrix_pack(p->dev, p->m, out_row + r, 1, room->widened, in);
  }
  return 0;
}

static int pack_parts(const packing *p, const pdt_tensor_part *parts, int32_t n, pdt_error *err) {
  int32_t out_row = 0;
  for (int32_t i = 0; i < n; i++) {
    int64_t ahead = AHEAD_BYTES / (row_width(parts[i].tensor) * (int64_t)sizeof(float)) + 1;
    ask_ahead(&parts[i], parts[i].first_row, ahead);
    for (int32_t done = 0; done < parts[i].rows;) {
      int32_t left = parts[i].rows - done;
      int32_t rows = left < p->room.rows ? left : (int32_t)p->room.rows;
      ask_ahead(&parts[i], parts[i].first_row + done + ahead, rows);
      if (pack_rows(p, out_row, &parts[i], parts[i].first_row + done, rows, err)) return -1;
      done += rows;
      out_row += rows;
    }
  }
  return 0;
}

int pdt_load_matrix(pdt_device *dev, pdt_matrix *m, const pdt_tensor_part *parts, int32_t n,
                    int32_t in, int32_t leaf_width, pdt_error *err) {
  *m = (pdt_matrix){0};
  int32_t out = 0;
  pdt_dtype dtype = in_memory(parts[0].tensor->dtype);
  for (int32_t p = 0; p < n; p++) {
    out += parts[p].rows;
    if (in_memory(parts[p].tensor->dtype) != dtype) dtype = PDT_F32;
  }
  if (out == 0 || in == 0) return 0;
  const pdt_bytes row_bytes = in * (pdt_bytes)sizeof(float);
  packing p = {dev, m, {.rows = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1}};
  if (p.room.rows > out) p.room.rows = out;
  int status = PDT_NEW(&p.room.raw, p.room.rows * row_bytes, "weights", err) ||
               PDT_NEW(&p.room.widened, in, "weights", err) ||
               dev->ops->matrix_new(dev, m, out, in, dtype, leaf_width, err);
  if (!status) status = pack_parts(&p, parts, n, err);
  free(p.room.raw);
  free(p.room.widened);
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

/* Rows of a table, in a piece of memory each: as they stand in the file and, where the table is
 * wider than that, as floats. */
static int copy_rows(pdt_device *dev, pdt_rows *rows, const pdt_tensor_part *part, int64_t at_once,
                     char *raw, float *widened, pdt_error *err) {
  int32_t width = (int32_t)row_width(part->tensor);
  for (int64_t row = 0; row < part->rows; row += at_once) {
    int64_t n = part->rows - row < at_once ? part->rows - row : at_once;
    if (read_rows(dev, part, part->first_row + row, (int32_t)n, width, raw, err)) return -1;
    if (widened) pdt_to_float(part->tensor->dtype, raw, n * width, widened);
    dev->ops->rows_write(dev, rows, row, n, widened ? (char *)widened : raw);
  }
  return 0;
}

int pdt_load_rows(pdt_device *dev, pdt_rows *rows, const pdt_tensor *tensor, int64_t begin,
                  int64_t end, pdt_error *err) {
  int64_t width = row_width(tensor);
  pdt_bytes row_bytes = width * (pdt_bytes)sizeof(float);
  int64_t at_once = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1;
  const pdt_tensor_part part = {tensor, begin, (int32_t)(end - begin), 0};
  pdt_dtype dtype = in_memory(tensor->dtype);
  char *raw;
  float *widened = NULL;
  *rows = (pdt_rows){0};
  if (PDT_NEW(&raw, at_once * row_bytes, tensor->name, err)) return -1;
  int status = dtype == tensor->dtype ? 0 : PDT_NEW(&widened, at_once * width, tensor->name, err);
  if (!status) status = dev->ops->rows_new(dev, rows, end - begin, (int32_t)width, dtype, err);
  if (!status) status = copy_rows(dev, rows, &part, at_once, raw, widened, err);
  free(raw);
  free(widened);
  if (status) dev->ops->rows_free(dev, rows);
  return status ? -1 : 0;
}
