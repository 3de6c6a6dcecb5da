#include "text/jinja/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/utf8.h"

pdt_jinja_node *pdt_jinja_new(pdt_jinja_parser *p, pdt_jinja_node_kind kind) {
  pdt_jinja_node *node = pdt_jinja_arena_new(p->arena, sizeof *node);
  if (!node) {
    pdt_fail(p->err, PDT_ERROR_MEMORY, "%s: no memory", p->name);
    return NULL;
  }
  node->kind = kind;
  node->line = p->token->line;
  node->depth = 1;
  return node;
}

pdt_jinja_node *pdt_jinja_refuse(const pdt_jinja_parser *p, const char *format, ...) {
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  pdt_fail(p->err, PDT_ERROR_INPUT, "%s: line %d: %s", p->name, p->token->line, text);
  return NULL;
}

pdt_jinja_node *pdt_jinja_unexpected(const pdt_jinja_parser *p, const char *expected) {
  static const char *const names[] = {
      [PDT_TOKEN_DATA] = "text",       [PDT_TOKEN_BLOCK_BEGIN] = "'{%'",
      [PDT_TOKEN_BLOCK_END] = "'%}'",  [PDT_TOKEN_VARIABLE_BEGIN] = "'{{'",
      [PDT_TOKEN_STRING] = "a string", [PDT_TOKEN_VARIABLE_END] = "'}}'",
      [PDT_TOKEN_NAME] = NULL,         [PDT_TOKEN_INTEGER] = NULL,
      [PDT_TOKEN_REAL] = NULL,         [PDT_TOKEN_OPERATOR] = NULL,
      [PDT_TOKEN_END] = "the end",
  };
  const pdt_jinja_token *t = p->token;
  if (names[t->kind]) return pdt_jinja_refuse(p, "expected %s, found %s", expected, names[t->kind]);
  return pdt_jinja_refuse(p, "expected %s, found '%.*s'", expected,
                          (int)(t->text.n < 40 ? t->text.n : 40), t->text.at);
}

static bool at(const pdt_jinja_parser *p, pdt_jinja_token_kind kind, const char *text) {
  return p->token->kind == kind && pdt_jinja_is(p->token->text, text);
}

bool pdt_jinja_at_operator(const pdt_jinja_parser *p, const char *text) {
  return at(p, PDT_TOKEN_OPERATOR, text);
}

bool pdt_jinja_at_name(const pdt_jinja_parser *p, const char *text) {
  return at(p, PDT_TOKEN_NAME, text);
}

bool pdt_jinja_take_operator(pdt_jinja_parser *p, const char *text) {
  bool there = pdt_jinja_at_operator(p, text);
  p->token += there;
  return there;
}

bool pdt_jinja_take_name(pdt_jinja_parser *p, const char *text) {
  bool there = pdt_jinja_at_name(p, text);
  p->token += there;
  return there;
}

bool pdt_jinja_expect_operator(pdt_jinja_parser *p, const char *text) {
  char quoted[8];
  if (pdt_jinja_take_operator(p, text)) return true;
  snprintf(quoted, sizeof quoted, "'%s'", text);
  pdt_jinja_unexpected(p, quoted);
  return false;
}

bool pdt_jinja_enter(pdt_jinja_parser *p) {
  if (p->nesting++ < PDT_JINJA_NESTING) return true;
  pdt_jinja_refuse(p, "nested deeper than %d", PDT_JINJA_NESTING);
  return false;
}

bool pdt_jinja_over(const pdt_jinja_parser *p, pdt_jinja_node *node, const pdt_jinja_node *part) {
  if (!node || !part) return false;
  if (part->depth >= node->depth) node->depth = part->depth + 1;
  if (node->depth <= PDT_JINJA_DEPTH) return true;
  pdt_jinja_refuse(p, "an expression of more than %d terms", PDT_JINJA_DEPTH);
  return false;
}

/* ---- a template ---- */

static int parse(pdt_jinja *t, char *copy, size_t bytes, pdt_error *err) {
  pdt_jinja_tokens tokens = {0};
  int depth = 0;
  int rc = pdt_jinja_lex(&tokens, copy, bytes, t->name, &t->arena, err);
  if (!rc) {
    pdt_jinja_parser p = {.token = tokens.items, .arena = &t->arena, .name = t->name, .err = err};
    rc = pdt_jinja_statements(&p, NULL, 0, &t->body, &depth) ? 0 : -1;
  }
  free(tokens.items);
  return rc;
}

int pdt_jinja_parse(pdt_jinja **out, const char *text, size_t bytes, const char *name,
                    pdt_error *err) {
  size_t valid = pdt_utf8_valid(text, bytes);
  *out = NULL;
  if (bytes > PDT_JINJA_SOURCE_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %d bytes, found %zu", name,
                    PDT_JINJA_SOURCE_BYTES, bytes);
  if (valid < bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: byte %zu: expected UTF-8, found 0x%02x", name, valid,
                    (unsigned char)text[valid]);
  pdt_jinja *t;
  if (PDT_NEW(&t, 1, "template", err)) return -1;
  t->arena.limit = SIZE_MAX;
  t->name = strdup(name);
  char *copy = pdt_jinja_arena_new(&t->arena, bytes + 1);
  if (copy && bytes) memcpy(copy, text, bytes);
  int rc = t->name && copy ? parse(t, copy, bytes, err)
                           : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", name);
  if (rc) {
    pdt_jinja_free(t);
    return -1;
  }
  *out = t;
  return 0;
}

void pdt_jinja_free(pdt_jinja *t) {
  if (!t) return;
  pdt_jinja_arena_free(&t->arena);
  free(t->name);
  free(t);
}
