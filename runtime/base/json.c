#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

int pdt_json_fail(pdt_error *err, const char *where, int line, int column, const json_error_t *e) {
  enum json_error_code code = json_error_code(e);
  if (code == json_error_out_of_memory)
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory to read it", where);
  bool zero = code == json_error_null_character || code == json_error_null_byte_in_key;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: line %d, column %d: not sound JSON: %s", where, line,
                  column, zero ? "the character U+0000 is not allowed in texts" : e->text);
}

int pdt_json_parse(json_t **out, const char *text, size_t length, const char *where,
                   pdt_error *err) {
  json_error_t e;
  *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
  if (*out) return 0;
  return pdt_json_fail(err, where, e.line, e.column, &e);
}

int pdt_json_load(json_t **out, const char *path, pdt_bytes max_bytes, pdt_error *err) {
  *out = NULL;
  char *text;
  pdt_bytes length;
  if (pdt_file_read(&text, &length, path, max_bytes, err)) return -1;
  int rc = pdt_json_parse(out, text, (size_t)length, path, err);
  free(text);
  return rc;
}

const char *pdt_json_type_name(const json_t *value) {
  if (!value) return "nothing";
  if (pdt_json_unusable(value)) return "a value that cannot be used";
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    return "object";
  case JSON_ARRAY:
    return "array";
  case JSON_STRING:
    return "string";
  case JSON_INTEGER:
    return "integer";
  case JSON_REAL:
    return "real number";
  case JSON_NULL:
    return "null";
  default:
    return "true or false";
  }
}

/* 64.0, which is no integer, does not read as one. */
static void describe_real(double real, char *text, size_t room) {
  snprintf(text, room, "%.17g", real);
  if (!strpbrk(text, ".en")) snprintf(text + strlen(text), room - strlen(text), ".0");
}

/* What was found, for an error: scalars by value, the rest by type. */
static void describe(const json_t *value, char *text, size_t room) {
  const char *unusable = pdt_json_unusable(value);
  if (unusable)
    snprintf(text, room, "%.80s", unusable);
  else if (json_is_string(value))
    snprintf(text, room, "'%.80s'", json_string_value(value));
  else if (json_is_integer(value))
    snprintf(text, room, "%lld", (long long)json_integer_value(value));
  else if (json_is_real(value))
    describe_real(json_real_value(value), text, room);
  else if (json_is_boolean(value))
    snprintf(text, room, "%s", json_is_true(value) ? "true" : "false");
  else
    snprintf(text, room, "%s", pdt_json_type_name(value));
}

static int unexpected(const json_t *value, const char *where, const char *key, const char *expected,
                      pdt_error *err) {
  char found[128];
  describe(value, found, sizeof found);
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected %s, found %s", where, key, expected,
                  found);
}

int pdt_json_expect_object(const json_t *value, const char *where, pdt_error *err) {
  if (json_is_object(value) && !pdt_json_unusable(value)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a JSON object, found %s", where,
                  pdt_json_type_name(value));
}

int pdt_json_only_keys(const json_t *object, const char *where, const char *const *keys,
                       size_t n_keys, pdt_error *err) {
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    size_t i = 0;
    while (i < n_keys && strcmp(key, keys[i]) != 0) i++;
    if (i == n_keys)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.80s': no such key is known", where, key);
  }
  return 0;
}

bool pdt_json_is_empty(const json_t *value) {
  return !value || json_is_null(value) || json_is_false(value) ||
         (json_is_number(value) && json_number_value(value) == 0) ||
         (json_is_string(value) && json_string_length(value) == 0) ||
         (json_is_array(value) && json_array_size(value) == 0) ||
         (json_is_object(value) && json_object_size(value) == 0);
}

const json_t *pdt_json_get(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_null(value) ? NULL : value;
}

static int check_integer(const json_t *value, const char *where, const char *key, int64_t low,
                         int64_t high, int64_t *out, pdt_error *err) {
  if (json_is_integer(value)) {
    json_int_t i = json_integer_value(value);
    if (i >= low && i <= high) {
      *out = i;
      return 0;
    }
  }
  char expected[96];
  snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)low,
           (long long)high);
  return unexpected(value, where, key, expected, err);
}

