/* What pdt inspect says of a GGUF file besides what it says of every model. */
#ifndef PDT_RUN_INSPECT_GGUF_H
#define PDT_RUN_INSPECT_GGUF_H

#include <jansson.h>

#include "base/error.h"

/* Adds to a model's report "gguf" (version, parts, whether there is a template for chats) and all
 * "metadata", of which arrays and long texts are counted. Errors: those of reading it; MEMORY.
 */
int pdt_inspect_add_gguf(json_t *report, const char *path, pdt_error *err);

#endif
