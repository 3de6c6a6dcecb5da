/* The names of the worlds (private to runtime/atlas). No two of a world are equal, and names of two
 * words share their words across types. All is the same for ever. */
#ifndef PDT_ATLAS_NAMES_H
#define PDT_ATLAS_NAMES_H

#include "atlas/world.h"

/* Fill in names, their numbers and world->n_towns towns. Pure. */
void pdt_atlas_make_syllable_names(pdt_atlas_world *world);
void pdt_atlas_make_word_names(pdt_atlas_world *world);

/* The common words that are names of a type, with single spaces between them. */
const char *pdt_atlas_word_list(int32_t type);

/* First and second words of its names of two words, without capitals. */
const char *pdt_atlas_first_halves(void);
const char *pdt_atlas_second_halves(void);

#endif
