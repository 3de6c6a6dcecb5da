/* The memory operations of kernels.h for backends whose arrays are ordinary memory of the process:
 * the CPU's and the reference's. Everything is done when the call returns. */
#ifndef PDT_KERNELS_HOST_MEMORY_H
#define PDT_KERNELS_HOST_MEMORY_H

#include "kernels/kernels.h"

int pdt_host_sync(pdt_device *dev, pdt_error *err);
pdt_bytes pdt_host_available(pdt_device *dev, int32_t sharing);
int pdt_host_alloc(pdt_device *dev, int64_t elems, const char *what, pdt_array *out,
                   pdt_error *err);
void pdt_host_release(pdt_device *dev, pdt_array a);
void pdt_host_upload(pdt_device *dev, pdt_array dst, const float *host, int64_t elems);
void pdt_host_download(pdt_device *dev, float *host, pdt_array src, int64_t elems);
void pdt_host_copy_rows(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                        int64_t src_stride, int32_t rows, int32_t width);
void pdt_host_move_rows(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                        const int32_t *from, int32_t n, int32_t width);

/* Chosen tokens; the device's own sample_rows and gather_rows choose and read them. */
int pdt_host_chosen_new(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err);
void pdt_host_chosen_free(pdt_device *dev, pdt_chosen *chosen);
void pdt_host_choose_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen);
void pdt_host_gather_chosen(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                            const int32_t *from, int32_t n, pdt_array y);
void pdt_host_chosen_read(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                          bool but_last, pdt_token *tokens);

/* Rows as they stand in the file, dense: data is [n, width] elements of the type. */
int pdt_host_rows_new(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                      pdt_error *err);
void pdt_host_rows_free(pdt_device *dev, pdt_rows *rows);
void pdt_host_rows_write(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n,
                         const void *src);
void pdt_host_rows_read(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host);

/* Where row `row` begins. */
const void *pdt_host_row(const pdt_rows *rows, int64_t row);

#endif
