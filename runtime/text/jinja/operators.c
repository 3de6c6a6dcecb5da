/* Operators, as Python has them. */
#include <math.h>

#include "text/jinja/run.h"

/* ---- equality ---- */

static int equal(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b, int levels,
                 bool *out);

static int equal_lists(pdt_jinja_run *r, const pdt_jinja_list *a, const pdt_jinja_list *b,
                       int levels, bool *out) {
  *out = a->n == b->n;
  for (size_t i = 0; i < a->n && *out; i++)
    if (equal(r, &a->items[i], &b->items[i], levels, out)) return -1;
  return 0;
}

static int equal_dicts(pdt_jinja_run *r, const pdt_jinja_dict *a, const pdt_jinja_dict *b,
                       int levels, bool *out) {
  *out = a->n == b->n;
  for (size_t i = 0; i < a->n && *out; i++) {
    const pdt_jinja_value *other = pdt_jinja_dict_find(b, a->pairs[i].key);
    if (pdt_jinja_work(r, b->n * sizeof *b->pairs)) return -1;
    *out = other != NULL;
    if (other && equal(r, &a->pairs[i].value, other, levels, out)) return -1;
  }
  return 0;
}

static bool equal_numbers(const pdt_jinja_value *a, const pdt_jinja_value *b) {
  if (pdt_jinja_is_integer(a) && pdt_jinja_is_integer(b)) return a->integer == b->integer;
  return pdt_jinja_number(a) == pdt_jinja_number(b);
}

static int equal(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b, int levels,
                 bool *out) {
  if (levels == 0)
    return pdt_jinja_fail(r, "values nested deeper than %d are compared", PDT_JINJA_DATA_NESTING);
  if (pdt_jinja_work(r, a->kind == PDT_JINJA_STRING ? a->text.n : 0)) return -1;
  *out = false;
  if (pdt_jinja_is_number(a) && pdt_jinja_is_number(b)) *out = equal_numbers(a, b);
  if (a->kind != b->kind || pdt_jinja_is_number(a)) return 0;
  switch (a->kind) {
  case PDT_JINJA_STRING:
  case PDT_JINJA_FUNCTION:
    *out = pdt_jinja_same(a->text, b->text);
    return 0;
  case PDT_JINJA_LIST:
  case PDT_JINJA_TUPLE:
    return equal_lists(r, a->list, b->list, levels - 1, out);
  case PDT_JINJA_DICT:
    return equal_dicts(r, a->dict, b->dict, levels - 1, out);
  case PDT_JINJA_ITERATOR:
    *out = a->list == b->list;
    return 0;
  case PDT_JINJA_NAMESPACE:
    *out = a->dict == b->dict;
    return 0;
  case PDT_JINJA_LOOP:
    *out = a->loop == b->loop;
    return 0;
  case PDT_JINJA_MACRO:
    *out = a->macro == b->macro;
    return 0;
  default: /* NONE, UNDEFINED */
    *out = true;
    return 0;
  }
}

int pdt_jinja_equal(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b,
                    bool *out) {
  return equal(r, a, b, PDT_JINJA_DATA_NESTING, out);
}

/* ---- in, and order ---- */

int pdt_jinja_contains(pdt_jinja_run *r, const pdt_jinja_value *in, const pdt_jinja_value *v,
                       bool *found) {
  pdt_jinja_list items;
  pdt_jinja_text needle;
  *found = false;
  if (in->kind == PDT_JINJA_STRING) {
    if (pdt_jinja_expect_string(r, v, "'in' a string", &needle) || pdt_jinja_work(r, in->text.n))
      return -1;
    *found = needle.n == 0 || pdt_jinja_find(in->text, needle, 0) < in->text.n;
    return 0;
  }
  if (in->kind == PDT_JINJA_DICT && (v->kind == PDT_JINJA_LIST || v->kind == PDT_JINJA_DICT))
    return pdt_jinja_fail(r, "a %s cannot be a key of a dict", pdt_jinja_kind_name(v));
  if (in->kind == PDT_JINJA_DICT) {
    if (v->kind == PDT_JINJA_STRING) *found = pdt_jinja_dict_find(in->dict, v->text);
    return pdt_jinja_work(r, in->dict->n * sizeof *in->dict->pairs);
  }
  if (pdt_jinja_items(r, in, &items)) return -1;
  for (size_t i = 0; i < items.n && !*found; i++)
    if (pdt_jinja_equal(r, &items.items[i], v, found)) return -1;
  return 0;
}

