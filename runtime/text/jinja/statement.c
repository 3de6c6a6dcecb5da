/* The parser of statements. */
#include "text/jinja/tree.h"

static bool end_block(pdt_jinja_parser *p) {
  if (p->token->kind != PDT_TOKEN_BLOCK_END) return pdt_jinja_unexpected(p, "'%}'") != NULL;
  p->token++;
  return true;
}

/* The statements of a body, from the end of the tag before it to one of the names of `ends`. */
static bool body_of(pdt_jinja_parser *p, pdt_jinja_node *of, const char *const *ends, int n_ends,
                    pdt_jinja_node **list) {
  int depth = 0;
  if (!of || !end_block(p) || !pdt_jinja_enter(p) ||
      !pdt_jinja_statements(p, ends, n_ends, list, &depth))
    return false;
  p->nesting--;
  if (depth >= of->depth) of->depth = depth + 1;
  return true;
}

/* ... up to the name of its end, which is taken. */
static bool body_to(pdt_jinja_parser *p, pdt_jinja_node *of, const char *end,
                    pdt_jinja_node **list) {
  return body_of(p, of, &end, 1, list) && pdt_jinja_take_name(p, end);
}

/* Names with commas between them. */
static bool targets(pdt_jinja_parser *p, pdt_jinja_node *of) {
  bool bracket = pdt_jinja_take_operator(p, "(");
  pdt_jinja_node **end = &of->targets;
  do {
    pdt_jinja_node *target = pdt_jinja_new(p, PDT_NODE_NAME);
    if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a name") != NULL;
    if (!target) return false;
    target->name = p->token->text;
    p->token++;
    *end = target;
    end = &target->next;
  } while (pdt_jinja_take_operator(p, ","));
  return !bracket || pdt_jinja_expect_operator(p, ")");
}

/* The condition and the branches of an if or elif: an elif is the only statement of the branch
 * otherwise, so that a long row of them is not deep. */
static pdt_jinja_node *if_(pdt_jinja_parser *p) {
  static const char *const ends[] = {"elif", "else", "endif"};
  pdt_jinja_node *first = pdt_jinja_new(p, PDT_NODE_IF), *node = first;
  while (node) {
    node->left = pdt_jinja_expressions(p, false);
    if (!pdt_jinja_over(p, first, node->left) || !body_of(p, first, ends, 3, &node->body))
      return NULL;
    if (pdt_jinja_take_name(p, "endif")) return first;
    if (pdt_jinja_take_name(p, "else"))
      return body_to(p, first, "endif", &node->otherwise) ? first : NULL;
    p->token++;
    node->otherwise = pdt_jinja_new(p, PDT_NODE_IF);
    node = node->otherwise;
    if (node) node->is_elif = true;
  }
  return NULL;
}

static pdt_jinja_node *for_(pdt_jinja_parser *p) {
  static const char *const ends[] = {"else", "endfor"};
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_FOR);
  if (!node || !targets(p, node)) return NULL;
  if (!pdt_jinja_take_name(p, "in")) return pdt_jinja_unexpected(p, "'in'");
  node->left = pdt_jinja_expressions(p, false);
  if (!pdt_jinja_over(p, node, node->left)) return NULL;
  if (pdt_jinja_take_name(p, "if")) {
    node->right = pdt_jinja_expression(p, true);
    if (!pdt_jinja_over(p, node, node->right)) return NULL;
  }
  if (pdt_jinja_at_name(p, "recursive"))
    return pdt_jinja_refuse(p, "a loop that is 'recursive' is not supported");
  p->loops++;
  if (!body_of(p, node, ends, 2, &node->body)) return NULL;
  p->loops--;
  if (pdt_jinja_take_name(p, "endfor")) return node;
  p->token++;
  return body_to(p, node, "endfor", &node->otherwise) ? node : NULL;
}

/* set a, b = ..., set a.b = ..., or set a and a block. */
static pdt_jinja_node *set(pdt_jinja_parser *p) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_SET);
  if (!node || !targets(p, node)) return NULL;
  if (!node->targets->next && pdt_jinja_take_operator(p, ".")) {
    if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a name behind '.'");
    node->name = p->token->text;
    p->token++;
  }
  if (pdt_jinja_take_operator(p, "=")) {
    node->left = pdt_jinja_expressions(p, true);
    return pdt_jinja_over(p, node, node->left) ? node : NULL;
  }
  if (pdt_jinja_at_operator(p, "|"))
    return pdt_jinja_refuse(p, "a filter of a block is not supported");
  if (node->targets->next) return pdt_jinja_unexpected(p, "'='");
  return body_to(p, node, "endset", &node->body) ? node : NULL;
}

