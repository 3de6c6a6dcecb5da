#include "text/added.h"

#include <stdlib.h>
#include <string.h>

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
  return (x->id > y->id) - (x->id < y->id);
}

static int compare_contents(const void *a, const void *b) {
  const pdt_added_token *x = *(const pdt_added_token *const *)a;
  const pdt_added_token *y = *(const pdt_added_token *const *)b;
  return compare_bytes(x->content, x->bytes, y->content, y->bytes);
}

static int compare_patterns(const void *a, const void *b) {
  const pdt_added_token *x = *(const pdt_added_token *const *)a;
  const pdt_added_token *y = *(const pdt_added_token *const *)b;
  return compare_bytes(x->pattern, x->pattern_bytes, y->pattern, y->pattern_bytes);
}

/* What is looked for. */
static int set_pattern(pdt_added_token *t, const pdt_normalizer *normalizer, pdt_error *err) {
  pdt_buffer pattern = {0};
  pdt_origin origin = {0};
  int rc = t->normalized
               ? pdt_normalizer_apply(normalizer, t->content, t->bytes, &origin, &pattern, err)
               : pdt_buffer_put(&pattern, t->content, t->bytes, err);
  if (!rc) rc = pdt_buffer_take(&pattern, &t->pattern, &t->pattern_bytes, err);
  pdt_buffer_free(&pattern);
  return rc;
}

/* Reads one token; one without content is passed over. */
static int load_token(pdt_added *a, const json_t *object, const pdt_vocabulary *vocabulary,
                      const pdt_normalizer *normalizer, pdt_token *next, const char *where,
                      pdt_error *err) {
  pdt_added_token t = {0};
  int64_t id;
  if (pdt_json_expect_object(object, where, err) ||
      pdt_json_integer(object, where, "id", 0, PDT_MAX_TOKEN_ID, &id, err) ||
      pdt_component_bool(object, where, "single_word", &t.single_word, err) ||
      pdt_component_bool(object, where, "lstrip", &t.lstrip, err) ||
      pdt_component_bool(object, where, "rstrip", &t.rstrip, err) ||
      pdt_component_bool(object, where, "normalized", &t.normalized, err) ||
      pdt_component_bool(object, where, "special", &t.special, err) ||
      pdt_component_string(object, where, "content", &t.content, &t.bytes, err))
    return -1;
  if (!t.bytes) {
    free(t.content);
    return 0;
  }
  t.id = pdt_vocabulary_id(vocabulary, t.content, t.bytes);
  if (t.id < 0) t.id = (*next)++;
  pdt_added_token *kept = &a->tokens[a->n++];
  *kept = t;
  if (set_pattern(kept, normalizer, err)) return -1;
  if (kept->pattern_bytes) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.60s': nothing is left after normalization", where,
                  kept->content);
}

static int fill_set(pdt_added_set *set, const pdt_added *a, bool normalized, const char *where,
                    pdt_error *err) {
  if (PDT_NEW(&set->sorted, a->n, "added tokens", err)) return -1;
  for (size_t i = 0; i < a->n; i++)
    if (a->tokens[i].normalized == normalized) set->sorted[set->n++] = &a->tokens[i];
  qsort(set->sorted, set->n, sizeof *set->sorted, compare_patterns);
  for (size_t i = 1; i < set->n; i++)
    if (compare_patterns(&set->sorted[i - 1], &set->sorted[i]) == 0)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.60s' and '%.60s' are the same in a text", where,
                      set->sorted[i - 1]->content, set->sorted[i]->content);
  return 0;
}

/* Orders the tokens by id and by content, and refuses doubles. */
static int index_tokens(pdt_added *a, const char *where, pdt_error *err) {
  qsort(a->tokens, a->n, sizeof *a->tokens, compare_ids);
  if (PDT_NEW(&a->by_content, a->n, "added tokens", err)) return -1;
  for (size_t i = 0; i < a->n; i++) a->by_content[i] = &a->tokens[i];
  qsort(a->by_content, a->n, sizeof *a->by_content, compare_contents);
  for (size_t i = 1; i < a->n; i++) {
    if (compare_contents(&a->by_content[i - 1], &a->by_content[i]) == 0)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.60s': twice", where, a->by_content[i]->content);
    if (a->tokens[i - 1].id == a->tokens[i].id)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.60s' and '%.60s': both have the id %d", where,
                      a->tokens[i - 1].content, a->tokens[i].content, a->tokens[i].id);
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

int pdt_added_load(pdt_added *a, const json_t *array, const pdt_vocabulary *vocabulary,
                   const pdt_normalizer *normalizer, const char *where, pdt_error *err) {
  size_t n = json_array_size(array);
  if (array && !json_is_array(array))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected an array, found %s", where,
                    pdt_json_type_name(array));
  if (n > MAX_ADDED)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most %zu tokens, found %zu", where,
                    MAX_ADDED, n);
  if (PDT_NEW(&a->tokens, n, "added tokens", err) ||
      pdt_regex_new_native(&a->word, WORD, where, err))
    return -1;
  pdt_token next = vocabulary->n;
  for (size_t i = 0; i < n; i++)
    if (load_token(a, json_array_get(array, i), vocabulary, normalizer, &next, where, err))
      return -1;
  if (index_tokens(a, where, err) || fill_set(&a->raw, a, false, where, err) ||
      fill_set(&a->normalized, a, true, where, err))
    return -1;
  /* A decoder asks for the string that it writes, which for some is the normalized one. */
  for (size_t i = 0; i < a->n; i++) {
    const pdt_added_token *named = find(a, a->tokens[i].pattern, a->tokens[i].pattern_bytes);
    a->tokens[i].skipped = named && named->special;
  }
  return 0;
}

void pdt_added_free(pdt_added *a) {
  for (size_t i = 0; i < a->n; i++) {
    free(a->tokens[i].content);
    free(a->tokens[i].pattern);
  }
  free(a->tokens);
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

/* The first in sorted[low, high) whose byte `depth` is at least c. All of them are longer. */
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

/* Appends the span of the text, as an added token or as text. */
static int add(pdt_pieces *out, const char *text, size_t start, size_t end, pdt_origin origin,
               pdt_token id, pdt_error *err) {
  return pdt_pieces_add(out, text + start, end - start, pdt_origin_from(origin, start), id, err);
}

int pdt_added_extract(const pdt_added *a, const pdt_added_set *set, const char *text, size_t bytes,
                      pdt_origin origin, int32_t before, pdt_pieces *out, pdt_error *err) {
  bool starts[256] = {0};
  size_t done = 0;
  for (size_t i = 0; i < set->n; i++) starts[(unsigned char)set->sorted[i]->pattern[0]] = true;
  for (size_t at = 0; set->n && at < bytes;) {
    const pdt_added_token *t =
        starts[(unsigned char)text[at]] ? longest(set, text + at, bytes - at) : NULL;
    if (!t) {
      at++;
      continue;
    }
    size_t start = at, end = at + t->pattern_bytes;
    bool alone = true;
    at = end;
    if (t->single_word && stands_alone(a, text, bytes, start, end, before, &alone, err)) return -1;
    if (!alone) continue;
    if (t->lstrip) start = skip_back(text, start);
    if (t->lstrip && start < done) start = done;
    if (t->rstrip) end = skip_forward(text, bytes, end);
    /* White space that the last token took may be a token itself: then it counts twice. */
    if (done < start && add(out, text, done, start, origin, -1, err)) return -1;
    if (add(out, text, start, end, origin, t->id, err)) return -1;
    done = end;
  }
  return done < bytes ? add(out, text, done, bytes, origin, -1, err) : 0;
}
