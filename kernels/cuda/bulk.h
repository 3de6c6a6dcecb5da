/* Products of many rows: what a device has for them. */
#ifndef PDT_KERNELS_CUDA_BULK_H
#define PDT_KERNELS_CUDA_BULK_H

#include "kernels/cuda/backend.h"

/* Loads the library and makes c->bulk; false when that failed, as c->failure says. */
bool pdt_cuda_bulk_open(pdt_cuda *c);

/* Frees it; nothing may be running. Safe when opening failed, and without it. */
void pdt_cuda_bulk_close(pdt_cuda *c);

/* Makes the room that products of as many rows with such weights take, but for results that do not
 * go where they belong. To be called as weights come, so that what memory is left is known then.
 * False on failure. */
bool pdt_cuda_bulk_reserve(pdt_cuda *c, const pdt_cuda_weights *w);

/* Rows that one product takes: more are cut. */
int32_t pdt_cuda_bulk_rows(void);

/* The product of weights with rows, by whatever of them there are the same. */
void pdt_cuda_multiply_bulk(pdt_cuda *c, const pdt_cuda_weights *w, const float *x,
                            int64_t x_stride, int32_t rows, float *y, int64_t y_stride);

#endif
