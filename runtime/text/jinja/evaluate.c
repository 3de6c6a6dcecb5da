/* Expressions. */
#include "text/jinja/run.h"

static int name(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  for (const pdt_jinja_scope *s = r->scope; s; s = s->parent) {
    const pdt_jinja_value *v = pdt_jinja_dict_find(&s->names, node->name);
    if (pdt_jinja_work(r, s->names.n * sizeof *s->names.pairs)) return -1;
    if (!v) continue;
    *out = *v;
    return 0;
  }
  *out = pdt_jinja_undefined(node->name);
  if (pdt_jinja_is_function(r, node->name)) out->kind = PDT_JINJA_FUNCTION;
  return 0;
}

static size_t count(const pdt_jinja_node *list) {
  size_t n = 0;
  for (; list; list = list->next) n++;
  return n;
}

static int list(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_list *items = pdt_jinja_list_new(r, count(node->args));
  if (!items) return -1;
  pdt_jinja_value *item = items->items;
  for (const pdt_jinja_node *arg = node->args; arg; arg = arg->next)
    if (pdt_jinja_evaluate(r, arg, item++)) return -1;
  out->kind = node->kind == PDT_NODE_LIST ? PDT_JINJA_LIST : PDT_JINJA_TUPLE;
  out->list = items;
  return 0;
}

static int dict(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value key, value;
  pdt_jinja_dict *d = pdt_jinja_room(r, 1, sizeof *d);
  if (!d) return -1;
  for (const pdt_jinja_node *pair = node->args; pair; pair = pair->next)
    if (pdt_jinja_evaluate(r, pair->left, &key) || pdt_jinja_evaluate(r, pair->right, &value) ||
        pdt_jinja_expect_string(r, &key, "a key of a dict", &key.text) ||
        pdt_jinja_dict_set(r, d, key.text, value))
      return -1;
  *out = (pdt_jinja_value){.kind = PDT_JINJA_DICT, .dict = d};
  return 0;
}

static int slice(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value of, bounds[3] = {pdt_jinja_none(), pdt_jinja_none(), pdt_jinja_none()};
  int i = 0;
  if (pdt_jinja_evaluate(r, node->left, &of)) return -1;
  for (const pdt_jinja_node *arg = node->args; arg && i < 3; arg = arg->next)
    if (pdt_jinja_evaluate(r, arg, &bounds[i++])) return -1;
  return pdt_jinja_slice(r, &of, bounds, out);
}

/* ---- calls ---- */

static int arguments(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_args *args) {
  args->n = count(node->args);
  args->items = pdt_jinja_room(r, args->n, sizeof *args->items);
  args->keywords = args->items ? pdt_jinja_room(r, args->n, sizeof *args->keywords) : NULL;
  if (!args->keywords) return -1;
  size_t i = 0;
  for (const pdt_jinja_node *arg = node->args; arg; arg = arg->next, i++) {
    args->keywords[i] = arg->keyword;
    if (pdt_jinja_evaluate(r, arg, &args->items[i])) return -1;
  }
  return 0;
}

static int call_value(pdt_jinja_run *r, const pdt_jinja_value *f, const pdt_jinja_args *args,
                      pdt_jinja_value *out) {
  if (f->kind == PDT_JINJA_FUNCTION) return pdt_jinja_function(r, f->text, args, out);
  if (f->kind == PDT_JINJA_MACRO) return pdt_jinja_call_macro(r, f->macro, args, out);
  if (pdt_jinja_expect_defined(r, f)) return -1;
  return pdt_jinja_fail(r, "a value of type %s cannot be called", pdt_jinja_kind_name(f));
}

/* of.name(...): a method, or a macro in a namespace. */
static int call_attribute(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value of, f;
  pdt_jinja_args args;
  const pdt_jinja_node *callee = node->left;
  if (pdt_jinja_evaluate(r, callee->left, &of) || arguments(r, node, &args)) return -1;
  r->line = node->line;
  if (of.kind == PDT_JINJA_STRING || of.kind == PDT_JINJA_DICT)
    return pdt_jinja_method(r, callee->name, &of, &args, out);
  return pdt_jinja_attribute(r, &of, callee->name, &f) || call_value(r, &f, &args, out) ? -1 : 0;
}

