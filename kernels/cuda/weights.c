/* Weights in the memory of a GPU, and products with them. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/bulk.h"

/* Zeroed memory of the device for weights. */
static int new_weights(pdt_cuda *c, pdt_bytes bytes, const char *what, void **out, pdt_error *err) {
  pdt_array a;
  pdt_device dev = {.state = c};
  if (pdt_cuda_alloc(&dev, (bytes + 3) / 4, what, &a, err)) return -1;
  *out = a.at;
  return 0;
}

enum { BLOCK_OUTPUTS = 256 };

/* Memory between the slices of products of so many rows, `runs` at once. */
static pdt_bytes partial_bytes(const pdt_cuda_weights *w, int32_t rows, int32_t runs) {
  return w->cut.splits > 1
             ? (pdt_bytes)runs * w->cut.splits * rows * w->out * (pdt_bytes)sizeof(float)
             : 0;
}

static pdt_bytes arrived_bytes(const pdt_cuda_weights *w, int32_t runs) {
  return w->cut.splits > 1 ? runs * (pdt_bytes)(w->out / BLOCK_OUTPUTS + 1) * sizeof(unsigned) : 0;
}

static void raise_to(pdt_bytes *largest, pdt_bytes bytes) {
  if (bytes > *largest) *largest = bytes;
}

/* Takes note of the rooms that products with w will want. */
static void note_rooms(pdt_cuda *c, const pdt_cuda_weights *w, int32_t rows, int32_t runs) {
  raise_to(&c->largest_prepared, runs * pdt_cuda_prepared_bytes(w->dtype, w->in, rows));
  if (c->clusters) return;
  raise_to(&c->largest_partial, partial_bytes(w, rows, runs));
  raise_to(&c->largest_arrived, arrived_bytes(w, runs));
}

/* The same for adapters, whose rows are of a stream each at worst. */
static void note_adapters(pdt_cuda *c, const pdt_adapters *a, int32_t rows) {
  int32_t runs = rows < PDT_CUDA_RUNS ? rows : PDT_CUDA_RUNS;
  for (pdt_dtype dtype = PDT_F32; dtype <= PDT_BF16; dtype++) {
    pdt_cuda_weights down = {.out = a->dim, .in = a->width, .dtype = dtype};
    pdt_cuda_weights up = {.out = a->width, .in = a->dim, .dtype = dtype};
    down.cut = pdt_cuda_choose_cut(down.out, down.in, dtype);
    up.cut = pdt_cuda_choose_cut(up.out, up.in, dtype);
    note_rooms(c, &down, PDT_CUDA_RUN_ROWS, runs);
    note_rooms(c, &up, PDT_CUDA_RUN_ROWS, runs);
  }
}

void pdt_cuda_reserve_products(pdt_cuda *c, const pdt_room *most) {
  if (most->adapted_rows > 0) note_adapters(c, most->adapters, most->adapted_rows);
  const char *what = "room for products";
  pdt_cuda_grow(c, &c->prepared, c->largest_prepared, what);
  pdt_cuda_grow(c, &c->partial, c->largest_partial, what);
  pdt_cuda_grow_zeroed(c, &c->arrived, c->largest_arrived, what);
}

