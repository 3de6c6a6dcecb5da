#include "text/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/unicode.h"

static uint32_t hash_pair(pdt_token left, pdt_token right) {
  uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
  return (uint32_t)(x >> 32) ^ (uint32_t)(x >> 17);
}

/* The slot of a pair, free when there is no such merge. */
static struct pdt_bpe_merge *find(const pdt_bpe *model, pdt_token left, pdt_token right) {
  uint32_t slot = hash_pair(left, right) & model->mask;
  for (;; slot = (slot + 1) & model->mask) {
    struct pdt_bpe_merge *m = &model->merges[slot];
    if (m->left < 0 || (m->left == left && m->right == right)) return m;
  }
}

/* Splits one merge, "a b" or ["a", "b"], into two strings; `pairs` says which of the two forms the
 * list is of. */
static int read_merge(const json_t *value, bool pairs, const char *text[2], size_t bytes[2]) {
  if (pairs) {
    if (!json_is_array(value) || json_array_size(value) != 2) return -1;
    for (size_t i = 0; i < 2; i++) {
      const json_t *part = json_array_get(value, i);
      if (!json_is_string(part)) return -1;
      text[i] = json_string_value(part);
      bytes[i] = json_string_length(part);
    }
    return 0;
  }
  if (!json_is_string(value)) return -1;
  text[0] = json_string_value(value);
  const char *space = strchr(text[0], ' ');
  if (!space || strchr(space + 1, ' ')) return -1;
  bytes[0] = (size_t)(space - text[0]);
  text[1] = space + 1;
  bytes[1] = strlen(text[1]);
  return 0;
}

/* Adds one merge: both parts, and the second without its prefix behind the first, must be tokens.
 */
static int add_merge(pdt_bpe *model, const char *const text[2], const size_t bytes[2], int32_t rank,
                     const char *where, pdt_buffer *joined, pdt_error *err) {
  pdt_token left = pdt_vocabulary_id(&model->vocabulary, text[0], bytes[0]);
  pdt_token right = pdt_vocabulary_id(&model->vocabulary, text[1], bytes[1]);
  size_t skip = model->prefix ? strlen(model->prefix) : 0;
  pdt_token merged = -1;
  if (left >= 0 && right >= 0 && bytes[1] >= skip) {
    joined->bytes = 0;
    if (pdt_buffer_put(joined, text[0], bytes[0], err) ||
        pdt_buffer_put(joined, text[1] + skip, bytes[1] - skip, err))
      return -1;
    merged = pdt_vocabulary_id(&model->vocabulary, joined->data ? joined->data : "", joined->bytes);
  }
  if (merged < 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: merges: '%.*s' + '%.60s': expected both and their union in the vocabulary",
                    where, bytes[0] < 60 ? (int)bytes[0] : 60, text[0], text[1]);
  *find(model, left, right) = (struct pdt_bpe_merge){left, right, merged, rank};
  return 0;
}

static int load_merges(pdt_bpe *model, const json_t *merges, const char *where, pdt_error *err) {
  size_t n = json_array_size(merges), n_slots = 16;
  while (n_slots < 2 * n) n_slots *= 2;
  if (n > INT32_MAX / 4 || PDT_NEW(&model->merges, n_slots, "merges", err))
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for %zu merges", where, n);
  for (size_t i = 0; i < n_slots; i++) model->merges[i].left = -1;
  model->mask = (uint32_t)(n_slots - 1);
  bool pairs = json_is_array(json_array_get(merges, 0));
  pdt_buffer joined = {0};
  int rc = 0;
  int32_t rank = 0;
  for (size_t i = 0; !rc && i < n; i++) {
    const char *text[2];
    size_t bytes[2];
    const json_t *value = json_array_get(merges, i);
    if (json_is_string(value) && strncmp(json_string_value(value), "#version", 8) == 0) continue;
    if (read_merge(value, pairs, text, bytes))
      rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: merges: element %zu: expected two tokens%s", where,
                    i, pairs ? " in an array, like the first" : " with a space between them");
    else
      rc = add_merge(model, text, bytes, rank++, where, &joined, err);
  }
  pdt_buffer_free(&joined);
  return rc;
}

/* A string of the file, copied; an empty or absent one is NULL. */
static int copy_string(const json_t *object, const char *where, const char *key, char **out,
                       pdt_error *err) {
  const char *text = NULL;
  if (pdt_json_string_or(object, where, key, &text, err)) return -1;
  if (!text) return 0;
  *out = strdup(text);
  return *out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for '%s'", where, key);
}

