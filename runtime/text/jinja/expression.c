/* The parser of expressions: a function for each level of binding, from the loosest to the closest.
 * Each returns NULL after an error. */
#include "text/jinja/tree.h"

static pdt_jinja_node *unary(pdt_jinja_parser *p, bool filters);

/* A node of one to three parts, of the line of the first. */
static pdt_jinja_node *join(pdt_jinja_parser *p, pdt_jinja_node_kind kind, pdt_jinja_node *left,
                            pdt_jinja_node *right) {
  pdt_jinja_node *node = left && right ? pdt_jinja_new(p, kind) : NULL;
  if (!node) return NULL;
  node->line = left->line;
  node->left = left;
  node->right = right == left ? NULL : right;
  return pdt_jinja_over(p, node, left) && pdt_jinja_over(p, node, right) ? node : NULL;
}

static pdt_jinja_node *wrap(pdt_jinja_parser *p, pdt_jinja_node_kind kind, pdt_jinja_node *part) {
  return join(p, kind, part, part);
}

/* Puts a node behind the last one of a list that `over` holds. */
static bool append(const pdt_jinja_parser *p, pdt_jinja_node *over, pdt_jinja_node ***end,
                   pdt_jinja_node *item) {
  if (!pdt_jinja_over(p, over, item)) return false;
  **end = item;
  *end = &item->next;
  return true;
}

/* ---- lists, calls ---- */

/* Items up to a closing bracket, with commas between them; a dict's with their values. */
static pdt_jinja_node *items(pdt_jinja_parser *p, pdt_jinja_node_kind kind, const char *closing) {
  pdt_jinja_node *list = pdt_jinja_new(p, kind), **end = list ? &list->args : NULL;
  while (list && !pdt_jinja_take_operator(p, closing)) {
    if (list->args && !pdt_jinja_expect_operator(p, ",")) return NULL;
    if (list->args && pdt_jinja_take_operator(p, closing)) break;
    pdt_jinja_node *item = pdt_jinja_expression(p, true);
    if (kind == PDT_NODE_DICT && item) {
      if (!pdt_jinja_expect_operator(p, ":")) return NULL;
      item = join(p, PDT_NODE_OPERAND, item, pdt_jinja_expression(p, true));
    }
    if (!append(p, list, &end, item)) return NULL;
  }
  return list;
}

/* An argument, by position or by name. */
static pdt_jinja_node *argument(pdt_jinja_parser *p) {
  pdt_jinja_text keyword = {"", 0};
  if (pdt_jinja_at_operator(p, "*") || pdt_jinja_at_operator(p, "**"))
    return pdt_jinja_refuse(p, "'*' before an argument is not supported");
  if (p->token->kind == PDT_TOKEN_NAME && p->token[1].kind == PDT_TOKEN_OPERATOR &&
      pdt_jinja_is(p->token[1].text, "=")) {
    keyword = p->token->text;
    p->token += 2;
  }
  pdt_jinja_node *value = pdt_jinja_expression(p, true);
  if (value) value->keyword = keyword;
  return value;
}

/* Arguments up to the closing bracket, for a node of a call, a filter or a test. */
static pdt_jinja_node *arguments(pdt_jinja_parser *p, pdt_jinja_node *call) {
  pdt_jinja_node **end = call ? &call->args : NULL;
  bool named = false;
  while (call && !pdt_jinja_take_operator(p, ")")) {
    if (call->args && !pdt_jinja_expect_operator(p, ",")) return NULL;
    if (call->args && pdt_jinja_take_operator(p, ")")) break;
    pdt_jinja_node *value = argument(p);
    if (!append(p, call, &end, value)) return NULL;
    if (named && !value->keyword.n)
      return pdt_jinja_refuse(p, "an argument without a name stands behind one with a name");
    named = value->keyword.n > 0;
  }
  return call;
}

/* ---- primaries ---- */

static pdt_jinja_node *constant(pdt_jinja_parser *p, pdt_jinja_value value) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_CONSTANT);
  if (node) node->constant = value;
  p->token++;
  return node;
}

static pdt_jinja_node *name(pdt_jinja_parser *p) {
  if (pdt_jinja_at_name(p, "true") || pdt_jinja_at_name(p, "True"))
    return constant(p, pdt_jinja_bool(true));
  if (pdt_jinja_at_name(p, "false") || pdt_jinja_at_name(p, "False"))
    return constant(p, pdt_jinja_bool(false));
  if (pdt_jinja_at_name(p, "none") || pdt_jinja_at_name(p, "None"))
    return constant(p, pdt_jinja_none());
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_NAME);
  if (node) node->name = p->token->text;
  p->token++;
  return node;
}

