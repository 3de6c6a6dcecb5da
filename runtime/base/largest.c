#include "base/largest.h"

#include <stdlib.h>

#include "base/buffer.h"

static void swap(int64_t *a, int64_t *b) {
  int64_t was = *a;
  *a = *b;
  *b = was;
}

/* Moves the last entry up to where it belongs. */
static void rise(int64_t *heap, int32_t at) {
  for (; at > 0 && heap[at] < heap[(at - 1) / 2]; at = (at - 1) / 2)
    swap(&heap[at], &heap[(at - 1) / 2]);
}

/* Moves the first entry down to where it belongs. */
static void sink(int64_t *heap, int32_t n) {
  for (int64_t at = 0, child = 1; child < n; at = child, child = 2 * at + 1) {
    if (child + 1 < n && heap[child + 1] < heap[child]) child++;
    if (heap[at] <= heap[child]) return;
    swap(&heap[at], &heap[child]);
  }
}

int pdt_largest_add(pdt_largest *l, int64_t amount, pdt_error *err) {
  if (l->n < l->most) {
    if (PDT_GROW(&l->heap, (size_t)l->n, &l->room, err)) return -1;
    l->heap[l->n] = amount;
    l->sum += amount;
    rise(l->heap, l->n++);
  } else if (amount > l->heap[0]) {
    l->sum += amount - l->heap[0];
    l->heap[0] = amount;
    sink(l->heap, l->n);
  }
  return 0;
}

void pdt_largest_free(pdt_largest *l) {
  free(l->heap);
  *l = (pdt_largest){.most = l->most};
}