static int load_options(pdt_bpe *model, const json_t *object, const char *where, pdt_error *err) {
  const char *type = "BPE"; /* old files do not say so */
  double dropout = 0;
  if (pdt_json_string_or(object, where, "type", &type, err)) return -1;
  if (strcmp(type, "BPE") != 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a model of type BPE, found '%.40s'", where,
                    type);
  if (pdt_json_real_or(object, where, "dropout", 0, 1, &dropout, err)) return -1;
  if (dropout > 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected no dropout, found %g", where, dropout);
  if (pdt_json_bool_or(object, where, "fuse_unk", &model->fuse_unknown, err) ||
      pdt_json_bool_or(object, where, "byte_fallback", &model->byte_fallback, err) ||
      pdt_json_bool_or(object, where, "ignore_merges", &model->ignore_merges, err) ||
      copy_string(object, where, "unk_token", &model->unknown, err) ||
      copy_string(object, where, "continuing_subword_prefix", &model->prefix, err) ||
      copy_string(object, where, "end_of_word_suffix", &model->suffix, err))
    return -1;
  return 0;
}

int pdt_bpe_load(pdt_bpe *model, const json_t *object, const char *where, pdt_error *err) {
  const json_t *vocabulary, *merges;
  if (load_options(model, object, where, err) ||
      pdt_json_object(object, where, "vocab", &vocabulary, err) ||
      pdt_json_array(object, where, "merges", &merges, err) ||
      pdt_vocabulary_load(&model->vocabulary, vocabulary, where, err) ||
      load_merges(model, merges, where, err))
    return -1;
  model->unknown_id = -1;
  if (model->unknown)
    model->unknown_id =
        pdt_vocabulary_id(&model->vocabulary, model->unknown, strlen(model->unknown));
  for (unsigned byte = 0; byte < 256; byte++) {
    char name[8];
    int n = snprintf(name, sizeof name, "<0x%02X>", byte);
    model->byte_ids[byte] = pdt_vocabulary_id(&model->vocabulary, name, (size_t)n);
  }
  return 0;
}

void pdt_bpe_free(pdt_bpe *model) {
  pdt_vocabulary_free(&model->vocabulary);
  free(model->merges);
  free(model->prefix);
  free(model->suffix);
  free(model->unknown);
  *model = (pdt_bpe){0};
}

int pdt_ids_add(pdt_ids *ids, pdt_token id, pdt_error *err) {
  if (PDT_GROW(&ids->items, ids->n, &ids->room, err)) return -1;
  ids->items[ids->n++] = id;
  return 0;
}

/* A symbol of the piece; its place in the array never changes, its neighbors do. */
struct pdt_bpe_symbol {
  pdt_token id;           /* -1 once it is part of the symbol before it */
  int32_t previous, next; /* -1 at the ends */
};

/* A merge that was possible when it was put into the heap. */
struct pdt_bpe_candidate {
  int32_t rank, at; /* of the left symbol */
  pdt_token merged;
};

void pdt_bpe_scratch_free(pdt_bpe_scratch *scratch) {
  free(scratch->symbols);
  free(scratch->heap);
  pdt_buffer_free(&scratch->word);
  *scratch = (pdt_bpe_scratch){0};
}

static int add_symbol(pdt_bpe_scratch *s, pdt_token id, pdt_error *err) {
  if (s->n_symbols >= INT32_MAX)
    return pdt_fail(err, PDT_ERROR_INPUT, "tokenizer: a piece of more than %d symbols", INT32_MAX);
  if (PDT_GROW(&s->symbols, s->n_symbols, &s->room_symbols, err)) return -1;
  int32_t at = (int32_t)s->n_symbols++;
  s->symbols[at] = (struct pdt_bpe_symbol){id, at - 1, -1};
  if (at > 0) s->symbols[at - 1].next = at;
  return 0;
}

/* All bytes of a character as symbols; false, and nothing is added, when a byte has no token. */
static int add_bytes(const pdt_bpe *model, const char *text, size_t bytes, pdt_bpe_scratch *s,
                     bool *added, pdt_error *err) {
  *added = false;
  for (size_t i = 0; i < bytes; i++)
    if (model->byte_ids[(unsigned char)text[i]] < 0) return 0;
  for (size_t i = 0; i < bytes; i++)
    if (add_symbol(s, model->byte_ids[(unsigned char)text[i]], err)) return -1;
  *added = true;
  return 0;
}

/* The string to look up for a character: with what the model puts before and after it. */
static int spell(const pdt_bpe *model, const char **text, size_t *bytes, bool first, bool last,
                 pdt_buffer *word, pdt_error *err) {
  bool prefix = model->prefix && !first, suffix = model->suffix && last;
  if (!prefix && !suffix) return 0;
  word->bytes = 0;
  if (prefix && pdt_buffer_put(word, model->prefix, strlen(model->prefix), err)) return -1;
  if (pdt_buffer_put(word, *text, *bytes, err)) return -1;
  if (suffix && pdt_buffer_put(word, model->suffix, strlen(model->suffix), err)) return -1;
  *text = word->data;
  *bytes = word->bytes;
  return 0;
}

/* One character that the vocabulary may lack. An unknown token waits in *unknown until the next
 * known character, so that it can be fused with more of them; byte tokens go before it. */
static int add_character(const pdt_bpe *model, const char *text, size_t bytes, pdt_bpe_scratch *s,
                         bool *unknown, pdt_error *err) {
  pdt_token id = pdt_vocabulary_id(&model->vocabulary, text, bytes);
  if (id >= 0) {
    if (*unknown && add_symbol(s, model->unknown_id, err)) return -1;
    *unknown = false;
    return add_symbol(s, id, err);
  }
  bool added = false;
  if (model->byte_fallback && add_bytes(model, text, bytes, s, &added, err)) return -1;
  if (added || !model->unknown) return 0;
  if (model->unknown_id < 0)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "tokenizer: '%.*s' is not in the vocabulary, and neither is the unknown token "
                    "'%.60s'",
                    (int)bytes, text, model->unknown);
  if (*unknown && !model->fuse_unknown && add_symbol(s, model->unknown_id, err)) return -1;
  *unknown = true;
  return 0;
}

