/* What stands between the products of a decode step, each alone: rows of an 8B model, written as
 * products read them, too. */
#include <vector>

#include "gpu.h"
#include "kernels/cuda/launch.h"

namespace {

enum { WIDTH = 4096, UNITS = 14336, HEADS = 32, HEAD = 128, PIECES = 34, MOST_ROWS = 64 };

/* Device memory of the kernels: rows of floats, and where the pieces of each row lie. */
struct room {
  float *x, *more, *y, *parts;
  void *prepared;
  int32_t *places;
};

void tell(gpu_bench *b, const char *name, int rows, double seconds) {
  fprintf(b->out, "{\"part\": \"rows\", \"name\": \"%s\", \"rows\": %d, \"us\": %.3f}\n", name,
          rows, seconds * 1e6);
  printf("%-24s %2d rows %8.3f us\n", name, rows, seconds * 1e6);
}

void measure(gpu_bench *b, const room &r, int rows) {
  enum { INSIDE = 50, REPEATS = 20 };
  const pdt_cuda_prepared to = pdt_cuda_prepared_at(r.prepared, PDT_BF16, rows);
  pdt_cuda_norm norm = {};
  norm.x = r.x, norm.added = r.more, norm.weight = r.more, norm.y = r.y;
  norm.gate = 1, norm.eps = 1e-5f, norm.rows = rows, norm.width = WIDTH;
  pdt_cuda_attention a = {};
  a.places = r.places, a.room = r.parts, a.n_rows = rows;
  tell(b, "norm with sum", rows,
       gpu_time(b, INSIDE, REPEATS, [&](int) { CHECK(pdt_launch_norm(&norm, &to, &b->queue)); }));
  tell(b, "gated units", rows, gpu_time(b, INSIDE, REPEATS, [&](int) {
         CHECK(pdt_launch_swiglu(r.y, rows, UNITS, &to, &b->queue));
       }));
  tell(b, "merge of 34 pieces", rows, gpu_time(b, INSIDE, REPEATS, [&](int) {
         CHECK(pdt_launch_merge(&a, HEADS, HEAD, r.x, &to, &b->queue));
       }));
}

} // namespace

void measure_rows(gpu_bench *b) {
  room r;
  size_t parts = (size_t)MOST_ROWS * PIECES * HEADS * (2 + HEAD);
  std::vector<int32_t> places;
  for (int i = 0; i < MOST_ROWS; i++) places.insert(places.end(), {i * PIECES, (i + 1) * PIECES});
  CHECK(cudaMalloc(&r.x, sizeof(float) * MOST_ROWS * WIDTH));
  CHECK(cudaMalloc(&r.more, sizeof(float) * MOST_ROWS * WIDTH));
  CHECK(cudaMalloc(&r.y, sizeof(float) * MOST_ROWS * 2 * UNITS));
  CHECK(cudaMalloc(&r.parts, sizeof(float) * parts));
  CHECK(cudaMalloc(&r.prepared, (size_t)pdt_cuda_prepared_bytes(PDT_BF16, UNITS, MOST_ROWS)));
  CHECK(cudaMalloc(&r.places, sizeof(int32_t) * places.size()));
  gpu_fill(r.x, MOST_ROWS * WIDTH, 1, 1, b->stream);
  gpu_fill(r.more, MOST_ROWS * WIDTH, 2, 1, b->stream);
  gpu_fill(r.y, MOST_ROWS * 2 * UNITS, 3, 1, b->stream);
  gpu_fill(r.parts, (int64_t)parts, 4, 1, b->stream);
  CHECK(cudaMemcpyAsync(r.places, places.data(), sizeof(int32_t) * places.size(),
                        cudaMemcpyHostToDevice, b->stream));
  CHECK(cudaStreamSynchronize(b->stream));
  for (int rows : {1, 8, 64}) measure(b, r, rows);
  void *all[] = {r.x, r.more, r.y, r.parts, r.prepared, r.places};
  for (void *p : all) CHECK(cudaFree(p));
}
