/* Products of rows that are rounded to bf16 first (pdt_cpu_round_rows in kernels.h). */
#ifndef PDT_KERNELS_CPU_ROUNDED_H
#define PDT_KERNELS_CPU_ROUNDED_H

#include "kernels/cpu/primitives.h"

/* Room of a device for rounded rows: grows with its matrices. */
typedef struct pdt_cpu_rounded_room {
  int32_t in;  /* the widest matrix */
  float *rows; /* [PDT_CPU_ROUNDED, in] */
} pdt_cpu_rounded_room;
enum { PDT_CPU_ROUNDED = 128 };

/* Does the device round rows for weights of that type? */
static inline bool pdt_cpu_rounds(const pdt_device *dev, pdt_dtype dtype) {
  return dev->rounds >> dtype & 1;
}

/* Makes room for products with a matrix. Errors: MEMORY. */
int pdt_cpu_rounded_reserve(pdt_device *dev, int32_t in, pdt_error *err);
void pdt_cpu_rounded_free(pdt_cpu_rounded_room *room);

/* matmul of kernels.h with weights of BF16. */
void pdt_cpu_rounded_matmul(pdt_device *dev, const pdt_matrix *w, const float *x, int64_t x_stride,
                            int32_t rows, float *y);

#endif
