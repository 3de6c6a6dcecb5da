#include "model/load.h"

#include <stdlib.h>

#include "base/finite.h"
#include "base/memory.h"

enum { CHUNK_BYTES = 1 << 20 }; /* of a file in memory at once */

static int64_t row_width(const pdt_tensor *tensor) {
  return tensor->shape[tensor->n_dims - 1];
}

static int refuse(const pdt_tensor *tensor, int64_t element, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected finite weights, found NaN or infinity at element %lld "
                  "(hint: the file is damaged, or training diverged)",
                  tensor->file->path, tensor->name, (long long)element);
}

/* Rows [row, row + n) of a part as they stand in the file, `in` columns of each, close together;
 * refuses NaN and infinity. */
static int read_rows(const pdt_tensor_part *part, int64_t row, int32_t n, int32_t in, char *rows,
                     pdt_error *err) {
  const pdt_tensor *tensor = part->tensor;
  int64_t width = row_width(tensor), first = row * width + part->first_col;
  pdt_bytes item = (pdt_bytes)pdt_dtype_bytes(tensor->dtype);
  int64_t at_once = in == width ? (int64_t)n * in : in;
  for (int64_t done = 0; done < (int64_t)n * in; done += at_once)
    if (pdt_tensor_read(tensor, first + done / in * width, at_once, rows + done * item, err))
      return -1;
  int64_t bad = pdt_first_not_finite(tensor->dtype, rows, (int64_t)n * in);
  return bad < 0 ? 0 : refuse(tensor, first + bad / in * width + bad % in, err);
}

/* Room for one piece of a part. */
typedef struct piece_room {
  int64_t rows;
  char *raw;      /* [rows, in] of any type */
  float *widened; /* [in] */
} piece_room;

/* Packs rows [row, row + n) of a part, widening them when the matrix is wider than the file. */
static int pack_rows(pdt_matrix *m, int32_t out_row, const pdt_tensor_part *part, int64_t row,
                     int32_t n, const piece_room *room, pdt_error *err) {
  pdt_dtype dtype = part->tensor->dtype;
  if (read_rows(part, row, n, m->in, room->raw, err)) return -1;
  if (m->dtype == dtype) {
    pdt_matrix_pack(m, out_row, n, room->raw, m->in);
    return 0;
  }
  for (int32_t r = 0; r < n; r++) {
    pdt_to_float(dtype, room->raw + (int64_t)r * m->in * (pdt_bytes)pdt_dtype_bytes(dtype), m->in,
                 room->widened);
    pdt_matrix_pack(m, out_row + r, 1, room->widened, m->in);
  }
  return 0;
}

static int pack_parts(pdt_matrix *m, const pdt_tensor_part *parts, int32_t n,
                      const piece_room *room, pdt_error *err) {
  int32_t out_row = 0;
  for (int32_t p = 0; p < n; p++)
    for (int32_t done = 0; done < parts[p].rows;) {
      int32_t left = parts[p].rows - done, rows = left < room->rows ? left : (int32_t)room->rows;
      if (pack_rows(m, out_row, &parts[p], parts[p].first_row + done, rows, room, err)) return -1;
      done += rows;
      out_row += rows;
    }
  return 0;
}

int pdt_load_matrix(pdt_matrix *m, const pdt_tensor_part *parts, int32_t n, int32_t in,
                    int32_t leaf_width, pdt_error *err) {
  *m = (pdt_matrix){0};
  int32_t out = 0;
  pdt_dtype dtype = parts[0].tensor->dtype;
  for (int32_t p = 0; p < n; p++) {
    out += parts[p].rows;
    if (parts[p].tensor->dtype != dtype) dtype = PDT_F32;
  }
  if (out == 0 || in == 0) return 0;
  const pdt_bytes row_bytes = in * (pdt_bytes)sizeof(float);
  piece_room room = {.rows = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1};
  if (room.rows > out) room.rows = out;
  int status = PDT_NEW(&room.raw, room.rows * row_bytes, "weights", err) ||
               PDT_NEW(&room.widened, in, "weights", err) ||
               pdt_matrix_new(m, out, in, dtype, leaf_width, err);
  if (!status) status = pack_parts(m, parts, n, &room, err);
  free(room.raw);
  free(room.widened);
  if (status) pdt_matrix_free(m);
  return status ? -1 : 0;
}

int pdt_load_vector(float **out, const pdt_tensor *tensor, int64_t first, int64_t n_elems,
                    pdt_error *err) {
  char *raw;
  *out = NULL;
  if (PDT_NEW(&raw, n_elems * (pdt_bytes)pdt_dtype_bytes(tensor->dtype), tensor->name, err))
    return -1;
  int status = pdt_tensor_read(tensor, first, n_elems, raw, err);
  int64_t bad = status ? -1 : pdt_first_not_finite(tensor->dtype, raw, n_elems);
  if (bad >= 0) status = refuse(tensor, first + bad, err);
  if (!status) status = PDT_NEW(out, n_elems, tensor->name, err);
  if (!status) pdt_to_float(tensor->dtype, raw, n_elems, *out);
  free(raw);
  return status;
}

int pdt_load_rows(pdt_row_share *share, const pdt_tensor *tensor, int64_t begin, int64_t end,
                  pdt_error *err) {
  int64_t width = row_width(tensor);
  pdt_bytes row_bytes = width * (pdt_bytes)pdt_dtype_bytes(tensor->dtype);
  int64_t at_once = row_bytes < CHUNK_BYTES ? CHUNK_BYTES / row_bytes : 1;
  *share = (pdt_row_share){.dtype = tensor->dtype, .width = width, .begin = begin, .end = end};
  int status = PDT_NEW(&share->data, (end - begin) * row_bytes, tensor->name, err);
  const pdt_tensor_part part = {tensor, 0, 0, 0};
  for (int64_t row = begin; row < end && !status; row += at_once) {
    int64_t n = end - row < at_once ? end - row : at_once;
    status = read_rows(&part, row, (int32_t)n, (int32_t)width,
                       share->data + (row - begin) * row_bytes, err);
  }
  if (status) pdt_row_share_free(share);
  return status;
}

const char *pdt_row_at(const pdt_row_share *share, int64_t row) {
  return share->data +
         (row - share->begin) * share->width * (pdt_bytes)pdt_dtype_bytes(share->dtype);
}

void pdt_row_share_free(pdt_row_share *share) {
  free(share->data);
  *share = (pdt_row_share){0};
}
