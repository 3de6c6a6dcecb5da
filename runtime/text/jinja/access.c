/* Attributes, items and slices. */
#include "base/utf8.h"
#include "text/jinja/run.h"

/* Names that Python has for methods of its types, one that is not called is none of ours; and those
 * that begin with two underscores. */
static bool is_method(const pdt_jinja_value *of, pdt_jinja_text name) {
  static const char strings[] =
      " capitalize casefold center count encode endswith expandtabs find format format_map index "
      "isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable "
      "isspace istitle isupper join ljust lower lstrip maketrans partition removeprefix "
      "removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines "
      "startswith strip swapcase title translate upper zfill ";
  static const char dicts[] =
      " clear copy fromkeys get items keys pop popitem setdefault update values ";
  static const char lists[] =
      " append clear copy count extend index insert pop remove reverse sort ";
  const char *all = of->kind == PDT_JINJA_STRING                                ? strings
                    : of->kind == PDT_JINJA_DICT                                ? dicts
                    : of->kind == PDT_JINJA_LIST || of->kind == PDT_JINJA_TUPLE ? lists
                                                                                : "";
  if (name.n >= 2 && name.at[0] == '_' && name.at[1] == '_') return true;
  for (const char *at = all; *at; at++) { /* at a space before a name */
    size_t n = strcspn(at + 1, " ");
    if (pdt_jinja_same(name, (pdt_jinja_text){at + 1, n}) && n > 0) return true;
    at += n;
  }
  return false;
}

static int loop_attribute(pdt_jinja_run *r, const pdt_jinja_loop *loop, pdt_jinja_text name,
                          pdt_jinja_value *out) {
  int64_t n = (int64_t)loop->items->n, i = (int64_t)loop->index;
  const struct {
    const char *name;
    pdt_jinja_value value;
  } all[] = {
      {"index", pdt_jinja_integer(i + 1)},
      {"index0", pdt_jinja_integer(i)},
      {"revindex", pdt_jinja_integer(n - i)},
      {"revindex0", pdt_jinja_integer(n - i - 1)},
      {"first", pdt_jinja_bool(i == 0)},
      {"last", pdt_jinja_bool(i == n - 1)},
      {"length", pdt_jinja_integer(n)},
      {"previtem", i > 0 ? loop->items->items[i - 1] : pdt_jinja_undefined(name)},
      {"nextitem", i + 1 < n ? loop->items->items[i + 1] : pdt_jinja_undefined(name)},
  };
  for (size_t k = 0; k < sizeof all / sizeof *all; k++)
    if (pdt_jinja_is(name, all[k].name)) {
      *out = all[k].value;
      return 0;
    }
  return pdt_jinja_fail(r, "'loop.%.*s' is not supported", (int)(name.n < 80 ? name.n : 80),
                        name.at);
}

int pdt_jinja_attribute(pdt_jinja_run *r, const pdt_jinja_value *of, pdt_jinja_text name,
                        pdt_jinja_value *out) {
  if (pdt_jinja_expect_defined(r, of)) return -1;
  if (of->kind == PDT_JINJA_LOOP) return loop_attribute(r, of->loop, name, out);
  if (of->kind == PDT_JINJA_MACRO || of->kind == PDT_JINJA_FUNCTION || is_method(of, name))
    return pdt_jinja_fail(r, "the attribute '%.*s' of a value of type %s is not supported",
                          (int)(name.n < 80 ? name.n : 80), name.at, pdt_jinja_kind_name(of));
  *out = pdt_jinja_undefined(name);
  if (of->kind != PDT_JINJA_DICT && of->kind != PDT_JINJA_NAMESPACE) return 0;
  const pdt_jinja_value *v = pdt_jinja_dict_find(of->dict, name);
  if (v) *out = *v;
  return pdt_jinja_work(r, of->dict->n * sizeof *of->dict->pairs);
}

/* The offset of a character of valid UTF-8. */
static size_t offset_of(pdt_jinja_text text, size_t characters) {
  size_t at = 0;
  while (characters-- > 0) pdt_utf8_next(text.at, &at);
  return at;
}

/* Element i of a list or string of n, from the end for a negative one: false when it is not there.
 */
static bool place(int64_t index, size_t n, size_t *i) {
  if (index < 0) index += (int64_t)n;
  *i = (size_t)index;
  return index >= 0 && index < (int64_t)n;
}

static int element(pdt_jinja_run *r, const pdt_jinja_value *of, int64_t index,
                   pdt_jinja_value *out) {
  size_t i;
  *out = pdt_jinja_undefined(pdt_jinja_text_of("an element that is not there"));
  if (of->kind == PDT_JINJA_LIST || of->kind == PDT_JINJA_TUPLE) {
    if (place(index, of->list->n, &i)) *out = of->list->items[i];
  } else if (of->kind == PDT_JINJA_STRING) {
    if (pdt_jinja_work(r, of->text.n)) return -1;
    if (!place(index, pdt_jinja_length(of->text), &i)) return 0;
    size_t from = offset_of(of->text, i), to = from;
    pdt_utf8_next(of->text.at, &to);
    *out = pdt_jinja_string(of->text.at + from, to - from);
  }
  return 0;
}

