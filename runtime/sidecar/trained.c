#include "sidecar/trained.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

/* ---- what the keys hold ---- */

enum kind { RANGE, NUMBER, REAL, TEXT, TEXTS, IDS };

static const struct key {
  const char *name;
  enum kind kind;
  int32_t most; /* of a list */
} keys[] = {
    {"stages", TEXTS, PDT_TRAINED_TEXTS},
    {"block_tokens", RANGE, 0},
    {"reveal_delay", RANGE, 0},
    {"streams", RANGE, 0},
    {"prompt_tokens", RANGE, 0},
    {"window", NUMBER, 0},
    {"notes", NUMBER, 0},
    {"temperature", REAL, 0},
    {"headings", TEXTS, PDT_TRAINED_TEXTS},
    {"plan_texts", TEXTS, PDT_TRAINED_TEXTS},
    {"plan_ids", IDS, PDT_TRAINED_PLAN_IDS},
    {"prompt", TEXT, 0},
    {"prompt_ids", IDS, PDT_TRAINED_PROMPT_IDS},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* ---- checking ---- */

static int check_text(const json_t *value, const char *where, pdt_error *err) {
  if (!json_is_string(value))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a text, found %s", where,
                    pdt_json_type_name(value));
  if (json_string_length(value) <= PDT_TRAINED_TEXT_BYTES) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %d bytes, found %zu", where,
                  PDT_TRAINED_TEXT_BYTES, json_string_length(value));
}

static int check_list(const struct key *key, const json_t *list, const char *where,
                      pdt_error *err) {
  if (json_array_size(list) > (size_t)key->most)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %d, found %zu", where, key->most,
                    json_array_size(list));
  int64_t id = -1;
  for (size_t i = 0; i < json_array_size(list); i++)
    if (key->kind == TEXTS ? check_text(json_array_get(list, i), where, err)
                           : pdt_json_element_integer(list, where, i, id + 1, INT32_MAX, &id, err))
      return -1;
  return 0;
}

static int check_range(const json_t *range, const char *where, pdt_error *err) {
  int64_t low, high;
  if (json_array_size(range) != 2)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected [least, most], found %zu values", where,
                    json_array_size(range));
  return pdt_json_element_integer(range, where, 0, 1, INT32_MAX, &low, err) ||
                 pdt_json_element_integer(range, where, 1, low, INT32_MAX, &high, err)
             ? -1
             : 0;
}

static int check_key(const struct key *key, const json_t *trained, const char *where,
                     pdt_error *err) {
  char name[400];
  const json_t *value = pdt_json_get(trained, key->name), *list;
  int64_t integer;
  double real;
  if (!value) return 0;
  snprintf(name, sizeof name, "%.320s: %s", where, key->name);
  switch (key->kind) {
  case NUMBER:
    return pdt_json_integer(trained, where, key->name, 0, INT32_MAX, &integer, err);
  case REAL:
    return pdt_json_real(trained, where, key->name, 0, 1e6, &real, err);
  case TEXT:
    return check_text(value, name, err);
  default:
    if (pdt_json_array(trained, where, key->name, &list, err)) return -1;
    return key->kind == RANGE ? check_range(list, name, err) : check_list(key, list, name, err);
  }
}

int pdt_trained_check(const json_t *trained, const char *where, pdt_error *err) {
  if (pdt_json_expect_object(trained, where, err)) return -1;
  for (int i = 0; i < N_KEYS; i++)
    if (check_key(&keys[i], trained, where, err)) return -1;
  return 0;
}

/* ---- adding ---- */

