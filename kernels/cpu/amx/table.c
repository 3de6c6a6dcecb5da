/* The table of machines with AMX: AVX-512's, with another product for bf16 weights. */
#define PDT_ISA avx512
#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/isa/isa.h"

extern const pdt_cpu_primitives pdt_cpu_amx_primitives;

static void matmul(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows, float *y,
                   int64_t y_stride, int threads) {
  (w->dtype == PDT_BF16 ? pdt_cpu_amx_matmul_bf16 : PDT_ISA_NAME(matmul))(w, x, x_stride, rows, y,
                                                                          y_stride, threads);
}

const pdt_cpu_primitives pdt_cpu_amx_primitives = {
    .name = "amx",
    .matmul = matmul,
    .matmul_bf16_rows = pdt_cpu_amx_matmul_bf16_rows,
    PDT_ISA_BUT_MATMUL,
};