static int read_symbols(const pdt_bpe *model, const char *text, size_t bytes, pdt_bpe_scratch *s,
                        pdt_error *err) {
  bool unknown = false;
  s->n_symbols = 0;
  for (size_t at = 0; at < bytes;) {
    size_t start = at;
    pdt_utf8_next(text, &at);
    const char *word = text + start;
    size_t n = at - start;
    if (spell(model, &word, &n, start == 0, at == bytes, &s->word, err) ||
        add_character(model, word, n, s, &unknown, err))
      return -1;
  }
  return unknown ? add_symbol(s, model->unknown_id, err) : 0;
}

static bool before(const struct pdt_bpe_candidate *a, const struct pdt_bpe_candidate *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* Puts the merge of symbol `at` with the next one into the heap, if there is one. */
static int push(const pdt_bpe *model, pdt_bpe_scratch *s, int32_t at, pdt_error *err) {
  int32_t next = s->symbols[at].next;
  if (next < 0) return 0;
  const struct pdt_bpe_merge *m = find(model, s->symbols[at].id, s->symbols[next].id);
  if (m->left < 0) return 0;
  if (PDT_GROW(&s->heap, s->n_heap, &s->room_heap, err)) return -1;
  struct pdt_bpe_candidate c = {m->rank, at, m->merged};
  size_t i = s->n_heap++;
  for (; i > 0 && before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
    s->heap[i] = s->heap[(i - 1) / 2];
  s->heap[i] = c;
  return 0;
}

static struct pdt_bpe_candidate pop(pdt_bpe_scratch *s) {
  struct pdt_bpe_candidate top = s->heap[0], last = s->heap[--s->n_heap];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
    if (child + 1 < s->n_heap && before(&s->heap[child + 1], &s->heap[child])) child++;
    if (!before(&s->heap[child], &last)) break;
    s->heap[i] = s->heap[child];
  }
  s->heap[i] = last;
  return top;
}

/* Merges the lowest rank first, the leftmost among equals. A candidate is stale when its symbols no
 * longer merge to what it says. */
static int merge_all(const pdt_bpe *model, pdt_bpe_scratch *s, pdt_error *err) {
  s->n_heap = 0;
  for (size_t i = 0; i + 1 < s->n_symbols; i++)
    if (push(model, s, (int32_t)i, err)) return -1;
  while (s->n_heap) {
    struct pdt_bpe_candidate top = pop(s);
    struct pdt_bpe_symbol *left = &s->symbols[top.at];
    if (left->id < 0 || left->next < 0) continue;
    struct pdt_bpe_symbol *right = &s->symbols[left->next];
    const struct pdt_bpe_merge *m = find(model, left->id, right->id);
    if (m->left < 0 || m->merged != top.merged) continue;
    left->id = top.merged;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) s->symbols[left->next].previous = top.at;
    if (left->previous >= 0 && push(model, s, left->previous, err)) return -1;
    if (push(model, s, top.at, err)) return -1;
  }
  return 0;
}

int pdt_bpe_encode(const pdt_bpe *model, const char *text, size_t bytes, pdt_bpe_scratch *s,
                   pdt_ids *ids, pdt_error *err) {
  if (!bytes) return 0;
  if (bytes > INT32_MAX / 8)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "tokenizer: expected a piece of at most %d bytes, found "
                    "%zu",
                    INT32_MAX / 8, bytes);
  if (model->ignore_merges) {
    pdt_token id = pdt_vocabulary_id(&model->vocabulary, text, bytes);
    if (id >= 0) return pdt_ids_add(ids, id, err);
  }
  if (read_symbols(model, text, bytes, s, err) || merge_all(model, s, err)) return -1;
  for (size_t i = 0; i < s->n_symbols; i++)
    if (s->symbols[i].id >= 0 && pdt_ids_add(ids, s->symbols[i].id, err)) return -1;
  return 0;
}
