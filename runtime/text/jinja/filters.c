/* Filters. */
#include "text/jinja/run.h"

typedef const pdt_jinja_value *const *arguments;

/* ---- of texts ---- */

static int trim(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  pdt_jinja_text text;
  return pdt_jinja_str(r, self, &text) || pdt_jinja_strip(r, text, a[0], true, true, out) ? -1 : 0;
}

static int change_case(pdt_jinja_run *r, const pdt_jinja_value *self, pdt_jinja_case to,
                       pdt_jinja_value *out) {
  pdt_jinja_text text;
  return pdt_jinja_str(r, self, &text) || pdt_jinja_change_case(r, text, to, out) ? -1 : 0;
}

static int lower(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return change_case(r, self, PDT_JINJA_LOWER, out);
}

static int upper(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return change_case(r, self, PDT_JINJA_UPPER, out);
}

static int capitalize(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                      pdt_jinja_value *out) {
  (void)a;
  return change_case(r, self, PDT_JINJA_CAPITALIZED, out);
}

static int string(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  pdt_jinja_text text;
  (void)a;
  if (pdt_jinja_str(r, self, &text)) return -1;
  *out = pdt_jinja_string(text.at, text.n);
  return 0;
}

static int replace(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                   pdt_jinja_value *out) {
  pdt_jinja_text text, texts[2];
  int64_t most;
  if (pdt_jinja_str(r, self, &text) || pdt_jinja_str(r, a[0], &texts[0]) ||
      pdt_jinja_str(r, a[1], &texts[1]) || pdt_jinja_expect_integer(r, a[2], -1, &most))
    return -1;
  return pdt_jinja_replace(r, text, texts, most, out);
}

static int to_int(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  (void)a;
  *out = *self;
  out->kind = PDT_JINJA_INTEGER;
  if (pdt_jinja_is_integer(self)) return 0;
  return pdt_jinja_fail(r, "the filter 'int' of a value of type %s is not supported",
                        pdt_jinja_kind_name(self));
}

static int to_json(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                   pdt_jinja_value *out) {
  pdt_jinja_json_style style = {.indent = -1};
  if (pdt_jinja_expect_integer(r, a[1], -1, &style.indent)) return -1;
  if (a[2] && a[2]->kind != PDT_JINJA_NONE)
    return pdt_jinja_fail(r, "separators of tojson are not supported");
  style.ascii = a[0] && pdt_jinja_truth(a[0]);
  style.sorted = a[3] && pdt_jinja_truth(a[3]);
  return pdt_jinja_to_json(r, self, &style, out);
}

/* Puts white space before every line but the first and empty ones. */
static int indent(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  static const char spaces[] = "                                ";
  int64_t width;
  pdt_jinja_text text, texts[2] = {{"\n", 1}, {0}};
  pdt_jinja_value line;
  if (pdt_jinja_str(r, self, &text) || pdt_jinja_expect_integer(r, a[0], 4, &width)) return -1;
  if (width < 0 || width >= (int64_t)sizeof spaces || a[1] || a[2] ||
      pdt_jinja_find(text, pdt_jinja_text_of("\n\n"), 0) < text.n ||
      (text.n && text.at[text.n - 1] == '\n'))
    return pdt_jinja_fail(r,
                          "the filter 'indent' is supported for texts without empty lines, by "
                          "up to %zu, and without other arguments",
                          sizeof spaces - 1);
  if (pdt_jinja_concat(r, texts[0], (pdt_jinja_text){spaces, (size_t)width}, &line)) return -1;
  texts[1] = line.text;
  return pdt_jinja_replace(r, text, texts, -1, out);
}

/* ---- of lists ---- */

static int length(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                  pdt_jinja_value *out) {
  (void)a;
  *out = pdt_jinja_integer(0);
  switch (self->kind) {
  case PDT_JINJA_UNDEFINED:
    return 0;
  case PDT_JINJA_STRING:
    out->integer = (int64_t)pdt_jinja_length(self->text);
    return pdt_jinja_work(r, self->text.n);
  case PDT_JINJA_LIST:
  case PDT_JINJA_TUPLE:
    out->integer = (int64_t)self->list->n;
    return 0;
  case PDT_JINJA_DICT:
    out->integer = (int64_t)self->dict->n;
    return 0;
  default:
    return pdt_jinja_fail(r, "a value of type %s has no length", pdt_jinja_kind_name(self));
  }
}

