#include "text/added.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "text/component.h"
#include "text/unicode.h"

#define MAX_ADDED ((size_t)1 << 20)
#define WORD      "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]"

static int compare_bytes(const char *a, size_t n_a, const char *b, size_t n_b) {
  size_t n = n_a < n_b ? n_a : n_b;
  int order = n ? memcmp(a, b, n) : 0;
  return order ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_ids(const void *a, const void *b) {
  const pdt_added_token *x = a, *y = b;
  return x->id != y->id ? (x->id > y->id) - (x->id < y->id)
                        : (x->order > y->order) - (x->order < y->order);
}

static int compare_contents(const void *a, const void *b) {
  const pdt_added_token *x = *(const pdt_added_token *const *)a;
  const pdt_added_token *y = *(const pdt_added_token *const *)b;
  return compare_bytes(x->content, x->bytes, y->content, y->bytes);
}

static int compare_patterns(const void *a, const void *b) {
  const pdt_added_token *x = *(const pdt_added_token *const *)a;
  const pdt_added_token *y = *(const pdt_added_token *const *)b;
  int order = compare_bytes(x->pattern, x->pattern_bytes, y->pattern, y->pattern_bytes);
  return order ? order : (x->id > y->id) - (x->id < y->id);
}

/* ---- adding ---- */

/* The slot of a content, free (0) when it has none. */
static uint32_t *slot_of(const pdt_added *a, const char *content, size_t bytes) {
  uint32_t slot = (uint32_t)XXH3_64bits(content, bytes) & a->mask;
  for (;; slot = (slot + 1) & a->mask) {
    if (!a->slots[slot]) return &a->slots[slot];
    const pdt_added_token *t = &a->tokens[a->slots[slot] - 1];
    if (t->bytes == bytes && memcmp(t->content, content, bytes) == 0) return &a->slots[slot];
  }
}

/* Room for one more token, and slots of which half are free. */
static int make_room(pdt_added *a, pdt_error *err) {
  if (a->n >= MAX_ADDED)
    return pdt_fail(err, PDT_ERROR_INPUT, "expected at most %zu added tokens", MAX_ADDED);
  if (PDT_GROW(&a->tokens, a->n, &a->room, err)) return -1;
  if (a->slots && 2 * (a->n + 1) <= a->mask) return 0;
  size_t n_slots = a->slots ? 2 * ((size_t)a->mask + 1) : 64;
  free(a->slots);
  if (PDT_NEW(&a->slots, n_slots, "added tokens", err)) return -1;
  a->mask = (uint32_t)(n_slots - 1);
  for (size_t i = 0; i < a->n; i++)
    *slot_of(a, a->tokens[i].content, a->tokens[i].bytes) = (uint32_t)i + 1;
  return 0;
}

void pdt_added_begin(pdt_added *a, const pdt_vocabulary *vocabulary) {
  a->next = vocabulary->n;
  for (size_t i = 0; i < a->n; i++)
    if (a->tokens[i].id >= a->next) a->next = a->tokens[i].id + 1;
}

/* A new token of this content, with an id. */
static int new_token(pdt_added *a, const pdt_added_spec *spec, const pdt_vocabulary *vocabulary,
                     pdt_added_token **out, pdt_error *err) {
  if (make_room(a, err)) return -1;
  pdt_added_token *t = &a->tokens[a->n];
  *t = (pdt_added_token){.bytes = spec->bytes};
  if (PDT_NEW(&t->content, spec->bytes + 1, "added token", err)) return -1;
  memcpy(t->content, spec->content, spec->bytes);
  t->id = pdt_vocabulary_id(vocabulary, t->content, t->bytes);
  if (t->id < 0) t->id = a->next++;
  *slot_of(a, t->content, t->bytes) = (uint32_t)++a->n;
  *out = t;
  return 0;
}

/* What the normalizer makes of a content; kept also when the token is listed again without. */
static int normalize(pdt_added_token *t, const pdt_normalizer *normalizer, pdt_error *err) {
  pdt_buffer normal = {0};
  pdt_origin origin = {0};
  if (t->normal) return 0;
  int rc = pdt_normalizer_apply(normalizer, t->content, t->bytes, &origin, &normal, err) ||
           pdt_buffer_take(&normal, &t->normal, &t->normal_bytes, err);
  pdt_buffer_free(&normal);
  return rc ? -1 : 0;
}

int pdt_added_add(pdt_added *a, const pdt_added_spec *spec, const pdt_vocabulary *vocabulary,
                  const pdt_normalizer *normalizer, pdt_error *err) {
  if (!spec->bytes) return 0;
  uint32_t known = a->slots ? *slot_of(a, spec->content, spec->bytes) : 0;
  pdt_added_token *t = known ? &a->tokens[known - 1] : NULL;
  a->changed = a->changed || !t || t->single_word != spec->single_word ||
               t->lstrip != spec->lstrip || t->rstrip != spec->rstrip ||
               t->normalized != spec->normalized || (spec->special && !t->special);
  if (!t && new_token(a, spec, vocabulary, &t, err)) return -1;
  t->single_word = spec->single_word;
  t->lstrip = spec->lstrip;
  t->rstrip = spec->rstrip;
  t->normalized = spec->normalized;
  t->special = t->special || spec->special;
  return t->normalized ? normalize(t, normalizer, err) : 0;
}

/* ---- the finished list ---- */

/* Of tokens of one id, the last one stays. */
static void drop_doubles(pdt_added *a) {
  size_t n = 0;
  for (size_t i = 0; i < a->n; i++) {
    if (i + 1 < a->n && a->tokens[i].id == a->tokens[i + 1].id) {
      free(a->tokens[i].content);
      free(a->tokens[i].normal);
    } else {
      a->tokens[n++] = a->tokens[i];
    }
  }
  a->n = n;
}

/* The tokens that are looked for at one stage: of those that are the same in a text the one with
 * the lowest id. */
static int fill_set(pdt_added_set *set, const pdt_added *a, bool normalized, pdt_error *err) {
  size_t n = 0;
  if (PDT_NEW(&set->sorted, a->n, "added tokens", err)) return -1;
  for (size_t i = 0; i < a->n; i++) {
    const pdt_added_token *t = &a->tokens[i];
    if (t->normalized == normalized && t->pattern_bytes) set->sorted[n++] = t;
    if (t->normalized == normalized && !t->pattern_bytes && !set->nothing) set->nothing = t;
  }
  qsort(set->sorted, n, sizeof *set->sorted, compare_patterns);
  for (size_t i = 0; i < n; i++) {
    const pdt_added_token *t = set->sorted[i], *last = set->n ? set->sorted[set->n - 1] : NULL;
    if (last && !compare_bytes(last->pattern, last->pattern_bytes, t->pattern, t->pattern_bytes))
      continue;
    set->sorted[set->n++] = t;
  }
  return 0;
}

/* The token with this content. */
static const pdt_added_token *find(const pdt_added *a, const char *content, size_t bytes) {
  size_t low = 0, high = a->n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const pdt_added_token *t = a->by_content[middle];
    int order = compare_bytes(t->content, t->bytes, content, bytes);
    if (!order) return t;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

int pdt_added_finish(pdt_added *a, const char *where, pdt_error *err) {
  free(a->slots);
  a->slots = NULL;
  for (size_t i = 0; i < a->n; i++) a->tokens[i].order = i;
  if (a->n) qsort(a->tokens, a->n, sizeof *a->tokens, compare_ids);
  drop_doubles(a);
  if (PDT_NEW(&a->by_content, a->n, "added tokens", err) ||
      pdt_regex_new_native(&a->word, WORD, where, err))
    return -1;
  for (size_t i = 0; i < a->n; i++) {
    pdt_added_token *t = &a->tokens[i];
    a->by_content[i] = t;
    t->spelling = t->normal ? t->normal : t->content;
    t->spelling_bytes = t->normal ? t->normal_bytes : t->bytes;
    t->pattern = t->normalized ? t->spelling : t->content;
    t->pattern_bytes = t->normalized ? t->spelling_bytes : t->bytes;
  }
  qsort(a->by_content, a->n, sizeof *a->by_content, compare_contents);
  /* A decoder asks for the string that it writes, which for some is the normalized one. */
  for (size_t i = 0; i < a->n; i++) {
    const pdt_added_token *named = find(a, a->tokens[i].spelling, a->tokens[i].spelling_bytes);
    a->tokens[i].skipped = named && named->special;
  }
  return fill_set(&a->raw, a, false, err) || fill_set(&a->normalized, a, true, err) ? -1 : 0;
}

static int load_token(pdt_added *a, const json_t *object, const pdt_vocabulary *vocabulary,
                      const pdt_normalizer *normalizer, const char *where, pdt_error *err) {
  pdt_added_spec spec = {0};
  int64_t id;
  if (pdt_json_expect_object(object, where, err) ||
      pdt_json_integer(object, where, "id", 0, UINT32_MAX, &id, err) ||
      pdt_component_bool(object, where, "single_word", &spec.single_word, err) ||
      pdt_component_bool(object, where, "lstrip", &spec.lstrip, err) ||
      pdt_component_bool(object, where, "rstrip", &spec.rstrip, err) ||
      pdt_component_bool(object, where, "normalized", &spec.normalized, err) ||
      pdt_component_bool(object, where, "special", &spec.special, err) ||
      pdt_json_string(object, where, "content", &spec.content, err))
    return -1;
  spec.bytes = strlen(spec.content);
  return pdt_added_add(a, &spec, vocabulary, normalizer, err) ? pdt_fail_in(err, "%s", where) : 0;
}

int pdt_added_load(pdt_added *a, const json_t *array, const pdt_vocabulary *vocabulary,
                   const pdt_normalizer *normalizer, const char *where, pdt_error *err) {
  if (array && !json_is_array(array))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected an array, found %s", where,
                    pdt_json_type_name(array));
  pdt_added_begin(a, vocabulary);
  for (size_t i = 0; i < json_array_size(array); i++)
    if (load_token(a, json_array_get(array, i), vocabulary, normalizer, where, err)) return -1;
  return 0;
}

void pdt_added_free(pdt_added *a) {
  for (size_t i = 0; i < a->n; i++) {
    free(a->tokens[i].content);
    free(a->tokens[i].normal);
  }
  free(a->tokens);
  free(a->slots);
  free(a->by_content);
  free(a->raw.sorted);
  free(a->normalized.sorted);
  pdt_regex_free(a->word);
  *a = (pdt_added){0};
}

const pdt_added_token *pdt_added_by_id(const pdt_added *a, pdt_token id) {
  size_t low = 0, high = a->n;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (a->tokens[middle].id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < a->n && a->tokens[low].id == id ? &a->tokens[low] : NULL;
}

pdt_token pdt_added_id(const pdt_added *a, const char *content, size_t bytes) {
  const pdt_added_token *t = find(a, content, bytes);
  return t ? t->id : -1;
}

/* ---- finding ---- */

/* The first in sorted[low, high) whose byte `depth` is at least c. All of these tokens have more
 * than `depth` bytes and agree in those before. */
static size_t lower_bound(const pdt_added_set *set, size_t low, size_t high, size_t depth, int c) {
  while (low < high) {
    size_t middle = (low + high) / 2;
    if ((unsigned char)set->sorted[middle]->pattern[depth] < c)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The longest token that the text starts with, NULL when there is none. */
static const pdt_added_token *longest(const pdt_added_set *set, const char *text, size_t bytes) {
  const pdt_added_token *best = NULL;
  size_t low = 0, high = set->n;
  for (size_t depth = 0; low < high; depth++) {
    if (set->sorted[low]->pattern_bytes == depth) best = set->sorted[low++];
    if (depth == bytes) break;
    int c = (unsigned char)text[depth];
    low = lower_bound(set, low, high, depth, c);
    high = lower_bound(set, low, high, depth, c + 1);
  }
  return best;
}

/* Is there no word character right before `start` and right after `end`? `front` is the character
 * before the text, -1 without. */
static int stands_alone(const pdt_added *a, const char *text, size_t bytes, size_t start,
                        size_t end, int32_t front, bool *out, pdt_error *err) {
  bool before = false, after = false;
  char utf8[4];
  if (start) {
    size_t at = pdt_utf8_back(text, start);
    if (pdt_regex_matches(a->word, text + at, start - at, &before, err)) return -1;
  } else if (front >= 0) {
    if (pdt_regex_matches(a->word, utf8, pdt_utf8_encode(front, utf8), &before, err)) return -1;
  }
  if (end < bytes) {
    size_t at = end;
    pdt_utf8_next(text, &at);
    if (pdt_regex_matches(a->word, text + end, at - end, &after, err)) return -1;
  }
  *out = !before && !after;
  return 0;
}

static size_t skip_back(const char *text, size_t start) {
  while (start) {
    size_t back = pdt_utf8_back(text, start), at = back;
    if (!pdt_is_white_space(pdt_utf8_next(text, &at))) break;
    start = back;
  }
  return start;
}

static size_t skip_forward(const char *text, size_t bytes, size_t end) {
  for (size_t at = end; at < bytes && pdt_is_white_space(pdt_utf8_next(text, &at));) end = at;
  return end;
}

/* Appends the span of the text, as an added token or as text; nothing when it is empty. */
static int add(pdt_pieces *out, const char *text, size_t start, size_t end, pdt_origin origin,
               pdt_token id, pdt_error *err) {
  if (start >= end) return 0;
  return pdt_pieces_add(out, text + start, end - start, pdt_origin_from(origin, start), id, err);
}

/* The token that the text from `at` on begins with: the longest, or the one of which nothing is
 * left, which stands everywhere but right behind another. */
static const pdt_added_token *match(const pdt_added_set *set, const bool *starts, const char *text,
                                    size_t bytes, size_t at, size_t last) {
  const pdt_added_token *t = NULL;
  if (at < bytes && starts[(unsigned char)text[at]]) t = longest(set, text + at, bytes - at);
  return t || at == last ? t : set->nothing;
}

int pdt_added_extract(const pdt_added *a, const pdt_added_set *set, const char *text, size_t bytes,
                      pdt_origin origin, int32_t before, pdt_pieces *out, pdt_error *err) {
  bool starts[256] = {0};
  size_t done = 0,
         last = SIZE_MAX; /* `last`: where the last token ended before spaces were taken */
  for (size_t i = 0; i < set->n; i++) starts[(unsigned char)set->sorted[i]->pattern[0]] = true;
  for (size_t at = 0; (set->n || set->nothing) && at <= bytes;) {
    const pdt_added_token *t = match(set, starts, text, bytes, at, last);
    size_t start = at, end = at + (t ? t->pattern_bytes : 0);
    bool alone = true;
    at = end;
    if (start < end)
      last = end;
    else if (at < bytes)
      pdt_utf8_next(text, &at);
    else
      at++;
    if (!t || (a->split_special && t->special)) continue;
    if (t->single_word && stands_alone(a, text, bytes, start, end, before, &alone, err)) return -1;
    if (!alone) continue;
    if (t->lstrip) start = skip_back(text, start);
    if (t->lstrip && start < done) start = done;
    if (t->rstrip) end = skip_forward(text, bytes, end);
    /* White space that the last token took may be a token itself. One that takes what is before it
     * as well finds that all of it is gone; another one counts what it is once more, and what comes
     * behind it too. */
    if (start > end) continue;
    if (add(out, text, done, start, origin, -1, err) ||
        add(out, text, start, end, origin, t->id, err))
      return -1;
    done = end;
  }
  return add(out, text, done, bytes, origin, -1, err);
}
