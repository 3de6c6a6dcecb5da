/* What the settings of a request may be, whoever names them: the table of request/setting_table.h,
 * as readers use it. */
#ifndef PDT_REQUEST_SETTINGS_H
#define PDT_REQUEST_SETTINGS_H

#include <jansson.h>

#include "request/setting_table.h"
#include "sidecar/config.h"

/* Reads settings (an object, or NULL: all by default) that `where` names in errors. `streams` is
 * how many streams the rest of the request speaks of; 0: of none, and all are meant. Errors: USAGE
 * for a value that cannot be, INPUT for one of another type. */
int pdt_settings_read(pdt_settings *s, const json_t *settings, const char *where, int32_t streams,
                      const pdt_sidecar_config *sidecar, pdt_error *err);

/* The same judgement of settings that came as numbers. Errors: INPUT. */
int pdt_settings_check(const pdt_settings *s, const char *where, pdt_error *err);

#endif
