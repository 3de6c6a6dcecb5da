#include "text/jinja/run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/utf8.h"

/* A fixed share of memory and work, and one that goes with the bytes of the variables. */
enum { FREE_BYTES = 16 << 20, BYTES_EACH = 64, FREE_WORK = 20 << 20, WORK_EACH = 64 };

int pdt_jinja_fail(const pdt_jinja_run *r, const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return pdt_fail(r->err, PDT_ERROR_INPUT, "%s: line %d: %s", r->name, r->line, text);
}

int pdt_jinja_work(pdt_jinja_run *r, size_t bytes) {
  r->work -= 1 + (int64_t)(bytes / 16);
  return r->work >= 0 ? 0 : pdt_jinja_fail(r, "the template does too much work: is it endless?");
}

int pdt_jinja_enter_part(pdt_jinja_run *r) {
  if (r->depth++ < PDT_JINJA_CALLS) return pdt_jinja_work(r, 0);
  return pdt_jinja_fail(r, "more than %d parts of the template, one in the other", PDT_JINJA_CALLS);
}

void *pdt_jinja_room(pdt_jinja_run *r, size_t n, size_t size) {
  if (pdt_jinja_work(r, n * size)) return NULL;
  void *room = n <= SIZE_MAX / 2 / size ? pdt_jinja_arena_new(&r->arena, n * size + 1) : NULL;
  if (!room && pdt_jinja_arena_is_full(&r->arena, n * size + 1))
    pdt_jinja_fail(r, "the template makes texts of more than %zu bytes", r->arena.limit);
  else if (!room)
    pdt_fail(r->err, PDT_ERROR_MEMORY, "%s: no memory", r->name);
  return room;
}

pdt_jinja_list *pdt_jinja_list_new(pdt_jinja_run *r, size_t n) {
  pdt_jinja_list *list = pdt_jinja_room(r, 1, sizeof *list);
  if (!list) return NULL;
  list->n = n;
  list->items = pdt_jinja_room(r, n, sizeof *list->items);
  return list->items ? list : NULL;
}

int pdt_jinja_dict_set(pdt_jinja_run *r, pdt_jinja_dict *d, pdt_jinja_text key,
                       pdt_jinja_value value) {
  pdt_jinja_value *old = pdt_jinja_dict_find(d, key);
  if (pdt_jinja_work(r, d->n * sizeof *d->pairs)) return -1;
  if (old) {
    *old = value;
    return 0;
  }
  if (d->n == d->room) {
    size_t room = d->room ? 2 * d->room : 4;
    pdt_jinja_pair *pairs = pdt_jinja_room(r, room, sizeof *pairs);
    if (!pairs) return -1;
    if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
    d->pairs = pairs;
    d->room = room;
  }
  d->pairs[d->n++] = (pdt_jinja_pair){key, value};
  return 0;
}

/* A text of its own, of at most 40 bytes. */
static int number_text(pdt_jinja_run *r, const char *number, pdt_jinja_text *out) {
  size_t n = strlen(number);
  char *copy = pdt_jinja_room(r, n, 1);
  if (!copy) return -1;
  memcpy(copy, number, n);
  *out = (pdt_jinja_text){copy, n};
  return 0;
}

int pdt_jinja_str(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_text *out) {
  char number[PDT_JINJA_REAL_BYTES];
  switch (v->kind) {
  case PDT_JINJA_STRING:
    *out = v->text;
    return 0;
  case PDT_JINJA_UNDEFINED:
    *out = (pdt_jinja_text){"", 0};
    return 0;
  case PDT_JINJA_NONE:
    *out = pdt_jinja_text_of("None");
    return 0;
  case PDT_JINJA_BOOL:
    *out = pdt_jinja_text_of(v->integer ? "True" : "False");
    return 0;
  case PDT_JINJA_INTEGER:
    snprintf(number, sizeof number, "%" PRId64, v->integer);
    return number_text(r, number, out);
  case PDT_JINJA_REAL:
    pdt_jinja_real_text(v->real, number);
    return number_text(r, number, out);
  default:
    return pdt_jinja_fail(r, "the text of a %s is not supported, but by tojson",
                          pdt_jinja_kind_name(v));
  }
}

