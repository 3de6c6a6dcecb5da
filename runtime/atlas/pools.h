/* Which names a generator may draw (private to runtime/atlas). */
#ifndef PDT_ATLAS_POOLS_H
#define PDT_ATLAS_POOLS_H

#include "atlas/generate.h"

/* Fills in pools and names left out, by options and costs of words. What was allocated is freed
 * with the generator, after an error too. Errors: INPUT (a tokenizer that has less than half of a
 * type's names), MEMORY. */
int pdt_atlas_pools_fill(pdt_atlas_generator *g, pdt_error *err);

#endif
