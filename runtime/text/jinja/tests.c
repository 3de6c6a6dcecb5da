/* Tests: what `is` asks. */
#include "text/jinja/run.h"

/* Of the type, or one of the types, that a word means: false when it means none. */
static bool test_type(pdt_jinja_text name, const pdt_jinja_value *v, bool *out) {
  pdt_jinja_kind k = v->kind;
  bool items = pdt_jinja_has_items(v) || k == PDT_JINJA_STRING || k == PDT_JINJA_DICT ||
               k == PDT_JINJA_UNDEFINED;
  const struct {
    const char *name;
    bool holds;
  } all[] = {
      {"defined", k != PDT_JINJA_UNDEFINED},
      {"undefined", k == PDT_JINJA_UNDEFINED},
      {"none", k == PDT_JINJA_NONE},
      {"boolean", k == PDT_JINJA_BOOL},
      {"true", k == PDT_JINJA_BOOL && v->integer},
      {"false", k == PDT_JINJA_BOOL && !v->integer},
      {"integer", k == PDT_JINJA_INTEGER},
      {"float", k == PDT_JINJA_REAL},
      {"number", pdt_jinja_is_number(v)},
      {"string", k == PDT_JINJA_STRING},
      {"mapping", k == PDT_JINJA_DICT},
      {"iterable", items},
      {"sequence", items && k != PDT_JINJA_ITERATOR},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (pdt_jinja_is(name, all[i].name)) {
      *out = all[i].holds;
      return true;
    }
  return false;
}

/* The comparison that a word or sign means; NULL: none. */
static const char *comparison(pdt_jinja_text name) {
  static const char *const words[][2] = {
      {"eq", "=="}, {"equalto", "=="},    {"==", "=="},      {"ne", "!="},
      {"!=", "!="}, {"lt", "<"},          {"lessthan", "<"}, {"<", "<"},
      {"le", "<="}, {"<=", "<="},         {"gt", ">"},       {">", ">"},
      {"ge", ">="}, {"greaterthan", ">"}, {">=", ">="},      {"in", "in"},
  };
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (pdt_jinja_is(name, words[i][0])) return words[i][1];
  return NULL;
}

/* Python's `is`: of small values, the same kind and value. */
static int same_as(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b,
                   bool *out) {
  if ((a->kind == PDT_JINJA_NONE || a->kind == PDT_JINJA_BOOL) ||
      (b->kind == PDT_JINJA_NONE || b->kind == PDT_JINJA_BOOL)) {
    *out = a->kind == b->kind && (a->kind == PDT_JINJA_NONE || a->integer == b->integer);
    return 0;
  }
  return pdt_jinja_fail(r, "the test 'sameas' is supported with true, false and none");
}

/* Is the remainder of a division that? */
static int leaves(pdt_jinja_run *r, const pdt_jinja_value *v, const pdt_jinja_value *by,
                  int64_t remainder, bool *out) {
  const pdt_jinja_value wanted = pdt_jinja_integer(remainder);
  pdt_jinja_value found;
  return pdt_jinja_binary(r, pdt_jinja_text_of("%"), v, by, &found) ||
                 pdt_jinja_equal(r, &found, &wanted, out)
             ? -1
             : 0;
}

int pdt_jinja_test(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                   const pdt_jinja_args *args, bool *out) {
  const char *op = comparison(name);
  bool same = pdt_jinja_is(name, "sameas"), divisible = pdt_jinja_is(name, "divisibleby");
  bool odd = pdt_jinja_is(name, "odd"), even = pdt_jinja_is(name, "even");
  const pdt_jinja_value two = pdt_jinja_integer(2);
  size_t wanted = op || same || divisible;
  if (!wanted && !odd && !even && !test_type(name, self, out))
    return pdt_jinja_fail(r, "the test '%.*s' is not supported", (int)(name.n < 80 ? name.n : 80),
                          name.at);
  if (args->n != wanted || (wanted && args->keywords[0].n))
    return pdt_jinja_fail(r, "the test '%.*s' takes %zu argument by position, found %zu",
                          (int)(name.n < 80 ? name.n : 80), name.at, wanted, args->n);
  if (op) return pdt_jinja_compare(r, pdt_jinja_text_of(op), self, &args->items[0], out);
  if (same) return same_as(r, self, &args->items[0], out);
  if (divisible) return leaves(r, self, &args->items[0], 0, out);
  return odd || even ? leaves(r, self, &two, odd, out) : 0;
}
