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

/* What a matrix in memory is to be. */
typedef struct pdt_matrix_form {
  int32_t in, leaf_width; /* as of matrix_new */
  pdt_dtype quantize;     /* Q8_0 or Q4_0: what weights of a float type become; F32: they stay */
} pdt_matrix_form;

/* The type that a part's weights have in memory. That is the file's, or what `quantize` makes of
 * it; of a quantized one in blocks of 256 that a part or a leaf cuts, the same in 32s. Where not
 * even those are whole, a float type stays and a quantized one becomes F32. Pure. */
pdt_dtype pdt_load_dtype(const pdt_tensor_part *part, const pdt_matrix_form *form);

/* Packs n parts one below the other into a new matrix [sum of rows, in]: in their common type (of
 * pdt_load_dtype), or F32 when they differ. No rows at all leave m zeroed, with data NULL. Errors:
 * MEMORY; INPUT when a weight is not finite, or too large to be quantized; IO, as when the file was
 * cut meanwhile. */
int pdt_load_matrix(pdt_device *dev, pdt_matrix *m, const pdt_tensor_part *parts, int32_t n,
                    const pdt_matrix_form *form, pdt_error *err);

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
