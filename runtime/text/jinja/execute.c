/* Statements. */
#include "text/jinja/run.h"

/* How a statement ended. */
typedef enum flow { FAILED = -1, WENT_ON, BROKE, CONTINUED } flow;

static flow execute(pdt_jinja_run *r, const pdt_jinja_node *list);

static int write(pdt_jinja_run *r, pdt_jinja_text text) {
  if (pdt_jinja_work(r, text.n)) return -1;
  if (text.n > r->arena.limit - r->out.bytes)
    return pdt_jinja_fail(r, "the template writes more than %zu bytes", r->arena.limit);
  return pdt_buffer_put(&r->out, text.at, text.n, r->err);
}

static int output(pdt_jinja_run *r, const pdt_jinja_node *node) {
  pdt_jinja_value v;
  pdt_jinja_text text;
  return pdt_jinja_evaluate(r, node->left, &v) || pdt_jinja_str(r, &v, &text) || write(r, text) ? -1
                                                                                                : 0;
}

/* ---- names ---- */

/* Names of a body of their own; NULL after an error. */
static pdt_jinja_scope *new_scope(pdt_jinja_run *r, pdt_jinja_scope *parent) {
  pdt_jinja_scope *scope = pdt_jinja_room(r, 1, sizeof *scope);
  if (scope) scope->parent = parent;
  return scope;
}

/* Gives a value to a name, or its items to as many names. */
static int assign(pdt_jinja_run *r, const pdt_jinja_node *targets, const pdt_jinja_value *v) {
  pdt_jinja_list items;
  size_t i = 0;
  if (!targets->next) return pdt_jinja_dict_set(r, &r->scope->names, targets->name, *v);
  if (pdt_jinja_expect_defined(r, v) || pdt_jinja_items(r, v, &items)) return -1;
  for (; targets && i < items.n; targets = targets->next, i++)
    if (pdt_jinja_dict_set(r, &r->scope->names, targets->name, items.items[i])) return -1;
  return !targets && i == items.n
             ? 0
             : pdt_jinja_fail(r, "expected as many values as names, found %zu", items.n);
}

static int assign_attribute(pdt_jinja_run *r, const pdt_jinja_node *node,
                            const pdt_jinja_value *v) {
  pdt_jinja_value of;
  const pdt_jinja_node *target = node->targets;
  if (pdt_jinja_evaluate(r, target, &of)) return -1;
  if (of.kind != PDT_JINJA_NAMESPACE)
    return pdt_jinja_fail(r, "an attribute of '%.*s', which is no namespace, cannot be set",
                          (int)(target->name.n < 80 ? target->name.n : 80), target->name.at);
  if (node->name.at[0] == '_')
    return pdt_jinja_fail(r, "a namespace's attribute cannot begin with '_'");
  return pdt_jinja_dict_set(r, of.dict, node->name, *v);
}

/* What a body writes, as a string. */
static int capture(pdt_jinja_run *r, const pdt_jinja_node *body, pdt_jinja_scope *scope,
                   pdt_jinja_value *out) {
  pdt_buffer outer = r->out;
  pdt_jinja_scope *own = r->scope;
  r->out = (pdt_buffer){0};
  r->scope = scope;
  int rc = execute(r, body) == FAILED;
  const pdt_jinja_text written = {r->out.data, r->out.bytes};
  if (!rc) rc = pdt_jinja_concat(r, written, (pdt_jinja_text){"", 0}, out);
  pdt_buffer_free(&r->out);
  r->out = outer;
  r->scope = own;
  return rc ? -1 : 0;
}

static int set(pdt_jinja_run *r, const pdt_jinja_node *node) {
  pdt_jinja_value v;
  if (node->left) {
    if (pdt_jinja_evaluate(r, node->left, &v)) return -1;
  } else {
    pdt_jinja_scope *scope = new_scope(r, r->scope);
    if (!scope || capture(r, node->body, scope, &v)) return -1;
  }
  r->line = node->line;
  return node->name.n ? assign_attribute(r, node, &v) : assign(r, node->targets, &v);
}

/* ---- macros ---- */

static int define_macro(pdt_jinja_run *r, const pdt_jinja_node *node) {
  pdt_jinja_macro *macro = pdt_jinja_room(r, 1, sizeof *macro);
  if (!macro) return -1;
  *macro = (pdt_jinja_macro){node, r->scope};
  pdt_jinja_value v = {.kind = PDT_JINJA_MACRO, .macro = macro};
  return pdt_jinja_dict_set(r, &r->scope->names, node->name, v);
}

/* The argument of a parameter, by position or name; NULL: not given. */
static const pdt_jinja_value *argument_of(const pdt_jinja_args *args, size_t i,
                                          pdt_jinja_text name) {
  if (i < args->n && !args->keywords[i].n) return &args->items[i];
  for (size_t k = 0; k < args->n; k++)
    if (args->keywords[k].n && pdt_jinja_same(args->keywords[k], name)) return &args->items[k];
  return NULL;
}

/* The parameters as names of the current scope. */
static int bind_parameters(pdt_jinja_run *r, const pdt_jinja_node *macro,
                           const pdt_jinja_args *args) {
  size_t i = 0, used = 0;
  for (const pdt_jinja_node *p = macro->targets; p; p = p->next, i++) {
    const pdt_jinja_value *given = argument_of(args, i, p->name);
    pdt_jinja_value v = given ? *given : pdt_jinja_undefined(p->name);
    used += given != NULL;
    if (!given && p->left && pdt_jinja_evaluate(r, p->left, &v)) return -1;
    if (pdt_jinja_dict_set(r, &r->scope->names, p->name, v)) return -1;
  }
  if (used == args->n) return 0;
  return pdt_jinja_fail(r, "the macro '%.*s' has no use for one of its %zu arguments",
                        (int)(macro->name.n < 80 ? macro->name.n : 80), macro->name.at, args->n);
}

