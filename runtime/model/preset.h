/* Shapes of well-known models, for random weights in tests and measurements. */
#ifndef PDT_MODEL_PRESET_H
#define PDT_MODEL_PRESET_H

#include "base/error.h"

/* config.json of a preset ("tiny", "smollm2-135m", ...) as text, freed by the caller. Errors: USAGE
 * naming the presets there are, MEMORY. */
int pdt_model_preset(const char *name, char **config_text, pdt_error *err);

/* Name of preset i, NULL past the last. */
const char *pdt_model_preset_name(int i);

#endif
