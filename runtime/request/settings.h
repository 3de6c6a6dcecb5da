/* What the settings of a request may be, whoever names them. */
#ifndef PDT_REQUEST_SETTINGS_H
#define PDT_REQUEST_SETTINGS_H

#include <jansson.h>

#include "request/parse.h"

enum { PDT_MAX_REQUEST_TOKENS = 1 << 24 }; /* of a prompt, a prefix, max_tokens */

/* Reads settings (an object, or NULL: all by default) that `where` names in errors. `streams` is
 * how many streams the rest of the request speaks of; 0: of none, and all are meant. Errors: USAGE
 * for a value that cannot be, INPUT for one of another type. */
int pdt_settings_read(pdt_settings *s, const json_t *settings, const char *where, int32_t streams,
                      const pdt_sidecar_config *sidecar, pdt_error *err);

/* The same judgement of settings that came as numbers. Errors: INPUT. */
int pdt_settings_check(const pdt_settings *s, const char *where, pdt_error *err);

#endif
