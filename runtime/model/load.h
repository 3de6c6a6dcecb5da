/* From a file's tensors to what a device's kernels read: checked for NaN and infinity on the way, a
 * bounded piece at a time. What is made belongs to the device and is freed by its operations. */
#ifndef PDT_MODEL_LOAD_H
#define PDT_MODEL_LOAD_H

#include "kernels/kernels.h"
#include "store/safetensors.h"

/* A part of a matrix tensor [.., in]: rows first_row.. (rows of all leading dimensions counted
 * through), columns first_col.. */
typedef struct pdt_tensor_part {
  const pdt_tensor *tensor;
  int64_t first_row;
  int32_t rows;
  int32_t first_col; /* the matrix's `in` columns from here */
} pdt_tensor_part;

/* Packs n parts one below the other into a new matrix [sum of rows, in]: in the parts' common
 * precision, or F32 when they differ. No rows at all leave m zeroed, with data NULL. Errors:
 * MEMORY; INPUT when a weight is not finite; IO, as when the file was cut meanwhile. */
int pdt_load_matrix(pdt_device *dev, pdt_matrix *m, const pdt_tensor_part *parts, int32_t n,
                    int32_t in, int32_t leaf_width, pdt_error *err);

/* n_elems elements of a tensor from `first` on, widened to new float[n_elems], owned by the caller.
 * Errors: as above. */
int pdt_load_vector(float **out, const pdt_tensor *tensor, int64_t first, int64_t n_elems,
                    pdt_error *err);

/* The same as an array of the device. */
int pdt_load_array(pdt_device *dev, pdt_array *out, const pdt_tensor *tensor, int64_t first,
                   int64_t n_elems, pdt_error *err);

/* Rows [begin, end) of a matrix tensor, rows of all leading dimensions counted through: for
 * products whose matrix is not packed. Errors: as above. */
int pdt_load_rows(pdt_device *dev, pdt_rows *rows, const pdt_tensor *tensor, int64_t begin,
                  int64_t end, pdt_error *err);

#endif
