/* Methods of strings and dicts. */
#include "base/utf8.h"
#include "text/jinja/run.h"

typedef const pdt_jinja_value *const *arguments;

static int strip(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  return pdt_jinja_strip(r, self->text, a[0], true, true, out);
}

static int lstrip(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  return pdt_jinja_strip(r, self->text, a[0], true, false, out);
}

static int rstrip(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  return pdt_jinja_strip(r, self->text, a[0], false, true, out);
}

static int lower(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return pdt_jinja_change_case(r, self->text, PDT_JINJA_LOWER, out);
}

static int upper(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return pdt_jinja_change_case(r, self->text, PDT_JINJA_UPPER, out);
}

static int title(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return pdt_jinja_change_case(r, self->text, PDT_JINJA_TITLE, out);
}

static int capitalize(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                      pdt_jinja_value *out) {
  (void)a;
  return pdt_jinja_change_case(r, self->text, PDT_JINJA_CAPITALIZED, out);
}

/* ---- looking for parts ---- */

static bool begins(pdt_jinja_text text, pdt_jinja_text part) {
  return part.n <= text.n && (part.n == 0 || memcmp(text.at, part.at, part.n) == 0);
}

static bool ends(pdt_jinja_text text, pdt_jinja_text part) {
  return part.n <= text.n &&
         (part.n == 0 || memcmp(text.at + text.n - part.n, part.at, part.n) == 0);
}

/* Does the text begin (end) with a string, or one of a tuple of them? */
static int affix(pdt_jinja_run *r, const pdt_jinja_value *self, const pdt_jinja_value *parts,
                 bool (*fits)(pdt_jinja_text, pdt_jinja_text), pdt_jinja_value *out) {
  pdt_jinja_text part;
  bool tuple = parts->kind == PDT_JINJA_TUPLE, found = false;
  for (size_t i = 0; i < (tuple ? parts->list->n : 1); i++) {
    const pdt_jinja_value *v = tuple ? &parts->list->items[i] : parts;
    if (pdt_jinja_expect_string(r, v, "startswith or endswith", &part) || pdt_jinja_work(r, part.n))
      return -1;
    found = found || fits(self->text, part);
  }
  *out = pdt_jinja_bool(found);
  return 0;
}

static int startswith(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                      pdt_jinja_value *out) {
  return affix(r, self, a[0], begins, out);
}

static int endswith(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                    pdt_jinja_value *out) {
  return affix(r, self, a[0], ends, out);
}

static int find(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  pdt_jinja_text part;
  if (pdt_jinja_expect_string(r, a[0], "find", &part) || pdt_jinja_work(r, self->text.n)) return -1;
  size_t at = pdt_jinja_find(self->text, part, 0);
  bool there = at < self->text.n || part.n == 0;
  pdt_jinja_text before = {self->text.at, at};
  *out = pdt_jinja_integer(there ? (int64_t)pdt_jinja_length(before) : -1);
  return 0;
}

static int count(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  pdt_jinja_text part;
  if (pdt_jinja_expect_string(r, a[0], "count", &part) || pdt_jinja_work(r, self->text.n))
    return -1;
  *out = pdt_jinja_integer((int64_t)pdt_jinja_count(self->text, part, SIZE_MAX));
  return 0;
}

static int replace(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                   pdt_jinja_value *out) {
  pdt_jinja_text texts[2];
  int64_t most;
  if (pdt_jinja_expect_string(r, a[0], "replace", &texts[0]) ||
      pdt_jinja_expect_string(r, a[1], "replace", &texts[1]) ||
      pdt_jinja_expect_integer(r, a[2], -1, &most))
    return -1;
  return pdt_jinja_replace(r, self->text, texts, most, out);
}

static int join(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  pdt_jinja_list items;
  return pdt_jinja_items(r, a[0], &items) || pdt_jinja_join(r, &items, self->text, false, out) ? -1
                                                                                               : 0;
}

/* ---- split ---- */

/* Where a part that ends at `end` or before begins, the last such; the text's end without. */
static size_t find_last(pdt_jinja_text text, pdt_jinja_text part, size_t end) {
  if (part.n > end) return text.n;
  for (size_t at = end - part.n + 1; at-- > 0;)
    if (memcmp(text.at + at, part.at, part.n) == 0) return at;
  return text.n;
}

/* The parts of a text, the last of which is the first to be found, which are then turned round. */
static int parts_from_right(pdt_jinja_run *r, pdt_jinja_text text, pdt_jinja_text separator,
                            pdt_jinja_list *list) {
  size_t end = text.n, room = list->n;
  for (list->n = 0; list->n + 1 < room; list->n++) {
    size_t at = find_last(text, separator, end), compared;
    if (__builtin_mul_overflow(at < text.n ? end - at : end, separator.n, &compared) ||
        pdt_jinja_work(r, compared))
      return pdt_jinja_fail(r, "too much work");
    if (at == text.n) break;
    list->items[list->n] = pdt_jinja_string(text.at + at + separator.n, end - at - separator.n);
    end = at;
  }
  list->items[list->n++] = pdt_jinja_string(text.at, end);
  for (size_t i = 0; i < list->n / 2; i++) {
    pdt_jinja_value v = list->items[i];
    list->items[i] = list->items[list->n - 1 - i];
    list->items[list->n - 1 - i] = v;
  }
  return 0;
}

static int parts_from_left(pdt_jinja_run *r, pdt_jinja_text text, pdt_jinja_text separator,
                           pdt_jinja_list *list) {
  size_t begin = 0, room = list->n;
  for (list->n = 0; list->n + 1 < room; list->n++) {
    size_t at = pdt_jinja_find(text, separator, begin);
    if (pdt_jinja_work(r, at - begin)) return -1;
    if (at == text.n) break;
    list->items[list->n] = pdt_jinja_string(text.at + begin, at - begin);
    begin = at + separator.n;
  }
  list->items[list->n++] = pdt_jinja_string(text.at + begin, text.n - begin);
  return 0;
}

