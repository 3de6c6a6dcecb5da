/* What a world is made of, before it is words with ids (private to runtime/atlas). */
#ifndef PDT_ATLAS_SCRIPT_H
#define PDT_ATLAS_SCRIPT_H

#include "atlas/names.h"

/* Sentences of a type, by kind: "_" is the name, "@" the town. None begins with the name, and what
 * comes before it is found in one type and kind only. A name stands without an article of its own,
 * so that any of the type's fits. */
typedef struct pdt_atlas_type_script {
  const char *name;
  const char *forms[2][PDT_ATLAS_MOST_FORMS]; /* [n_forms] */
} pdt_atlas_type_script;

typedef struct pdt_atlas_script {
  const char *option;                 /* of --world */
  const char *name;                   /* in headers; changes whenever a word of the world does */
  const pdt_atlas_type_script *types; /* [PDT_ATLAS_TYPES] */
  int32_t n_forms;
  const char *const *fillers; /* sentences that say nothing */
  int32_t n_fillers, n_towns;
  int32_t held_out;         /* one name in so many is held out of training; 0: none */
  bool tangled, pretrained; /* as in pdt_atlas_world */
  /* Fills in names, towns and how many names there are. Pure. */
  void (*make_names)(pdt_atlas_world *world);
} pdt_atlas_script;

const pdt_atlas_script *pdt_atlas_script_syllables(void);
const pdt_atlas_script *pdt_atlas_script_words(void);

#endif