int pdt_cuda_matrix_new(pdt_device *dev, pdt_matrix *m, int32_t out, int32_t in, pdt_dtype dtype,
                        int32_t leaf_width, pdt_error *err) {
  pdt_cuda_weights *w;
  pdt_matrix made = {.out = out, .in = in, .dtype = dtype};
  *m = (pdt_matrix){0};
  if (out < 1 || in < 1)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "weight matrix: expected a shape of at least [1, 1], found [%d, %d]", out, in);
  if (pdt_dtype_quantized(dtype))
    return pdt_fail(
        err, PDT_ERROR_INPUT,
        "weight matrix: the CUDA kernels do not compute with %s (hint: --device cpu does)",
        pdt_dtype_name(dtype));
  if (((int64_t)out + 31) * ((int64_t)in + 15) > INT64_MAX / 8)
    return pdt_fail(err, PDT_ERROR_MEMORY, "weight matrix: [%d, %d] is too large", out, in);
  if (PDT_NEW(&w, 1, "weight matrix", err)) return -1;
  *w = (pdt_cuda_weights){.out = out, .in = in, .dtype = dtype};
  w->cut = pdt_cuda_choose_cut(out, in, dtype);
  note_rooms(pdt_cuda_of(dev), w, PDT_CUDA_ROWS, 1);
  made.data = w;
  made.bytes = pdt_cuda_weights_bytes(w);
  void *data;
  if (new_weights(pdt_cuda_of(dev), made.bytes, "weight matrix", &data, err)) {
    free(w);
    return -1;
  }
  w->data = data;
  bool room = pdt_cuda_bulk_reserve(pdt_cuda_of(dev), w);
  if (!room && err) *err = pdt_cuda_of(dev)->failure;
  if (!room || pdt_sum_tree_new(&made.tree, in, leaf_width, err)) {
    cudaFree(data);
    free(w);
    return -1;
  }
  *m = made;
  return 0;
}

void pdt_cuda_matrix_free(pdt_device *dev, pdt_matrix *m) {
  pdt_cuda_weights *w = m->data;
  if (w) pdt_cuda_free(dev, (void *)w->data);
  free(w);
  pdt_sum_tree_free(&m->tree);
  *m = (pdt_matrix){0};
}

/* Copies n rows close together into a stage. The bus is faster than one thread. */
static void fill_stage(const pdt_device *dev, char *stage, const char *src, size_t row_bytes,
                       size_t stride_bytes, size_t n) {
  enum { PIECE = 256 << 10 };
  size_t most = n * row_bytes / PIECE + 1, pieces = most < n ? most : n;
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    size_t begin = n * p / pieces, end = n * (p + 1) / pieces;
    if (stride_bytes == row_bytes)
      memcpy(stage + begin * row_bytes, src + begin * row_bytes, (end - begin) * row_bytes);
    else
      for (size_t r = begin; r < end; r++)
        memcpy(stage + r * row_bytes, src + r * stride_bytes, row_bytes);
  }
}

/* Copies rows of a host array into a stage and from there to the device's packing room. The copies
 * to the device follow each other while the host fills the next stages. */
static void *bring_rows(const pdt_device *dev, const char *src, size_t row_bytes,
                        size_t stride_bytes, int32_t rows) {
  pdt_cuda *c = pdt_cuda_of(dev);
  size_t bytes = row_bytes * (size_t)rows;
  char *stage = pdt_cuda_lend(c, (pdt_bytes)bytes);
  if (!stage) return NULL;
  fill_stage(dev, stage, src, row_bytes, stride_bytes, (size_t)rows);
  void *room = pdt_cuda_grow(c, &c->packing, (pdt_bytes)bytes, "room for packing weights");
  if (!room || !pdt_cuda_ok(c, pdt_cuda_transfer(c, room, stage, bytes, cudaMemcpyHostToDevice),
                            "upload of weights"))
    return NULL;
  return room;
}

void pdt_cuda_matrix_pack(pdt_device *dev, pdt_matrix *m, int32_t first_out, int32_t n_rows,
                          const void *src, int64_t src_stride) {
  pdt_cuda *c = pdt_cuda_of(dev);
  const pdt_cuda_weights *w = pdt_cuda_weights_of(m);
  size_t size = pdt_dtype_bytes(m->dtype), row_bytes = (size_t)m->in * size;
  int32_t most = row_bytes < PDT_CUDA_STAGE_BYTES ? (int32_t)(PDT_CUDA_STAGE_BYTES / row_bytes) : 1;
  if (!pdt_cuda_begin(dev)) return;
  for (int32_t done = 0; done < n_rows; done += most) {
    int32_t rows = n_rows - done < most ? n_rows - done : most;
    const char *from = (const char *)src + (size_t)done * (size_t)src_stride * size;
    void *room = bring_rows(dev, from, row_bytes, (size_t)src_stride * size, rows);
    if (!room || !pdt_cuda_ok(c, pdt_launch_pack(w, first_out + done, rows, room, &c->queue),
                              "packing weights"))
      return;
  }
}

