/* A template as a tree, in the arena that it was parsed into. */
#ifndef PDT_TEXT_JINJA_TREE_H
#define PDT_TEXT_JINJA_TREE_H

#include "text/jinja/jinja.h"
#include "text/jinja/lexer.h"

typedef enum pdt_jinja_node_kind {
  /* statements */
  PDT_NODE_DATA,       /* name: the text */
  PDT_NODE_OUTPUT,     /* left */
  PDT_NODE_IF,         /* left; body; otherwise: the IF of an elif, or statements */
  PDT_NODE_FOR,        /* targets; left: of what; right: filter; body; otherwise */
  PDT_NODE_SET,        /* targets; left, or body for a block; name: attribute of a namespace */
  PDT_NODE_MACRO,      /* name; targets: parameters, left of each: its default; body */
  PDT_NODE_GENERATION, /* body */
  PDT_NODE_BREAK,
  PDT_NODE_CONTINUE,
  /* expressions */
  PDT_NODE_CONSTANT,
  PDT_NODE_NAME,
  PDT_NODE_LIST,      /* args */
  PDT_NODE_TUPLE,     /* args */
  PDT_NODE_DICT,      /* args: keys; right of each: its value */
  PDT_NODE_ATTRIBUTE, /* left . name */
  PDT_NODE_ITEM,      /* left [right] */
  PDT_NODE_SLICE,     /* left [args: begin : end : step], of which any may be NONE */
  PDT_NODE_CALL,      /* left (args) */
  PDT_NODE_FILTER,    /* left | name(args) */
  PDT_NODE_TEST,      /* left is name(args) */
  PDT_NODE_CHOICE,    /* left if right else third, which may be NULL */
  PDT_NODE_AND,
  PDT_NODE_OR,
  PDT_NODE_NOT,
  PDT_NODE_NEGATIVE,
  PDT_NODE_POSITIVE,
  PDT_NODE_BINARY,  /* left name right: + - * / // % ~ */
  PDT_NODE_COMPARE, /* left, then args: each `name` an operator before its left */
  PDT_NODE_OPERAND, /* name, left: of COMPARE */
} pdt_jinja_node_kind;

typedef struct pdt_jinja_node pdt_jinja_node;
struct pdt_jinja_node {
  pdt_jinja_node_kind kind;
  int line, depth; /* of the tree below it, itself included */
  bool is_elif;    /* of an IF */
  pdt_jinja_text name;
  pdt_jinja_text keyword; /* of an argument; empty: by position */
  pdt_jinja_value constant;
  pdt_jinja_node *left, *right, *third;
  pdt_jinja_node *args, *targets; /* lists */
  pdt_jinja_node *body, *otherwise;
  pdt_jinja_node *next; /* in a list */
};

struct pdt_jinja {
  pdt_jinja_arena arena;
  pdt_jinja_node *body;
  char *name; /* what errors call it */
};

/* What the parser works with. */
typedef struct pdt_jinja_parser {
  const pdt_jinja_token *token; /* the next one */
  pdt_jinja_arena *arena;
  const char *name;
  int nesting, loops; /* how deep it stands in brackets and statements, and in loops */
  pdt_error *err;
} pdt_jinja_parser;

/* A new node of the current line; NULL after an error. */
pdt_jinja_node *pdt_jinja_new(pdt_jinja_parser *p, pdt_jinja_node_kind kind);

/* INPUT, with the line of the next token; returns NULL. */
pdt_jinja_node *pdt_jinja_refuse(const pdt_jinja_parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* INPUT: what was expected, and what the next token is; returns NULL. */
pdt_jinja_node *pdt_jinja_unexpected(const pdt_jinja_parser *p, const char *expected);

/* Is the next token that operator, or that name? take: moves behind it if it is. expect: INPUT if
 * it is not. */
bool pdt_jinja_at_operator(const pdt_jinja_parser *p, const char *text);
bool pdt_jinja_at_name(const pdt_jinja_parser *p, const char *text);
bool pdt_jinja_take_operator(pdt_jinja_parser *p, const char *text);
bool pdt_jinja_take_name(pdt_jinja_parser *p, const char *text);
bool pdt_jinja_expect_operator(pdt_jinja_parser *p, const char *text);

/* Goes one level deeper, INPUT beyond PDT_JINJA_NESTING: false. The caller comes up again by
 * p->nesting--. */
bool pdt_jinja_enter(pdt_jinja_parser *p);

/* The depth of a node is one more than that of a part of it, INPUT beyond PDT_JINJA_DEPTH: false;
 * so too for a part that is NULL because of an error. */
bool pdt_jinja_over(const pdt_jinja_parser *p, pdt_jinja_node *node, const pdt_jinja_node *part);

/* An expression; without `choice`, none with `if` on the outside. NULL after an error. */
pdt_jinja_node *pdt_jinja_expression(pdt_jinja_parser *p, bool choice);

/* The same with commas outside of brackets, which make a tuple. */
pdt_jinja_node *pdt_jinja_expressions(pdt_jinja_parser *p, bool choice);

/* All statements up to one of the names of `ends` [n_ends], at which it stops, or with none up to
 * the end of the template. False after an error. */
bool pdt_jinja_statements(pdt_jinja_parser *p, const char *const *ends, int n_ends,
                          pdt_jinja_node **list, int *depth);

#endif
