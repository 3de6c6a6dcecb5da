/* The table of one instruction set. */
#include "kernels/cpu/isa/isa.h"

extern const pdt_cpu_primitives PDT_ISA_NAME(primitives);

const pdt_cpu_primitives PDT_ISA_NAME(primitives) = {
    .name = PDT_ISA_TEXT(PDT_ISA),
    .matmul = PDT_ISA_NAME(matmul),
    .matvec_unpacked = PDT_ISA_NAME(matvec_unpacked),
    .rms_norm = PDT_ISA_NAME(rms_norm),
    .silu_mul = PDT_ISA_NAME(silu_mul),
    .gelu = PDT_ISA_NAME(gelu),
    .rope = PDT_ISA_NAME(rope),
    .softmax = PDT_ISA_NAME(softmax),
    .attention = PDT_ISA_NAME(attention),
};
