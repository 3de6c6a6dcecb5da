#include "text/pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "text/unicode.h"

/* The members of \w. The superscripts and fractions of Latin-1 are words to Oniguruma alone, and
 * only where \w stands by itself, not in a set. */
#define SET_WORD  "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD      SET_WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX       "0-9A-Fa-f"
#define MAX_DEPTH 200 /* PCRE2's own limit on parentheses is 250 */

/* One pass over a pattern. */
typedef struct translation {
  const char *pattern, *where;
  size_t bytes, at;
  pdt_buffer *out;
  size_t atom;                   /* where in `out` the atom starts that a quantifier would repeat */
  size_t group[MAX_DEPTH];       /* where the open groups start in `out` */
  size_t closers[MAX_DEPTH + 1]; /* parentheses to close with a group, from options inside it */
  size_t depth;
  pdt_error *err;
} translation;

static int put(translation *t, const char *text) {
  return pdt_buffer_put(t->out, text, strlen(text), t->err);
}

static int refuse(const translation *t, size_t at, const char *what) {
  return pdt_fail(t->err, PDT_ERROR_INPUT,
                  "%s: pattern '%.120s': at byte %zu: %s is not supported here", t->where,
                  t->pattern, at, what);
}

static int peek(const translation *t, size_t ahead) {
  return t->at + ahead < t->bytes ? (unsigned char)t->pattern[t->at + ahead] : -1;
}

static bool starts_with(const translation *t, const char *text) {
  size_t n = strlen(text);
  return t->bytes - t->at >= n && memcmp(t->pattern + t->at, text, n) == 0;
}

/* Copies one character that stands for itself. */
static int put_literal(translation *t) {
  size_t start = t->at;
  int32_t c = pdt_utf8_next(t->pattern, &t->at);
  if (pdt_stand_in(c) != c) return refuse(t, start, "a character newer than Unicode 14");
  bool plain = c >= 0x80 || isalnum(c) || c < ' ';
  if (!plain && put(t, "\\")) return -1;
  return pdt_buffer_put(t->out, t->pattern + start, t->at - start, t->err);
}

/* Compares property names as Oniguruma does: case, spaces, hyphens and underscores do not count. */
static bool same_name(const char *a, const char *b) {
  for (;; a++, b++) {
    while (*a == '_' || *a == '-' || *a == ' ') a++;
    while (*b == '_' || *b == '-' || *b == ' ') b++;
    if (tolower((unsigned char)*a) != tolower((unsigned char)*b)) return false;
    if (!*a) return true;
  }
}

/* Long names of properties, and what PCRE2 calls them. */
static const struct {
  const char *theirs, *ours;
} property_names[] = {
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Mark", "M"},
    {"Nonspacing_Mark", "Mn"},
    {"Spacing_Mark", "Mc"},
    {"Enclosing_Mark", "Me"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Letter_Number", "Nl"},
    {"Other_Number", "No"},
    {"Punctuation", "P"},
    {"Connector_Punctuation", "Pc"},
    {"Dash_Punctuation", "Pd"},
    {"Open_Punctuation", "Ps"},
    {"Close_Punctuation", "Pe"},
    {"Initial_Punctuation", "Pi"},
    {"Final_Punctuation", "Pf"},
    {"Other_Punctuation", "Po"},
    {"Symbol", "S"},
    {"Math_Symbol", "Sm"},
    {"Currency_Symbol", "Sc"},
    {"Modifier_Symbol", "Sk"},
    {"Other_Symbol", "So"},
    {"Separator", "Z"},
    {"Space_Separator", "Zs"},
    {"Line_Separator", "Zl"},
    {"Paragraph_Separator", "Zp"},
    {"Other", "C"},
    {"Control", "Cc"},
    {"Format", "Cf"},
    {"Unassigned", "Cn"},
    {"Private_Use", "Co"},
    {"Any", "Any"},
    {"Alphabetic", "Alphabetic"},
    {"Alpha", "Alphabetic"},
    {"White_Space", "White_Space"},
    {"Space", "White_Space"},
    {"Uppercase", "Uppercase"},
    {"Upper", "Uppercase"},
    {"Lowercase", "Lowercase"},
    {"Lower", "Lowercase"},
    {"Digit", "Nd"},
    {"Cntrl", "Cc"},
    {"Ideographic", "Ideographic"},
};

/* Categories go by their short names too. */
static const char *const categories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                         "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                         "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                         "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co"};

