#include "kernels/host_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int pdt_host_sync(pdt_device *dev, pdt_error *err) {
  (void)dev, (void)err;
  return 0;
}

pdt_bytes pdt_host_available(pdt_device *dev, int32_t sharing) {
  (void)dev;
  return pdt_available_bytes("", sharing);
}

int pdt_host_alloc(pdt_device *dev, int64_t elems, const char *what, pdt_array *out,
                   pdt_error *err) {
  (void)dev;
  return PDT_NEW(&out->at, elems, what, err);
}

void pdt_host_release(pdt_device *dev, pdt_array a) {
  (void)dev;
  free(a.at);
}

void pdt_host_upload(pdt_device *dev, pdt_array dst, const float *host, int64_t elems) {
  (void)dev;
  if (elems > 0) memcpy(dst.at, host, (size_t)elems * sizeof *host);
}

void pdt_host_download(pdt_device *dev, float *host, pdt_array src, int64_t elems) {
  (void)dev;
  if (elems > 0) memcpy(host, src.at, (size_t)elems * sizeof *host);
}

void pdt_host_copy_rows(pdt_device *dev, pdt_array dst, int64_t dst_stride, pdt_array src,
                        int64_t src_stride, int32_t rows, int32_t width) {
  (void)dev;
  for (int32_t r = 0; r < rows && width > 0; r++)
    memcpy(dst.at + r * dst_stride, src.at + r * src_stride, (size_t)width * sizeof *dst.at);
}

void pdt_host_move_rows(pdt_device *dev, pdt_array dst, const int32_t *to, pdt_array src,
                        const int32_t *from, int32_t n, int32_t width) {
  (void)dev;
  for (int32_t i = 0; i < n; i++) {
    int64_t target = to ? to[i] : i, source = from ? from[i] : i;
    memcpy(dst.at + target * width, src.at + source * width, (size_t)width * sizeof *dst.at);
  }
}

static pdt_bytes row_bytes(const pdt_rows *rows) {
  return pdt_dtype_row_bytes(rows->dtype, rows->width);
}

int pdt_host_rows_new(pdt_device *dev, pdt_rows *rows, int64_t n, int32_t width, pdt_dtype dtype,
                      pdt_error *err) {
  (void)dev;
  pdt_rows made = {.n = n, .width = width, .dtype = dtype};
  *rows = (pdt_rows){0};
  if (pdt_new(&made.data, n, (size_t)row_bytes(&made), "weight rows", err)) return -1;
  *rows = made;
  return 0;
}

void pdt_host_rows_free(pdt_device *dev, pdt_rows *rows) {
  (void)dev;
  free(rows->data);
  *rows = (pdt_rows){0};
}

void pdt_host_rows_write(pdt_device *dev, pdt_rows *rows, int64_t first, int64_t n,
                         const void *src) {
  (void)dev;
  if (n > 0)
    memcpy((char *)rows->data + first * row_bytes(rows), src, (size_t)(n * row_bytes(rows)));
}

const void *pdt_host_row(const pdt_rows *rows, int64_t row) {
  return (const char *)rows->data + row * row_bytes(rows);
}

void pdt_host_rows_read(pdt_device *dev, const pdt_rows *rows, int64_t row, float *host) {
  (void)dev;
  pdt_to_float(rows->dtype, pdt_host_row(rows, row), rows->width, host);
}

/* ---- chosen tokens ---- */

struct pdt_chosen {
  pdt_token *tokens; /* [n] by place */
  pdt_token *listed; /* [n] of one call */
};

void pdt_host_chosen_free(pdt_device *dev, pdt_chosen *chosen) {
  (void)dev;
  if (!chosen) return;
  free(chosen->tokens);
  free(chosen->listed);
  free(chosen);
}

int pdt_host_chosen_new(pdt_device *dev, int32_t n, pdt_chosen **out, pdt_error *err) {
  pdt_chosen *made;
  *out = NULL;
  if (PDT_NEW(&made, 1, "chosen tokens", err)) return -1;
  if (PDT_NEW(&made->tokens, n, "chosen tokens", err) ||
      PDT_NEW(&made->listed, n, "chosen tokens", err)) {
    pdt_host_chosen_free(dev, made);
    return -1;
  }
  *out = made;
  return 0;
}

void pdt_host_choose_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                          const pdt_row_draw *draws, const int32_t *to, pdt_chosen *chosen) {
  dev->ops->sample_rows(dev, logits, width, NULL, n, draws, chosen->listed);
  for (int32_t i = 0; i < n; i++) chosen->tokens[to[i]] = chosen->listed[i];
}

void pdt_host_gather_chosen(pdt_device *dev, const pdt_matrix *w, const pdt_chosen *chosen,
                            const int32_t *from, int32_t n, pdt_array y) {
  for (int32_t i = 0; i < n; i++)
    chosen->listed[i] = chosen->tokens[from[i]] < 0 ? 0 : chosen->tokens[from[i]];
  dev->ops->gather_rows(dev, w, chosen->listed, n, y);
}

void pdt_host_chosen_read(pdt_device *dev, pdt_chosen *chosen, const int32_t *from, int32_t n,
                          bool but_last, pdt_token *tokens) {
  (void)dev, (void)but_last;
  for (int32_t i = 0; i < n; i++) tokens[i] = chosen->tokens[from[i]];
}