int pdt_jinja_call_macro(pdt_jinja_run *r, const pdt_jinja_macro *macro, const pdt_jinja_args *args,
                         pdt_jinja_value *out) {
  pdt_jinja_scope *own = r->scope, *scope = new_scope(r, macro->scope);
  if (!scope) return -1;
  if (r->calls >= PDT_JINJA_MACROS)
    return pdt_jinja_fail(r, "macros call each other more than %d deep", PDT_JINJA_MACROS);
  r->calls++;
  r->scope = scope;
  int rc = bind_parameters(r, macro->node, args) || capture(r, macro->node->body, scope, out);
  r->scope = own;
  r->calls--;
  return rc ? -1 : 0;
}

/* ---- loops ---- */

/* Keeps the items for which the loop's condition holds. */
static int filter_items(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_list *items) {
  pdt_jinja_scope *own = r->scope;
  pdt_jinja_list *kept = pdt_jinja_list_new(r, items->n);
  if (!kept) return -1;
  kept->n = 0;
  for (size_t i = 0; i < items->n; i++) {
    pdt_jinja_value holds;
    r->scope = new_scope(r, own);
    int rc = !r->scope || assign(r, node->targets, &items->items[i]) ||
             pdt_jinja_evaluate(r, node->right, &holds);
    r->scope = own;
    if (rc) return -1;
    if (pdt_jinja_truth(&holds)) kept->items[kept->n++] = items->items[i];
  }
  *items = *kept;
  return 0;
}

static flow turn(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_loop *loop) {
  pdt_jinja_value v = {.kind = PDT_JINJA_LOOP, .loop = loop};
  pdt_jinja_scope *own = r->scope;
  r->scope = new_scope(r, own);
  flow f = !r->scope || assign(r, node->targets, &loop->items->items[loop->index]) ||
                   pdt_jinja_dict_set(r, &r->scope->names, pdt_jinja_text_of("loop"), v)
               ? FAILED
               : execute(r, node->body);
  r->scope = own;
  return f;
}

static flow for_(pdt_jinja_run *r, const pdt_jinja_node *node) {
  pdt_jinja_value of;
  pdt_jinja_list items;
  if (pdt_jinja_evaluate(r, node->left, &of) || pdt_jinja_items(r, &of, &items) ||
      (node->right && filter_items(r, node, &items)))
    return FAILED;
  pdt_jinja_loop *loop = pdt_jinja_room(r, 1, sizeof *loop);
  pdt_jinja_list *kept = loop ? pdt_jinja_list_new(r, 0) : NULL;
  if (!kept) return FAILED;
  *kept = items;
  loop->items = kept;
  for (; loop->index < items.n; loop->index++) {
    flow f = turn(r, node, loop);
    if (f == FAILED) return f;
    if (f == BROKE) break;
  }
  return items.n == 0 && node->otherwise ? execute(r, node->otherwise) : WENT_ON;
}

/* ---- all of them ---- */

static flow if_(pdt_jinja_run *r, const pdt_jinja_node *node) {
  for (;;) {
    pdt_jinja_value condition;
    if (pdt_jinja_evaluate(r, node->left, &condition)) return FAILED;
    if (pdt_jinja_truth(&condition)) return execute(r, node->body);
    const pdt_jinja_node *otherwise = node->otherwise;
    if (!otherwise) return WENT_ON;
    if (!otherwise->is_elif) return execute(r, otherwise);
    node = otherwise;
  }
}

/* It is a call in jinja2: what it sets is its own. */
static int generation(pdt_jinja_run *r, const pdt_jinja_node *node) {
  pdt_jinja_scope *own = r->scope;
  r->scope = new_scope(r, own);
  int rc = !r->scope || execute(r, node->body) == FAILED;
  r->scope = own;
  return rc ? -1 : 0;
}

static flow statement(pdt_jinja_run *r, const pdt_jinja_node *node) {
  switch (node->kind) {
  case PDT_NODE_DATA:
    return write(r, node->name) ? FAILED : WENT_ON;
  case PDT_NODE_OUTPUT:
    return output(r, node) ? FAILED : WENT_ON;
  case PDT_NODE_IF:
    return if_(r, node);
  case PDT_NODE_FOR:
    return for_(r, node);
  case PDT_NODE_SET:
    return set(r, node) ? FAILED : WENT_ON;
  case PDT_NODE_MACRO:
    return define_macro(r, node) ? FAILED : WENT_ON;
  case PDT_NODE_GENERATION:
    return generation(r, node) ? FAILED : WENT_ON;
  default:
    return node->kind == PDT_NODE_BREAK ? BROKE : CONTINUED;
  }
}

static flow execute(pdt_jinja_run *r, const pdt_jinja_node *list) {
  flow f = WENT_ON;
  for (; list && f == WENT_ON; list = list->next) {
    r->line = list->line;
    f = pdt_jinja_enter_part(r) ? FAILED : statement(r, list);
    r->depth--;
  }
  return f;
}

int pdt_jinja_execute(pdt_jinja_run *r, const pdt_jinja_node *list) {
  return execute(r, list) == FAILED ? -1 : 0;
}
