#include "text/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/component.h"
#include "text/unicode.h"

/* GPT-2's pattern, which ByteLevel splits by. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Words, or runs of what is neither word nor space, as the regular expressions of Rust define them
 * (for PCRE2). */
#define WORD  "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}"
#define WORDS "[" WORD "]+|[^" WORD "\\p{White_Space}]+"

typedef struct step {
  enum kind { SPLIT, BYTE_LEVEL, DIGITS, METASPACE, WHITESPACE_SPLIT, PUNCTUATION } kind;
  pdt_regex *pattern;    /* of SPLIT; of BYTE_LEVEL, NULL when it does not split */
  bool invert;           /* of SPLIT: what the pattern matches is what stays */
  pdt_behavior behavior; /* of SPLIT, DIGITS, PUNCTUATION */
  bool add_prefix_space; /* of BYTE_LEVEL */
  int32_t replacement;   /* of METASPACE, like the rest */
  enum { ALWAYS, FIRST, NEVER } prepend;
  bool split;
} step;

struct pdt_pretokenizer {
  step steps[PDT_MAX_COMPONENTS];
  int n;
};

static int load_behavior(const json_t *object, const char *where, pdt_behavior *out,
                         pdt_error *err) {
  const char *name;
  if (pdt_json_string(object, where, "behavior", &name, err)) return -1;
  if (pdt_behavior_parse(name, out)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'behavior': expected Removed, Isolated, MergedWithPrevious, MergedWithNext "
                  "or Contiguous, found '%.40s'",
                  where, name);
}

static int load_metaspace(step *s, const json_t *object, const char *where, pdt_error *err) {
  const char *scheme = "always";
  bool prefix = true;
  s->split = true;
  if (pdt_component_char(object, where, "replacement", &s->replacement, err) ||
      pdt_json_string_or(object, where, "prepend_scheme", &scheme, err) ||
      pdt_json_bool_or(object, where, "add_prefix_space", &prefix, err) ||
      pdt_json_bool_or(object, where, "split", &s->split, err))
    return -1;
  if (!prefix && !pdt_json_get(object, "prepend_scheme")) scheme = "never";
  bool never = strcmp(scheme, "never") == 0, first = strcmp(scheme, "first") == 0;
  if ((!never && !first && strcmp(scheme, "always") != 0) || (!prefix && !never))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'prepend_scheme': expected %s, found '%.40s'", where,
                    prefix ? "always, first or never" : "never, since add_prefix_space is false",
                    scheme);
  s->prepend = never ? NEVER : first ? FIRST : ALWAYS;
  return 0;
}

static int load_byte_level(step *s, const json_t *object, const char *where, pdt_error *err) {
  bool use_regex = true;
  if (pdt_component_bool(object, where, "add_prefix_space", &s->add_prefix_space, err) ||
      pdt_json_bool_or(object, where, "use_regex", &use_regex, err))
    return -1;
  return use_regex ? pdt_regex_new(&s->pattern, GPT2, strlen(GPT2), false, where, err) : 0;
}

static int load_split(step *s, const json_t *object, const char *where, pdt_error *err) {
  if (load_behavior(object, where, &s->behavior, err) ||
      pdt_component_bool(object, where, "invert", &s->invert, err))
    return -1;
  return pdt_component_pattern(&s->pattern, object, where, err);
}

