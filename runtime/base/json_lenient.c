/* What Python's json and Rust's serde_json read beyond what jansson does. The text is gone through
 * once, and only what jansson would refuse is put in other words; jansson parses the result. A
 * value that has no place in json_t becomes an object of one key that no getter takes, so that it
 * does no harm where nobody looks and is refused where somebody does. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

/* The key of such an object; its value is the text that stood there. No file has it by accident,
 * and one that has it on purpose gains nothing: the value is refused as any object would be. */
#define UNUSABLE      "\x01unusable"
#define UNUSABLE_JSON "{\"\\u0001unusable\":\""

enum { SHOWN_BYTES = 60 }; /* of an unusable value, for errors */

/* WIDE is jansson's own but for integers beyond 64 bits. */
typedef enum dialect { PYTHON, SERDE, WIDE } dialect;

typedef struct rewriter {
  dialect dialect;
  const char *at, *end; /* what is still to be read */
  FILE *out;
  size_t written;
  size_t watched;     /* a place in the output, */
  const char *origin; /* and where in the input it comes from; NULL until it is passed */
  bool no_memory;
} rewriter;

static void put(rewriter *r, const char *text, size_t n) {
  if (!r->origin && r->watched < r->written + n) r->origin = r->at;
  r->written += n;
  (void)fwrite(text, 1, n, r->out); /* ferror tells */
}

static void put_text(rewriter *r, const char *text) {
  put(r, text, strlen(text));
}

/* Copies n bytes of the input as they are, and moves past them. */
static void copy(rewriter *r, size_t n) {
  if (!r->origin && r->watched < r->written + n) r->origin = r->at + (r->watched - r->written);
  put(r, r->at, n);
  r->at += n;
}

/* An unusable value in place of n bytes of the input, which hold no quotes nor backslashes. */
static void put_unusable(rewriter *r, size_t n) {
  put_text(r, UNUSABLE_JSON);
  put(r, r->at, n < SHOWN_BYTES ? n : SHOWN_BYTES);
  put_text(r, n < SHOWN_BYTES ? "\"}" : "...\"}");
  r->at += n;
}

/* The code unit of an escape \uXXXX at p, -1 where there is none. */
static int code_unit(const char *p, const char *end) {
  if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return -1;
  int unit = 0;
  for (int i = 2; i < 6; i++) {
    const char *digits = "0123456789abcdef", *found = strchr(digits, p[i] | ('A' <= p[i] ? 32 : 0));
    if (!p[i] || !found) return -1;
    unit = unit * 16 + (int)(found - digits);
  }
  return unit;
}

/* Bytes of the escape at p when it stands for what no C string of UTF-8 can hold: U+0000 or, where
 * the dialect has it, half of a surrogate pair. 0 for others; *n is then how far to go on. */
static size_t foreign_escape(const rewriter *r, const char *p, const char *end, size_t *n) {
  int unit = code_unit(p, end);
  *n = unit < 0 ? 2 : 6;
  if (r->dialect == WIDE) return 0;
  if (unit == 0) return 6;
  if (unit < 0xd800 || unit > 0xdfff) return 0;
  int second = code_unit(p + 6, end);
  if (unit < 0xdc00 && second >= 0xdc00 && second <= 0xdfff) {
    *n = 12;
    return 0;
  }
  return r->dialect == PYTHON ? 6 : 0;
}

/* The closing quote of the string that begins at `begin`, or NULL; whether there is a foreign
 * escape in it. */
static const char *string_end(const rewriter *r, const char *begin, bool *foreign) {
  const char *p = begin + 1;
  *foreign = false;
  while (p < r->end && *p != '"') {
    size_t n = 1;
    if (*p == '\\' && foreign_escape(r, p, r->end, &n)) *foreign = true;
    if (n > (size_t)(r->end - p)) return NULL;
    p += n;
  }
  return p < r->end ? p : NULL;
}

/* Copies up to `stop`, foreign escapes replaced by U+FFFD. */
static void copy_replaced(rewriter *r, const char *stop) {
  while (r->at < stop) {
    size_t n = 1;
    if (*r->at == '\\' && foreign_escape(r, r->at, stop, &n)) {
      put_text(r, "\\ufffd");
      r->at += n;
    } else {
      copy(r, n);
    }
  }
}

/* A key keeps its place with U+FFFD in it; a value is unusable. */
static void rewrite_string(rewriter *r) {
  bool foreign;
  const char *stop = string_end(r, r->at, &foreign), *next = stop;
  if (!stop || !foreign) {
    copy(r, stop ? (size_t)(stop + 1 - r->at) : (size_t)(r->end - r->at));
    return;
  }
  do next++;
  while (next < r->end && strchr(" \t\r\n", *next) && *next);
  bool is_key = next < r->end && *next == ':';
  if (!is_key) put_text(r, "{\"\\u0001unusable\":");
  copy_replaced(r, stop);
  copy(r, 1);
  if (!is_key) put_text(r, "}");
}

static const char *skip_digits(const char *p) {
  return p + strspn(p, "0123456789");
}

/* Whether text is a JSON number, and then whether it is an integer. */
static bool is_number(const char *text, bool *integer) {
  const char *p = text + (*text == '-'), *whole = skip_digits(p);
  if (whole == p || (*p == '0' && whole > p + 1)) return false;
  *integer = !*whole;
  p = whole;
  if (*p == '.') {
    p = skip_digits(whole + 1);
    if (p == whole + 1) return false;
  }
  if (*p == 'e' || *p == 'E') {
    const char *digits = p + 1 + (p[1] == '+' || p[1] == '-');
    p = skip_digits(digits);
    if (p == digits) return false;
  }
  return !*p;
}