int pdt_jinja_expect_defined(const pdt_jinja_run *r, const pdt_jinja_value *v) {
  if (v->kind != PDT_JINJA_UNDEFINED) return 0;
  return pdt_jinja_fail(r, "'%.*s' is undefined", (int)(v->text.n < 80 ? v->text.n : 80),
                        v->text.at);
}

int pdt_jinja_expect_string(pdt_jinja_run *r, const pdt_jinja_value *v, const char *what,
                            pdt_jinja_text *out) {
  if (pdt_jinja_expect_defined(r, v)) return -1;
  *out = v->text;
  if (v->kind == PDT_JINJA_STRING) return 0;
  return pdt_jinja_fail(r, "%s: expected a string, found a value of type %s", what,
                        pdt_jinja_kind_name(v));
}

int pdt_jinja_expect_integer(pdt_jinja_run *r, const pdt_jinja_value *v, int64_t fallback,
                             int64_t *out) {
  *out = fallback;
  if (!v || v->kind == PDT_JINJA_NONE) return 0;
  if (pdt_jinja_expect_defined(r, v)) return -1;
  if (!pdt_jinja_is_integer(v))
    return pdt_jinja_fail(r, "expected an integer, found a value of type %s",
                          pdt_jinja_kind_name(v));
  *out = v->integer;
  return 0;
}

int pdt_jinja_concat(pdt_jinja_run *r, pdt_jinja_text a, pdt_jinja_text b, pdt_jinja_value *out) {
  char *text = pdt_jinja_room(r, a.n + b.n, 1);
  if (!text) return -1;
  if (a.n) memcpy(text, a.at, a.n);
  if (b.n) memcpy(text + a.n, b.at, b.n);
  *out = pdt_jinja_string(text, a.n + b.n);
  return 0;
}

/* ---- what loops go through ---- */

static int characters(pdt_jinja_run *r, pdt_jinja_text text, pdt_jinja_list *out) {
  size_t n = pdt_jinja_length(text);
  pdt_jinja_list *list = pdt_jinja_work(r, text.n) ? NULL : pdt_jinja_list_new(r, n);
  if (!list) return -1;
  for (size_t i = 0, at = 0; i < n; i++) {
    size_t from = at;
    pdt_utf8_next(text.at, &at);
    list->items[i] = pdt_jinja_string(text.at + from, at - from);
  }
  *out = *list;
  return 0;
}

static int keys(pdt_jinja_run *r, const pdt_jinja_dict *d, pdt_jinja_list *out) {
  pdt_jinja_list *list = pdt_jinja_list_new(r, d->n);
  if (!list) return -1;
  for (size_t i = 0; i < d->n; i++)
    list->items[i] = pdt_jinja_string(d->pairs[i].key.at, d->pairs[i].key.n);
  *out = *list;
  return 0;
}

int pdt_jinja_items(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_list *out) {
  *out = (pdt_jinja_list){0};
  switch (v->kind) {
  case PDT_JINJA_UNDEFINED:
    return 0;
  case PDT_JINJA_STRING:
    return characters(r, v->text, out);
  case PDT_JINJA_LIST:
  case PDT_JINJA_TUPLE:
    *out = *v->list;
    return 0;
  case PDT_JINJA_ITERATOR:
    *out = *v->list;
    v->list->n = 0;
    return 0;
  case PDT_JINJA_DICT:
    return keys(r, v->dict, out);
  default:
    return pdt_jinja_fail(r, "a value of type %s has no items", pdt_jinja_kind_name(v));
  }
}

/* ---- variables ---- */

static int json_list(pdt_jinja_run *r, const json_t *json, int levels, pdt_jinja_value *out) {
  pdt_jinja_list *list = pdt_jinja_list_new(r, json_array_size(json));
  if (!list) return -1;
  *out = (pdt_jinja_value){.kind = PDT_JINJA_LIST, .list = list};
  for (size_t i = 0; i < list->n; i++)
    if (pdt_jinja_from_json(r, json_array_get(json, i), levels - 1, &list->items[i])) return -1;
  return 0;
}

