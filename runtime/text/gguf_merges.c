#include "text/gguf_merges.h"

#include <math.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/gguf_tokenizer.h"
#include "text/vocabulary.h"

enum { MAX_PIECE_BYTES = 256 };

/* Two pieces whose union is one. */
typedef struct pair {
  pdt_token left, right, merged;
  float score;
} pair;

typedef struct pairs {
  pair *items;
  size_t n, room;
} pairs;

static int compare_pairs(const void *a, const void *b) {
  const pair *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  if (x->merged != y->merged) return x->merged < y->merged ? -1 : 1;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

/* Those of one piece. */
static int add_pairs(const pdt_gguf_pieces *p, const pdt_vocabulary *v, size_t id, pairs *out,
                     pdt_error *err) {
  pdt_gguf_text t = p->tokens[id];
  if (t.bytes > MAX_PIECE_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: token %zu: expected a piece of at most %d bytes, found %zu", p->where, id,
                    MAX_PIECE_BYTES, t.bytes);
  if (isnan(p->scores[id]))
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: token %zu: expected a number as its score, found NaN", p->where, id);
  for (size_t at = 0; at < t.bytes;) {
    pdt_utf8_next(t.text, &at);
    if (at == t.bytes) break;
    pair new = {pdt_vocabulary_id(v, t.text, at), pdt_vocabulary_id(v, t.text + at, t.bytes - at),
                (pdt_token)id, p->scores[id]};
    if (new.left < 0 || new.right < 0) continue;
    if (PDT_GROW(&out->items, out->n, &out->room, err)) return -1;
    out->items[out->n++] = new;
  }
  return 0;
}

static bool is_merged(const pdt_gguf_pieces *p, size_t id) {
  return !p->types || p->types[id] == PDT_GGUF_TOKEN_NORMAL ||
         p->types[id] == PDT_GGUF_TOKEN_USER_DEFINED;
}

static json_t *text_json(pdt_gguf_text t) {
  return json_stringn_nocheck(t.text, t.bytes);
}

int pdt_gguf_merges(json_t **out, const pdt_gguf_pieces *p, pdt_error *err) {
  pdt_vocabulary v = {0};
  pairs list = {0};
  *out = NULL;
  int rc = pdt_vocabulary_load(&v, p->ids, p->where, err);
  for (size_t i = 0; i < p->n && !rc; i++)
    if (is_merged(p, i)) rc = add_pairs(p, &v, i, &list, err);
  pdt_vocabulary_free(&v);
  if (!rc && list.n) qsort(list.items, list.n, sizeof *list.items, compare_pairs);
  if (!rc) *out = json_array();
  for (size_t i = 0; i < list.n && !rc; i++)
    json_array_append_new(*out, json_pack("[o, o]", text_json(p->tokens[list.items[i].left]),
                                          text_json(p->tokens[list.items[i].right])));
  if (!rc && json_array_size(*out) != list.n)
    rc = pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory for %zu merges", p->where, list.n);
  free(list.items);
  return rc;
}
