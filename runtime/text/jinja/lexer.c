#include "text/jinja/lexer.h"

#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "text/jinja/jinja.h"

typedef struct lexer {
  const char *text;
  size_t n, at;
  int line;
  char open[PDT_JINJA_NESTING]; /* closing brackets that are awaited */
  int n_open;
  pdt_jinja_tokens *out;
  const char *name;
  pdt_jinja_arena *arena;
  pdt_error *err;
} lexer;

static bool starts(const lexer *x, size_t at, const char *text) {
  size_t n = strlen(text);
  return n <= x->n - at && memcmp(x->text + at, text, n) == 0;
}

static char char_at(const lexer *x, size_t at) {
  return at < x->n ? x->text[at] : '\0';
}

static int no_memory(const lexer *x) {
  return pdt_fail(x->err, PDT_ERROR_MEMORY, "%s: no memory", x->name);
}

/* Moves on, counting lines. */
static void move_to(lexer *x, size_t at) {
  for (; x->at < at; x->at++) x->line += x->text[x->at] == '\n';
}

static void skip_space(lexer *x) {
  for (size_t at = x->at; at < x->n && pdt_jinja_is_space(pdt_utf8_next(x->text, &at));)
    move_to(x, at);
}

static int put(lexer *x, pdt_jinja_token token) {
  if (PDT_GROW(&x->out->items, x->out->n, &x->out->room, x->err)) return -1;
  x->out->items[x->out->n++] = token;
  return 0;
}

static int put_text(lexer *x, pdt_jinja_token_kind kind, size_t from, size_t to) {
  return put(x, (pdt_jinja_token){kind, x->line, {x->text + from, to - from}, {0}});
}

/* ---- between tags ---- */

/* The next of {{, {% and {#; the end of the text without. */
static size_t find_tag(const lexer *x) {
  for (size_t at = x->at; at < x->n; at++) {
    const char *brace = memchr(x->text + at, '{', x->n - at);
    if (!brace) break;
    at = (size_t)(brace - x->text);
    char next = char_at(x, at + 1);
    if (next == '{' || next == '%' || next == '#') return at;
  }
  return x->n;
}

static bool is_blank(const lexer *x, size_t from, size_t to) {
  while (from < to)
    if (!pdt_jinja_is_space(pdt_utf8_next(x->text, &from))) return false;
  return true;
}

/* Where the text before a tag ends: before its white space where the tag asks for that, or, for a
 * tag that is no {{ and stands first in its line, where the line begins. */
static size_t data_end(const lexer *x, size_t tag) {
  char sign = char_at(x, tag + 2);
  size_t end = tag;
  if (sign == '-') {
    while (end > x->at) {
      size_t before = pdt_utf8_back(x->text, end), next = before;
      if (!pdt_jinja_is_space(pdt_utf8_next(x->text, &next))) break;
      end = before;
    }
    return end;
  }
  if (sign == '+' || char_at(x, tag + 1) == '{') return end;
  size_t line = tag;
  while (line > x->at && x->text[line - 1] != '\n') line--;
  bool begins = line > x->at || x->at == 0 || x->text[x->at - 1] == '\n';
  return begins && is_blank(x, line, tag) ? line : end;
}

/* The end of a tag at x->at, "-%}" as "%}": moves behind it and the white space or line break that
 * goes with it; false when it is not there. */
static bool take_end(lexer *x, const char *end) {
  char sign = char_at(x, x->at);
  bool variable = *end == '}', marked = sign == '-' || (sign == '+' && !variable);
  size_t at = x->at + marked;
  if (!starts(x, at, end)) return false;
  move_to(x, at + 2);
  if (marked && sign == '-') skip_space(x);
  if (!marked && !variable && char_at(x, x->at) == '\n') move_to(x, x->at + 1);
  return true;
}

static int skip_comment(lexer *x) {
  int line = x->line;
  while (x->at < x->n)
    if (take_end(x, "#}"))
      return 0;
    else
      move_to(x, x->at + 1);
  return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: the comment has no end", x->name, line);
}

/* ---- inside tags ---- */

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static int lex_name(lexer *x) {
  size_t from = x->at, to = from;
  while (is_letter(char_at(x, to)) || is_digit(char_at(x, to))) to++;
  x->at = to;
  return put_text(x, PDT_TOKEN_NAME, from, to);
}