/* Numbers that json_t cannot hold are unusable; whole ones become integers. What is no number is
 * left for jansson to refuse. */
static void rewrite_number(rewriter *r) {
  size_t n = 0, room = (size_t)(r->end - r->at);
  while (n < room && r->at[n] && strchr("+-.0123456789eE", r->at[n])) n++;
  char *text = strndup(r->at, n);
  bool integer, finite = true;
  r->no_memory = r->no_memory || !text;
  if (!text || !is_number(text, &integer)) {
    copy(r, n ? n : 1);
    free(text);
    return;
  }
  errno = 0;
  double x = strtod(text, NULL);
  if (integer) {
    errno = 0;
    (void)strtoll(text, NULL, 10);
    finite = errno != ERANGE;
  } else if (r->dialect == PYTHON) {
    finite = isfinite(x);
  }
  char whole[32];
  if (!finite) {
    put_unusable(r, n);
  } else if (!integer && r->dialect == PYTHON && x == floor(x) && fabs(x) <= 0x1p53) {
    snprintf(whole, sizeof whole, "%lld", (long long)x);
    put_text(r, whole);
    r->at += n;
  } else {
    copy(r, n);
  }
  free(text);
}

static bool has(const rewriter *r, const char *word) {
  size_t n = strlen(word);
  return (size_t)(r->end - r->at) >= n && memcmp(r->at, word, n) == 0;
}

static void rewrite_text(rewriter *r) {
  static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
  if (r->dialect == PYTHON && has(r, "\xef\xbb\xbf")) r->at += 3;
  while (r->at < r->end) {
    size_t w = 0;
    while (w < 3 && !(r->dialect == PYTHON && has(r, words[w]))) w++;
    if (w < 3)
      put_unusable(r, strlen(words[w]));
    else if (*r->at == '"')
      rewrite_string(r);
    else if (*r->at == '-' || (*r->at >= '0' && *r->at <= '9'))
      rewrite_number(r);
    else
      copy(r, 1);
  }
}

/* The text in jansson's words, freed by the caller; NULL without memory. `watched` as in rewriter;
 * *origin is an offset in the input. */
static char *rewrite(const char *text, size_t length, dialect d, size_t *n, size_t watched,
                     size_t *origin) {
  char *words = NULL;
  rewriter r = {.dialect = d, .at = text, .end = text + length, .watched = watched};
  r.out = open_memstream(&words, n);
  if (!r.out) return NULL;
  rewrite_text(&r);
  bool failed = r.no_memory || ferror(r.out) != 0;
  failed |= fclose(r.out) != 0;
  *origin = r.origin ? (size_t)(r.origin - text) : length;
  if (!failed) return words;
  free(words);
  return NULL;
}

/* Where in the text that was given an error lies that jansson found in its own words. */
static int fail_at(const char *text, size_t length, dialect d, const char *where,
                   const json_error_t *e, pdt_error *err) {
  size_t n, origin, at = e->position > 0 ? (size_t)e->position - 1 : 0;
  free(rewrite(text, length, d, &n, at, &origin));
  int line = 1, column = 0; /* counted as jansson does: after the byte */
  for (size_t i = 0; i <= origin && i < length; i++) {
    if (text[i] == '\n')
      line++, column = 0;
    else
      column += ((unsigned char)text[i] & 0xc0) != 0x80;
  }
  return pdt_json_fail(err, where, line, column, e);
}

static int parse(json_t **out, const char *text, size_t length, dialect d, const char *where,
                 pdt_error *err) {
  *out = NULL;
  size_t n, origin;
  json_error_t e;
  char *words = rewrite(text, length, d, &n, SIZE_MAX, &origin);
  if (!words) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", where);
  *out = json_loadb(words, n, JSON_DECODE_ANY | (d == WIDE ? JSON_REJECT_DUPLICATES : 0), &e);
  free(words);
  return *out ? 0 : fail_at(text, length, d, where, &e, err);
}

int pdt_json_parse_python(json_t **out, const char *text, size_t length, const char *where,
                          pdt_error *err) {
  return parse(out, text, length, PYTHON, where, err);
}

int pdt_json_parse_serde(json_t **out, const char *text, size_t length, const char *where,
                         pdt_error *err) {
  return parse(out, text, length, SERDE, where, err);
}

int pdt_json_parse_wide(json_t **out, const char *text, size_t length, const char *where,
                        pdt_error *err) {
  json_error_t e;
  *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
  if (*out) return 0;
  if (json_error_code(&e) == json_error_numeric_overflow)
    return parse(out, text, length, WIDE, where, err);
  return pdt_json_fail(err, where, e.line, e.column, &e);
}

int pdt_json_load_python(json_t **out, const char *path, pdt_bytes max_bytes, pdt_error *err) {
  *out = NULL;
  char *text;
  pdt_bytes length;
  if (pdt_file_read(&text, &length, path, max_bytes, err)) return -1;
  int rc = parse(out, text, (size_t)length, PYTHON, path, err);
  free(text);
  return rc;
}

const char *pdt_json_unusable(const json_t *value) {
  return json_string_value(json_object_get(value, UNUSABLE));
}
