/* Tokens from logits, and how likely they are. */
#include "kernels/cpu/operations.h"

void pdt_cpu_argmax_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                         int32_t n, int32_t first_id, pdt_candidate *best) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n > 1)
  for (int32_t i = 0; i < n; i++) {
    const float *row = logits.at + (int64_t)(rows ? rows[i] : i) * width;
    pdt_token top = pdt_argmax(row, width);
    best[i] = (pdt_candidate){top < 0 ? 0 : row[top], top < 0 ? -1 : first_id + top};
  }
}

void pdt_cpu_sample_rows(pdt_device *dev, pdt_array logits, int32_t width, const int32_t *rows,
                         int32_t n, const pdt_row_draw *draws, pdt_token *tokens) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n > 1)
  for (int32_t i = 0; i < n; i++)
    tokens[i] = pdt_sample(logits.at + (int64_t)(rows ? rows[i] : i) * width, width, &draws[i].how,
                           draws[i].u, (pdt_candidate *)(void *)pdt_cpu_scratch(dev));
}

void pdt_cpu_logprobs_rows(pdt_device *dev, pdt_array logits, int32_t width, int32_t n,
                           const pdt_token *tokens, int32_t top, pdt_logprob *out) {
#pragma omp parallel for num_threads(dev->threads) if (dev->threads > 1 && n > 1)
  for (int32_t i = 0; i < n; i++)
    pdt_logprobs(logits.at + (int64_t)i * width, width, tokens[i], top,
                 out + (int64_t)i * (1 + top));
}