/* Words, behind the first `most` of them the rest of the text, if any. */
static int words(pdt_jinja_run *r, pdt_jinja_text text, size_t most, pdt_jinja_list *list) {
  pdt_jinja_value rest = {.kind = PDT_JINJA_STRING, .text = text};
  for (list->n = 0;; list->n++) {
    if (pdt_jinja_strip(r, rest.text, NULL, true, false, &rest)) return -1;
    if (rest.text.n == 0) return 0;
    size_t end = list->n < most ? 0 : rest.text.n;
    for (size_t next = 0; end < rest.text.n; end = next)
      if (pdt_jinja_is_space(pdt_utf8_next(rest.text.at, &next))) break;
    list->items[list->n] = pdt_jinja_string(rest.text.at, end);
    rest = pdt_jinja_string(rest.text.at + end, rest.text.n - end);
  }
}

static int split_at(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, bool right,
                    pdt_jinja_value *out) {
  pdt_jinja_text separator = {"", 0};
  int64_t most;
  bool white = !a[0] || a[0]->kind == PDT_JINJA_NONE;
  if ((!white && pdt_jinja_expect_string(r, a[0], "split", &separator)) ||
      pdt_jinja_expect_integer(r, a[1], -1, &most) || pdt_jinja_work(r, self->text.n))
    return -1;
  if (!white && separator.n == 0) return pdt_jinja_fail(r, "split by an empty string");
  if (white && right && most >= 0)
    return pdt_jinja_fail(r, "rsplit by white space with a limit is not supported");
  size_t parts = white ? self->text.n / 2 + 1 : pdt_jinja_count(self->text, separator, SIZE_MAX);
  if (most >= 0 && (size_t)most < parts) parts = (size_t)most;
  pdt_jinja_list *list = pdt_jinja_list_new(r, parts + 1);
  if (!list) return -1;
  *out = (pdt_jinja_value){.kind = PDT_JINJA_LIST, .list = list};
  if (white) return words(r, self->text, most < 0 ? SIZE_MAX : (size_t)most, list);
  return right ? parts_from_right(r, self->text, separator, list)
               : parts_from_left(r, self->text, separator, list);
}

static int split(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  return split_at(r, self, a, false, out);
}

static int rsplit(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  return split_at(r, self, a, true, out);
}

/* ---- of dicts ---- */

/* Keys, values, or both of a dict. */
static int members(pdt_jinja_run *r, const pdt_jinja_dict *d, bool keys, bool values,
                   pdt_jinja_value *out) {
  pdt_jinja_list *list = pdt_jinja_list_new(r, d->n);
  if (!list) return -1;
  for (size_t i = 0; i < d->n; i++) {
    pdt_jinja_value key = pdt_jinja_string(d->pairs[i].key.at, d->pairs[i].key.n);
    list->items[i] = keys ? key : d->pairs[i].value;
    if (!keys || !values) continue;
    pdt_jinja_list *pair = pdt_jinja_list_new(r, 2);
    if (!pair) return -1;
    pair->items[0] = key;
    pair->items[1] = d->pairs[i].value;
    list->items[i] = (pdt_jinja_value){.kind = PDT_JINJA_TUPLE, .list = pair};
  }
  *out = (pdt_jinja_value){.kind = PDT_JINJA_LIST, .list = list};
  return 0;
}

static int items(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return members(r, self->dict, true, true, out);
}

static int keys(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return members(r, self->dict, true, false, out);
}

static int values(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  (void)a;
  return members(r, self->dict, false, true, out);
}

static int get(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  const pdt_jinja_value *v =
      a[0]->kind == PDT_JINJA_STRING ? pdt_jinja_dict_find(self->dict, a[0]->text) : NULL;
  *out = v ? *v : a[1] ? *a[1] : pdt_jinja_none();
  return pdt_jinja_work(r, self->dict->n * sizeof *self->dict->pairs);
}

static const pdt_jinja_builtin of_strings[] = {
    {"capitalize", capitalize, 0, {0}},
    {"count", count, 1, {""}},
    {"endswith", endswith, 1, {""}},
    {"find", find, 1, {""}},
    {"join", join, 1, {""}},
    {"lower", lower, 0, {0}},
    {"lstrip", lstrip, 0, {""}},
    {"replace", replace, 2, {"", "", ""}},
    {"rsplit", rsplit, 0, {"sep", "maxsplit"}},
    {"rstrip", rstrip, 0, {""}},
    {"split", split, 0, {"sep", "maxsplit"}},
    {"startswith", startswith, 1, {""}},
    {"strip", strip, 0, {""}},
    {"title", title, 0, {0}},
    {"upper", upper, 0, {0}},
};

static const pdt_jinja_builtin of_dicts[] = {
    {"get", get, 1, {"", ""}},
    {"items", items, 0, {0}},
    {"keys", keys, 0, {0}},
    {"values", values, 0, {0}},
};

int pdt_jinja_method(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                     const pdt_jinja_args *args, pdt_jinja_value *out) {
  static const pdt_jinja_builtins string = {"method of strings", of_strings,
                                            sizeof of_strings / sizeof *of_strings};
  static const pdt_jinja_builtins dict = {"method of dicts", of_dicts,
                                          sizeof of_dicts / sizeof *of_dicts};
  return pdt_jinja_call_builtin(r, self->kind == PDT_JINJA_STRING ? &string : &dict, name, self,
                                args, out);
}
