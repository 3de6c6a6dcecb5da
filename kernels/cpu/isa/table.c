/* The table of one instruction set. */
#include "kernels/cpu/isa/isa.h"

extern const pdt_cpu_primitives PDT_ISA_NAME(primitives);

const pdt_cpu_primitives PDT_ISA_NAME(primitives) = {
    .name = PDT_ISA_TEXT(PDT_ISA),
    .matmul = PDT_ISA_NAME(matmul),
    .matmul_bf16_rows = PDT_ISA_NAME(matmul),
    PDT_ISA_BUT_MATMUL,
};
