/* Orders by lot. Whoever asks brings the random numbers. */
#ifndef PDT_BASE_SHUFFLE_H
#define PDT_BASE_SHUFFLE_H

#include <stddef.h>

#include "base/types.h"

/* A number from 0 to i, any as likely as another. */
typedef int64_t pdt_draw_place(void *context, int64_t i);

/* Brings n items of `size` bytes, at most 16, into a random order: from the last one down to the
 * second, item i changes places with the one at draw(context, i). */
void pdt_shuffle(void *items, int64_t n, size_t size, pdt_draw_place *draw, void *context);

#endif