/* Parameters of a macro, some with a default. */
static bool parameters(pdt_jinja_parser *p, pdt_jinja_node *macro) {
  pdt_jinja_node **end = &macro->targets;
  bool defaults = false;
  if (!pdt_jinja_expect_operator(p, "(")) return false;
  while (!pdt_jinja_take_operator(p, ")")) {
    if (macro->targets && !pdt_jinja_expect_operator(p, ",")) return false;
    pdt_jinja_node *parameter = pdt_jinja_new(p, PDT_NODE_NAME);
    if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a parameter") != NULL;
    if (!parameter) return false;
    parameter->name = p->token->text;
    p->token++;
    bool has_default = pdt_jinja_take_operator(p, "=");
    if (has_default) {
      parameter->left = pdt_jinja_expression(p, true);
      if (!pdt_jinja_over(p, macro, parameter->left)) return false;
    } else if (defaults) {
      return pdt_jinja_unexpected(p, "a default") != NULL;
    }
    defaults = has_default;
    *end = parameter;
    end = &parameter->next;
  }
  return true;
}

static pdt_jinja_node *macro(pdt_jinja_parser *p) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_MACRO);
  if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a name");
  if (!node) return NULL;
  int loops = p->loops;
  node->name = p->token->text;
  p->token++;
  p->loops = 0;
  if (!parameters(p, node) || !body_to(p, node, "endmacro", &node->body)) return NULL;
  p->loops = loops;
  return node;
}

static pdt_jinja_node *jump(pdt_jinja_parser *p, pdt_jinja_node_kind kind) {
  if (p->loops == 0) return pdt_jinja_refuse(p, "break or continue outside of a loop");
  return pdt_jinja_new(p, kind);
}

static pdt_jinja_node *generation(pdt_jinja_parser *p) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_GENERATION);
  int loops = p->loops;
  p->loops = 0; /* it is a call: no jump leaves it */
  if (!body_to(p, node, "endgeneration", node ? &node->body : NULL)) return NULL;
  p->loops = loops;
  return node;
}

static pdt_jinja_node *statement(pdt_jinja_parser *p) {
  if (p->token->kind != PDT_TOKEN_NAME) return pdt_jinja_unexpected(p, "a statement");
  if (pdt_jinja_take_name(p, "if")) return if_(p);
  if (pdt_jinja_take_name(p, "for")) return for_(p);
  if (pdt_jinja_take_name(p, "set")) return set(p);
  if (pdt_jinja_take_name(p, "macro")) return macro(p);
  if (pdt_jinja_take_name(p, "generation")) return generation(p);
  if (pdt_jinja_take_name(p, "break")) return jump(p, PDT_NODE_BREAK);
  if (pdt_jinja_take_name(p, "continue")) return jump(p, PDT_NODE_CONTINUE);
  return pdt_jinja_refuse(p, "the statement '%.*s' is not supported, or not here",
                          (int)(p->token->text.n < 40 ? p->token->text.n : 40), p->token->text.at);
}

static pdt_jinja_node *data(pdt_jinja_parser *p) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_DATA);
  if (node) node->name = p->token->text;
  p->token++;
  return node;
}

static pdt_jinja_node *output(pdt_jinja_parser *p) {
  pdt_jinja_node *node = pdt_jinja_new(p, PDT_NODE_OUTPUT);
  p->token++;
  if (!node) return NULL;
  node->left = pdt_jinja_expressions(p, true);
  if (!pdt_jinja_over(p, node, node->left)) return NULL;
  if (p->token->kind != PDT_TOKEN_VARIABLE_END) return pdt_jinja_unexpected(p, "'}}'");
  p->token++;
  return node;
}

/* Is the next statement one of those that end the list? */
static bool at_end(const pdt_jinja_parser *p, const char *const *ends, int n_ends) {
  for (int i = 0; i < n_ends; i++)
    if (pdt_jinja_at_name(p, ends[i])) return true;
  return false;
}

bool pdt_jinja_statements(pdt_jinja_parser *p, const char *const *ends, int n_ends,
                          pdt_jinja_node **list, int *depth) {
  for (*list = NULL;;) {
    pdt_jinja_node *node;
    if (p->token->kind == PDT_TOKEN_END) {
      if (n_ends == 0) return true;
      return pdt_jinja_refuse(p, "'%s' is missing", ends[n_ends - 1]) != NULL;
    }
    if (p->token->kind == PDT_TOKEN_DATA) {
      node = data(p);
    } else if (p->token->kind == PDT_TOKEN_VARIABLE_BEGIN) {
      node = output(p);
    } else {
      p->token++;
      if (at_end(p, ends, n_ends)) return true;
      node = statement(p);
      if (node && !end_block(p)) return false;
    }
    if (!node) return false;
    if (node->depth > *depth) *depth = node->depth;
    *list = node;
    list = &node->next;
  }
}
