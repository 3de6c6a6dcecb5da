/* Twins of the calls of cuBLASLt that the backend makes: plain loops, sums in float from the first
 * input to the last. They take what the documentation allows and refuse what it does not: layouts
 * that do not fit each other or their alignment, an algorithm that was chosen for other types or
 * shapes, alignments that were not promised. */
#include "kernels/cuda/cublaslt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <cuda_bf16.h>

namespace {

struct description {
  cublasComputeType_t compute;
  cudaDataType scale;
  bool transposed[2]; /* A, B */
};

struct layout { /* column by column, as by default */
  cudaDataType type;
  uint64_t rows, columns;
  int64_t stride;
};

struct preference {
  uint64_t workspace;
  uint32_t reductions, aligned[4]; /* of A, B, C, D */
};

/* What an algorithm remembers of what it was chosen for. */
struct algorithm {
  uint64_t mark, inner, outputs;
  uint32_t type, aligned;
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "room in an algorithm");
const uint64_t MARK = 0x616c676f72697468;

template <class T, class Opaque> T *of(Opaque *p) {
  static_assert(sizeof(T) <= sizeof(Opaque), "room in the library's type");
  return reinterpret_cast<T *>(p);
}

template <class T, class Opaque> cublasStatus_t make(Opaque **out, const T &value) {
  *out = static_cast<Opaque *>(calloc(1, sizeof(Opaque)));
  if (!*out) return CUBLAS_STATUS_ALLOC_FAILED;
  memcpy(*out, &value, sizeof value);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T> cublasStatus_t set(T *to, const void *from, size_t bytes) {
  if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

float element(const layout &l, const void *p, uint64_t row, uint64_t column) {
  uint64_t at = row + column * (uint64_t)l.stride;
  if (l.type == CUDA_R_32F) return static_cast<const float *>(p)[at];
  return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[at]);
}

/* D [m, n] = op(A) [m, k] op(B) [k, n] in types that the library has a kernel for. */
bool fits(const description &d, const layout &a, const layout &b, const layout &c,
          const layout &out) {
  uint64_t m = d.transposed[0] ? a.columns : a.rows, k = d.transposed[0] ? a.rows : a.columns;
  uint64_t n = d.transposed[1] ? b.rows : b.columns, k_of_b = d.transposed[1] ? b.columns : b.rows;
  bool typed = a.type == b.type && (a.type == CUDA_R_16BF || a.type == CUDA_R_32F) &&
               c.type == CUDA_R_32F && out.type == CUDA_R_32F && d.compute == CUBLAS_COMPUTE_32F &&
               d.scale == CUDA_R_32F;
  return typed && k == k_of_b && out.rows == m && out.columns == n &&
         memcmp(&c, &out, sizeof c) == 0;
}

bool serves(const algorithm &chosen, const description &d, const layout &a) {
  uint64_t k = d.transposed[0] ? a.rows : a.columns, m = d.transposed[0] ? a.columns : a.rows;
  return chosen.mark == MARK && chosen.inner == k && chosen.outputs == m &&
         chosen.type == (uint32_t)a.type;
}

/* Room that it needs: of many rows, a counter by which tiles are dealt out. */
size_t room_for(const layout &out) {
  return out.columns >= 8 ? sizeof(unsigned) : 0;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  *handle = static_cast<cublasLtHandle_t>(malloc(1));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  free(handle);
  return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "an error";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return make(out, description{compute, scale, {false, false}});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  free(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *from, size_t bytes) {
  int32_t operation = CUBLAS_OP_N;
  if (attribute != CUBLASLT_MATMUL_DESC_TRANSA && attribute != CUBLASLT_MATMUL_DESC_TRANSB)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  cublasStatus_t status = set(&operation, from, bytes);
  of<description>(d)->transposed[attribute == CUBLASLT_MATMUL_DESC_TRANSB] =
      operation == CUBLAS_OP_T;
  return status;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  if (rows < 1 || columns < 1 || stride < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
  return make(out, layout{type, rows, columns, stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  free(l);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
  return make(out, preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  free(p);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *from, size_t bytes) {
  preference *p = of<preference>(opaque);
  switch (attribute) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
    return set(&p->workspace, from, bytes);
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    return set(&p->reductions, from, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    return set(&p->aligned[2], from, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
    return set(&p->aligned[3], from, bytes);
  default:
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

/* The first suggestion would split the sums and the second needs alignment that nobody promised:
 * they must not be taken, and do not run. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int most,
                                              cublasLtMatmulHeuristicResult_t found[], int *n) {
  const description *p = of<description>(product);
  const layout *first = of<layout>(a);
  if (!fits(*p, *first, *of<layout>(b), *of<layout>(c), *of<layout>(d)))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (*n = 0; *n < most && *n < 3; (*n)++) {
    cublasLtMatmulHeuristicResult_t *f = &found[*n];
    memset(f, 0, sizeof *f);
    algorithm chosen = {*n == 2 ? MARK : 0, p->transposed[0] ? first->rows : first->columns,
                        p->transposed[0] ? first->columns : first->rows, (uint32_t)first->type,
                        of<preference>(wanted)->aligned[3]};
    memcpy(&f->algo, &chosen, sizeof chosen);
    f->state = *n == 1 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *to, size_t bytes, size_t *written) {
  int32_t splits = of<const algorithm>(algo)->mark == MARK ? 1 : 4;
  uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
  if (bytes != 4) return CUBLAS_STATUS_INVALID_VALUE;
  *written = 4;
  if (attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM)
    memcpy(to, &splits, 4);
  else if (attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)
    memcpy(to, &reduction, 4);
  else
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
  const description *p = of<description>(product);
  memset(result, 0, sizeof *result);
  result->workspaceSize = room_for(*of<layout>(d));
  return fits(*p, *of<layout>(a), *of<layout>(b), *of<layout>(c), *of<layout>(d)) &&
                 serves(*of<const algorithm>(algo), *p, *of<layout>(a))
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algo, void *room, size_t room_bytes,
                              cudaStream_t stream) {
  cudaStreamSynchronize(stream); /* what is multiplied must have been made: the stream is lazy */
  const description &p = *of<description>(product);
  const layout &la = *of<layout>(a), &lb = *of<layout>(b), &ld = *of<layout>(d);
  const algorithm &chosen = *of<const algorithm>(algo);
  if (!fits(p, la, lb, *of<layout>(c), ld) || !serves(chosen, p, la) || C != D)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (room_bytes < room_for(ld)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (room_for(ld)) memset(room, 0xff, room_for(ld));
  if ((uintptr_t)A % 256 || (uintptr_t)B % 256 || (uintptr_t)D % chosen.aligned ||
      ld.stride * sizeof(float) % chosen.aligned)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  float one = *static_cast<const float *>(alpha), more = *static_cast<const float *>(beta);
  for (uint64_t column = 0; column < ld.columns; column++)
    for (uint64_t row = 0; row < ld.rows; row++) {
      float sum = 0, *to = static_cast<float *>(D) + row + column * (uint64_t)ld.stride;
      for (uint64_t k = 0; k < chosen.inner; k++)
        sum += (p.transposed[0] ? element(la, A, k, row) : element(la, A, row, k)) *
               (p.transposed[1] ? element(lb, B, column, k) : element(lb, B, k, column));
      *to = more == 0 ? one * sum : one * sum + more * *to; /* with 0 what was there is not read */
    }
  return CUBLAS_STATUS_SUCCESS;
}

int pdt_cublaslt_load(pdt_cublaslt *lt, pdt_error *) {
#define PDT_CUBLASLT_TAKE(name) lt->name = cublasLt##name;
  PDT_CUBLASLT_CALLS(PDT_CUBLASLT_TAKE)
  return 0;
}
}
