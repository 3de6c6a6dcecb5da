/* A rendering under way. Functions return 0, or -1 after an error, whose line is that of the node
 * in work; values live in the rendering's arena. */
#ifndef PDT_TEXT_JINJA_RUN_H
#define PDT_TEXT_JINJA_RUN_H

#include "base/buffer.h"
#include "text/jinja/tree.h"

/* Names with their values; what is not found here is looked for in the parent. */
typedef struct pdt_jinja_scope pdt_jinja_scope;
struct pdt_jinja_scope {
  pdt_jinja_scope *parent;
  pdt_jinja_dict names;
};

typedef struct pdt_jinja_run {
  const char *name; /* of the template, in errors */
  pdt_jinja_arena arena;
  pdt_jinja_scope *scope;
  pdt_buffer out;       /* what is written goes there */
  const struct tm *now; /* NULL: there is no strftime_now */
  int line, depth;      /* depth: parts of the tree under way, one in the other */
  int calls;            /* of macros, under way */
  int64_t work;         /* that may still be done */
  pdt_error *err;
} pdt_jinja_run;

/* Arguments of a call, those by position first. */
typedef struct pdt_jinja_args {
  pdt_jinja_value *items;   /* [n] */
  pdt_jinja_text *keywords; /* [n]; empty: by position */
  size_t n;
} pdt_jinja_args;

/* ---- run.c: what the others share ---- */

