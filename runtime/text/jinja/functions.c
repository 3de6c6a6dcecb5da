/* Functions. */
#include "text/jinja/run.h"

typedef const pdt_jinja_value *const *arguments;

static int raise_exception(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                           pdt_jinja_value *out) {
  pdt_jinja_text text;
  (void)self;
  (void)out;
  if (pdt_jinja_str(r, a[0], &text)) return -1;
  return pdt_jinja_fail(r, "the template refuses the conversation: %.*s",
                        (int)(text.n < 400 ? text.n : 400), text.at);
}

static int strftime_now(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a,
                        pdt_jinja_value *out) {
  char format[128], text[512];
  pdt_jinja_text given;
  (void)self;
  if (pdt_jinja_expect_string(r, a[0], "strftime_now", &given)) return -1;
  if (given.n >= sizeof format || memchr(given.at, 0, given.n))
    return pdt_jinja_fail(r, "strftime_now: expected a format of less than %zu bytes",
                          sizeof format);
  memcpy(format, given.at, given.n);
  format[given.n] = '\0';
  size_t n = strftime(text, sizeof text, format, r->now);
  if (n == 0 && given.n > 0)
    return pdt_jinja_fail(r, "strftime_now: the date is empty, or more than %zu bytes",
                          sizeof text - 1);
  return pdt_jinja_concat(r, (pdt_jinja_text){text, n}, (pdt_jinja_text){"", 0}, out);
}

static int range(pdt_jinja_run *r, const pdt_jinja_value *self, arguments a, pdt_jinja_value *out) {
  int64_t begin = 0, end, step;
  (void)self;
  if (pdt_jinja_expect_integer(r, a[1] ? a[1] : a[0], 0, &end) ||
      (a[1] && pdt_jinja_expect_integer(r, a[0], 0, &begin)) ||
      pdt_jinja_expect_integer(r, a[2], 1, &step))
    return -1;
  const int64_t most = (int64_t)1 << 53; /* doubles tell them apart */
  if (step == 0) return pdt_jinja_fail(r, "range: a step of 0");
  if (begin < -most || begin > most || end < -most || end > most || step < -most || step > most)
    return pdt_jinja_fail(r, "range: expected numbers of 53 bits");
  double n = ((double)end - (double)begin) / (double)step;
  if (n > PDT_JINJA_RANGE)
    return pdt_jinja_fail(r, "range: expected at most %d elements", PDT_JINJA_RANGE);
  pdt_jinja_list *list = pdt_jinja_list_new(r, n > 0 ? (size_t)n + 1 : 0);
  if (!list) return -1;
  list->n = 0; /* rounded up by one too many */
  for (int64_t i = begin; n > 0 && (step > 0 ? i < end : i > end); i += step) {
    list->items[list->n++] = pdt_jinja_integer(i);
  }
  *out = (pdt_jinja_value){.kind = PDT_JINJA_LIST, .list = list};
  return 0;
}

/* dict(a=...) and namespace(a=...). */
static int gather(pdt_jinja_run *r, pdt_jinja_kind kind, const pdt_jinja_args *args,
                  pdt_jinja_value *out) {
  pdt_jinja_dict *d = pdt_jinja_room(r, 1, sizeof *d);
  if (!d) return -1;
  for (size_t i = 0; i < args->n; i++) {
    pdt_jinja_text key = args->keywords[i];
    if (!key.n)
      return pdt_jinja_fail(r, "dict and namespace are supported with arguments by name alone");
    if (kind == PDT_JINJA_NAMESPACE && key.at[0] == '_')
      return pdt_jinja_fail(r, "a namespace's attribute cannot begin with '_'");
    if (pdt_jinja_dict_find(d, key)) return pdt_jinja_fail(r, "an argument is given twice");
    if (pdt_jinja_dict_set(r, d, key, args->items[i])) return -1;
  }
  *out = (pdt_jinja_value){.kind = kind, .dict = d};
  return 0;
}

static const pdt_jinja_builtin functions[] = {
    {"raise_exception", raise_exception, 1, {"message"}},
    {"range", range, 1, {"", "", ""}},
    {"strftime_now", strftime_now, 1, {"format"}},
};
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

bool pdt_jinja_is_function(const pdt_jinja_run *r, pdt_jinja_text name) {
  if (pdt_jinja_is(name, "strftime_now")) return r->now != NULL;
  for (size_t i = 0; i < N_FUNCTIONS; i++)
    if (pdt_jinja_is(name, functions[i].name)) return true;
  return pdt_jinja_is(name, "dict") || pdt_jinja_is(name, "namespace");
}

int pdt_jinja_function(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_args *args,
                       pdt_jinja_value *out) {
  if (pdt_jinja_is(name, "dict")) return gather(r, PDT_JINJA_DICT, args, out);
  if (pdt_jinja_is(name, "namespace")) return gather(r, PDT_JINJA_NAMESPACE, args, out);
  static const pdt_jinja_builtins all = {"function", functions, N_FUNCTIONS};
  return pdt_jinja_call_builtin(r, &all, name, NULL, args, out);
}