int pdt_cuda_rows_new(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                      pdt_error *err) {
  pdt_rows made = {.n = n, .width = width, .dtype = dtype};
  *rows = (pdt_rows){0};
  if (new_weights(pdt_cuda_of(dev), n * width * (pdt_bytes)pdt_dtype_bytes(dtype), "weight rows",
                  &made.data, err))
    return -1;
  *rows = made;
  return 0;
}

void pdt_cuda_rows_free(pdt_device *dev, pdt_rows *rows) {
  pdt_cuda_free(dev, rows->data);
  *rows = (pdt_rows){0};
}

static size_t row_bytes_of(const pdt_rows *rows) {
  return (size_t)rows->width * pdt_dtype_bytes(rows->dtype);
}

void pdt_cuda_rows_write(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n,
                         const void *src) {
  pdt_cuda *c = pdt_cuda_of(dev);
  size_t bytes = (size_t)n * row_bytes_of(rows), done = 0;
  char *to = (char *)rows->data + (size_t)first * row_bytes_of(rows);
  if (!pdt_cuda_begin(dev)) return;
  while (done < bytes) {
    size_t piece = bytes - done < PDT_CUDA_STAGE_BYTES ? bytes - done : PDT_CUDA_STAGE_BYTES;
    void *stage = pdt_cuda_lend(c, (pdt_bytes)piece);
    if (!stage) return;
    fill_stage(dev, stage, (const char *)src + done, 1, 1, piece);
    if (!pdt_cuda_ok(c, pdt_cuda_transfer(c, to + done, stage, piece, cudaMemcpyHostToDevice),
                     "upload of weight rows"))
      return;
    done += piece;
  }
}

void pdt_cuda_rows_read(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host) {
  pdt_cuda *c = pdt_cuda_of(dev);
  size_t bytes = row_bytes_of(rows);
  const char *from = (const char *)rows->data + (size_t)row * bytes;
  memset(host, 0, (size_t)rows->width * sizeof *host);
  if (!pdt_cuda_begin(dev)) return;
  void *to = pdt_cuda_results(c, (pdt_bytes)bytes);
  if (to &&
      pdt_cuda_ok(c, pdt_cuda_transfer(c, to, from, bytes, cudaMemcpyDeviceToHost),
                  "download of a weight row") &&
      pdt_cuda_wait(c, "download of a weight row"))
    pdt_to_float(rows->dtype, to, rows->width, host);
}

/* Room for a product of so many rows, or of so many runs of rows; false on failure. */
static bool find_room(pdt_cuda *c, const pdt_cuda_weights *w, int32_t rows, int32_t runs,
                      void **prepared, pdt_cuda_room *room) {
  enum { FEW = 16, AHEAD = 8 /* steps; more of them push others out */ };
  *room = (pdt_cuda_room){.clusters = c->clusters, .ahead = rows <= FEW ? AHEAD : 0};
  *prepared = pdt_cuda_grow(c, &c->prepared, runs * pdt_cuda_prepared_bytes(w->dtype, w->in, rows),
                            "room for products");
  if (!*prepared) return false;
  if (w->cut.splits == 1 || c->clusters) return true;
  room->partial = pdt_cuda_grow(c, &c->partial, partial_bytes(w, rows, runs), "room for products");
  room->arrived = pdt_cuda_grow_zeroed(c, &c->arrived, arrived_bytes(w, runs), "room for products");
  return room->partial && room->arrived;
}