static int load_step(void *context, const json_t *object, const char *type, const char *where,
                     pdt_error *err) {
  static const struct {
    const char *name;
    enum kind kind;
  } types[] = {{"Split", SPLIT},
               {"ByteLevel", BYTE_LEVEL},
               {"Digits", DIGITS},
               {"Metaspace", METASPACE},
               {"Whitespace", SPLIT},
               {"WhitespaceSplit", WHITESPACE_SPLIT},
               {"Punctuation", PUNCTUATION}};
  pdt_pretokenizer *p = context;
  size_t i = 0;
  while (i < sizeof types / sizeof *types && strcmp(type, types[i].name) != 0) i++;
  if (i == sizeof types / sizeof *types)
    return pdt_component_refuse(where, type,
                                "Sequence, Split, ByteLevel, Digits, Metaspace, Whitespace, "
                                "WhitespaceSplit, Punctuation",
                                err);
  step *s = &p->steps[p->n++];
  *s = (step){.kind = types[i].kind, .behavior = PDT_ISOLATED};
  bool individual = false;
  if (strcmp(type, "Whitespace") == 0) {
    s->invert = true;
    s->behavior = PDT_REMOVED;
    return pdt_regex_new_native(&s->pattern, WORDS, where, err);
  }
  switch (s->kind) {
  case SPLIT:
    return load_split(s, object, where, err);
  case BYTE_LEVEL:
    return load_byte_level(s, object, where, err);
  case METASPACE:
    return load_metaspace(s, object, where, err);
  case DIGITS:
    if (pdt_component_bool(object, where, "individual_digits", &individual, err)) return -1;
    s->behavior = individual ? PDT_ISOLATED : PDT_CONTIGUOUS;
    return 0;
  case PUNCTUATION:
    return pdt_json_get(object, "behavior") ? load_behavior(object, where, &s->behavior, err) : 0;
  default:
    return 0;
  }
}

int pdt_pretokenizer_load(pdt_pretokenizer **out, const json_t *value, const char *where,
                          pdt_error *err) {
  if (PDT_NEW(out, 1, "pre-tokenizer", err)) return -1;
  if (!pdt_components(value, "pretokenizers", where, load_step, *out, err)) return 0;
  pdt_pretokenizer_free(*out);
  *out = NULL;
  return -1;
}

void pdt_pretokenizer_free(pdt_pretokenizer *p) {
  for (int i = 0; p && i < p->n; i++) pdt_regex_free(p->steps[i].pattern);
  free(p);
}

static bool is_numeric(int32_t c, int32_t argument) {
  (void)argument;
  return pdt_is_numeric(c);
}

static bool is_white_space(int32_t c, int32_t argument) {
  (void)argument;
  return pdt_is_white_space(c);
}

static bool is_punctuation(int32_t c, int32_t argument) {
  (void)argument;
  return pdt_is_punctuation(c);
}

static bool is_equal(int32_t c, int32_t argument) {
  return c == argument;
}

/* What the steps share while pieces go through them. */
typedef struct work {
  pdt_pieces *in, *out;
  pdt_pieces changed; /* one piece after a change, before its split */
  pdt_cuts cuts;
} work;

/* Splits piece i of `from` at single characters. */
static int split_chars(work *w, const pdt_pieces *from, size_t i, bool (*matches)(int32_t, int32_t),
                       int32_t argument, pdt_behavior behavior, pdt_error *err) {
  const pdt_piece *piece = &from->items[i];
  if (pdt_cuts_by_char(&w->cuts, from->text.data + piece->at, piece->bytes, matches, argument, err))
    return -1;
  return pdt_pieces_split(w->out, from, i, &w->cuts, behavior, err);
}

static int split_pattern(work *w, const step *s, const pdt_pieces *from, size_t i, pdt_error *err) {
  const pdt_piece *piece = &from->items[i];
  if (pdt_regex_cut(s->pattern, from->text.data + piece->at, piece->bytes, &w->cuts, err))
    return -1;
  for (size_t k = 0; s->invert && k < w->cuts.n; k++)
    w->cuts.items[k].match = !w->cuts.items[k].match;
  return pdt_pieces_split(w->out, from, i, &w->cuts, s->behavior, err);
}

/* Spaces become the replacement, one may go before the piece, and the piece is split before each.
 */
static int metaspace(work *w, const step *s, size_t i, pdt_error *err) {
  const pdt_piece *piece = &w->in->items[i];
  const char *text = w->in->text.data + piece->at;
  char mark[4];
  size_t mark_bytes = pdt_utf8_encode(s->replacement, mark);
  pdt_origin origin = {0, piece->origin.middle};
  pdt_buffer changed = {0};
  bool marked = text[0] == ' ' || (piece->bytes >= mark_bytes && !memcmp(text, mark, mark_bytes));
  bool prepend = !marked && !piece->origin.middle &&
                 (s->prepend == ALWAYS || (s->prepend == FIRST && piece->origin.leading));
  int rc = prepend ? pdt_buffer_put(&changed, mark, mark_bytes, err) : 0;
  for (size_t k = 0; !rc && k < piece->bytes; k++) {
    rc = text[k] == ' ' ? pdt_buffer_put(&changed, mark, mark_bytes, err)
                        : pdt_buffer_put(&changed, text + k, 1, err);
    if (k < piece->origin.leading) origin.leading = changed.bytes;
  }
  pdt_pieces_clear(&w->changed);
  if (!rc) rc = pdt_pieces_add(&w->changed, changed.data, changed.bytes, origin, -1, err);
  pdt_buffer_free(&changed);
  if (rc) return -1;
  if (!s->split) return pdt_pieces_copy(w->out, &w->changed, 0, err);
  return split_chars(w, &w->changed, 0, is_equal, s->replacement, PDT_MERGED_WITH_NEXT, err);
}

