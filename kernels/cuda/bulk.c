/* Products of many rows, as prompts have them, by cuBLASLt.
 *
 * Weights lie in the device's memory as products of few rows read them, and nowhere else. So a slab
 * of a matrix's outputs at a time is unpacked into room that stays where it is, about as much as
 * the second cache holds, and multiplied with all rows.
 *
 * With weights in half precision a row is the sum of two bf16 numbers each, and a product for each
 * is added up in float, as in products.cu; an F16 weight is the sum of two as well, so that nothing
 * passes the range of F16. When rows are rounded only the first of theirs is taken. F32 weights are
 * multiplied in float.
 *
 * The same row has to give the same bits, whatever rows stand beside it. So the algorithm is chosen
 * once for a shape of slab and a type, as for BULK_ROWS rows, and then serves any number of them.
 * It must sum an element "in one sequence", in the library's words: no split of the inner
 * dimension, no reduction, no room in which parts of sums could be kept. (Hopper's kernels deal
 * their tiles out by a counter, and get the few bytes that takes.) What is assumed of the library
 * is that one algorithm is one kernel, that it makes each element in one block of threads, from the
 * first input to the last, and that the number of rows decides how many blocks there are and
 * nothing else. test_kernels and bench_step look whether that holds. */
#include "kernels/cuda/bulk.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/device.h"

enum {
  BULK_ROWS = 2048,
  SLAB_BYTES = 64 << 20,
  SLAB_WAVES = 2048, /* outputs in multiples of it, with BULK_ROWS rows, fill a large GPU evenly */
  LEAST_SLAB = 256,
  MOST_SLAB = 1 << 15,
  FOUND = 32,   /* algorithms to choose from */
  ALIGNED = 16, /* bytes, at which rows of results begin */
  /* Bytes that an algorithm may have for itself: less than the sums of the smallest tile, 8 by 8.
   */
  COUNTERS = 128
};

/* How slabs of one shape and type are multiplied. */
typedef struct plan {
  cudaDataType type; /* of weights and rows */
  int32_t outputs, in;
  cublasLtMatmulAlgo_t algorithm;
} plan;

struct pdt_cuda_bulk {
  pdt_cublaslt lt;
  cublasLtHandle_t handle;
  bool rounds; /* rows to bf16 */
  plan *plans;
  int32_t n_plans, plans_room;
  pdt_cuda_buffer weights, x, y, counters;
};

static bool ok(pdt_cuda *c, cublasStatus_t code, const char *what) {
  if (code != CUBLAS_STATUS_SUCCESS && c->failure.code == PDT_ERROR_NONE)
    pdt_fail(&c->failure, PDT_ERROR_RUNTIME, "GPU %d: %s: %s (cuBLASLt error %d)", c->index, what,
             c->bulk->lt.GetStatusString(code), (int)code);
  return c->failure.code == PDT_ERROR_NONE;
}

bool pdt_cuda_bulk_open(pdt_cuda *c) {
  pdt_error err = {0};
  if (PDT_NEW(&c->bulk, 1, "GPU", &err) || pdt_cublaslt_load(&c->bulk->lt, &err)) {
    pdt_fail(&c->failure, err.code, "GPU %d: %s", c->index, err.message);
    return false;
  }
  return ok(c, c->bulk->lt.Create(&c->bulk->handle), "cuBLASLt") &&
         pdt_cuda_grow(c, &c->bulk->counters, COUNTERS, "room for products");
}

void pdt_cuda_bulk_close(pdt_cuda *c) {
  pdt_cuda_bulk *b = c->bulk;
  if (!b) return;
  if (b->handle) b->lt.Destroy(b->handle);
  cudaFree(b->weights.at);
  cudaFree(b->x.at);
  cudaFree(b->y.at);
  cudaFree(b->counters.at);
  free(b->plans);
  free(b);
  c->bulk = NULL;
}

int32_t pdt_cuda_bulk_rows(void) {
  return BULK_ROWS;
}

void pdt_cuda_round_rows(pdt_device *dev, bool rounds) {
  static const char told[] = " bf16";
  pdt_cuda *c = pdt_cuda_of(dev);
  char *end = strstr(c->name, told);
  if (end) *end = 0;
  if (rounds) strncat(c->name, told, sizeof c->name - strlen(c->name) - 1);
  c->bulk->rounds = rounds;
  dev->rounds = rounds ? 1u << PDT_BF16 | 1u << PDT_F16 : 0;
}

