/* JSON that somebody else wrote, read with jansson: sizes limited, duplicate keys refused, every
 * value's type and range checked, errors that name file and key. `where` is what errors call the
 * object, as in "model/config.json" or "config.json: rope_scaling". */
#ifndef PDT_BASE_JSON_H
#define PDT_BASE_JSON_H

#include <jansson.h>

#include "base/error.h"
#include "base/types.h"

/* Reads a whole regular file of at most max_bytes as one JSON value (jansson limits its depth to
 * 2048). Sets *out, a reference the caller drops with json_decref. Errors: IO when it cannot be
 * read; INPUT with line and column when it is no JSON, has a duplicate key, or is too large. */
int pdt_json_load(json_t **out, const char *path, pdt_bytes max_bytes, pdt_error *err);

/* The same from `length` bytes of memory (no terminating zero needed). Strings with an embedded
 * U+0000 are refused. */
int pdt_json_parse(json_t **out, const char *text, size_t length, const char *where,
                   pdt_error *err);

/* The same with all that Python's json.load takes, as transformers reads config.json and its like:
 * a key given twice (the last one counts), NaN, Infinity and -Infinity, numbers beyond 64 bits or
 * beyond a double, halves of surrogate pairs and U+0000 in texts; a byte-order mark; whole numbers
 * written as 64.0, which become integers. Values that json_t cannot hold are told from all others
 * by pdt_json_unusable: where nobody needs them they do no harm, and the getters below refuse them
 * by name with what was found. A key with such a character has U+FFFD in its place. Errors: as
 * above; MEMORY. */
int pdt_json_load_python(json_t **out, const char *path, pdt_bytes max_bytes, pdt_error *err);
int pdt_json_parse_python(json_t **out, const char *text, size_t length, const char *where,
                          pdt_error *err);

/* The same with what Rust's serde_json takes, as safetensors and tokenizers read their files: of
 * the list above a key given twice, integers beyond 64 bits and U+0000 only. */
int pdt_json_parse_serde(json_t **out, const char *text, size_t length, const char *where,
                         pdt_error *err);

/* pdt_json_parse with integers beyond 64 bits and no more of that list: such an integer is a value
 * that cannot be used, except by pdt_json_u64_of. */
int pdt_json_parse_wide(json_t **out, const char *text, size_t length, const char *where,
                        pdt_error *err);

/* The text of a value that the file has but json_t cannot hold, as in "NaN" or "1e999"; NULL for
 * every other value. Borrowed. Such a value is an object to jansson, and to nobody else. */
const char *pdt_json_unusable(const json_t *value);

/* INPUT with jansson's error at a place of the text, in words that name nothing of jansson's. */
int pdt_json_fail(pdt_error *err, const char *where, int line, int column, const json_error_t *e);

/* "object", "array", "string", "integer", "real number", "true or false", "null", "nothing",
 * "a value that cannot be used". */
const char *pdt_json_type_name(const json_t *value);

/* Refuses a value that is not an object. Errors: INPUT. */
int pdt_json_expect_object(const json_t *value, const char *where, pdt_error *err);

/* Refuses every key that is not among n_keys `keys`, by name. Errors: INPUT. */
int pdt_json_only_keys(const json_t *object, const char *where, const char *const *keys,
                       size_t n_keys, pdt_error *err);

/* What Python takes for false, and so says nothing: absent, null, false, 0, or empty. */
bool pdt_json_is_empty(const json_t *value);

/* object[key], NULL when absent or null. Borrowed. */
const json_t *pdt_json_get(const json_t *object, const char *key);

/* object[key] as an integer in [low, high]; it must be there. Errors: INPUT; *out is then
 * untouched, as in all functions below. */
int pdt_json_integer(const json_t *object, const char *where, const char *key, int64_t low,
                     int64_t high, int64_t *out, pdt_error *err);

/* The same for a key that may be absent or null: *out then keeps the value it has. */
int pdt_json_integer_or(const json_t *object, const char *where, const char *key, int64_t low,
                        int64_t high, int64_t *out, pdt_error *err);

/* A number (integer or real, always finite) in [low, high]. */
int pdt_json_real(const json_t *object, const char *where, const char *key, double low, double high,
                  double *out, pdt_error *err);
int pdt_json_real_or(const json_t *object, const char *where, const char *key, double low,
                     double high, double *out, pdt_error *err);

/* true or false; absent or null: *out stays. */
int pdt_json_bool_or(const json_t *object, const char *where, const char *key, bool *out,
                     pdt_error *err);

/* A string, borrowed from the object: valid while the object lives. */
int pdt_json_string(const json_t *object, const char *where, const char *key, const char **out,
                    pdt_error *err);
int pdt_json_string_or(const json_t *object, const char *where, const char *key, const char **out,
                       pdt_error *err);

/* An object (array), borrowed; the _or form sets *out to NULL when absent or null. */
int pdt_json_object(const json_t *object, const char *where, const char *key, const json_t **out,
                    pdt_error *err);
int pdt_json_object_or(const json_t *object, const char *where, const char *key, const json_t **out,
                       pdt_error *err);
int pdt_json_array(const json_t *object, const char *where, const char *key, const json_t **out,
                   pdt_error *err);
int pdt_json_array_or(const json_t *object, const char *where, const char *key, const json_t **out,
                      pdt_error *err);

/* Element i of an array as an integer in [low, high]; `where` names the array. */
int pdt_json_element_integer(const json_t *array, const char *where, size_t i, int64_t low,
                             int64_t high, int64_t *out, pdt_error *err);

/* An unsigned number: up to 2^63 - 1 as an integer, beyond it, where json_t has none, as a text of
 * its decimal digits. NULL without memory. */
json_t *pdt_json_u64(uint64_t value);

/* Reads one back: an integer of 0 or more; beyond 2^63 - 1 also a text of its digits, or what
 * pdt_json_parse_wide has for the integer. False for everything else. */
bool pdt_json_u64_of(const json_t *value, uint64_t *out);

/* A number, or null where there is none: JSON has no NaN and no infinity. NULL without memory. */
json_t *pdt_json_number(double value);

#endif