/* Strings beside each other are one. */
static pdt_jinja_node *string(pdt_jinja_parser *p) {
  const pdt_jinja_token *last = p->token;
  size_t n = 0;
  for (; last->kind == PDT_TOKEN_STRING; last++) n += last->text.n;
  if (last == p->token + 1) return constant(p, pdt_jinja_string(p->token->text.at, n));
  char *text = pdt_jinja_arena_new(p->arena, n + 1);
  pdt_jinja_node *node = text ? pdt_jinja_new(p, PDT_NODE_CONSTANT) : NULL;
  if (!node) {
    pdt_fail(p->err, PDT_ERROR_MEMORY, "%s: no memory", p->name);
    return NULL;
  }
  node->constant = pdt_jinja_string(text, n);
  for (; p->token < last; p->token++) {
    if (p->token->text.n) memcpy(text, p->token->text.at, p->token->text.n);
    text += p->token->text.n;
  }
  return node;
}

/* What stands in parentheses: an expression, or a tuple. */
static pdt_jinja_node *parentheses(pdt_jinja_parser *p) {
  p->token++;
  if (pdt_jinja_at_operator(p, ")")) return items(p, PDT_NODE_TUPLE, ")");
  pdt_jinja_node *inner = pdt_jinja_expressions(p, true);
  return inner && pdt_jinja_expect_operator(p, ")") ? inner : NULL;
}

static pdt_jinja_node *bracketed(pdt_jinja_parser *p) {
  if (pdt_jinja_at_operator(p, "(")) return parentheses(p);
  if (pdt_jinja_take_operator(p, "[")) return items(p, PDT_NODE_LIST, "]");
  if (pdt_jinja_take_operator(p, "{")) return items(p, PDT_NODE_DICT, "}");
  return pdt_jinja_unexpected(p, "an expression");
}

static pdt_jinja_node *primary(pdt_jinja_parser *p) {
  switch (p->token->kind) {
  case PDT_TOKEN_NAME:
    return name(p);
  case PDT_TOKEN_STRING:
    return string(p);
  case PDT_TOKEN_INTEGER:
    return constant(p, pdt_jinja_integer(p->token->integer));
  case PDT_TOKEN_REAL:
    return constant(p, pdt_jinja_real(p->token->real));
  default:
    return bracketed(p);
  }
}

/* ---- behind a primary ---- */

/* A bound of a slice that may be left out. */
static pdt_jinja_node *bound(pdt_jinja_parser *p) {
  if (pdt_jinja_at_operator(p, ":") || pdt_jinja_at_operator(p, "]")) {
    pdt_jinja_node *none = pdt_jinja_new(p, PDT_NODE_CONSTANT);
    if (none) none->constant = pdt_jinja_none();
    return none;
  }
  return pdt_jinja_expression(p, true);
}

/* [index], or [begin : end : step], behind the opening bracket. */
static pdt_jinja_node *subscript(pdt_jinja_parser *p, pdt_jinja_node *of) {
  pdt_jinja_node *first = bound(p);
  if (!first) return NULL;
  if (!pdt_jinja_at_operator(p, ":")) {
    if (pdt_jinja_at_operator(p, ","))
      return pdt_jinja_refuse(p, "a subscript of several is not supported");
    return pdt_jinja_expect_operator(p, "]") ? join(p, PDT_NODE_ITEM, of, first) : NULL;
  }
  pdt_jinja_node *slice = wrap(p, PDT_NODE_SLICE, of), **end = slice ? &slice->args : NULL;
  if (!slice || !append(p, slice, &end, first)) return NULL;
  while (pdt_jinja_take_operator(p, ":"))
    if (!append(p, slice, &end, bound(p))) return NULL;
  return pdt_jinja_expect_operator(p, "]") ? slice : NULL;
}

static pdt_jinja_node *attribute(pdt_jinja_parser *p, pdt_jinja_node *of) {
  if (p->token->kind == PDT_TOKEN_INTEGER)
    return join(p, PDT_NODE_ITEM, of, constant(p, pdt_jinja_integer(p->token->integer)));
  if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a name behind '.'");
  pdt_jinja_node *node = wrap(p, PDT_NODE_ATTRIBUTE, of);
  if (node) node->name = p->token->text;
  p->token++;
  return node;
}