/* The items of a value as a new list of that kind. */
static int items_as(pdt_jinja_run *r, const pdt_jinja_value *self, pdt_jinja_kind kind,
                    pdt_jinja_value *out) {
  pdt_jinja_list items, *list;
  if (pdt_jinja_items(r, self, &items) || !(list = pdt_jinja_list_new(r, items.n))) return -1;
  if (items.n) memcpy(list->items, items.items, items.n * sizeof *items.items);
  *out = (pdt_jinja_value){.kind = kind, .list = list};
  return 0;
}

static int list(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return items_as(r, self, PDT_JINJA_LIST, out);
}

static int reverse(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                   pdt_jinja_value *out) {
  pdt_jinja_value bounds[3] = {pdt_jinja_none(), pdt_jinja_none(), pdt_jinja_integer(-1)};
  (void)a;
  if (self->kind == PDT_JINJA_STRING) return pdt_jinja_slice(r, self, bounds, out);
  if (items_as(r, self, PDT_JINJA_ITERATOR, out)) return -1;
  for (size_t i = 0, n = out->list->n; i < n / 2; i++) {
    pdt_jinja_value v = out->list->items[i];
    out->list->items[i] = out->list->items[n - 1 - i];
    out->list->items[n - 1 - i] = v;
  }
  return 0;
}

static int end_of(pdt_jinja_run *r, const pdt_jinja_value *self, bool last, pdt_jinja_value *out) {
  pdt_jinja_list items;
  if (last && self->kind == PDT_JINJA_ITERATOR)
    return pdt_jinja_fail(r, "an iterator has no last item (hint: | list | last)");
  if (pdt_jinja_items(r, self, &items)) return -1;
  *out = items.n ? items.items[last ? items.n - 1 : 0]
                 : pdt_jinja_undefined(pdt_jinja_text_of("an item of what has none"));
  return 0;
}

static int first(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return end_of(r, self, false, out);
}

static int last(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  (void)a;
  return end_of(r, self, true, out);
}

static int items(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  const pdt_jinja_args none = {0};
  (void)a;
  if (self->kind != PDT_JINJA_DICT && self->kind != PDT_JINJA_UNDEFINED)
    return pdt_jinja_fail(r, "the filter 'items' of a value of type %s", pdt_jinja_kind_name(self));
  int rc = self->kind == PDT_JINJA_DICT
               ? pdt_jinja_method(r, pdt_jinja_text_of("items"), self, &none, out)
               : items_as(r, self, PDT_JINJA_ITERATOR, out);
  out->kind = PDT_JINJA_ITERATOR;
  return rc;
}

/* ---- of parts of items ---- */

/* The attribute "a.b.0" of a value. */
static int dotted(pdt_jinja_run *r, pdt_jinja_value v, pdt_jinja_text path, pdt_jinja_value *out) {
  for (size_t at = 0; at <= path.n;) {
    size_t dot = pdt_jinja_find(path, pdt_jinja_text_of("."), at);
    pdt_jinja_text part = {path.at + at, dot - at};
    if (part.n && part.at[0] >= '0' && part.at[0] <= '9')
      return pdt_jinja_fail(r, "the number of an item as an attribute is not supported");
    pdt_jinja_value key = pdt_jinja_string(part.at, part.n);
    if (pdt_jinja_item(r, &v, &key, out)) return -1;
    v = *out;
    at = dot + 1;
  }
  return 0;
}

static int join(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  pdt_jinja_list all;
  pdt_jinja_text between = {"", 0}, path;
  if ((a[0] && pdt_jinja_str(r, a[0], &between)) || pdt_jinja_items(r, self, &all)) return -1;
  if (!a[1] || a[1]->kind == PDT_JINJA_NONE) return pdt_jinja_join(r, &all, between, true, out);
  pdt_jinja_list *parts = pdt_jinja_list_new(r, all.n);
  if (!parts || pdt_jinja_expect_string(r, a[1], "an attribute", &path)) return -1;
  for (size_t i = 0; i < all.n; i++)
    if (dotted(r, all.items[i], path, &parts->items[i])) return -1;
  return pdt_jinja_join(r, parts, between, true, out);
}

/* An iterator of the items of a value; of what is not true, of none, as jinja2's map and select
 * have it. */
static int items_if_any(pdt_jinja_run *r, const pdt_jinja_value *self, pdt_jinja_value *out) {
  const pdt_jinja_value nothing = pdt_jinja_undefined(pdt_jinja_text_of(""));
  return items_as(r, pdt_jinja_truth(self) ? self : &nothing, PDT_JINJA_ITERATOR, out);
}

