#include "data/fields.h"

#include <stdio.h>
#include <string.h>

#include "data/entry.h"

int pdt_data_get_string(const json_t *object, const char *where, const char *key, char **out,
                        pdt_error *err) {
  const char *text;
  if (pdt_json_string(object, where, key, &text, err)) return -1;
  if (strlen(text) != json_string_length(json_object_get(object, key)))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': a zero character in a text", where, key);
  return pdt_data_copy(out, text, err);
}

int pdt_data_get_string_or(const json_t *object, const char *where, const char *key, char **out,
                           pdt_error *err) {
  *out = NULL;
  return pdt_json_get(object, key) ? pdt_data_get_string(object, where, key, out, err) : 0;
}

int pdt_data_get_int32(const json_t *object, const char *where, const char *key, int32_t low,
                       int32_t high, int32_t *out, pdt_error *err) {
  int64_t value;
  if (pdt_json_integer(object, where, key, low, high, &value, err)) return -1;
  *out = (int32_t)value;
  return 0;
}

int pdt_data_get_list(const json_t *object, const char *where, const char *key, int32_t low,
                      int32_t high, const json_t **list, int32_t *n, pdt_error *err) {
  if (pdt_json_array(object, where, key, list, err)) return -1;
  size_t size = json_array_size(*list);
  if (size < (size_t)low || size > (size_t)high)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected %d to %d elements, found %zu", where,
                    key, low, high, size);
  *n = (int32_t)size;
  return 0;
}

int pdt_data_get_object(const json_t *list, const char *outer, const char *key, int32_t i,
                        const char *const *keys, size_t n_keys, const json_t **out,
                        char where[PDT_DATA_WHERE_BYTES], pdt_error *err) {
  snprintf(where, PDT_DATA_WHERE_BYTES, "%.340s: %.40s[%d]", outer, key, i);
  *out = json_array_get(list, (size_t)i);
  return pdt_json_expect_object(*out, where, err) ||
                 pdt_json_only_keys(*out, where, keys, n_keys, err)
             ? -1
             : 0;
}

bool pdt_data_starts_character(const char *text, int32_t at) {
  return ((unsigned char)text[at] & 0xC0) != 0x80;
}