/* What PCRE2 calls a property; NULL when it is neither a category nor binary. */
static const char *property(const char *name) {
  for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
    if (same_name(name, categories[i])) return categories[i];
  for (size_t i = 0; i < sizeof property_names / sizeof *property_names; i++)
    if (same_name(name, property_names[i].theirs)) return property_names[i].ours;
  return NULL;
}

/* \p{name}, \p{^name} or \P{name}, at the p; whatever is no category must be a script's name. */
static int put_property(translation *t) {
  size_t start = t->at;
  bool negated = peek(t, 0) == 'P';
  t->at++;
  if (peek(t, 0) != '{') return refuse(t, start, "\\p without braces");
  t->at++;
  if (peek(t, 0) == '^') {
    negated = !negated;
    t->at++;
  }
  char name[48];
  size_t n = 0;
  for (int c; (c = peek(t, 0)) != '}'; t->at++) {
    if (c < 0 || n + 1 >= sizeof name || !(isalnum(c) || c == '_' || c == '-' || c == ' '))
      return refuse(t, start, "this property");
    name[n++] = (char)c;
  }
  name[n] = '\0';
  t->at++;
  const char *known = property(name);
  char text[80];
  snprintf(text, sizeof text, "\\%c{%s%s}", negated ? 'P' : 'p',
           known ? "" : "sc:", known ? known : name);
  return put(t, text);
}

