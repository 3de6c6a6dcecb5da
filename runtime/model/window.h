/* Which layers of a model slide a window over the positions before them, and how long it is, as
 * transformers 5 reads config.json:
 *   mistral          `sliding_window`, 4,096 when the key is absent, null for none; every layer
 *   qwen2, qwen3     the same with `use_sliding_window` true; layers from `max_window_layers` on
 *   llama            none
 * A list `layer_types`, one of "full_attention" and "sliding_attention" a layer, says in place of
 * that which layers slide. */
#ifndef PDT_MODEL_WINDOW_H
#define PDT_MODEL_WINDOW_H

#include "base/error.h"
#include "base/notices.h"
#include "model/config.h"

struct json_t; /* jansson's */

/* Fills out->window and out->slides; family, layers and max_positions are there already, layers in
 * 1 .. PDT_MAX_LAYERS. `notices` (may be NULL) gets what was taken where the config leaves it open,
 * and what it says that its family does not read. Pure. Errors: INPUT for a list of another length,
 * for other types, and for layers that slide without a window. */
int pdt_model_windows_parse(pdt_model_config *out, const struct json_t *config, const char *where,
                            pdt_notices *notices, pdt_error *err);

#endif