int pdt_jinja_item(pdt_jinja_run *r, const pdt_jinja_value *of, const pdt_jinja_value *index,
                   pdt_jinja_value *out) {
  if (pdt_jinja_expect_defined(r, of)) return -1;
  if (pdt_jinja_is_integer(index)) return element(r, of, index->integer, out);
  *out = pdt_jinja_undefined(pdt_jinja_text_of("an element that is not there"));
  if (index->kind != PDT_JINJA_STRING) return 0;
  if (of->kind == PDT_JINJA_DICT) { /* here, keys go before methods */
    const pdt_jinja_value *v = pdt_jinja_dict_find(of->dict, index->text);
    if (v) *out = *v;
    if (v) return pdt_jinja_work(r, of->dict->n * sizeof *of->dict->pairs);
  }
  return pdt_jinja_attribute(r, of, index->text, out);
}

/* ---- slices ---- */

typedef struct span {
  int64_t begin, step;
  size_t n;
} span;

/* A bound within 0 (-1 for steps back) and n (n - 1). */
static int64_t clamp(int64_t bound, int64_t n, bool back) {
  if (bound < 0) bound = bound < -n ? (back ? -1 : 0) : bound + n;
  return bound < n ? bound : back ? n - 1 : n;
}

/* Which of n elements a slice takes, as Python's slice.indices has it. */
static int span_of(pdt_jinja_run *r, const pdt_jinja_value *bounds, size_t length, span *out) {
  int64_t n = (int64_t)length, begin, end, step;
  if (pdt_jinja_expect_integer(r, &bounds[2], 1, &step)) return -1;
  if (step == 0) return pdt_jinja_fail(r, "a slice with a step of 0");
  bool back = step < 0;
  if (pdt_jinja_expect_integer(r, &bounds[0], back ? n - 1 : 0, &begin) ||
      pdt_jinja_expect_integer(r, &bounds[1], n, &end))
    return -1;
  if (bounds[0].kind != PDT_JINJA_NONE) begin = clamp(begin, n, back);
  end = bounds[1].kind != PDT_JINJA_NONE ? clamp(end, n, back) : back ? -1 : n;
  if (step > n) step = n + 1; /* one element at most */
  if (step < -n) step = -n - 1;
  int64_t count = back ? (begin - end - step - 1) / -step : (end - begin + step - 1) / step;
  *out = (span){begin, step, count > 0 ? (size_t)count : 0};
  return 0;
}

static int slice_string(pdt_jinja_run *r, pdt_jinja_text text, const span *s,
                        pdt_jinja_value *out) {
  if (pdt_jinja_work(r, text.n)) return -1;
  if (s->step == 1) {
    size_t from = s->n ? offset_of(text, (size_t)s->begin) : 0;
    pdt_jinja_text rest = {text.at + from, text.n - from};
    *out = pdt_jinja_string(rest.at, s->n ? offset_of(rest, s->n) : 0);
    return 0;
  }
  pdt_jinja_value of = {.kind = PDT_JINJA_STRING, .text = text};
  pdt_jinja_list all;
  char *taken = pdt_jinja_room(r, text.n, 1);
  size_t n = 0;
  if (!taken || pdt_jinja_items(r, &of, &all)) return -1;
  for (size_t i = 0; i < s->n; i++) {
    pdt_jinja_text c = all.items[s->begin + (int64_t)i * s->step].text;
    memcpy(taken + n, c.at, c.n);
    n += c.n;
  }
  *out = pdt_jinja_string(taken, n);
  return 0;
}

int pdt_jinja_slice(pdt_jinja_run *r, const pdt_jinja_value *of, const pdt_jinja_value *bounds,
                    pdt_jinja_value *out) {
  span s = {0};
  bool string = of->kind == PDT_JINJA_STRING;
  if (pdt_jinja_expect_defined(r, of)) return -1;
  if (!string && of->kind != PDT_JINJA_LIST && of->kind != PDT_JINJA_TUPLE)
    return pdt_jinja_fail(r, "a value of type %s has no slices", pdt_jinja_kind_name(of));
  if (span_of(r, bounds, string ? pdt_jinja_length(of->text) : of->list->n, &s)) return -1;
  if (string) return slice_string(r, of->text, &s, out);
  pdt_jinja_list *list = pdt_jinja_list_new(r, s.n);
  if (!list) return -1;
  for (size_t i = 0; i < s.n; i++) list->items[i] = of->list->items[s.begin + (int64_t)i * s.step];
  *out = (pdt_jinja_value){.kind = of->kind, .list = list};
  return 0;
}
