#include "protocol/merge.h"

#include <math.h>

/* Adds a stream to the order unless it is there. */
static int32_t add(pdt_stream *order, int32_t n, int32_t before, pdt_stream k) {
  for (int32_t i = 0; i < before; i++)
    if (order[i] == k) return n;
  order[n] = k;
  return n + 1;
}

void pdt_merge(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids, int32_t slots,
               pdt_stream *owner, pdt_stream *order) {
  for (int32_t i = 0; i < slots; i++) {
    float best = -INFINITY;
    owner[i] = -1;
    for (pdt_stream k = 0; k < K && plan_ids[i] != 0; k++)
      if (streams[k].best_coverage[i] > best) {
        best = streams[k].best_coverage[i];
        owner[i] = k;
      }
  }
  int32_t n = 0;
  for (int32_t slot = 0; slot < slots; slot++)
    if (owner[slot] >= 0) n = add(order, n, n, owner[slot]);
  int32_t owners = n; /* no more of them than slots: the time is that of reading the coverage */
  for (pdt_stream k = 0; k < K; k++) n = add(order, n, owners, k);
}