/* Place of an id in an ascending list, or of the first one above it. */
static size_t place_of(const json_t *ids, int64_t id) {
  size_t low = 0, high = json_array_size(ids);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (json_integer_value(json_array_get(ids, middle)) < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static bool has_text(const json_t *texts, const char *text) {
  for (size_t i = 0; i < json_array_size(texts); i++)
    if (strcmp(json_string_value(json_array_get(texts, i)), text) == 0) return true;
  return false;
}

/* Adds the items that a list does not have. */
static int join(json_t *list, const json_t *more, enum kind kind) {
  size_t i;
  json_t *item;
  json_array_foreach((json_t *)(uintptr_t)more, i, item) {
    if (kind == TEXTS) {
      if (!has_text(list, json_string_value(item)) && json_array_append(list, item)) return -1;
      continue;
    }
    size_t at = place_of(list, json_integer_value(item));
    if (json_integer_value(json_array_get(list, at)) != json_integer_value(item) ||
        at == json_array_size(list))
      if (json_array_insert(list, at, item)) return -1;
  }
  return 0;
}

static int widen(json_t *range, const json_t *more) {
  for (size_t end = 0; end < 2; end++) {
    int64_t own = json_integer_value(json_array_get(range, end));
    int64_t other = json_integer_value(json_array_get(more, end));
    if ((end == 0 ? other < own : other > own) &&
        json_array_set_new(range, end, json_integer(other)))
      return -1;
  }
  return 0;
}

/* A key that both have. */
static int add_to(json_t *trained, const struct key *key, json_t *own, const json_t *more) {
  double a = json_number_value(own), b = json_number_value(more);
  bool all = strcmp(key->name, "window") == 0 && (a == 0 || b == 0); /* 0 is the largest window */
  switch (key->kind) {
  case TEXT:
    return 0;
  case RANGE:
    return widen(own, more);
  case NUMBER:
  case REAL:
    if (all ? a == 0 : a >= b) return 0;
    return json_object_set_new(trained, key->name, json_deep_copy(more));
  default:
    if (json_is_null(own)) return 0;
    if (!json_is_null(more) && join(own, more, key->kind)) return -1;
    if (!json_is_null(more) && json_array_size(own) <= (size_t)key->most) return 0;
    return json_object_set_new(trained, key->name, json_null());
  }
}

int pdt_trained_add(json_t *trained, const json_t *more, pdt_error *err) {
  for (int i = 0; i < N_KEYS; i++) {
    json_t *own = json_object_get(trained, keys[i].name);
    const json_t *other = json_object_get(more, keys[i].name);
    if (!other) continue;
    if (!own && json_is_array(other) && keys[i].kind != RANGE) { /* an empty list to join */
      own = json_array();
      if (own && json_object_set_new(trained, keys[i].name, own)) own = NULL;
    }
    int bad = own ? add_to(trained, &keys[i], own, other)
                  : json_object_set_new(trained, keys[i].name, json_deep_copy(other));
    if (bad) return pdt_fail(err, PDT_ERROR_MEMORY, "what a sidecar is trained with: no memory");
  }
  return 0;
}

/* Puts the keys in their order, whichever was added first: equal objects are equal texts. */
static int order(json_t *trained) {
  for (int i = 0; i < N_KEYS; i++) {
    json_t *value = json_incref(json_object_get(trained, keys[i].name));
    if (!value) continue;
    json_object_del(trained, keys[i].name);
    if (json_object_set_new(trained, keys[i].name, value)) return -1;
  }
  return 0;
}

int pdt_trained_add_stage(json_t *trained, const json_t *more, const char *stage, pdt_error *err) {
  json_t *own = json_pack("{s:[s]}", "stages", stage);
  int rc = own ? pdt_trained_add(trained, own, err) || pdt_trained_add(trained, more, err) : 0;
  if (!own || (!rc && order(trained)))
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "stage %s: no memory", stage);
  json_decref(own);
  return rc ? -1 : 0;
}

/* ---- asking ---- */

bool pdt_trained_has_id(const json_t *trained, const char *key, int64_t id) {
  const json_t *ids = pdt_json_get(trained, key);
  size_t at = place_of(ids, id);
  return !ids || (at < json_array_size(ids) && json_integer_value(json_array_get(ids, at)) == id);
}

bool pdt_trained_has_text(const json_t *trained, const char *key, const char *text) {
  const json_t *texts = pdt_json_get(trained, key);
  return !texts || has_text(texts, text);
}

bool pdt_trained_has_stage(const json_t *trained, const char *stage) {
  return has_text(pdt_json_get(trained, "stages"), stage);
}

bool pdt_trained_range(const json_t *trained, const char *key, int64_t *low, int64_t *high) {
  const json_t *range = pdt_json_get(trained, key);
  if (!range) return false;
  *low = json_integer_value(json_array_get(range, 0));
  *high = json_integer_value(json_array_get(range, 1));
  return true;
}
