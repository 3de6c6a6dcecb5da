#include "protocol/merge.h"

#include <math.h>

static int32_t first_slot(const pdt_stream *owner, int32_t slots, pdt_stream k) {
  for (int32_t i = 0; i < slots; i++)
    if (owner[i] == k) return i;
  return slots;
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
  for (int32_t slot = 0; slot <= slots; slot++) /* K + S steps of a counting sort */
    for (pdt_stream k = 0; k < K; k++)
      if ((slot == slots || owner[slot] == k) && first_slot(owner, slots, k) == slot)
        order[n++] = k;
}
