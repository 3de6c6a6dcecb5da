#include "text/normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/component.h"
#include "text/unicode.h"

typedef struct step {
  enum kind { PREPEND, REPLACE, NORMAL_FORM, LOWERCASE, STRIP, STRIP_ACCENTS, BYTE_LEVEL } kind;
  char *content; /* of PREPEND and REPLACE */
  size_t content_bytes;
  pdt_regex *pattern;   /* of REPLACE */
  pdt_normal_form form; /* of NORMAL_FORM */
  bool left, right;     /* of STRIP */
} step;

struct pdt_normalizer {
  step steps[PDT_MAX_COMPONENTS];
  int n;
};

static int load_step(void *context, const json_t *object, const char *type, const char *where,
                     pdt_error *err) {
  static const struct {
    const char *name;
    enum kind kind;
    pdt_normal_form form;
  } types[] = {{"Prepend", PREPEND, 0},
               {"Replace", REPLACE, 0},
               {"NFC", NORMAL_FORM, PDT_NFC},
               {"NFD", NORMAL_FORM, PDT_NFD},
               {"NFKC", NORMAL_FORM, PDT_NFKC},
               {"NFKD", NORMAL_FORM, PDT_NFKD},
               {"Lowercase", LOWERCASE, 0},
               {"Strip", STRIP, 0},
               {"StripAccents", STRIP_ACCENTS, 0},
               {"ByteLevel", BYTE_LEVEL, 0}};
  pdt_normalizer *n = context;
  size_t i = 0;
  while (i < sizeof types / sizeof *types && strcmp(type, types[i].name) != 0) i++;
  if (i == sizeof types / sizeof *types)
    return pdt_component_refuse(where, type,
                                "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, "
                                "Strip, StripAccents, ByteLevel",
                                err);
  step *s = &n->steps[n->n++];
  *s = (step){.kind = types[i].kind, .form = types[i].form};
  switch (s->kind) {
  case PREPEND:
    return pdt_component_string(object, where, "prepend", &s->content, &s->content_bytes, err);
  case REPLACE:
    if (pdt_component_string(object, where, "content", &s->content, &s->content_bytes, err))
      return -1;
    return pdt_component_pattern(&s->pattern, object, where, err);
  case STRIP:
    if (pdt_component_bool(object, where, "strip_left", &s->left, err)) return -1;
    return pdt_component_bool(object, where, "strip_right", &s->right, err);
  default:
    return 0;
  }
}

int pdt_normalizer_load(pdt_normalizer **out, const json_t *value, const char *where,
                        pdt_error *err) {
  if (PDT_NEW(out, 1, "normalizer", err)) return -1;
  if (!pdt_components(value, "normalizers", where, load_step, *out, err)) return 0;
  pdt_normalizer_free(*out);
  *out = NULL;
  return -1;
}

void pdt_normalizer_free(pdt_normalizer *n) {
  for (int i = 0; n && i < n->n; i++) {
    free(n->steps[i].content);
    pdt_regex_free(n->steps[i].pattern);
  }
  free(n);
}

/* Replaces the matches. New text stems from the last character that it replaces. */
static int replace(const step *s, const char *text, size_t bytes, size_t *leading, pdt_buffer *out,
                   pdt_error *err) {
  pdt_cuts cuts = {0};
  int rc = pdt_regex_cut(s->pattern, text, bytes, &cuts, err);
  size_t start = out->bytes, leading_out = 0;
  for (size_t i = 0; !rc && i < cuts.n; i++) {
    const pdt_cut *cut = &cuts.items[i];
    rc = cut->match ? pdt_buffer_put(out, s->content, s->content_bytes, err)
                    : pdt_buffer_put(out, text + cut->start, cut->end - cut->start, err);
    size_t leading_here = cut->start < *leading ? *leading - cut->start : 0;
    if (*leading && cut->end <= *leading)
      leading_out = out->bytes - start;
    else if (!cut->match && leading_here)
      leading_out = out->bytes - start - (cut->end - cut->start) + leading_here;
  }
  *leading = leading_out;
  pdt_cuts_free(&cuts);
  return rc;
}

/* Goes through the text character by character: what is put for those among the leading bytes is
 * leading as well. */
static int map(const step *s, const char *text, size_t bytes, size_t *leading, pdt_buffer *out,
               pdt_error *err) {
  size_t start = out->bytes, leading_out = 0;
  for (size_t at = 0; at < bytes;) {
    char utf8[4];
    int32_t mapped[4];
    size_t from = at;
    int32_t c = pdt_utf8_next(text, &at);
    int n = 1;
    mapped[0] = c;
    if (s->kind == LOWERCASE) {
      n = pdt_lowercase(c, mapped);
    } else if (s->kind == STRIP_ACCENTS) {
      n = !pdt_is_combining_mark(c);
    } else {
      n = (int)(at - from);
      for (int i = 0; i < n; i++)
        mapped[i] = pdt_byte_to_char((unsigned char)text[from + (size_t)i]);
    }
    for (int i = 0; i < n; i++)
      if (pdt_buffer_put(out, utf8, pdt_utf8_encode(mapped[i], utf8), err)) return -1;
    if (at <= *leading) leading_out = out->bytes - start;
  }
  *leading = leading_out;
  return 0;
}

static int strip(const step *s, const char *text, size_t bytes, pdt_origin *origin, pdt_buffer *out,
                 pdt_error *err) {
  size_t from = 0, to = bytes;
  bool left = s->left && !origin->middle;
  for (size_t at = 0; left && at < to && pdt_is_white_space(pdt_utf8_next(text, &at));) from = at;
  while (s->right && to > from) {
    size_t back = pdt_utf8_back(text, to), at = back;
    if (!pdt_is_white_space(pdt_utf8_next(text, &at))) break;
    to = back;
  }
  origin->leading = origin->leading > from ? origin->leading - from : 0;
  return pdt_buffer_put(out, text + from, to - from, err);
}

static int apply(const step *s, const char *text, size_t bytes, pdt_origin *origin, pdt_buffer *out,
                 pdt_error *err) {
  size_t *leading = &origin->leading;
  switch (s->kind) {
  case PREPEND:
    if (origin->middle) return pdt_buffer_put(out, text, bytes, err);
    if (*leading) *leading += s->content_bytes;
    return pdt_buffer_put(out, s->content, s->content_bytes, err) ||
                   pdt_buffer_put(out, text, bytes, err)
               ? -1
               : 0;
  case REPLACE:
    return replace(s, text, bytes, leading, out, err);
  case NORMAL_FORM:
    return pdt_normalize(s->form, text, bytes, leading, out, err);
  case STRIP:
    return strip(s, text, bytes, origin, out, err);
  default:
    return map(s, text, bytes, leading, out, err);
  }
}

int pdt_normalizer_apply(const pdt_normalizer *n, const char *text, size_t bytes,
                         pdt_origin *origin, pdt_buffer *out, pdt_error *err) {
  pdt_buffer now = {0}, next = {0};
  int rc = pdt_buffer_put(&now, text, bytes, err);
  for (int i = 0; !rc && i < n->n && now.bytes; i++) {
    next.bytes = 0;
    rc = apply(&n->steps[i], now.data, now.bytes, origin, &next, err);
    pdt_buffer other = now;
    now = next;
    next = other;
  }
  if (!rc) rc = pdt_buffer_put(out, now.data, now.bytes, err);
  if (origin->leading > now.bytes) origin->leading = now.bytes;
  pdt_buffer_free(&now);
  pdt_buffer_free(&next);
  return rc;
}