/* INPUT, with template and line. */
int pdt_jinja_fail(const pdt_jinja_run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One step that goes over `bytes` bytes. Errors: INPUT, when that is too much work. */
int pdt_jinja_work(pdt_jinja_run *r, size_t bytes);

/* Goes into a part of the tree; the caller comes out of it by r->depth--, also after an error.
 * Errors: INPUT, too deep, or too much work. */
int pdt_jinja_enter_part(pdt_jinja_run *r);

/* Room for n elements of `size` bytes, zeroed; NULL after an error. */
void *pdt_jinja_room(pdt_jinja_run *r, size_t n, size_t size);

/* A list of n elements to be filled in; NULL after an error. */
pdt_jinja_list *pdt_jinja_list_new(pdt_jinja_run *r, size_t n);

/* Sets a key of a dict. */
int pdt_jinja_dict_set(pdt_jinja_run *r, pdt_jinja_dict *d, pdt_jinja_text key,
                       pdt_jinja_value value);

/* What `str` makes of a value; for lists and the like INPUT. */
int pdt_jinja_str(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_text *out);

/* The text of a string; INPUT for any other value, which `what` has no use for. */
int pdt_jinja_expect_string(pdt_jinja_run *r, const pdt_jinja_value *v, const char *what,
                            pdt_jinja_text *out);

/* An integer that an argument gives, `fallback` for NULL and none. */
int pdt_jinja_expect_integer(pdt_jinja_run *r, const pdt_jinja_value *v, int64_t fallback,
                             int64_t *out);

/* INPUT for an undefined value. */
int pdt_jinja_expect_defined(const pdt_jinja_run *r, const pdt_jinja_value *v);

/* Two texts as one. */
int pdt_jinja_concat(pdt_jinja_run *r, pdt_jinja_text a, pdt_jinja_text b, pdt_jinja_value *out);

/* What a loop goes through: items, keys, characters; an iterator is then spent. INPUT for what has
 * none. */
int pdt_jinja_items(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_list *out);

/* A value of the JSON; INPUT below so many levels. */
int pdt_jinja_from_json(pdt_jinja_run *r, const json_t *json, int levels, pdt_jinja_value *out);

/* ---- evaluate.c ---- */

int pdt_jinja_evaluate(pdt_jinja_run *r, const pdt_jinja_node *node, pdt_jinja_value *out);

/* ---- operators.c ---- */

int pdt_jinja_equal(pdt_jinja_run *r, const pdt_jinja_value *a, const pdt_jinja_value *b,
                    bool *out);
int pdt_jinja_contains(pdt_jinja_run *r, const pdt_jinja_value *in, const pdt_jinja_value *v,
                       bool *found);

/* op: == != < > <= >= in, not in. */
int pdt_jinja_compare(pdt_jinja_run *r, pdt_jinja_text op, const pdt_jinja_value *a,
                      const pdt_jinja_value *b, bool *out);

/* op: + - * / // % ~ */
int pdt_jinja_binary(pdt_jinja_run *r, pdt_jinja_text op, const pdt_jinja_value *a,
                     const pdt_jinja_value *b, pdt_jinja_value *out);
int pdt_jinja_negative(pdt_jinja_run *r, const pdt_jinja_value *v, pdt_jinja_value *out);

/* ---- access.c ---- */

int pdt_jinja_attribute(pdt_jinja_run *r, const pdt_jinja_value *of, pdt_jinja_text name,
                        pdt_jinja_value *out);
int pdt_jinja_item(pdt_jinja_run *r, const pdt_jinja_value *of, const pdt_jinja_value *index,
                   pdt_jinja_value *out);
/* bounds[3]: begin, end, step; none where left out. */
int pdt_jinja_slice(pdt_jinja_run *r, const pdt_jinja_value *of, const pdt_jinja_value *bounds,
                    pdt_jinja_value *out);

/* ---- execute.c ---- */

/* Executes a list of statements. */
int pdt_jinja_execute(pdt_jinja_run *r, const pdt_jinja_node *list);
int pdt_jinja_call_macro(pdt_jinja_run *r, const pdt_jinja_macro *macro, const pdt_jinja_args *args,
                         pdt_jinja_value *out);

/* ---- what is known by name ---- */

enum { PDT_JINJA_PARAMETERS = 4 };

/* One of them: self is what it is applied to; args[PDT_JINJA_PARAMETERS], NULL where not given. */
typedef struct pdt_jinja_builtin {
  const char *name;
  int (*call)(pdt_jinja_run *r, const pdt_jinja_value *self, const pdt_jinja_value *const *args,
              pdt_jinja_value *out);
  int required;                            /* of the parameters */
  const char *names[PDT_JINJA_PARAMETERS]; /* "": by position alone */
} pdt_jinja_builtin;

/* Several of them, as errors call one: "filter". */
typedef struct pdt_jinja_builtins {
  const char *kind;
  const pdt_jinja_builtin *items; /* [n] */
  size_t n;
} pdt_jinja_builtins;

/* Calls one by name. Errors: INPUT where there is no such, or arguments do not fit. */
int pdt_jinja_call_builtin(pdt_jinja_run *r, const pdt_jinja_builtins *table, pdt_jinja_text name,
                           const pdt_jinja_value *self, const pdt_jinja_args *args,
                           pdt_jinja_value *out);

/* filters.c, tests.c, methods.c, functions.c */
int pdt_jinja_filter(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                     const pdt_jinja_args *args, pdt_jinja_value *out);
int pdt_jinja_test(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                   const pdt_jinja_args *args, bool *out);
int pdt_jinja_method(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_value *self,
                     const pdt_jinja_args *args, pdt_jinja_value *out);
int pdt_jinja_function(pdt_jinja_run *r, pdt_jinja_text name, const pdt_jinja_args *args,
                       pdt_jinja_value *out);
bool pdt_jinja_is_function(const pdt_jinja_run *r, pdt_jinja_text name);

/* strings.c: of strings as filters and methods have it. chars (may be NULL): those to be stripped,
 * in place of white space. */
int pdt_jinja_strip(pdt_jinja_run *r, pdt_jinja_text text, const pdt_jinja_value *chars, bool left,
                    bool right, pdt_jinja_value *out);
typedef enum pdt_jinja_case {
  PDT_JINJA_LOWER,
  PDT_JINJA_UPPER,
  PDT_JINJA_TITLE,
  PDT_JINJA_CAPITALIZED
} pdt_jinja_case;
int pdt_jinja_change_case(pdt_jinja_run *r, pdt_jinja_text text, pdt_jinja_case to,
                          pdt_jinja_value *out);
/* The first `most` occurrences; all for a negative number. */
int pdt_jinja_replace(pdt_jinja_run *r, pdt_jinja_text text, const pdt_jinja_text *from_to,
                      int64_t most, pdt_jinja_value *out);
int pdt_jinja_join(pdt_jinja_run *r, const pdt_jinja_list *items, pdt_jinja_text between, bool any,
                   pdt_jinja_value *out);
size_t pdt_jinja_length(pdt_jinja_text text); /* in characters */

/* Where the needle begins in the text; its end without. */
size_t pdt_jinja_find(pdt_jinja_text text, pdt_jinja_text needle, size_t from);

/* How often it occurs, up to `most`, one behind the other; an empty needle before every character
 * and at the end. */
size_t pdt_jinja_count(pdt_jinja_text text, pdt_jinja_text needle, size_t most);

/* tojson.c: JSON as Python's json.dumps(ensure_ascii=False) has it; indent < 0: on one line. */
typedef struct pdt_jinja_json_style {
  int64_t indent;
  bool ascii, sorted;
} pdt_jinja_json_style;
int pdt_jinja_to_json(pdt_jinja_run *r, const pdt_jinja_value *v, const pdt_jinja_json_style *style,
                      pdt_jinja_value *out);

#endif