/* \xHH, \x{H...} or \uHHHH, at the x or u. */
static int put_code(translation *t) {
  size_t start = t->at, room = peek(t, 0) == 'u' ? 4 : 2, n = 0;
  int32_t code = 0;
  t->at++;
  bool braces = room == 2 && peek(t, 0) == '{';
  if (braces) {
    t->at++;
    room = 6;
  }
  for (; n < room && isxdigit(peek(t, 0)); n++, t->at++) {
    int c = peek(t, 0);
    code = code * 16 + (isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
  }
  if (braces && t->pattern[t->at++] != '}') return refuse(t, start, "this \\x{}");
  if (!n || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    return refuse(t, start, "this code point");
  if (room == 2 && code >= 0x80) return refuse(t, start, "\\x of a byte beyond ASCII");
  if (pdt_stand_in(code) != code) return refuse(t, start, "a character newer than Unicode 14");
  char text[24];
  snprintf(text, sizeof text, "\\x{%x}", (unsigned)code);
  return put(t, text);
}

/* What an escape that means the same in a set and outside becomes; NULL for others. */
static const char *simple_escape(int c) {
  switch (c) {
  case 's':
    return "\\p{White_Space}";
  case 'S':
    return "\\P{White_Space}";
  case 'd':
    return "\\p{Nd}";
  case 'D':
    return "\\P{Nd}";
  case 't':
    return "\\x{9}";
  case 'n':
    return "\\x{a}";
  case 'v':
    return "\\x{b}";
  case 'f':
    return "\\x{c}";
  case 'r':
    return "\\x{d}";
  case 'a':
    return "\\x{7}";
  case 'e':
    return "\\x{1b}";
  default:
    return NULL;
  }
}

/* What other escapes become inside a set (or outside); NULL when they cannot stand there. */
static const char *placed_escape(int c, bool in_set) {
  switch (c) {
  case 'w':
    return in_set ? SET_WORD : "[" WORD "]";
  case 'W':
    return in_set ? NULL : "[^" WORD "]";
  case 'h':
    return in_set ? HEX : "[" HEX "]";
  case 'H':
    return in_set ? NULL : "[^" HEX "]";
  case 'b':
    return in_set ? "\\x{8}" : "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))";
  case 'B':
    return in_set ? NULL : "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))";
  case 'A':
    return in_set ? NULL : "\\A";
  case 'z':
    return in_set ? NULL : "\\z";
  case 'Z':
    return in_set ? NULL : "\\Z";
  default:
    return NULL;
  }
}

/* An escape, at the backslash. */
static int put_escape(translation *t, bool in_set) {
  size_t start = t->at++;
  int c = peek(t, 0);
  if (c < 0) return refuse(t, start, "a backslash at the end");
  if (c == 'p' || c == 'P') return put_property(t);
  if (c == 'x' || c == 'u') return put_code(t);
  if (!isalnum(c)) return put_literal(t);
  const char *text = simple_escape(c);
  if (!text) text = placed_escape(c, in_set);
  if (text) {
    t->at++;
    return put(t, text);
  }
  char what[] = "\\?";
  what[1] = (char)c;
  return refuse(t, start, what);
}

/* [:name:] inside a set, at its bracket. */
static int put_posix(translation *t) {
  static const struct {
    const char *theirs, *ours;
  } names[] = {{"[:alpha:]", "\\p{Alphabetic}"},  {"[:digit:]", "\\p{Nd}"},
               {"[:space:]", "\\p{White_Space}"}, {"[:upper:]", "\\p{Uppercase}"},
               {"[:lower:]", "\\p{Lowercase}"},   {"[:xdigit:]", HEX}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!starts_with(t, names[i].theirs)) continue;
    t->at += strlen(names[i].theirs);
    return put(t, names[i].ours);
  }
  return refuse(t, t->at, "this [: :] class");
}

/* A set, at its bracket. Sets inside it are joined to it, which is what they mean. */
static int put_set(translation *t) {
  size_t start = t->at++;
  int depth = 1;
  if (put(t, "[")) return -1;
  if (peek(t, 0) == '^') {
    t->at++;
    if (put(t, "^")) return -1;
  }
  if (peek(t, 0) == ']') return refuse(t, t->at, "] as the first of a set");
  while (depth) {
    int c = peek(t, 0), rc = 0;
    if (c < 0) return refuse(t, start, "a set without its ]");
    if (c == ']') {
      depth--;
      t->at++;
    } else if (starts_with(t, "[:")) {
      rc = put_posix(t);
    } else if (starts_with(t, "[^") || starts_with(t, "[]") || starts_with(t, "&&")) {
      return refuse(t, t->at, c == '&' ? "&& in a set" : "this set inside a set");
    } else if (c == '[') {
      depth++;
      t->at++;
    } else if (c == '\\') {
      rc = put_escape(t, true);
    } else if (c == '-') {
      t->at++;
      rc = put(t, "-");
    } else {
      rc = put_literal(t);
    }
    if (rc) return -1;
  }
  return put(t, "]");
}

/* Puts "(?:" before the atom and ")" after what was written since. */
static int wrap_atom(translation *t) {
  if (put(t, "(?:)")) return -1;
  char *atom = t->out->data + t->atom;
  memmove(atom + 3, atom, t->out->bytes - 4 - t->atom);
  memcpy(atom, "(?:", 3);
  t->out->data[t->out->bytes - 1] = ')';
  return 0;
}

/* Reads {n}, {n,}, {n,m} or {,m} at its brace; false, and nothing moves, when it is none. */
static bool read_interval(translation *t, long *low, long *high, bool *exact) {
  size_t i = t->at + 1;
  long bound[2] = {-1, -1};
  int which = 0;
  for (; i < t->bytes && t->pattern[i] != '}'; i++) {
    char c = t->pattern[i];
    if (c == ',' && which == 0)
      which = 1;
    else if (c >= '0' && c <= '9' && bound[which] < 100000)
      bound[which] = (bound[which] < 0 ? 0 : bound[which]) * 10 + (c - '0');
    else
      return false;
  }
  if (i == t->bytes || (bound[0] < 0 && bound[1] < 0)) return false;
  *low = bound[0] < 0 ? 0 : bound[0];
  *high = bound[1];
  *exact = which == 0;
  t->at = i + 1;
  return true;
}

/* An interval, at its brace; a brace that opens none stands for itself. */
static int put_interval(translation *t) {
  long low = 0, high = 0;
  bool exact = false;
  size_t start = t->at;
  if (!read_interval(t, &low, &high, &exact)) {
    t->atom = t->out->bytes;
    return put_literal(t);
  }
  if (start == 0) return refuse(t, start, "an interval of nothing");
  if (high >= 0 && high < low) return refuse(t, start, "an interval that ends before it starts");
  char text[64];
  if (exact)
    snprintf(text, sizeof text, "{%ld}", low);
  else if (high < 0)
    snprintf(text, sizeof text, "{%ld,}", low);
  else
    snprintf(text, sizeof text, "{%ld,%ld}", low, high);
  if (put(t, text)) return -1;
  if (peek(t, 0) == '+' || (exact && peek(t, 0) == '?')) {
    /* Not possessive and not lazy, as they would be in PCRE2: the interval is repeated. */
    return wrap_atom(t);
  }
  if (peek(t, 0) == '?') {
    t->at++;
    return put(t, "?");
  }
  return 0;
}

/* Options after "(?": letters, then a colon or the parenthesis that ends them. */
static int put_options(translation *t, size_t start) {
  if (put(t, "(?")) return -1;
  for (int c; (c = peek(t, 0)) != ':' && c != ')'; t->at++) {
    if (c != 'i' && c != 'm' && c != '-') return refuse(t, start, "this (?");
    char letter[] = {c == 'm' ? 's' : (char)c, 0};
    if (put(t, letter)) return -1;
  }
  /* (?i) covers the rest of its group, alternatives included. */
  if (peek(t, 0) == ')')
    t->closers[t->depth]++;
  else
    t->closers[++t->depth] = 0;
  t->at++;
  return put(t, ":");
}

/* What opens a group, at its parenthesis. */
static int put_group(translation *t) {
  static const char *const openings[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
  size_t start = t->at;
  if (t->depth + t->closers[t->depth] + 1 >= MAX_DEPTH) return refuse(t, start, "nesting so deep");
  t->group[t->depth] = t->out->bytes;
  for (size_t i = 0; i < sizeof openings / sizeof *openings; i++) {
    if (!starts_with(t, openings[i])) continue;
    t->at += strlen(openings[i]);
    t->closers[++t->depth] = 0;
    return put(t, openings[i]);
  }
  if (starts_with(t, "(?")) {
    t->at += 2;
    return put_options(t, start);
  }
  t->at++;
  t->closers[++t->depth] = 0;
  return put(t, "(?:"); /* nothing can ask for what a group captured */
}

static int close_options(translation *t) {
  for (; t->closers[t->depth]; t->closers[t->depth]--)
    if (put(t, ")")) return -1;
  return 0;
}

static int put_close(translation *t) {
  if (!t->depth) return refuse(t, t->at, ") without (");
  if (close_options(t)) return -1;
  t->at++;
  t->atom = t->group[--t->depth];
  return put(t, ")");
}

/* One element of the pattern. */
static int step(translation *t) {
  int c = peek(t, 0);
  if (c == '(') return put_group(t);
  if (c == ')') return put_close(t);
  if (c == '{') return put_interval(t);
  if (c == '*' || c == '+' || c == '?') {
    char text[] = {(char)c, 0};
    t->at++;
    return put(t, text);
  }
  t->atom = t->out->bytes;
  if (c == '[') return put_set(t);
  if (c == '\\') return put_escape(t, false);
  if (c == '|' || c == '.' || c == '^' || c == '$') {
    char text[] = {(char)c, 0};
    t->at++;
    return put(t, text);
  }
  return put_literal(t);
}

int pdt_pattern_translate(pdt_buffer *out, const char *pattern, size_t bytes, const char *where,
                          pdt_error *err) {
  translation t = {.pattern = pattern, .where = where, .bytes = bytes, .out = out, .err = err};
  while (t.at < bytes)
    if (step(&t)) return -1;
  if (t.depth) return refuse(&t, bytes, "( without )");
  return close_options(&t);
}