static int map(pdt_jinja_run *r, const pdt_jinja_value *self, const pdt_jinja_args *args,
               pdt_jinja_value *out) {
  pdt_jinja_text what;
  bool attribute = args->n == 1 && pdt_jinja_is(args->keywords[0], "attribute");
  if (args->n == 0 || (!attribute && args->keywords[0].n))
    return pdt_jinja_fail(r, "the filter 'map' is supported with a filter, or attribute=...");
  if (pdt_jinja_expect_string(r, &args->items[0], "map", &what) || items_if_any(r, self, out))
    return -1;
  const pdt_jinja_args rest = {args->items + 1, args->keywords + 1, args->n - 1};
  for (size_t i = 0; i < out->list->n; i++) {
    pdt_jinja_value v = out->list->items[i];
    if (attribute ? dotted(r, v, what, &out->list->items[i])
                  : pdt_jinja_filter(r, what, &v, &rest, &out->list->items[i]))
      return -1;
  }
  return 0;
}

/* Which items a filter keeps. */
typedef struct sieve {
  const char *name;
  bool attribute, rejects;
} sieve;

/* Does a test, the first of the arguments, hold for a value? Without, is it true? */
static int holds(pdt_jinja_run *r, const pdt_jinja_value *v, const pdt_jinja_args *args,
                 bool *out) {
  pdt_jinja_text name;
  *out = pdt_jinja_truth(v);
  if (args->n == 0) return 0;
  const pdt_jinja_args rest = {args->items + 1, args->keywords + 1, args->n - 1};
  return pdt_jinja_expect_string(r, &args->items[0], "the name of a test", &name) ||
                 pdt_jinja_test(r, name, v, &rest, out)
             ? -1
             : 0;
}

static int sift(pdt_jinja_run *r, const sieve *s, const pdt_jinja_value *self,
                const pdt_jinja_args *args, pdt_jinja_value *out) {
  pdt_jinja_text path = {"", 0};
  size_t skip = s->attribute, n = 0;
  if (args->n < skip) return pdt_jinja_fail(r, "the filter '%s' needs an attribute", s->name);
  if ((s->attribute && pdt_jinja_expect_string(r, &args->items[0], "an attribute", &path)) ||
      items_if_any(r, self, out))
    return -1;
  const pdt_jinja_args rest = {args->items + skip, args->keywords + skip, args->n - skip};
  for (size_t i = 0; i < out->list->n; i++) {
    pdt_jinja_value item = out->list->items[i], v = item;
    bool keep;
    if ((s->attribute && dotted(r, item, path, &v)) || holds(r, &v, &rest, &keep)) return -1;
    if (keep != s->rejects) out->list->items[n++] = item;
  }
  out->list->n = n;
  return 0;
}

static int default_(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                    pdt_jinja_value *out) {
  (void)r;
  bool falls = self->kind == PDT_JINJA_UNDEFINED ||
               (a[1] && pdt_jinja_truth(a[1]) && !pdt_jinja_truth(self));
  *out = !falls ? *self : a[0] ? *a[0] : pdt_jinja_string("", 0);
  return 0;
}

static const pdt_jinja_builtin filters[] = {
    {"capitalize", capitalize, 0, {0}},
    {"count", length, 0, {0}},
    {"d", default_, 0, {"default_value", "boolean"}},
    {"default", default_, 0, {"default_value", "boolean"}},
    {"first", first, 0, {0}},
    {"indent", indent, 0, {"width", "first", "blank"}},
    {"int", to_int, 0, {0}},
    {"items", items, 0, {0}},
    {"join", join, 0, {"d", "attribute"}},
    {"last", last, 0, {0}},
    {"length", length, 0, {0}},
    {"list", list, 0, {0}},
    {"lower", lower, 0, {0}},
    {"replace", replace, 2, {"old", "new", "count"}},
    {"reverse", reverse, 0, {0}},
    {"string", string, 0, {0}},
    {"tojson", to_json, 0, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", trim, 0, {"chars"}},
    {"upper", upper, 0, {0}},
};

int pdt_jinja_filter(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                     const pdt_jinja_args *args, pdt_jinja_value *out) {
  static const sieve sieves[] = {{"select", false, false},
                                 {"reject", false, true},
                                 {"selectattr", true, false},
                                 {"rejectattr", true, true}};
  for (size_t i = 0; i < sizeof sieves / sizeof *sieves; i++)
    if (pdt_jinja_is(name, sieves[i].name)) return sift(r, &sieves[i], self, args, out);
  if (pdt_jinja_is(name, "map")) return map(r, self, args, out);
  static const pdt_jinja_builtins all = {"filter", filters, sizeof filters / sizeof *filters};
  return pdt_jinja_call_builtin(r, &all, name, self, args, out);
}