static int json_dict(pdt_jinja_run *r, const json_t *json, int levels, pdt_jinja_value *out) {
  const char *key;
  json_t *value;
  pdt_jinja_dict *dict = pdt_jinja_room(r, 1, sizeof *dict);
  if (!dict) return -1;
  *out = (pdt_jinja_value){.kind = PDT_JINJA_DICT, .dict = dict};
  dict->room = json_object_size(json);
  dict->pairs = pdt_jinja_room(r, dict->room, sizeof *dict->pairs);
  if (!dict->pairs) return -1;
  json_object_foreach((json_t *)(uintptr_t)json, key, value) {
    pdt_jinja_pair *pair = &dict->pairs[dict->n++];
    pair->key = pdt_jinja_text_of(key);
    if (pdt_jinja_from_json(r, value, levels - 1, &pair->value)) return -1;
  }
  return 0;
}

int pdt_jinja_from_json(pdt_jinja_run *r, const json_t *json, int levels, pdt_jinja_value *out) {
  if (levels < 0)
    return pdt_jinja_fail(r, "a variable is nested deeper than %d", PDT_JINJA_DATA_NESTING);
  if (pdt_json_unusable(json)) return pdt_jinja_fail(r, "a variable has a value without a type");
  switch (json_typeof(json)) {
  case JSON_OBJECT:
    return json_dict(r, json, levels, out);
  case JSON_ARRAY:
    return json_list(r, json, levels, out);
  case JSON_STRING:
    *out = pdt_jinja_string(json_string_value(json), json_string_length(json));
    return 0;
  case JSON_INTEGER:
    *out = pdt_jinja_integer(json_integer_value(json));
    return 0;
  case JSON_REAL:
    *out = pdt_jinja_real(json_real_value(json));
    return 0;
  case JSON_NULL:
    *out = pdt_jinja_none();
    return 0;
  default:
    *out = pdt_jinja_bool(json_is_true(json));
    return 0;
  }
}

/* The bytes of all texts, and as many as a value takes for each of the others. */
static size_t json_bytes(const json_t *json, int levels) {
  size_t bytes = sizeof(pdt_jinja_pair), i;
  const char *key;
  json_t *value;
  if (levels < 0) return bytes;
  json_array_foreach(json, i, value) {
    bytes += json_bytes(value, levels - 1);
  }
  if (json_is_object(json)) {
    json_object_foreach((json_t *)(uintptr_t)json, key, value) {
      bytes += strlen(key) + json_bytes(value, levels - 1);
    }
  }
  return bytes + json_string_length(json);
}

static int render(pdt_jinja_run *r, const pdt_jinja *t, const json_t *variables) {
  pdt_jinja_value all;
  pdt_jinja_scope *given = pdt_jinja_room(r, 1, sizeof *given);
  r->scope = pdt_jinja_room(r, 1, sizeof *r->scope);
  if (!given || !r->scope || pdt_jinja_from_json(r, variables, PDT_JINJA_DATA_NESTING, &all))
    return -1;
  given->names = *all.dict;
  r->scope->parent = given;
  return pdt_jinja_execute(r, t->body);
}

int pdt_jinja_render(const pdt_jinja *t, const json_t *variables, const struct tm *now, char **out,
                     size_t *bytes, pdt_error *err) {
  size_t given = json_bytes(variables, PDT_JINJA_DATA_NESTING);
  pdt_jinja_run r = {.name = t->name,
                     .arena = {.limit = FREE_BYTES + BYTES_EACH * given},
                     .now = now,
                     .work = FREE_WORK + WORK_EACH * (int64_t)given,
                     .err = err};
  *out = NULL;
  int rc = render(&r, t, variables);
  if (!rc) rc = pdt_buffer_take(&r.out, out, bytes, err);
  pdt_jinja_arena_free(&r.arena);
  pdt_buffer_free(&r.out);
  return rc ? -1 : 0;
}
