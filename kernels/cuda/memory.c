/* Memory of a GPU: what goes up waits in pinned host memory, so that the call need not. */
#include <string.h>

#include "kernels/cuda/backend.h"

int pdt_cuda_alloc(pdt_device *dev, int64_t elems, const char *what, pdt_array *out,
                   pdt_error *err) {
  const int64_t most = INT64_MAX / (int64_t)sizeof(float);
  void *at = NULL;
  size_t bytes = elems > 0 ? (size_t)elems * sizeof(float) : sizeof(float);
  pdt_cuda *c = pdt_cuda_of(dev);
  *out = (pdt_array){0};
  if (elems > most)
    return pdt_fail(err, PDT_ERROR_MEMORY, "GPU %d: %s: %lld floats are too many", c->index, what,
                    (long long)elems);
  if (pdt_cuda_take(c, &at, (pdt_bytes)bytes, what, err)) return -1;
  if (!pdt_cuda_ok(c, cudaMemsetAsync(at, 0, bytes, c->queue.stream), what)) {
    cudaFree(at);
    if (err) *err = c->failure;
    return -1;
  }
  out->at = at;
  return 0;
}

void pdt_cuda_release(pdt_device *dev, pdt_array a) {
  pdt_cuda_free(dev, a.at);
}

void pdt_cuda_upload(pdt_device *dev, pdt_array dst, const float *host, int64_t elems) {
  enum { MOST = PDT_CUDA_STAGE_BYTES / sizeof(float) };
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  for (int64_t done = 0; done < elems; done += MOST) {
    size_t bytes = (size_t)(elems - done < MOST ? elems - done : MOST) * sizeof(float);
    void *stage = pdt_cuda_lend(c, (pdt_bytes)bytes);
    if (!stage) return;
    memcpy(stage, host + done, bytes);
    if (!pdt_cuda_ok(c, pdt_cuda_transfer(c, dst.at + done, stage, bytes, cudaMemcpyHostToDevice),
                     "upload"))
      return;
  }
}

void pdt_cuda_download(pdt_device *dev, float *host, pdt_array src, int64_t elems) {
  pdt_cuda *c = pdt_cuda_of(dev);
  size_t bytes = (size_t)elems * sizeof(float);
  if (elems < 1) return;
  if (pdt_cuda_begin(dev) &&
      pdt_cuda_ok(c, pdt_cuda_transfer(c, host, src.at, bytes, cudaMemcpyDeviceToHost),
                  "download") &&
      pdt_cuda_wait(c, "download"))
    return;
  memset(host, 0, bytes);
}

void pdt_cuda_copy_rows(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                        int64_t src_stride, int32_t rows, int32_t width) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (!pdt_cuda_begin(dev)) return;
  pdt_cuda_ok(
      c,
      pdt_launch_copy(dst.at, dst_stride, NULL, src.at, src_stride, NULL, rows, width, &c->queue),
      "copy of rows");
}

void pdt_cuda_move_rows(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                        const int32_t *from, int32_t n, int32_t width) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1 || !pdt_cuda_begin(dev)) return;
  size_t list = (size_t)n * sizeof *to;
  int32_t *lists = pdt_cuda_lend(c, 2 * (pdt_bytes)list);
  if (!lists) return;
  if (to) memcpy(lists, to, list);
  if (from) memcpy(lists + n, from, list);
  pdt_cuda_ok(c,
              pdt_launch_copy(dst.at, width, to ? lists : NULL, src.at, width,
                              from ? lists + n : NULL, n, width, &c->queue),
              "move of rows");
}
