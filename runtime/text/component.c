#include "text/component.h"

#include <string.h>

#include "base/memory.h"
#include "text/unicode.h"

#define MAX_NESTING 8

static int walk(const json_t *value, const char *list, const char *where, int depth, int *n,
                int (*load)(void *, const json_t *, const char *, const char *, pdt_error *),
                void *context, pdt_error *err) {
  const char *type;
  if (pdt_json_expect_object(value, where, err) ||
      pdt_json_string(value, where, "type", &type, err))
    return -1;
  if (strcmp(type, "Sequence") != 0) {
    if (++*n > PDT_MAX_COMPONENTS)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %d components", where,
                      PDT_MAX_COMPONENTS);
    return load(context, value, type, where, err);
  }
  const json_t *elements;
  if (pdt_json_array(value, where, list, &elements, err)) return -1;
  if (depth == MAX_NESTING)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: sequences nested more than %d deep", where, depth);
  for (size_t i = 0; i < json_array_size(elements); i++)
    if (walk(json_array_get(elements, i), list, where, depth + 1, n, load, context, err)) return -1;
  return 0;
}

int pdt_components(const json_t *value, const char *list, const char *where,
                   int (*load)(void *context, const json_t *object, const char *type,
                               const char *where, pdt_error *err),
                   void *context, pdt_error *err) {
  int n = 0;
  if (!value || json_is_null(value)) return 0;
  return walk(value, list, where, 0, &n, load, context, err);
}

int pdt_component_refuse(const char *where, const char *type, const char *known, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: type '%.60s' is not supported (hint: known are %s)",
                  where, type, known);
}

int pdt_component_pattern(pdt_regex **out, const json_t *object, const char *where,
                          pdt_error *err) {
  const json_t *pattern;
  const char *text = NULL;
  *out = NULL;
  if (pdt_json_object(object, where, "pattern", &pattern, err)) return -1;
  if (json_object_size(pattern) != 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'pattern': expected either 'String' or 'Regex'",
                    where);
  bool literal = pdt_json_get(pattern, "String");
  if (pdt_json_string(pattern, where, literal ? "String" : "Regex", &text, err)) return -1;
  return pdt_regex_new(out, text, strlen(text), literal, where, err);
}

int pdt_component_string(const json_t *object, const char *where, const char *key, char **out,
                         size_t *bytes, pdt_error *err) {
  const char *text;
  *out = NULL;
  if (pdt_json_string(object, where, key, &text, err)) return -1;
  *bytes = strlen(text);
  if (PDT_NEW(out, *bytes + 1, key, err)) return -1;
  memcpy(*out, text, *bytes);
  return 0;
}

int pdt_component_char(const json_t *object, const char *where, const char *key, int32_t *out,
                       pdt_error *err) {
  const char *text;
  size_t at = 0;
  if (pdt_json_string(object, where, key, &text, err)) return -1;
  if (*text) *out = pdt_utf8_next(text, &at);
  if (!*text || text[at])
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected one character, found '%.40s'", where,
                    key, text);
  return 0;
}

int pdt_component_bool(const json_t *object, const char *where, const char *key, bool *out,
                       pdt_error *err) {
  if (!pdt_json_get(object, key))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected true or false, found nothing", where,
                    key);
  return pdt_json_bool_or(object, where, key, out, err);
}