/* Attributes, subscripts and calls. */
static pdt_jinja_node *postfix(pdt_jinja_parser *p, pdt_jinja_node *node) {
  while (node)
    if (pdt_jinja_take_operator(p, "."))
      node = attribute(p, node);
    else if (pdt_jinja_take_operator(p, "["))
      node = subscript(p, node);
    else if (pdt_jinja_take_operator(p, "("))
      node = arguments(p, wrap(p, PDT_NODE_CALL, node));
    else
      break;
  return node;
}

static pdt_jinja_node *named(pdt_jinja_parser *p, pdt_jinja_node_kind kind, pdt_jinja_node *of) {
  pdt_jinja_node *node = wrap(p, kind, of);
  if (!node) return NULL;
  if (p->token->kind != PDT_TOKEN_NAME)
    return pdt_jinja_unexpected(p, kind == PDT_NODE_FILTER ? "a filter" : "a test");
  node->line = p->token->line;
  node->name = p->token->text;
  p->token++;
  return node;
}

/* May the next token begin the argument that a test has without parentheses? */
static bool begins_argument(const pdt_jinja_parser *p) {
  static const char *const follow[] = {"else", "or", "and"};
  if (p->token->kind == PDT_TOKEN_OPERATOR)
    return pdt_jinja_at_operator(p, "[") || pdt_jinja_at_operator(p, "{");
  for (size_t i = 0; i < sizeof follow / sizeof *follow; i++)
    if (pdt_jinja_at_name(p, follow[i])) return false;
  return p->token->kind == PDT_TOKEN_NAME || p->token->kind == PDT_TOKEN_STRING ||
         p->token->kind == PDT_TOKEN_INTEGER || p->token->kind == PDT_TOKEN_REAL;
}

static pdt_jinja_node *test(pdt_jinja_parser *p, pdt_jinja_node *of) {
  bool negated = pdt_jinja_take_name(p, "not");
  pdt_jinja_node *node = named(p, PDT_NODE_TEST, of);
  if (node && pdt_jinja_take_operator(p, "(")) {
    node = arguments(p, node);
  } else if (node && pdt_jinja_at_name(p, "is")) {
    return pdt_jinja_refuse(p, "a test of a test");
  } else if (node && begins_argument(p)) {
    node->args = postfix(p, primary(p));
    if (!pdt_jinja_over(p, node, node->args)) return NULL;
  }
  return node && negated ? wrap(p, PDT_NODE_NOT, node) : node;
}

/* Filters and tests. */
static pdt_jinja_node *filtered(pdt_jinja_parser *p, pdt_jinja_node *node) {
  while (node)
    if (pdt_jinja_take_operator(p, "|")) {
      node = named(p, PDT_NODE_FILTER, node);
      if (node && pdt_jinja_take_operator(p, "(")) node = arguments(p, node);
    } else if (pdt_jinja_take_name(p, "is")) {
      node = test(p, node);
    } else if (pdt_jinja_take_operator(p, "(")) {
      node = arguments(p, wrap(p, PDT_NODE_CALL, node));
    } else {
      break;
    }
  return node;
}

/* ---- operators ---- */

static pdt_jinja_node *with_sign(pdt_jinja_parser *p) {
  bool negative = pdt_jinja_take_operator(p, "-");
  if (!negative && !pdt_jinja_take_operator(p, "+")) return primary(p);
  if (!pdt_jinja_enter(p)) return NULL;
  pdt_jinja_node *node = wrap(p, negative ? PDT_NODE_NEGATIVE : PDT_NODE_POSITIVE, unary(p, false));
  p->nesting--;
  return node;
}

static pdt_jinja_node *unary(pdt_jinja_parser *p, bool filters) {
  pdt_jinja_node *node = postfix(p, with_sign(p));
  return filters ? filtered(p, node) : node;
}

/* Which of the operators of a level is next; NULL: none. */
static const char *which(const pdt_jinja_parser *p, const char *const *operators) {
  for (; *operators; operators++)
    if (pdt_jinja_at_operator(p, *operators)) return *operators;
  return NULL;
}

