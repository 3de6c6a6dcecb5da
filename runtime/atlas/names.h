/* The names of the world (private to runtime/atlas). */
#ifndef PDT_ATLAS_NAMES_H
#define PDT_ATLAS_NAMES_H

#include "atlas/world.h"

/* Fills in names and towns. No two are equal, and names of two words share their words across
 * types. Pure. */
void pdt_atlas_make_names(pdt_atlas_world *world);

#endif