int pdt_json_integer(const json_t *object, const char *where, const char *key, int64_t low,
                     int64_t high, int64_t *out, pdt_error *err) {
  return check_integer(json_object_get(object, key), where, key, low, high, out, err);
}

int pdt_json_integer_or(const json_t *object, const char *where, const char *key, int64_t low,
                        int64_t high, int64_t *out, pdt_error *err) {
  if (!pdt_json_get(object, key)) return 0;
  return pdt_json_integer(object, where, key, low, high, out, err);
}

int pdt_json_real(const json_t *object, const char *where, const char *key, double low, double high,
                  double *out, pdt_error *err) {
  const json_t *value = json_object_get(object, key);
  if (json_is_number(value)) {
    double x = json_number_value(value);
    if (isfinite(x) && x >= low && x <= high) {
      *out = x;
      return 0;
    }
  }
  char expected[96];
  snprintf(expected, sizeof expected, "a number from %g to %g", low, high);
  return unexpected(value, where, key, expected, err);
}

int pdt_json_real_or(const json_t *object, const char *where, const char *key, double low,
                     double high, double *out, pdt_error *err) {
  if (!pdt_json_get(object, key)) return 0;
  return pdt_json_real(object, where, key, low, high, out, err);
}

int pdt_json_bool_or(const json_t *object, const char *where, const char *key, bool *out,
                     pdt_error *err) {
  const json_t *value = pdt_json_get(object, key);
  if (!value) return 0;
  if (!json_is_boolean(value)) return unexpected(value, where, key, "true or false", err);
  *out = json_is_true(value);
  return 0;
}

int pdt_json_string(const json_t *object, const char *where, const char *key, const char **out,
                    pdt_error *err) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_string(value)) return unexpected(value, where, key, "a string", err);
  *out = json_string_value(value);
  return 0;
}

int pdt_json_string_or(const json_t *object, const char *where, const char *key, const char **out,
                       pdt_error *err) {
  if (!pdt_json_get(object, key)) return 0;
  return pdt_json_string(object, where, key, out, err);
}

int pdt_json_object(const json_t *object, const char *where, const char *key, const json_t **out,
                    pdt_error *err) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_object(value) || pdt_json_unusable(value))
    return unexpected(value, where, key, "an object", err);
  *out = value;
  return 0;
}

int pdt_json_object_or(const json_t *object, const char *where, const char *key, const json_t **out,
                       pdt_error *err) {
  if (pdt_json_get(object, key)) return pdt_json_object(object, where, key, out, err);
  *out = NULL;
  return 0;
}

int pdt_json_array(const json_t *object, const char *where, const char *key, const json_t **out,
                   pdt_error *err) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_array(value)) return unexpected(value, where, key, "an array", err);
  *out = value;
  return 0;
}

int pdt_json_array_or(const json_t *object, const char *where, const char *key, const json_t **out,
                      pdt_error *err) {
  if (pdt_json_get(object, key)) return pdt_json_array(object, where, key, out, err);
  *out = NULL;
  return 0;
}

int pdt_json_element_integer(const json_t *array, const char *where, size_t i, int64_t low,
                             int64_t high, int64_t *out, pdt_error *err) {
  const json_t *value = json_array_get(array, i);
  json_int_t number = json_integer_value(value);
  if (json_is_integer(value) && number >= low && number <= high) {
    *out = number;
    return 0;
  }
  char key[32]; /* made only now: lists of ids are long */
  snprintf(key, sizeof key, "[%zu]", i);
  return check_integer(value, where, key, low, high, out, err);
}

json_t *pdt_json_u64(uint64_t value) {
  char digits[24];
  if (value <= INT64_MAX) return json_integer((json_int_t)value);
  snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
  return json_string(digits);
}

bool pdt_json_u64_of(const json_t *value, uint64_t *out) {
  if (json_is_integer(value)) {
    if (json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
  }
  const char *digits = json_is_string(value) ? json_string_value(value) : pdt_json_unusable(value);
  uint64_t number = 0;
  if (!digits || !*digits) return false;
  for (; *digits; digits++)
    if (*digits < '0' || *digits > '9' || __builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, (uint64_t)(*digits - '0'), &number))
      return false;
  if (number <= INT64_MAX) return false; /* that is written as an integer */
  *out = number;
  return true;
}

json_t *pdt_json_number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}
