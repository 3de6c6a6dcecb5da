/* The CPU kernels of machines with AMX: products with bf16 weights by tiles, all else by AVX-512.
 */
#ifndef PDT_KERNELS_CPU_AMX_AMX_H
#define PDT_KERNELS_CPU_AMX_AMX_H

#include "kernels/cpu/primitives.h"

/* Can this process use the tiles? Asks the processor and the system (which gives leave to the whole
 * process, once), then multiplies two tiles and checks the product. */
bool pdt_cpu_amx_works(void);

/* matmul of pdt_cpu_primitives for w->dtype == PDT_BF16. An input is the sum of two bf16 numbers,
 * to some 17 bits; the products of the high parts and those of the low parts are summed apart, and
 * added at the end of a leaf of the sum tree. Numbers below 2^-126 count as 0, and an infinite
 * weight may give NaN. Needs room of its own; where there is none it is
 * slower, with the same bits. */
void pdt_cpu_amx_matmul_bf16(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                             float *y, int64_t y_stride, int threads);

/* matmul_bf16_rows of pdt_cpu_primitives: the same without low parts, which such rows have not, in
 * half as many multiplications of tiles. */
void pdt_cpu_amx_matmul_bf16_rows(const pdt_matrix *w, const float *x, int64_t x_stride,
                                  int32_t rows, float *y, int64_t y_stride, int threads);

#endif