static int call(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value f;
  pdt_jinja_args args;
  if (node->left->kind == PDT_NODE_ATTRIBUTE) return call_attribute(r, node, out);
  if (pdt_jinja_evaluate(r, node->left, &f) || arguments(r, node, &args)) return -1;
  r->line = node->line;
  return call_value(r, &f, &args, out);
}

static int filter_or_test(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value self;
  pdt_jinja_args args;
  bool truth;
  if (pdt_jinja_evaluate(r, node->left, &self) || arguments(r, node, &args)) return -1;
  r->line = node->line;
  if (node->kind == PDT_NODE_FILTER) return pdt_jinja_filter(r, node->name, &self, &args, out);
  if (pdt_jinja_test(r, node->name, &self, &args, &truth)) return -1;
  *out = pdt_jinja_bool(truth);
  return 0;
}

/* ---- choices ---- */

static int choice(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value condition;
  if (pdt_jinja_evaluate(r, node->right, &condition)) return -1;
  if (pdt_jinja_truth(&condition)) return pdt_jinja_evaluate(r, node->left, out);
  if (node->third) return pdt_jinja_evaluate(r, node->third, out);
  *out = pdt_jinja_undefined(pdt_jinja_text_of("the value of an 'if' without 'else'"));
  return 0;
}

/* and, or: the value of the side that decides. */
static int both(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  if (pdt_jinja_evaluate(r, node->left, out)) return -1;
  if (pdt_jinja_truth(out) == (node->kind == PDT_NODE_OR)) return 0;
  return pdt_jinja_evaluate(r, node->right, out);
}

/* a < b < c: b is evaluated once, c only where a < b. */
static int comparison(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value left, right;
  bool holds = true;
  if (pdt_jinja_evaluate(r, node->left, &left)) return -1;
  for (const pdt_jinja_node *operand = node->args; operand && holds; operand = operand->next) {
    if (pdt_jinja_evaluate(r, operand->left, &right)) return -1;
    r->line = operand->line;
    if (pdt_jinja_compare(r, operand->name, &left, &right, &holds)) return -1;
    left = right;
  }
  *out = pdt_jinja_bool(holds);
  return 0;
}

/* What works on the value of one side, or of two. */
static int operation(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  pdt_jinja_value left, right;
  if (pdt_jinja_evaluate(r, node->left, &left) ||
      (node->right && pdt_jinja_evaluate(r, node->right, &right)))
    return -1;
  r->line = node->line;
  switch (node->kind) {
  case PDT_NODE_ATTRIBUTE:
    return pdt_jinja_attribute(r, &left, node->name, out);
  case PDT_NODE_ITEM:
    return pdt_jinja_item(r, &left, &right, out);
  case PDT_NODE_NOT:
    *out = pdt_jinja_bool(!pdt_jinja_truth(&left));
    return 0;
  case PDT_NODE_NEGATIVE:
    return pdt_jinja_negative(r, &left, out);
  case PDT_NODE_POSITIVE:
    *out = left;
    if (left.kind == PDT_JINJA_BOOL) out->kind = PDT_JINJA_INTEGER;
    return pdt_jinja_is_number(&left) ? 0 : pdt_jinja_negative(r, &left, out); /* which fails */
  default:
    return pdt_jinja_binary(r, node->name, &left, &right, out);
  }
}

static int evaluate(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  switch (node->kind) {
  case PDT_NODE_CONSTANT:
    *out = node->constant;
    return 0;
  case PDT_NODE_NAME:
    return name(r, node, out);
  case PDT_NODE_LIST:
  case PDT_NODE_TUPLE:
    return list(r, node, out);
  case PDT_NODE_DICT:
    return dict(r, node, out);
  case PDT_NODE_SLICE:
    return slice(r, node, out);
  case PDT_NODE_CALL:
    return call(r, node, out);
  case PDT_NODE_FILTER:
  case PDT_NODE_TEST:
    return filter_or_test(r, node, out);
  case PDT_NODE_CHOICE:
    return choice(r, node, out);
  case PDT_NODE_AND:
  case PDT_NODE_OR:
    return both(r, node, out);
  case PDT_NODE_COMPARE:
    return comparison(r, node, out);
  default:
    return operation(r, node, out);
  }
}

int pdt_jinja_evaluate(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out) {
  r->line = node->line;
  int rc = pdt_jinja_enter_part(r) || evaluate(r, node, out);
  r->depth--;
  return rc ? -1 : 0;
}
