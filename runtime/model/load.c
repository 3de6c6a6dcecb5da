#include "model/load.h"

#include <stdlib.h>

#include "base/finite.h"
#include "base/memory.h"

enum { CHUNK_BYTES = 4 << 20 }; /* of mapped file looked at before its pages are let go */

static int64_t row_width(const pdt_tensor *tensor) {
  return tensor->shape[tensor->n_dims - 1];
}

static const unsigned char *element(const pdt_tensor *tensor, int64_t index) {
  return (const unsigned char *)tensor->data + index * (int64_t)pdt_dtype_bytes(tensor->dtype);
}

/* Refuses NaN and infinity among n elements from `first` on. */
static int check_finite(const pdt_tensor *tensor, int64_t first, int64_t n, pdt_error *err) {
  if (pdt_all_finite(tensor->dtype, element(tensor, first), n)) return 0;
  int64_t at = first + pdt_first_not_finite(tensor->dtype, element(tensor, first), n);
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: tensor '%s': expected finite weights, found NaN or infinity at element %lld "
                  "(hint: the file is damaged, or training diverged)",
                  tensor->file->path, tensor->name, (long long)at);
}

/* Packs rows [row, row + n) of a part, widening them when the matrix is wider than the file. */
static int pack_rows(pdt_matrix *m, int32_t out_row, const pdt_tensor_part *part, int64_t row,
                     int32_t n, float *widened, pdt_error *err) {
  const pdt_tensor *tensor = part->tensor;
  int64_t width = row_width(tensor), first = row * width + part->first_col;
  bool whole_rows = m->in == width;
  for (int32_t r = 0; r < (whole_rows ? 1 : n); r++)
    if (check_finite(tensor, first + r * width, whole_rows ? n * width : m->in, err)) return -1;
  if (m->dtype == tensor->dtype) {
    pdt_matrix_pack(m, out_row, n, element(tensor, first), width);
  } else {
    for (int32_t r = 0; r < n; r++) {
      pdt_to_float(tensor->dtype, element(tensor, first + r * width), m->in, widened);
      pdt_matrix_pack(m, out_row + r, 1, widened, m->in);
    }
  }
  int64_t row_bytes = width * (int64_t)pdt_dtype_bytes(tensor->dtype);
  pdt_tensor_drop(tensor, row * row_bytes, n * row_bytes);
  return 0;
}

static int pack_parts(pdt_matrix *m, const pdt_tensor_part *parts, int32_t n, float *widened,
                      pdt_error *err) {
  int32_t out_row = 0;
  for (int32_t p = 0; p < n; p++) {
    const pdt_tensor *tensor = parts[p].tensor;
    int64_t chunk = CHUNK_BYTES / (row_width(tensor) * (int64_t)pdt_dtype_bytes(tensor->dtype));
    if (chunk < 1) chunk = 1;
    for (int32_t done = 0; done < parts[p].rows;) {
      int32_t rows = parts[p].rows - done < chunk ? parts[p].rows - done : (int32_t)chunk;
      if (pack_rows(m, out_row, &parts[p], parts[p].first_row + done, rows, widened, err))
        return -1;
      done += rows;
      out_row += rows;
    }
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
  float *widened;
  if (PDT_NEW(&widened, in, "weights", err)) return -1;
  int status = pdt_matrix_new(m, out, in, dtype, leaf_width, err);
  if (!status) status = pack_parts(m, parts, n, widened, err);
  free(widened);
  if (status) pdt_matrix_free(m);
  return status;
}

int pdt_load_vector(float **out, const pdt_tensor *tensor, int64_t first, int64_t n_elems,
                    pdt_error *err) {
  *out = NULL;
  if (check_finite(tensor, first, n_elems, err) || PDT_NEW(out, n_elems, tensor->name, err))
    return -1;
  pdt_to_float(tensor->dtype, element(tensor, first), n_elems, *out);
  return 0;
}
