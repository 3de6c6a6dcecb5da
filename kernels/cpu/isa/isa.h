/* The files of this folder that include this header are compiled once for each instruction set.
 * The build defines PDT_ISA (avx512, avx2, portable); every external name carries it. */
#ifndef PDT_KERNELS_CPU_ISA_ISA_H
#define PDT_KERNELS_CPU_ISA_ISA_H

#include "kernels/cpu/primitives.h"

#define PDT_ISA_PASTE_(name, isa) pdt_cpu_##isa##_##name
#define PDT_ISA_PASTE(name, isa)  PDT_ISA_PASTE_(name, isa)
#define PDT_ISA_NAME(name)        PDT_ISA_PASTE(name, PDT_ISA)
#define PDT_ISA_TEXT_(isa)        #isa
#define PDT_ISA_TEXT(isa)         PDT_ISA_TEXT_(isa)

/* The functions of pdt_cpu_primitives, described there. */
void PDT_ISA_NAME(matmul)(const pdt_matrix *w, const float *x, int64_t x_stride, int32_t rows,
                          float *y, int64_t y_stride, int threads);
void PDT_ISA_NAME(matvec_unpacked)(pdt_dtype dtype, const void *w, int64_t src_stride_elems,
                                   int32_t out, int32_t in, const float *x, float *y, int threads);
void PDT_ISA_NAME(round_bf16)(const float *x, int64_t n, float *y);
void PDT_ISA_NAME(rms_norm)(const float *x, const float *weight, float eps, int32_t width,
                            float *y);
void PDT_ISA_NAME(silu_mul)(const float *gate, const float *up, int64_t n, float *y);
void PDT_ISA_NAME(gelu)(float *x, int64_t n);
void PDT_ISA_NAME(rope)(float *x, const float *cosine, const float *sine, int32_t head_dim);
void PDT_ISA_NAME(softmax)(float *x, int64_t n);
void PDT_ISA_NAME(attention)(const pdt_kv_view *kv, const float *q, int32_t n_heads, float *out,
                             float *scratch);

/* A table's entries but its name and its products: another set may share them. */
#define PDT_ISA_BUT_MATMUL                                                                         \
  .matvec_unpacked = PDT_ISA_NAME(matvec_unpacked), .round_bf16 = PDT_ISA_NAME(round_bf16),        \
  .rms_norm = PDT_ISA_NAME(rms_norm), .silu_mul = PDT_ISA_NAME(silu_mul),                          \
  .gelu = PDT_ISA_NAME(gelu), .rope = PDT_ISA_NAME(rope), .softmax = PDT_ISA_NAME(softmax),        \
  .attention = PDT_ISA_NAME(attention)

/* x[i] = exp(x[i] - largest x); returns their sum, added up in 16 lanes by index. n >= 1. */
float PDT_ISA_NAME(exp_shifted)(float *x, int64_t n);

#endif
