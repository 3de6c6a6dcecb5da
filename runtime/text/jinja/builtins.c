/* What is known by name: how arguments come to parameters. */
#include "text/jinja/run.h"

static int misfit(const pdt_jinja_run *r, const char *kind, pdt_jinja_text name, const char *what) {
  return pdt_jinja_fail(r, "the %s '%.*s' %s", kind, (int)(name.n < 80 ? name.n : 80), name.at,
                        what);
}

/* The parameter that an argument is for; -1: there is none. */
static int parameter_of(const pdt_jinja_builtin *b, const pdt_jinja_args *args, size_t i) {
  if (!args->keywords[i].n) return i < PDT_JINJA_PARAMETERS && b->names[i] ? (int)i : -1;
  for (int k = 0; k < PDT_JINJA_PARAMETERS && b->names[k]; k++)
    if (pdt_jinja_is(args->keywords[i], b->names[k])) return k;
  return -1;
}

static int call(pdt_jinja_run *r, const pdt_jinja_builtin *b, const char *kind,
                const pdt_jinja_value *self, const pdt_jinja_args *args, pdt_jinja_value *out) {
  const pdt_jinja_value *bound[PDT_JINJA_PARAMETERS] = {0};
  pdt_jinja_text name = pdt_jinja_text_of(b->name);
  for (size_t i = 0; i < args->n; i++) {
    int k = parameter_of(b, args, i);
    if (k < 0 || bound[k]) return misfit(r, kind, name, "is given an argument that it has not");
    bound[k] = &args->items[i];
  }
  for (int k = 0; k < b->required; k++)
    if (!bound[k]) return misfit(r, kind, name, "is given too few arguments");
  return b->call(r, self, bound, out);
}

int pdt_jinja_call_builtin(pdt_jinja_run *r, const pdt_jinja_builtins *table, pdt_jinja_text name,
                           const pdt_jinja_value *self, const pdt_jinja_args *args,
                           pdt_jinja_value *out) {
  for (size_t i = 0; i < table->n; i++)
    if (pdt_jinja_is(name, table->items[i].name))
      return call(r, &table->items[i], table->kind, self, args, out);
  return misfit(r, table->kind, name, "is not supported");
}