/* Operators of two sides, from the loosest level to the closest, each from left to right. */
static pdt_jinja_node *binary(pdt_jinja_parser *p, int level) {
  static const char *const levels[][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
  enum { LEVELS = sizeof levels / sizeof *levels };
  pdt_jinja_node *left = level == LEVELS ? unary(p, true) : binary(p, level + 1);
  if (left && level == LEVELS && pdt_jinja_at_operator(p, "**"))
    return pdt_jinja_refuse(p, "the operator '**' is not supported");
  while (left && level < LEVELS && which(p, levels[level])) {
    pdt_jinja_text op = p->token->text;
    p->token++;
    left = join(p, PDT_NODE_BINARY, left, binary(p, level + 1));
    if (left) left->name = op;
  }
  return left;
}

/* Takes an operator of a comparison: false when there is none. */
static bool take_comparison(pdt_jinja_parser *p, pdt_jinja_text *op) {
  static const char *const all[] = {"==", "!=", "<", ">", "<=", ">=", NULL};
  *op = p->token->text;
  if (which(p, all) || pdt_jinja_at_name(p, "in")) {
    p->token++;
    return true;
  }
  if (!pdt_jinja_at_name(p, "not") || p->token[1].kind != PDT_TOKEN_NAME ||
      !pdt_jinja_is(p->token[1].text, "in"))
    return false;
  *op = pdt_jinja_text_of("not in");
  p->token += 2;
  return true;
}

static pdt_jinja_node *comparison(pdt_jinja_parser *p) {
  pdt_jinja_text op;
  pdt_jinja_node *left = binary(p, 0), *node = NULL, **end = NULL;
  while (left && take_comparison(p, &op)) {
    pdt_jinja_node *operand = wrap(p, PDT_NODE_OPERAND, binary(p, 0));
    if (!node) node = wrap(p, PDT_NODE_COMPARE, left);
    if (!node || !operand) return NULL;
    if (!end) end = &node->args;
    operand->name = op;
    if (!append(p, node, &end, operand)) return NULL;
  }
  return node ? node : left;
}

static pdt_jinja_node *negation(pdt_jinja_parser *p) {
  if (!pdt_jinja_take_name(p, "not")) return comparison(p);
  if (!pdt_jinja_enter(p)) return NULL;
  pdt_jinja_node *node = wrap(p, PDT_NODE_NOT, negation(p));
  p->nesting--;
  return node;
}

static pdt_jinja_node *conjunction(pdt_jinja_parser *p) {
  pdt_jinja_node *left = negation(p);
  while (left && pdt_jinja_take_name(p, "and")) left = join(p, PDT_NODE_AND, left, negation(p));
  return left;
}

static pdt_jinja_node *disjunction(pdt_jinja_parser *p) {
  pdt_jinja_node *left = conjunction(p);
  while (left && pdt_jinja_take_name(p, "or")) left = join(p, PDT_NODE_OR, left, conjunction(p));
  return left;
}

static pdt_jinja_node *choices(pdt_jinja_parser *p) {
  pdt_jinja_node *node = disjunction(p);
  while (node && pdt_jinja_take_name(p, "if")) {
    node = join(p, PDT_NODE_CHOICE, node, disjunction(p));
    if (!node || !pdt_jinja_take_name(p, "else")) continue;
    node->third = pdt_jinja_expression(p, true);
    if (!pdt_jinja_over(p, node, node->third)) return NULL;
  }
  return node;
}

pdt_jinja_node *pdt_jinja_expression(pdt_jinja_parser *p, bool choice) {
  if (!pdt_jinja_enter(p)) return NULL;
  pdt_jinja_node *node = choice ? choices(p) : disjunction(p);
  p->nesting--;
  return node;
}

/* Does the tuple end here, behind a comma? */
static bool ends(const pdt_jinja_parser *p) {
  return p->token->kind == PDT_TOKEN_VARIABLE_END || p->token->kind == PDT_TOKEN_BLOCK_END ||
         pdt_jinja_at_operator(p, ")");
}

pdt_jinja_node *pdt_jinja_expressions(pdt_jinja_parser *p, bool choice) {
  pdt_jinja_node *first = pdt_jinja_expression(p, choice);
  if (!first || !pdt_jinja_at_operator(p, ",")) return first;
  pdt_jinja_node *tuple = pdt_jinja_new(p, PDT_NODE_TUPLE), **end = tuple ? &tuple->args : NULL;
  if (!tuple || !append(p, tuple, &end, first)) return NULL;
  while (pdt_jinja_take_operator(p, ",") && !ends(p))
    if (!append(p, tuple, &end, pdt_jinja_expression(p, choice))) return NULL;
  return tuple;
}