/* Rows of x for a product with w. */
static pdt_cuda_x x_of(const pdt_cuda_weights *w, const float *x, int64_t stride, int32_t rows) {
  return (pdt_cuda_x){x, stride, rows, w->in, pdt_cuda_step(w->dtype)};
}

/* Products of as many rows at a time as they take. */
static void multiply(pdt_cuda *c, const pdt_cuda_weights *w, const float *x, int64_t x_stride,
                     int32_t rows, float *y, int64_t y_stride) {
  for (int32_t done = 0; done < rows; done += PDT_CUDA_ROWS) {
    int32_t n = rows - done < PDT_CUDA_ROWS ? rows - done : PDT_CUDA_ROWS;
    const pdt_cuda_x some = x_of(w, x + done * x_stride, x_stride, n);
    void *prepared;
    pdt_cuda_room room;
    if (!find_room(c, w, n, 1, &prepared, &room) ||
        !pdt_cuda_prepare_x(c, w->dtype, &some, prepared) ||
        !pdt_cuda_ok(
            c, pdt_cuda_product(w, prepared, n, y + done * y_stride, y_stride, &room, &c->queue),
            "product"))
      return;
  }
}

void pdt_cuda_multiply(pdt_cuda *c, const pdt_cuda_weights *w, const float *x, int64_t x_stride,
                       int32_t rows, float *y, int64_t y_stride) {
  c->x = (pdt_cuda_x){0};
  multiply(c, w, x, x_stride, rows, y, y_stride);
}

void pdt_cuda_multiply_runs(pdt_cuda *c, const pdt_cuda_weights *w, const pdt_cuda_run *runs,
                            int32_t n, const float *x, float *y) {
  c->x = (pdt_cuda_x){0};
  for (int32_t done = 0; done < n; done += PDT_CUDA_RUNS) {
    int32_t some = n - done < PDT_CUDA_RUNS ? n - done : PDT_CUDA_RUNS;
    void *prepared;
    pdt_cuda_room room;
    if (!find_room(c, w, PDT_CUDA_RUN_ROWS, some, &prepared, &room) ||
        !pdt_cuda_ok(c,
                     pdt_cuda_product_runs(w, runs + done, some, x, w->in, prepared, y, w->out,
                                           &room, &c->queue),
                     "products of runs"))
      return;
  }
}

void pdt_cuda_matmul(pdt_device *dev, const pdt_matrix *w, pdt_array x, int64_t x_stride,
                     int32_t rows, pdt_array y) {
  const pdt_cuda_weights *weights = pdt_cuda_weights_of(w);
  const pdt_cuda_x all = x_of(weights, x.at, x_stride, rows);
  if (rows > 0 && pdt_cuda_begin_product(dev, &all))
    multiply(pdt_cuda_of(dev), weights, x.at, x_stride, rows, y.at, w->out);
}

void pdt_cuda_gather_rows(pdt_device *dev, const pdt_matrix *w, const int32_t *ids, int32_t n,
                          pdt_array y) {
  pdt_cuda *c = pdt_cuda_of(dev);
  const pdt_cuda_weights *weights = pdt_cuda_weights_of(w);
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  int32_t *list = pdt_cuda_lend(c, n * (pdt_bytes)sizeof *ids);
  if (!list) return;
  memcpy(list, ids, (size_t)n * sizeof *ids);
  pdt_cuda_ok(c, pdt_launch_gather(weights, list, NULL, n, y.at, &c->queue),
              "rows of an embedding");
}

void pdt_cuda_rows_product(pdt_device *dev, const pdt_rows *rows, int64_t first, int32_t n,
                           pdt_array x, pdt_array y) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  const char *from = (const char *)rows->data + (size_t)first * row_bytes_of(rows);
  pdt_cuda_ok(c, pdt_launch_rows_product(from, rows->dtype, n, rows->width, x.at, y.at, &c->queue),
              "product with rows");
}
