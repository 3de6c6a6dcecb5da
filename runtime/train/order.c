#include "train/order.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/shuffle.h"
#include "protocol/philox.h"

int pdt_train_order_new(pdt_train_order *o, int64_t n, uint64_t seed, pdt_error *err) {
  *o = (pdt_train_order){.n = n, .seed = seed, .pass = -1};
  return PDT_NEW(&o->items, n, "order of data", err);
}

void pdt_train_order_free(pdt_train_order *o) {
  free(o->items);
  *o = (pdt_train_order){0};
}

static int64_t draw_place(void *context, int64_t i) {
  const pdt_train_order *o = context;
  const uint32_t key[2] = {(uint32_t)o->seed, (uint32_t)(o->seed >> 32)};
  const uint32_t counter[4] = {(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)o->pass,
                               (uint32_t)(o->pass >> 32)};
  uint32_t x[4];
  pdt_philox4x32(counter, key, x);
  /* 64 random bits: the bias of the remainder is below 2^-31 */
  return (int64_t)(((uint64_t)x[0] << 32 | x[1]) % (uint64_t)(i + 1));
}

int64_t pdt_train_order_at(pdt_train_order *o, int64_t place) {
  int64_t pass = place / o->n;
  if (pass != o->pass) {
    o->pass = pass;
    for (int64_t i = 0; i < o->n; i++) o->items[i] = i;
    pdt_shuffle(o->items, o->n, sizeof *o->items, draw_place, o);
  }
  return o->items[place % o->n];
}
