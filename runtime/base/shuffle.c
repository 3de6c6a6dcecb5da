#include "base/shuffle.h"

#include <string.h>

void pdt_shuffle(void *items, int64_t n, size_t size, pdt_draw_place *draw, void *context) {
  char kept[16], *at = items;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = draw(context, i);
    char *x = at + i * (int64_t)size, *y = at + j * (int64_t)size;
    if (i == j) continue;
    memcpy(kept, x, size);
    memcpy(x, y, size);
    memcpy(y, kept, size);
  }
}
