/* The calls of cuBLASLt that are made. The library is loaded when a GPU is opened, not when the
 * program starts: that takes 75 ms and 130 MB, which runs on CPUs would pay too. */
#ifndef PDT_KERNELS_CUDA_CUBLASLT_H
#define PDT_KERNELS_CUDA_CUBLASLT_H

#include <cublasLt.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"

/* Every call by its name without cublasLt. */
#define PDT_CUBLASLT_CALLS(CALL)                                                                   \
  CALL(Create)                                                                                     \
  CALL(Destroy)                                                                                    \
  CALL(GetStatusString)                                                                            \
  CALL(Matmul)                                                                                     \
  CALL(MatmulAlgoCheck)                                                                            \
  CALL(MatmulAlgoConfigGetAttribute)                                                               \
  CALL(MatmulAlgoGetHeuristic)                                                                     \
  CALL(MatmulDescCreate)                                                                           \
  CALL(MatmulDescDestroy)                                                                          \
  CALL(MatmulDescSetAttribute)                                                                     \
  CALL(MatmulPreferenceCreate)                                                                     \
  CALL(MatmulPreferenceDestroy)                                                                    \
  CALL(MatmulPreferenceSetAttribute)                                                               \
  CALL(MatrixLayoutCreate)                                                                         \
  CALL(MatrixLayoutDestroy)

#define PDT_CUBLASLT_POINTER(name) __typeof__(&cublasLt##name) name;
typedef struct pdt_cublaslt {
  PDT_CUBLASLT_CALLS(PDT_CUBLASLT_POINTER)
} pdt_cublaslt;

/* Loads the library that belongs to the toolkit's headers, by its name, or from where the build
 * found it; it stays. Errors: RUNTIME, where it is not there or lacks a call. */
int pdt_cublaslt_load(pdt_cublaslt *lt, pdt_error *err);

#ifdef __cplusplus
}
#endif
#endif