/* -1, 0, 1; 2 for numbers that are in no order. */
static int order(const pdt_jinja_value *a, const pdt_jinja_value *b) {
  if (a->kind == PDT_JINJA_STRING) { /* UTF-8 is in the order of characters */
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
    int c = n ? memcmp(a->text.at, b->text.at, n) : 0;
    if (c) return c < 0 ? -1 : 1;
    return (a->text.n > b->text.n) - (a->text.n < b->text.n);
  }
  if (pdt_jinja_is_integer(a) && pdt_jinja_is_integer(b))
    return (a->integer > b->integer) - (a->integer < b->integer);
  double x = pdt_jinja_number(a), y = pdt_jinja_number(b);
  return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
}

int pdt_jinja_compare(pdt_jinja_run *r, pdt_jinja_text op, const pdt_jinja_value *a,
                      const pdt_jinja_value *b, bool *out) {
  bool equals = pdt_jinja_is(op, "=="), differs = pdt_jinja_is(op, "!=");
  bool in = pdt_jinja_is(op, "in"), not_in = pdt_jinja_is(op, "not in");
  if (equals || differs || in || not_in) {
    if (equals || differs ? pdt_jinja_equal(r, a, b, out) : pdt_jinja_contains(r, b, a, out))
      return -1;
    *out = *out != (differs || not_in);
    return 0;
  }
  if (pdt_jinja_expect_defined(r, a) || pdt_jinja_expect_defined(r, b)) return -1;
  bool numbers = pdt_jinja_is_number(a) && pdt_jinja_is_number(b);
  bool strings = a->kind == PDT_JINJA_STRING && b->kind == PDT_JINJA_STRING;
  if (!numbers && !strings)
    return pdt_jinja_fail(r, "'%.*s' between a value of type %s and one of type %s", (int)op.n,
                          op.at, pdt_jinja_kind_name(a), pdt_jinja_kind_name(b));
  if (pdt_jinja_work(r, strings ? a->text.n : 0)) return -1;
  int c = order(a, b);
  *out = c != 2 && (*op.at == '<' ? c < 0 : c > 0);
  if (op.n == 2 && c == 0) *out = true;
  return 0;
}

/* ---- arithmetic ---- */

static int cannot(const pdt_jinja_run *r, pdt_jinja_text op, const pdt_jinja_value *a,
                  const pdt_jinja_value *b) {
  if (a->kind == PDT_JINJA_STRING && (*op.at == '%' || *op.at == '*'))
    return pdt_jinja_fail(r, "'%c' of a string is not supported", *op.at);
  if (pdt_jinja_expect_defined(r, a) || pdt_jinja_expect_defined(r, b)) return -1;
  return pdt_jinja_fail(r, "'%.*s' of a value of type %s and one of type %s", (int)op.n, op.at,
                        pdt_jinja_kind_name(a), pdt_jinja_kind_name(b));
}

static int too_large(const pdt_jinja_run *r) {
  return pdt_jinja_fail(r, "an integer beyond 64 bits");
}

static int zero(const pdt_jinja_run *r) {
  return pdt_jinja_fail(r, "division by zero");
}