/* Behind the digits of a fraction or an exponent at `at`, which need not be there. */
static size_t behind_fraction(const lexer *x, size_t at) {
  size_t end = at;
  if (char_at(x, end) == '.' && is_digit(char_at(x, end + 1)))
    for (end++; is_digit(char_at(x, end));) end++;
  if (char_at(x, end) == 'e' || char_at(x, end) == 'E') {
    size_t digits = end + 1;
    if (char_at(x, digits) == '+' || char_at(x, digits) == '-') digits++;
    if (is_digit(char_at(x, digits)))
      for (end = digits; is_digit(char_at(x, end));) end++;
  }
  return end;
}

static int lex_number(lexer *x) {
  char digits[64];
  size_t from = x->at, to = from;
  while (is_digit(char_at(x, to))) to++;
  size_t end = from > 0 && x->text[from - 1] == '.' ? to : behind_fraction(x, to);
  pdt_jinja_token token = {PDT_TOKEN_INTEGER, x->line, {x->text + from, end - from}, {0}};
  bool odd = end - from >= sizeof digits || is_letter(char_at(x, end)) ||
             (end == to && x->text[from] == '0' && to - from > 1);
  if (!odd) {
    memcpy(digits, x->text + from, end - from);
    digits[end - from] = '\0';
    errno = 0;
    token.integer = strtoll(digits, NULL, 10);
    if (end > to) {
      token.kind = PDT_TOKEN_REAL;
      token.real = strtod(digits, NULL);
    }
    odd = errno == ERANGE;
  }
  if (odd)
    return pdt_fail(x->err, PDT_ERROR_INPUT,
                    "%s: line %d: '%.*s', not decimal or beyond 64 bits, is not supported", x->name,
                    x->line, (int)(end - from < 40 ? end - from + 1 : 40), x->text + from);
  x->at = end;
  return put(x, token);
}

/* The value of an escape that is a number: \x41, \u0041, \U00000041, \101. *at is behind the
 * letter; -1 when there are not enough digits. */
static int32_t number_escape(const char *text, size_t n, size_t *at, char letter) {
  static const char alphabet[] = "0123456789abcdef";
  int base = is_digit(letter) ? 8 : 16;
  int most = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 3, found = 0;
  int64_t value = 0;
  if (base == 8) (*at)--;
  for (; found < most && *at < n; found++, (*at)++) {
    char c = text[*at];
    const char *digit = strchr(alphabet, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c);
    if (!c || !digit || digit - alphabet >= base) break;
    value = value * base + (digit - alphabet);
  }
  bool whole = base == 8 || found == most;
  return whole && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF) ? (int32_t)value : -1;
}

/* Takes the escapes out of a string, as Python does; false for one that names no character. */
static bool unescape(const char *from, size_t n, char *to, size_t *written) {
  static const char letters[] = "ntr\\'\"abfv", values[] = "\n\t\r\\'\"\a\b\f\v";
  size_t out = 0;
  for (size_t i = 0; i < n;) {
    if (from[i] != '\\' || i + 1 == n) {
      to[out++] = from[i++];
      continue;
    }
    char c = from[i + 1];
    const char *simple = c ? strchr(letters, c) : NULL;
    i += 2;
    if (simple) {
      to[out++] = values[simple - letters];
    } else if (c == 'x' || c == 'u' || c == 'U' || (c >= '0' && c <= '7')) {
      int32_t value = number_escape(from, n, &i, c);
      if (value < 0) return false;
      out += pdt_utf8_encode(value, to + out);
    } else if (c == 'N' || (unsigned char)c >= 0x80) { /* Python makes another text of the latter */
      return false;
    } else if (c != '\n') { /* any other character keeps its backslash */
      to[out++] = '\\';
      to[out++] = c;
    }
  }
  *written = out;
  return true;
}

static int lex_string(lexer *x) {
  char quote = x->text[x->at];
  size_t from = x->at + 1, to = from;
  while (to < x->n && x->text[to] != quote) to += x->text[to] == '\\' ? 2 : 1;
  if (to >= x->n)
    return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: the string has no end", x->name,
                    x->line);
  pdt_jinja_token token = {PDT_TOKEN_STRING, x->line, {x->text + from, to - from}, {0}};
  if (memchr(x->text + from, '\\', to - from)) {
    char *plain =
        pdt_jinja_arena_new(x->arena, to - from + 1); /* no escape is shorter than its UTF-8 */
    if (!plain) return no_memory(x);
    if (!unescape(x->text + from, to - from, plain, &token.text.n))
      return pdt_fail(x->err, PDT_ERROR_INPUT,
                      "%s: line %d: a string has an escape that names no character, or names one "
                      "by \\N",
                      x->name, x->line);
    token.text.at = plain;
  }
  move_to(x, to + 1);
  return put(x, token);
}

