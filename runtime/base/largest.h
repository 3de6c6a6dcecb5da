/* The sum of the largest of many amounts, which are told one by one: what so many of them can come
 * to together. Memory is that of the largest alone. */
#ifndef PDT_BASE_LARGEST_H
#define PDT_BASE_LARGEST_H

#include "base/error.h"
#include "base/types.h"

/* Zeroed but for `most`: none was told yet. */
typedef struct pdt_largest {
  int32_t most;  /* so many are added up, >= 1 */
  int32_t n;     /* of them so far */
  int64_t sum;   /* of them */
  int64_t *heap; /* [n]: entry i is at most as large as entries 2i+1 and 2i+2 */
  size_t room;
} pdt_largest;

/* Tells one more amount. Errors: MEMORY. */
int pdt_largest_add(pdt_largest *l, int64_t amount, pdt_error *err);

/* It is then as before the first amount. */
void pdt_largest_free(pdt_largest *l);

#endif
