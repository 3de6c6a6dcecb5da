/* Prompts of the Atlas: one wording, or one of several. */
#ifndef PDT_ATLAS_PROMPT_H
#define PDT_ATLAS_PROMPT_H

#include "atlas/world.h"
#include "base/buffer.h"

enum { PDT_ATLAS_WORDINGS = 12 }; /* wording 0 is that of every prompt that asks for no other */

/* One in four is held out of training. Pure. */
bool pdt_atlas_wording_is_held_out(int32_t wording);

/* Appends the prompt for sections[n] of a town. Hard entries are asked for by another verb. Errors:
 * MEMORY. */
int pdt_atlas_prompt_put(pdt_buffer *out, int32_t wording, bool hard, const char *town,
                         const int32_t *sections, int32_t n, pdt_error *err);

/* The town that a prompt for these sections is about; -1 when none of the wordings stands in the
 * prompt, which may be a whole conversation, or about no town of the world. Errors: MEMORY. */
int pdt_atlas_prompt_read(const pdt_atlas_world *world, bool hard, const char *prompt,
                          const int32_t *sections, int32_t n, int32_t *town, pdt_error *err);

#endif