/* Keeps count of brackets: inside them, }} and %} are no end of a tag. */
static int balance(lexer *x, char c) {
  static const char opening[] = "([{", closing[] = ")]}";
  const char *o = strchr(opening, c);
  if (o && x->n_open == PDT_JINJA_NESTING)
    return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: nested deeper than %d", x->name, x->line,
                    PDT_JINJA_NESTING);
  if (o) x->open[x->n_open++] = closing[o - opening];
  if (o || !strchr(closing, c)) return 0;
  if (x->n_open > 0 && x->open[x->n_open - 1] == c) {
    x->n_open--;
    return 0;
  }
  return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: '%c' closes nothing", x->name, x->line, c);
}

static int lex_operator(lexer *x) {
  static const char *const all[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (!starts(x, x->at, all[i])) continue;
    size_t n = strlen(all[i]);
    if (n == 1 && balance(x, *all[i])) return -1;
    x->at += n;
    return put_text(x, PDT_TOKEN_OPERATOR, x->at - n, x->at);
  }
  size_t end = x->at;
  pdt_utf8_next(x->text, &end);
  return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: unexpected character '%.*s'", x->name,
                  x->line, (int)(end - x->at), x->text + x->at);
}

/* What is between the marks of a tag, and the one behind it. */
static int lex_tag(lexer *x, const char *end, pdt_jinja_token_kind kind) {
  int line = x->line;
  x->n_open = 0;
  for (;;) {
    skip_space(x);
    if (x->at == x->n)
      return pdt_fail(x->err, PDT_ERROR_INPUT, "%s: line %d: the tag has no '%s'", x->name, line,
                      end);
    int here = x->line;
    if (x->n_open == 0 && take_end(x, end))
      return put(x, (pdt_jinja_token){kind, here, {"", 0}, {0}});
    char c = x->text[x->at];
    if (is_letter(c)            ? lex_name(x)
        : is_digit(c)           ? lex_number(x)
        : c == '\'' || c == '"' ? lex_string(x)
                                : lex_operator(x))
      return -1;
  }
}

static int lex_all(lexer *x) {
  while (x->at < x->n) {
    size_t tag = find_tag(x), end = tag < x->n ? data_end(x, tag) : x->n;
    if (end > x->at && put_text(x, PDT_TOKEN_DATA, x->at, end)) return -1;
    move_to(x, tag);
    if (tag == x->n) break;
    char kind = x->text[tag + 1], sign = char_at(x, tag + 2);
    move_to(x, tag + 2 + (sign == '-' || sign == '+'));
    int rc = kind == '#'   ? skip_comment(x)
             : kind == '%' ? put_text(x, PDT_TOKEN_BLOCK_BEGIN, tag, tag) ||
                                 lex_tag(x, "%}", PDT_TOKEN_BLOCK_END)
                           : put_text(x, PDT_TOKEN_VARIABLE_BEGIN, tag, tag) ||
                                 lex_tag(x, "}}", PDT_TOKEN_VARIABLE_END);
    if (rc) return -1;
  }
  return put_text(x, PDT_TOKEN_END, x->n, x->n);
}

/* Line breaks of all kinds become "\n"; one at the end goes. Returns the length. */
static size_t normalize(char *text, size_t bytes) {
  size_t n = 0;
  for (size_t i = 0; i < bytes; i++) {
    bool cr = text[i] == '\r';
    if (cr && i + 1 < bytes && text[i + 1] == '\n') continue;
    text[n++] = (char)(cr ? '\n' : text[i]);
  }
  return n > 0 && text[n - 1] == '\n' ? n - 1 : n;
}

int pdt_jinja_lex(pdt_jinja_tokens *out, char *text, size_t bytes, const char *name,
                  pdt_jinja_arena *arena, pdt_error *err) {
  lexer x = {.text = text,
             .n = normalize(text, bytes),
             .line = 1,
             .out = out,
             .name = name,
             .arena = arena,
             .err = err};
  return lex_all(&x);
}