/* // and %: to the lower side. */
static int divide(pdt_jinja_run *r, bool remainder, int64_t a, int64_t b, int64_t *out) {
  if (b == 0) return zero(r);
  if (b == -1) return !remainder && __builtin_sub_overflow(0, a, out) ? too_large(r) : 0;
  int64_t quotient = a / b, rest = a % b;
  bool lower = rest != 0 && (rest < 0) != (b < 0);
  *out = remainder ? rest + (lower ? b : 0) : quotient - lower;
  return 0;
}

static int integers(pdt_jinja_run *r, pdt_jinja_text op, int64_t a, int64_t b,
                    pdt_jinja_value *out) {
  int64_t v = 0;
  bool over = false;
  if (pdt_jinja_is(op, "//") || *op.at == '%') {
    if (divide(r, *op.at == '%', a, b, &v)) return -1;
  } else if (*op.at == '/') {
    if (b == 0) return zero(r);
    *out = pdt_jinja_real((double)a / (double)b);
    return 0;
  } else {
    over = *op.at == '+'   ? __builtin_add_overflow(a, b, &v)
           : *op.at == '-' ? __builtin_sub_overflow(a, b, &v)
                           : __builtin_mul_overflow(a, b, &v);
  }
  *out = pdt_jinja_integer(v);
  return over ? too_large(r) : 0;
}

static int reals(pdt_jinja_run *r, pdt_jinja_text op, double a, double b, pdt_jinja_value *out) {
  double v = *op.at == '+' ? a + b : *op.at == '-' ? a - b : a * b;
  if (*op.at == '/' || *op.at == '%') {
    if (b == 0) return zero(r);
    v = a / b;
    if (op.n == 2) v = floor(v);
    if (*op.at == '%') v = a - b * floor(v);
  }
  *out = pdt_jinja_real(v);
  return 0;
}

static int join_lists(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b,
                      pdt_jinja_value *out) {
  pdt_jinja_list *list = pdt_jinja_list_new(r, a->list->n + b->list->n);
  if (!list) return -1;
  if (a->list->n) memcpy(list->items, a->list->items, a->list->n * sizeof *list->items);
  if (b->list->n)
    memcpy(list->items + a->list->n, b->list->items, b->list->n * sizeof *list->items);
  *out = (pdt_jinja_value){.kind = a->kind, .list = list};
  return 0;
}

int pdt_jinja_binary(pdt_jinja_run *r, pdt_jinja_text op, const pdt_jinja_value *a,
                     const pdt_jinja_value *b, pdt_jinja_value *out) {
  pdt_jinja_text x, y;
  if (*op.at == '~')
    return pdt_jinja_str(r, a, &x) || pdt_jinja_str(r, b, &y) || pdt_jinja_concat(r, x, y, out) ? -1
                                                                                                : 0;
  if (pdt_jinja_is_integer(a) && pdt_jinja_is_integer(b))
    return integers(r, op, a->integer, b->integer, out);
  if (pdt_jinja_is_number(a) && pdt_jinja_is_number(b))
    return reals(r, op, pdt_jinja_number(a), pdt_jinja_number(b), out);
  if (*op.at != '+' || a->kind != b->kind) return cannot(r, op, a, b);
  if (a->kind == PDT_JINJA_STRING) return pdt_jinja_concat(r, a->text, b->text, out);
  if (a->kind == PDT_JINJA_LIST || a->kind == PDT_JINJA_TUPLE) return join_lists(r, a, b, out);
  return cannot(r, op, a, b);
}

int pdt_jinja_negative(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_value *out) {
  int64_t negative;
  if (pdt_jinja_expect_defined(r, v)) return -1;
  if (!pdt_jinja_is_number(v))
    return pdt_jinja_fail(r, "a sign before a value of type %s", pdt_jinja_kind_name(v));
  if (v->kind == PDT_JINJA_REAL) {
    *out = pdt_jinja_real(-v->real);
    return 0;
  }
  if (__builtin_sub_overflow(0, v->integer, &negative)) return too_large(r);
  *out = pdt_jinja_integer(negative);
  return 0;
}
