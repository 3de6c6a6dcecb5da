/* What the parts of tokenizer.json have in common: {"type": NAME, ...}, one alone or a "Sequence"
 * of them. */
#ifndef PDT_TEXT_COMPONENT_H
#define PDT_TEXT_COMPONENT_H

#include "base/json.h"
#include "text/regex.h"

#define PDT_MAX_COMPONENTS 64

/* Calls load(context, object, type, where, err) for every component of `value` in order, going into
 * sequences, whose elements stand under `list` ("normalizers"); null has none. Errors: INPUT (no
 * object, no type, nested too deep, more than PDT_MAX_COMPONENTS), and those of load. */
int pdt_components(const json_t *value, const char *list, const char *where,
                   int (*load)(void *context, const json_t *object, const char *type,
                               const char *where, pdt_error *err),
                   void *context, pdt_error *err);

/* Refuses a component by name. Returns -1. Errors: INPUT. */
int pdt_component_refuse(const char *where, const char *type, const char *known, pdt_error *err);

/* Compiles "pattern" of an object: {"String": text} or {"Regex": pattern}. Errors: INPUT, MEMORY.
 */
int pdt_component_pattern(pdt_regex **out, const json_t *object, const char *where, pdt_error *err);

/* Copies a required string; *bytes gets its length. Freed by the caller. Errors: INPUT, MEMORY. */
int pdt_component_string(const json_t *object, const char *where, const char *key, char **out,
                         size_t *bytes, pdt_error *err);

/* A required string of exactly one character. Errors: INPUT. */
int pdt_component_char(const json_t *object, const char *where, const char *key, int32_t *out,
                       pdt_error *err);

/* A required true or false. Errors: INPUT. */
int pdt_component_bool(const json_t *object, const char *where, const char *key, bool *out,
                       pdt_error *err);

#endif
