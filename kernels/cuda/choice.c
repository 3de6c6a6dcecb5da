/* Choice of tokens. */
#include <string.h>

#include "kernels/cuda/backend.h"

void pdt_cuda_reserve_choice(pdt_cuda *c, const pdt_room *most) {
  if (most->sampled_rows < 1 || most->sampled_width < 1) return;
  int64_t parts = (int64_t)most->sampled_rows * pdt_cuda_argmax_parts(most->sampled_width);
  pdt_cuda_grow(c, &c->choice, parts * (pdt_bytes)sizeof(pdt_cuda_best), "room for choices");
}

void pdt_cuda_argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, int32_t first_id, pdt_candidate *best) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1) return;
  memset(best, 0, (size_t)n * sizeof *best);
  if (!pdt_cuda_begin(dev)) return;
  int64_t parts = (int64_t)n * pdt_cuda_argmax_parts(width);
  pdt_cuda_best *room =
      pdt_cuda_grow(c, &c->choice, parts * (pdt_bytes)sizeof *room, "room for choices");
  /* The list lies behind the results, where the next step finds it too. */
  pdt_cuda_best *results = pdt_cuda_results(c, n * (pdt_bytes)(sizeof *results + sizeof *rows));
  if (!room || !results) return;
  int32_t *list = (int32_t *)(void *)(results + n);
  if (rows) memcpy(list, rows, (size_t)n * sizeof *rows);
  if (!pdt_cuda_ok(c,
                   pdt_launch_argmax(logits.at, width, rows ? list : NULL, n, first_id, room,
                                     results, &c->queue),
                   "largest logits") ||
      !pdt_cuda_wait(c, "largest logits"))
    return;
  for (int32_t i = 0; i < n; i++) best[i] = (pdt_candidate){results[i].logit, results[i].id};
}

/* Candidates in order of their logits are found on the host, row by row. */
void pdt_cuda_sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                          int32_t n, const pdt_row_draw *draws, pdt_token *tokens) {
  pdt_cuda *c = pdt_cuda_of(dev);
  if (n < 1) return;
  memset(tokens, 0, (size_t)n * sizeof *tokens);
  if (!pdt_cuda_begin(dev)) return;
  pdt_bytes row_bytes = width * (pdt_bytes)sizeof(float);
  pdt_bytes scratch_bytes = width * (pdt_bytes)sizeof(pdt_candidate);
  char *results = pdt_cuda_results(c, n * row_bytes + scratch_bytes + 16);
  if (!results) return;
  for (int32_t i = 0; i < n; i++)
    if (!pdt_cuda_ok(c,
                     pdt_cuda_transfer(c, results + i * row_bytes,
                                       logits.at + (int64_t)(rows ? rows[i] : i) * width,
                                       (size_t)row_bytes, cudaMemcpyDeviceToHost),
                     "download of logits"))
      return;
  if (!pdt_cuda_wait(c, "download of logits")) return;
  pdt_candidate *scratch = (pdt_candidate *)(void *)(results + (n * row_bytes + 15) / 16 * 16);
  for (int32_t i = 0; i < n; i++)
    tokens[i] = pdt_sample((const float *)(const void *)(results + i * row_bytes), width,
                           &draws[i].how, draws[i].u, scratch);
}