/* Adds the space, splits, and writes each piece from `first` on in the byte-level alphabet. */
static int byte_level(work *w, const step *s, size_t i, pdt_error *err) {
  const pdt_piece *piece = &w->in->items[i];
  const char *text = w->in->text.data + piece->at;
  pdt_pieces split = {0}, *out = w->out;
  pdt_buffer mapped = {0};
  pdt_pieces_clear(&w->changed);
  mapped.bytes = 0;
  bool prepend = s->add_prefix_space && !piece->origin.middle && text[0] != ' ';
  pdt_origin origin = piece->origin;
  if (origin.leading) origin.leading += prepend;
  int rc = prepend ? pdt_buffer_put(&mapped, " ", 1, err) : 0;
  if (!rc) rc = pdt_buffer_put(&mapped, text, piece->bytes, err);
  if (!rc) rc = pdt_pieces_add(&w->changed, mapped.data, mapped.bytes, origin, -1, err);
  w->out = &split;
  if (!rc)
    rc = s->pattern ? split_pattern(w, s, &w->changed, 0, err)
                    : pdt_pieces_copy(&split, &w->changed, 0, err);
  w->out = out;
  for (size_t k = 0; !rc && k < split.n; k++) {
    const pdt_piece *part = &split.items[k];
    pdt_origin of_part = {0, part->origin.middle};
    mapped.bytes = 0;
    for (size_t b = 0; !rc && b < part->bytes; b++) {
      char utf8[4];
      int32_t c = pdt_byte_to_char((unsigned char)split.text.data[part->at + b]);
      rc = pdt_buffer_put(&mapped, utf8, pdt_utf8_encode(c, utf8), err);
      if (b < part->origin.leading) of_part.leading = mapped.bytes;
    }
    if (!rc) rc = pdt_pieces_add(out, mapped.data, mapped.bytes, of_part, -1, err);
  }
  pdt_buffer_free(&mapped);
  pdt_pieces_free(&split);
  return rc;
}

static int apply(work *w, const step *s, size_t i, pdt_error *err) {
  if (w->in->items[i].id >= 0) return pdt_pieces_copy(w->out, w->in, i, err);
  w->cuts.n = 0;
  switch (s->kind) {
  case SPLIT:
    return split_pattern(w, s, w->in, i, err);
  case BYTE_LEVEL:
    return byte_level(w, s, i, err);
  case DIGITS:
    return split_chars(w, w->in, i, is_numeric, 0, s->behavior, err);
  case METASPACE:
    return metaspace(w, s, i, err);
  case WHITESPACE_SPLIT:
    return split_chars(w, w->in, i, is_white_space, 0, PDT_REMOVED, err);
  default:
    return split_chars(w, w->in, i, is_punctuation, 0, s->behavior, err);
  }
}

int pdt_pretokenizer_apply(const pdt_pretokenizer *p, pdt_pieces *pieces, pdt_error *err) {
  pdt_pieces other = {0};
  work w = {.in = pieces, .out = &other};
  int rc = 0;
  for (int k = 0; !rc && k < p->n; k++) {
    pdt_pieces_clear(&other);
    for (size_t i = 0; !rc && i < pieces->n; i++) rc = apply(&w, &p->steps[k], i, err);
    pdt_pieces swapped = *pieces;
    *pieces = other;
    other = swapped;
  }
  pdt_cuts_free(&w.cuts);
  pdt_pieces_free(&w.changed);
  pdt_pieces_free(&other);
  return rc;
}
