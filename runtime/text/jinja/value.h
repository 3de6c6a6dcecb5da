/* What a template computes with, in the arena of a rendering. */
#ifndef PDT_TEXT_JINJA_VALUE_H
#define PDT_TEXT_JINJA_VALUE_H

#include <stdint.h>
#include <string.h>

#include "base/types.h"

typedef struct pdt_jinja_text {
  const char *at; /* UTF-8; not zero-terminated */
  size_t n;       /* bytes */
} pdt_jinja_text;

typedef enum pdt_jinja_kind {
  PDT_JINJA_UNDEFINED, /* with the name of what is not there */
  PDT_JINJA_NONE,
  PDT_JINJA_BOOL,
  PDT_JINJA_INTEGER,
  PDT_JINJA_REAL,
  PDT_JINJA_STRING,
  PDT_JINJA_LIST,
  PDT_JINJA_TUPLE,
  PDT_JINJA_ITERATOR, /* a list that can be gone through once, as Python's generators */
  PDT_JINJA_DICT,
  PDT_JINJA_NAMESPACE,
  PDT_JINJA_LOOP,
  PDT_JINJA_MACRO,
  PDT_JINJA_FUNCTION, /* by its name */
} pdt_jinja_kind;

typedef struct pdt_jinja_list pdt_jinja_list;
typedef struct pdt_jinja_dict pdt_jinja_dict;
typedef struct pdt_jinja_loop pdt_jinja_loop;
typedef struct pdt_jinja_macro pdt_jinja_macro;
struct pdt_jinja_node;
struct pdt_jinja_scope;

typedef struct pdt_jinja_value {
  pdt_jinja_kind kind;
  union {
    int64_t integer; /* BOOL, too: 0 or 1 */
    double real;
    pdt_jinja_text text; /* STRING; UNDEFINED and FUNCTION: the name */
    pdt_jinja_list *list;
    pdt_jinja_dict *dict; /* NAMESPACE, too */
    pdt_jinja_loop *loop;
    const pdt_jinja_macro *macro;
  };
} pdt_jinja_value;

struct pdt_jinja_list {
  pdt_jinja_value *items; /* [n] */
  size_t n;
};

/* Keys are strings, in the order in which they came. */
typedef struct pdt_jinja_pair {
  pdt_jinja_text key;
  pdt_jinja_value value;
} pdt_jinja_pair;

struct pdt_jinja_dict {
  pdt_jinja_pair *pairs; /* [n] */
  size_t n, room;
};

/* Where a loop stands. */
struct pdt_jinja_loop {
  const pdt_jinja_list *items;
  size_t index; /* of the item in work */
};

/* A macro and the names that it can see. */
struct pdt_jinja_macro {
  const struct pdt_jinja_node *node;
  struct pdt_jinja_scope *scope;
};

static inline bool pdt_jinja_same(pdt_jinja_text a, pdt_jinja_text b) {
  return a.n == b.n && (a.n == 0 || memcmp(a.at, b.at, a.n) == 0);
}

static inline pdt_jinja_text pdt_jinja_text_of(const char *text) {
  return (pdt_jinja_text){text, strlen(text)};
}

static inline bool pdt_jinja_is(pdt_jinja_text a, const char *text) {
  return pdt_jinja_same(a, pdt_jinja_text_of(text));
}

static inline pdt_jinja_value pdt_jinja_none(void) {
  return (pdt_jinja_value){.kind = PDT_JINJA_NONE};
}

static inline pdt_jinja_value pdt_jinja_bool(bool truth) {
  return (pdt_jinja_value){.kind = PDT_JINJA_BOOL, .integer = truth};
}

static inline pdt_jinja_value pdt_jinja_integer(int64_t integer) {
  return (pdt_jinja_value){.kind = PDT_JINJA_INTEGER, .integer = integer};
}

static inline pdt_jinja_value pdt_jinja_real(double real) {
  return (pdt_jinja_value){.kind = PDT_JINJA_REAL, .real = real};
}

static inline pdt_jinja_value pdt_jinja_string(const char *at, size_t n) {
  return (pdt_jinja_value){.kind = PDT_JINJA_STRING, .text = {at, n}};
}

static inline pdt_jinja_value pdt_jinja_undefined(pdt_jinja_text name) {
  return (pdt_jinja_value){.kind = PDT_JINJA_UNDEFINED, .text = name};
}

/* Is it a list, a tuple or an iterator? */
static inline bool pdt_jinja_has_items(const pdt_jinja_value *v) {
  return v->kind == PDT_JINJA_LIST || v->kind == PDT_JINJA_TUPLE || v->kind == PDT_JINJA_ITERATOR;
}

/* BOOL or INTEGER: Python's bool is an int. */
static inline bool pdt_jinja_is_integer(const pdt_jinja_value *v) {
  return v->kind == PDT_JINJA_BOOL || v->kind == PDT_JINJA_INTEGER;
}

static inline bool pdt_jinja_is_number(const pdt_jinja_value *v) {
  return pdt_jinja_is_integer(v) || v->kind == PDT_JINJA_REAL;
}

static inline double pdt_jinja_number(const pdt_jinja_value *v) {
  return v->kind == PDT_JINJA_REAL ? v->real : (double)v->integer;
}

/* "string", "list", ... for messages. */
const char *pdt_jinja_kind_name(const pdt_jinja_value *v);

/* What Python takes for true. */
bool pdt_jinja_truth(const pdt_jinja_value *v);

/* A pair's value; NULL: no such key. */
pdt_jinja_value *pdt_jinja_dict_find(const pdt_jinja_dict *d, pdt_jinja_text key);

/* Python's repr of a double, as in 0.1, 2.0, 1e+16: the shortest that reads back as the same. */
enum { PDT_JINJA_REAL_BYTES = 40 };
void pdt_jinja_real_text(double value, char text[PDT_JINJA_REAL_BYTES]);

/* White space as Python's str.strip() has it. */
bool pdt_jinja_is_space(int32_t c);

#endif
