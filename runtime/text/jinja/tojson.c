/* JSON as Python writes it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja/run.h"

typedef struct writer {
  pdt_jinja_run *r;
  const pdt_jinja_json_style *style;
  pdt_buffer *out;
} writer;

static int value(const writer *w, const pdt_jinja_value *v, int level);

static int put(const writer *w, const char *text, size_t n) {
  if (pdt_jinja_work(w->r, n)) return -1;
  if (n > w->r->arena.limit - w->out->bytes)
    return pdt_jinja_fail(w->r, "tojson writes more than %zu bytes", w->r->arena.limit);
  return pdt_buffer_put(w->out, text, n, w->r->err);
}

static int put_text(const writer *w, const char *text) {
  return put(w, text, strlen(text));
}

/* A character by a number, or two numbers beyond 16 bits. */
static int put_escape(const writer *w, int32_t c) {
  char text[16];
  if (c < 0x10000)
    snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
  else
    snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800u + (((unsigned)c - 0x10000) >> 10),
             0xDC00u + (((unsigned)c - 0x10000) & 0x3FF));
  return put_text(w, text);
}

static int string(const writer *w, pdt_jinja_text text) {
  static const char letters[] = "\"\\\n\r\t\b\f", names[] = "\"\\nrtbf";
  if (put_text(w, "\"")) return -1;
  for (size_t at = 0, from = 0; at < text.n;) {
    int32_t c = pdt_utf8_next(text.at, &at);
    const char *simple = c > 0 && c < 0x80 ? strchr(letters, c) : NULL;
    size_t begin = from;
    from = at;
    if (simple ? put(w, (const char[]){'\\', names[simple - letters]}, 2)
        : c < 0x20 || (w->style->ascii && c >= 0x7F) ? put_escape(w, c)
                                                     : put(w, text.at + begin, at - begin))
      return -1;
  }
  return put_text(w, "\"");
}

/* A line break and white space, where there are lines. */
static int line(const writer *w, int level) {
  if (w->style->indent < 0) return 0;
  if (put_text(w, "\n")) return -1;
  for (int64_t i = 0; i < level * w->style->indent; i++)
    if (put_text(w, " ")) return -1;
  return 0;
}

/* What goes before item i. */
static int between(const writer *w, size_t i, int level) {
  if (i > 0 && put_text(w, w->style->indent < 0 ? ", " : ",")) return -1;
  return line(w, level);
}

static int list(const writer *w, const pdt_jinja_list *l, int level) {
  if (l->n == 0) return put_text(w, "[]");
  if (put_text(w, "[")) return -1;
  for (size_t i = 0; i < l->n; i++)
    if (between(w, i, level + 1) || value(w, &l->items[i], level + 1)) return -1;
  return line(w, level) || put_text(w, "]") ? -1 : 0;
}

static int compare_pairs(const void *a, const void *b) {
  const pdt_jinja_pair *x = a, *y = b;
  size_t n = x->key.n < y->key.n ? x->key.n : y->key.n;
  int c = n ? memcmp(x->key.at, y->key.at, n) : 0;
  return c ? c : (x->key.n > y->key.n) - (x->key.n < y->key.n);
}

static int dict(const writer *w, const pdt_jinja_dict *d, int level) {
  const pdt_jinja_pair *pairs = d->pairs;
  if (d->n == 0) return put_text(w, "{}");
  if (w->style->sorted) {
    pdt_jinja_pair *sorted = pdt_jinja_room(w->r, d->n, sizeof *sorted);
    if (!sorted) return -1;
    memcpy(sorted, pairs, d->n * sizeof *sorted);
    qsort(sorted, d->n, sizeof *sorted, compare_pairs);
    pairs = sorted;
  }
  if (put_text(w, "{")) return -1;
  for (size_t i = 0; i < d->n; i++)
    if (between(w, i, level + 1) || string(w, pairs[i].key) || put_text(w, ": ") ||
        value(w, &pairs[i].value, level + 1))
      return -1;
  return line(w, level) || put_text(w, "}") ? -1 : 0;
}

static int real(const writer *w, double v) {
  char text[PDT_JINJA_REAL_BYTES];
  pdt_jinja_real_text(v, text);
  return put_text(w, isfinite(v) ? text : isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
}

static int value(const writer *w, const pdt_jinja_value *v, int level) {
  char text[32];
  if (level > PDT_JINJA_DATA_NESTING)
    return pdt_jinja_fail(w->r, "tojson of what is nested deeper than %d", PDT_JINJA_DATA_NESTING);
  switch (v->kind) {
  case PDT_JINJA_NONE:
    return put_text(w, "null");
  case PDT_JINJA_BOOL:
    return put_text(w, v->integer ? "true" : "false");
  case PDT_JINJA_INTEGER:
    snprintf(text, sizeof text, "%" PRId64, v->integer);
    return put_text(w, text);
  case PDT_JINJA_REAL:
    return real(w, v->real);
  case PDT_JINJA_STRING:
    return string(w, v->text);
  case PDT_JINJA_LIST:
  case PDT_JINJA_TUPLE:
    return list(w, v->list, level);
  case PDT_JINJA_DICT:
    return dict(w, v->dict, level);
  default:
    return pdt_jinja_fail(w->r, "tojson of a value of type %s", pdt_jinja_kind_name(v));
  }
}

int pdt_jinja_to_json(pdt_jinja_run *r, const pdt_jinja_value *v, const pdt_jinja_json_style *style,
                      pdt_jinja_value *out) {
  pdt_buffer text = {0};
  const writer w = {r, style, &text};
  int rc = value(&w, v, 0);
  if (!rc)
    rc = pdt_jinja_concat(r, (pdt_jinja_text){text.data, text.bytes}, (pdt_jinja_text){"", 0}, out);
  pdt_buffer_free(&text);
  return rc;
}
