/* The endless order in which training takes its data: one random order of all items after another,
 * each by seed and number alone, so that nothing of it has to be kept. */
#ifndef PDT_TRAIN_ORDER_H
#define PDT_TRAIN_ORDER_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_train_order {
  int64_t n; /* items */
  uint64_t seed;
  int64_t *items; /* [n], in the order of pass `pass` */
  int64_t pass;   /* -1: of none yet */
} pdt_train_order;

/* Of n >= 1 items. Freed by the caller, after an error too. Errors: MEMORY. */
int pdt_train_order_new(pdt_train_order *o, int64_t n, uint64_t seed, pdt_error *err);
void pdt_train_order_free(pdt_train_order *o);

/* The item at a place >= 0: pass place / n, and there place % n. Places of another pass than the
 * one asked for last cost n steps. */
int64_t pdt_train_order_at(pdt_train_order *o, int64_t place);

#endif
