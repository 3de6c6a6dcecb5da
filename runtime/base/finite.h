/* NaN and infinity in weights. */
#ifndef PDT_BASE_FINITE_H
#define PDT_BASE_FINITE_H

#include "base/dtype.h"

/* Are n elements, whole blocks of type t at any alignment, all finite? Of a quantized type that is
 * a question of its scales. One pass at memory speed. Pure. */
bool pdt_all_finite(pdt_dtype t, const void *data, int64_t n_elems);

/* Index of the first NaN or infinity, or of the first element of a quantized block that has one; -1
 * when there is none. */
int64_t pdt_first_not_finite(pdt_dtype t, const void *data, int64_t n_elems);

#endif