/* ---- one call of the library ---- */

/* y [rows, outputs] = x [rows, in] times weights [outputs, in], all row-major; the library counts
 * columns first, so that its matrices are the transposed ones. */
typedef struct problem {
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t weights, x, y;
} problem;

static bool describe(pdt_cuda *c, const plan *p, int32_t rows, int64_t y_stride, problem *q) {
  const pdt_cublaslt *lt = &c->bulk->lt;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  uint64_t outputs = (uint64_t)p->outputs, in = (uint64_t)p->in, n = (uint64_t)rows;
  *q = (problem){0};
  return ok(c, lt->MatmulDescCreate(&q->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product") &&
         ok(c,
            lt->MatmulDescSetAttribute(q->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof transposed),
            "product") &&
         ok(c, lt->MatrixLayoutCreate(&q->weights, p->type, in, outputs, p->in), "product") &&
         ok(c, lt->MatrixLayoutCreate(&q->x, p->type, in, n, p->in), "product") &&
         ok(c, lt->MatrixLayoutCreate(&q->y, CUDA_R_32F, outputs, n, y_stride), "product");
}

static void forget(pdt_cuda *c, const problem *q) {
  const pdt_cublaslt *lt = &c->bulk->lt;
  if (q->y) lt->MatrixLayoutDestroy(q->y);
  if (q->x) lt->MatrixLayoutDestroy(q->x);
  if (q->weights) lt->MatrixLayoutDestroy(q->weights);
  if (q->product) lt->MatmulDescDestroy(q->product);
}

/* ---- the choice of an algorithm ---- */

/* What is asked for: no room for parts of sums, and none to be added up. */
static bool prefer(pdt_cuda *c, cublasLtMatmulPreference_t preference) {
  const uint64_t workspace = COUNTERS;
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE, aligned = ALIGNED;
  const struct {
    cublasLtMatmulPreferenceAttributes_t attribute;
    const void *value;
    size_t bytes;
  } all[] = {
      {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
      {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &aligned, sizeof aligned},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &aligned, sizeof aligned},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (!ok(c,
            c->bulk->lt.MatmulPreferenceSetAttribute(preference, all[i].attribute, all[i].value,
                                                     all[i].bytes),
            "choice of an algorithm"))
      return false;
  return true;
}

/* Does it sum each element in one piece? */
static bool is_whole(const pdt_cublaslt *lt, const cublasLtMatmulAlgo_t *algorithm) {
  int32_t splits = 0;
  uint32_t reduction = 0;
  size_t written;
  return lt->MatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                          sizeof splits, &written) == CUBLAS_STATUS_SUCCESS &&
         lt->MatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                          &reduction, sizeof reduction,
                                          &written) == CUBLAS_STATUS_SUCCESS &&
         splits <= 1 && splits >= 0 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* Does it serve few rows as well as many, in the room that there is? */
static bool serves_all(pdt_cuda *c, const plan *p) {
  const pdt_cublaslt *lt = &c->bulk->lt;
  bool good = true;
  for (int32_t rows = 1; rows <= BULK_ROWS && good; rows *= 2) {
    problem q;
    cublasLtMatmulHeuristicResult_t result;
    good = describe(c, p, rows, p->outputs, &q) &&
           lt->MatmulAlgoCheck(c->bulk->handle, q.product, q.weights, q.x, q.y, q.y, &p->algorithm,
                               &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= COUNTERS;
    forget(c, &q);
  }
  return good;
}

/* The first of the library's suggestions that will do. */
static bool choose(pdt_cuda *c, plan *p) {
  const pdt_cublaslt *lt = &c->bulk->lt;
  cublasLtMatmulHeuristicResult_t found[FOUND];
  cublasLtMatmulPreference_t preference = NULL;
  problem q;
  int n = 0;
  bool chosen = false;
  if (describe(c, p, BULK_ROWS, p->outputs, &q) &&
      ok(c, lt->MatmulPreferenceCreate(&preference), "choice of an algorithm") &&
      prefer(c, preference))
    ok(c,
       lt->MatmulAlgoGetHeuristic(c->bulk->handle, q.product, q.weights, q.x, q.y, q.y, preference,
                                  FOUND, found, &n),
       "choice of an algorithm");
  for (int i = 0; i < n && !chosen; i++) {
    p->algorithm = found[i].algo;
    chosen =
        found[i].state == CUBLAS_STATUS_SUCCESS && is_whole(lt, &p->algorithm) && serves_all(c, p);
  }
  if (preference) lt->MatmulPreferenceDestroy(preference);
  forget(c, &q);
  return chosen || !ok(c, CUBLAS_STATUS_NOT_SUPPORTED, "an algorithm that sums in one piece");
}

static const plan *find_plan(pdt_cuda *c, cudaDataType type, int32_t outputs, int32_t in) {
  pdt_cuda_bulk *b = c->bulk;
  for (int32_t i = 0; i < b->n_plans; i++) {
    const plan *p = &b->plans[i];
    if (p->type == type && p->outputs == outputs && p->in == in) return p;
  }
  if (b->n_plans == b->plans_room) {
    int32_t room = 2 * b->plans_room + 16;
    plan *more = realloc(b->plans, (size_t)room * sizeof *more);
    if (!more) {
      pdt_fail(&c->failure, PDT_ERROR_MEMORY, "GPU %d: no memory to plan products", c->index);
      return NULL;
    }
    b->plans = more;
    b->plans_room = room;
  }
  plan *p = &b->plans[b->n_plans];
  *p = (plan){.type = type, .outputs = outputs, .in = in};
  if (!choose(c, p)) return NULL;
  b->n_plans++;
  return p;
}

/* ---- a product ---- */

/* Some rows times a matrix. */
typedef struct work {
  pdt_cuda *c;
  const pdt_cuda_weights *w;
  cudaDataType type;
  int32_t in, slab; /* with zeros; outputs of a slab, but for the last */
  int32_t rows, x_parts, w_parts;
  pdt_bytes x_bytes, w_bytes; /* of one part of theirs */
  char *x, *weights;
  float *y; /* [rows, whole groups of outputs at least], as aligned as is asked for */
  int64_t y_stride;
} work;

/* Outputs of a slab: of no more bytes than are there for one, in even numbers. */
static int32_t slab_of(const pdt_cuda_weights *w, pdt_bytes output_bytes) {
  int64_t n = SLAB_BYTES / output_bytes, all = (int64_t)pdt_cuda_groups(w) * PDT_CUDA_GROUP;
  n = n >= SLAB_WAVES ? n / SLAB_WAVES * SLAB_WAVES : n / LEAST_SLAB * LEAST_SLAB;
  if (n < LEAST_SLAB) n = LEAST_SLAB;
  if (n > MOST_SLAB) n = MOST_SLAB;
  return (int32_t)(n < all ? n : all);
}

/* Everything but y, for up to so many rows; false on failure. */
static bool set_up(work *k, pdt_cuda *c, const pdt_cuda_weights *w, int32_t rows) {
  enum { EVEN_ROWS = 16 }; /* so that the second part is aligned as the first */
  pdt_bytes size = (pdt_bytes)pdt_dtype_bytes(w->dtype);
  *k = (work){.c = c, .w = w, .type = w->dtype == PDT_F32 ? CUDA_R_32F : CUDA_R_16BF};
  k->in = pdt_cuda_padded(w->dtype, w->in);
  int parts = w->dtype == PDT_F32 ? 1 : 2; /* that there is room for, rounded or not */
  k->x_parts = c->bulk->rounds ? 1 : parts;
  k->w_parts = w->dtype == PDT_F16 ? 2 : 1;
  k->slab = slab_of(w, k->in * size * k->w_parts);
  k->w_bytes = k->slab * k->in * size;
  k->x_bytes = (pdt_bytes)(rows + EVEN_ROWS - 1) / EVEN_ROWS * EVEN_ROWS * k->in * size;
  k->weights = pdt_cuda_grow(c, &c->bulk->weights, k->w_parts * k->w_bytes, "room for products");
  k->x = pdt_cuda_grow(c, &c->bulk->x, parts * k->x_bytes, "room for products");
  return k->weights && k->x;
}

bool pdt_cuda_bulk_reserve(pdt_cuda *c, const pdt_cuda_weights *w) {
  work k;
  return set_up(&k, c, w, BULK_ROWS);
}

/* Part i of the weights times part j of x, added to y unless both are the first. */
static bool multiply_parts(const work *k, const problem *q, const plan *p, int i, int j, float *y) {
  const float one = 1, zero = 0;
  const pdt_cuda_bulk *b = k->c->bulk;
  return ok(k->c,
            b->lt.Matmul(b->handle, q->product, &one, k->weights + i * k->w_bytes, q->weights,
                         k->x + j * k->x_bytes, q->x, i + j == 0 ? &zero : &one, y, q->y, y, q->y,
                         &p->algorithm, b->counters.at, COUNTERS, k->c->queue.stream),
            "product of many rows");
}

/* Outputs first .. first + outputs - 1, whole groups. */
static bool multiply_slab(const work *k, int32_t first, int32_t outputs) {
  pdt_cuda *c = k->c;
  const plan *p = find_plan(c, k->type, outputs, k->in);
  problem q = {0};
  bool good = p &&
              pdt_cuda_ok(c,
                          pdt_launch_unpack(
                              k->w, first / PDT_CUDA_GROUP, outputs / PDT_CUDA_GROUP, k->weights,
                              k->w_parts > 1 ? k->weights + k->w_bytes : NULL, &c->queue),
                          "unpacking weights") &&
              describe(c, p, k->rows, k->y_stride, &q);
  for (int i = 0; i < k->w_parts && good; i++) /* what both leave over is beyond float */
    for (int j = 0; j < k->x_parts && i + j < 2 && good; j++)
      good = multiply_parts(k, &q, p, i, j, k->y + first);
  forget(c, &q);
  return good;
}

/* k->rows rows, from x to k->y. */
static bool multiply_rows(const work *k, const float *x, int64_t x_stride) {
  pdt_cuda *c = k->c;
  int32_t all = pdt_cuda_groups(k->w) * PDT_CUDA_GROUP;
  char *low = k->x_parts > 1 ? k->x + k->x_bytes : NULL;
  if (!pdt_cuda_ok(
          c, pdt_launch_spread(k->w->dtype, x, x_stride, k->rows, k->w->in, k->x, low, &c->queue),
          "rows of a product"))
    return false;
  /* What follows does not go through the queue. */
  if (!pdt_cuda_ok(c, pdt_cuda_flush(&c->queue), "launches")) return false;
  for (int32_t first = 0; first < all; first += k->slab)
    if (!multiply_slab(k, first, all - first < k->slab ? all - first : k->slab)) return false;
  return true;
}

/* Can the library write results where they belong? It writes whole groups of outputs. */
static bool is_direct(const pdt_cuda_weights *w, const float *y, int64_t y_stride) {
  enum { FLOATS = ALIGNED / sizeof(float) };
  return w->out % PDT_CUDA_GROUP == 0 && y_stride % FLOATS == 0 && (uintptr_t)y % ALIGNED == 0;
}

void pdt_cuda_multiply_bulk(pdt_cuda *c, const pdt_cuda_weights *w, const float *x,
                            int64_t x_stride, int32_t rows, float *y, int64_t y_stride) {
  work k;
  int32_t most = rows < BULK_ROWS ? rows : BULK_ROWS;
  int64_t all = (int64_t)pdt_cuda_groups(w) * PDT_CUDA_GROUP;
  bool direct = is_direct(w, y, y_stride);
  if (rows < 1 || !set_up(&k, c, w, most)) return;
  k.y_stride = direct ? y_stride : all;
  float *beside = NULL;
  if (!direct) {
    beside = pdt_cuda_grow(c, &c->bulk->y, most * all * (pdt_bytes)sizeof *y, "room for products");
    if (!beside) return;
  }
  for (int32_t done = 0; done < rows; done += most) {
    k.rows = rows - done < most ? rows - done : most;
    k.y = direct ? y + done * y_stride : beside;
    if (!multiply_rows(&k, x + done * x_stride, x_stride)) return;
    if (!direct && !pdt_cuda_ok(c,
                                pdt_launch_copy(y + done * y_stride, y_stride, NULL, beside, all,
                                                NULL, k.rows, w->out, &c->queue),
                                "results of a product"))
      return;
  }
}

void pdt_cuda_matmul_bulk(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                          int32_t rows, pdt_array y) {
  if (pdt_cuda_begin(dev))
    pdt_cuda_multiply_bulk(pdt_cuda_of(dev), pdt_cuda_weights_of(w), x.at, x_stride, rows, y.at,
                           w->out);
}
