#include "text/gguf_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/gguf_merges.h"
#include "text/gguf_tokenizer.h"

/* The tokens in the making. */
typedef struct table {
  const pdt_gguf_export *e;
  const json_t *vocab, *merges; /* of its model */
  pdt_gguf_text *tokens;        /* [vocab_size] */
  int32_t *types;
  float *scores;
  char (*names)[24]; /* of ids that are no token's */
  pdt_error *err;
} table;

static int refuse(const table *t, const char *what) {
  return pdt_fail(t->err, PDT_ERROR_INPUT, "%s: GGUF cannot say %s", t->e->where, what);
}

/* ---- tokens and types ---- */

static void fill_from_vocabulary(table *t) {
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)(uintptr_t)t->vocab, key, value) {
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= t->e->vocab_size) continue;
    t->tokens[id] = pdt_gguf_text_of(key);
    t->types[id] = PDT_GGUF_TOKEN_NORMAL;
  }
}

/* Added tokens, and a name for what is none. */
static void fill_rest(table *t) {
  for (int32_t id = 0; id < t->e->vocab_size; id++) {
    size_t bytes;
    const char *added = pdt_tokenizer_added(t->e->t, id, &bytes);
    if (added) {
      t->tokens[id] = (pdt_gguf_text){added, bytes};
      t->types[id] = pdt_tokenizer_is_special(t->e->t, id) ? PDT_GGUF_TOKEN_CONTROL
                                                           : PDT_GGUF_TOKEN_USER_DEFINED;
    } else if (!t->tokens[id].text) {
      snprintf(t->names[id], sizeof t->names[id], "[PAD%d]", id);
      t->tokens[id] = pdt_gguf_text_of(t->names[id]);
      t->types[id] = PDT_GGUF_TOKEN_UNUSED;
    }
  }
}

static int fill(table *t) {
  int32_t n = t->e->vocab_size;
  if (pdt_tokenizer_size(t->e->t) > n)
    return pdt_fail(t->err, PDT_ERROR_INPUT,
                    "%s: expected at most the %d tokens of the model's vocabulary, found %d",
                    t->e->where, n, pdt_tokenizer_size(t->e->t));
  if (PDT_NEW(&t->tokens, n, "tokens", t->err) || PDT_NEW(&t->types, n, "tokens", t->err) ||
      PDT_NEW(&t->names, n, "tokens", t->err))
    return -1;
  fill_from_vocabulary(t);
  fill_rest(t);
  return 0;
}

/* ---- around a text ---- */

/* What an encoder puts before and behind a text: -1 for nothing. */
static int find_around(const table *t, pdt_token *before, pdt_token *behind) {
  pdt_token *plain, *full = NULL;
  int32_t n, m = 0, at = 0;
  *before = *behind = -1;
  if (!t->e->t) return 0;
  if (pdt_tokenizer_encode(t->e->t, "a", 1, false, &plain, &n, t->err) ||
      pdt_tokenizer_encode(t->e->t, "a", 1, true, &full, &m, t->err)) {
    free(plain);
    return -1;
  }
  while (at + n < m && memcmp(full + at, plain, (size_t)n * sizeof *plain) != 0) at++;
  int rc =
      at > 1 || m - at - n > 1 ? refuse(t, "that several tokens go before or behind a text") : 0;
  if (!rc && at == 1) *before = full[0];
  if (!rc && m - at - n == 1) *behind = full[m - 1];
  free(plain);
  free(full);
  return rc;
}

static int put_around(const table *t, pdt_gguf_metadata *m) {
  static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"};
  pdt_token before, behind, eos[3] = {-1, -1, -1};
  int32_t n = 0;
  if (find_around(t, &before, &behind)) return -1;
  if (behind >= 0) eos[n++] = behind;
  for (int32_t i = 0; i < t->e->n_eos; i++) {
    if (t->e->eos[i] == behind) continue;
    if (n == 3) return refuse(t, "more than three tokens that end a text");
    eos[n++] = t->e->eos[i];
  }
  for (int32_t i = 0; i < n; i++) pdt_gguf_put_u32(m, ends[i], (uint32_t)eos[i]);
  pdt_token bos = before >= 0 ? before : t->e->bos;
  if (bos >= 0) pdt_gguf_put_u32(m, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
  if (!t->e->t) return 0;
  pdt_gguf_put_bool(m, "tokenizer.ggml.add_bos_token", before >= 0);
  pdt_gguf_put_bool(m, "tokenizer.ggml.add_eos_token", behind >= 0);
  return 0;
}

/* ---- merges ---- */

/* A merge's two parts, from either of its forms, as new strings. */
static bool parts_of(const json_t *merge, char *parts[2]) {
  const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
  const char *left = json_string_value(json_array_get(merge, 0));
  const char *right = json_string_value(json_array_get(merge, 1));
  parts[0] = space ? strndup(text, (size_t)(space - text)) : left ? strdup(left) : NULL;
  parts[1] = space ? strdup(space + 1) : right ? strdup(right) : NULL;
  return parts[0] && parts[1];
}

/* Byte-level merges, "a b". */
static int put_merges(const table *t, pdt_gguf_metadata *m) {
  size_t n = json_array_size(t->merges);
  pdt_gguf_text *lines;
  pdt_buffer text = {0};
  size_t *ends = NULL;
  int rc = PDT_NEW(&lines, n, "merges", t->err) || PDT_NEW(&ends, n, "merges", t->err);
  for (size_t i = 0; i < n && !rc; i++) {
    char *parts[2];
    rc = parts_of(json_array_get(t->merges, i), parts)
             ? pdt_buffer_put(&text, parts[0], strlen(parts[0]), t->err) ||
                   pdt_buffer_put(&text, " ", 1, t->err) ||
                   pdt_buffer_put(&text, parts[1], strlen(parts[1]), t->err)
             : pdt_fail(t->err, PDT_ERROR_MEMORY, "%s: no memory for the merges", t->e->where);
    ends[i] = text.bytes;
    free(parts[0]);
    free(parts[1]);
  }
  for (size_t i = 0, at = 0; i < n && !rc; at = ends[i++])
    lines[i] = (pdt_gguf_text){text.data + at, ends[i] - at};
  if (!rc) pdt_gguf_put_strings(m, "tokenizer.ggml.merges", lines, n);
  pdt_buffer_free(&text);
  free(lines);
  free(ends);
  return rc ? -1 : 0;
}

/* Scores for these merges: what is merged first has the highest. *as_pairs gets the merges as
 * pairs; NULL in it: no scores can be found. */
static int make_scores(table *t, json_t **as_pairs) {
  const float none = -(float)t->e->vocab_size;
  float next = 0;
  *as_pairs = NULL;
  if (PDT_NEW(&t->scores, t->e->vocab_size, "scores", t->err)) return -1;
  for (int32_t i = 0; i < t->e->vocab_size; i++) t->scores[i] = none;
  *as_pairs = json_array();
  for (size_t i = 0; i < json_array_size(t->merges); i++) {
    char *parts[2], whole[1024] = "";
    bool known = parts_of(json_array_get(t->merges, i), parts) &&
                 snprintf(whole, sizeof whole, "%s%s", parts[0], parts[1]) < (int)sizeof whole;
    const json_t *id = json_object_get(t->vocab, whole);
    if (known) json_array_append_new(*as_pairs, json_pack("[s, s]", parts[0], parts[1]));
    free(parts[0]);
    free(parts[1]);
    if (!known || !id || json_integer_value(id) >= t->e->vocab_size) {
      json_decref(*as_pairs);
      *as_pairs = NULL;
      return 0;
    }
    float *score = &t->scores[json_integer_value(id)];
    if (*score == none) *score = next--;
  }
  return 0;
}

/* Types of pieces that SentencePiece knows and tokenizer.json does not tell apart. */
static void set_piece_types(table *t) {
  const char *unknown =
      json_string_value(json_object_get(json_object_get(t->e->root, "model"), "unk_token"));
  for (int32_t id = 0; id < t->e->vocab_size; id++) {
    unsigned byte;
    char text[8] = "";
    int end = 0;
    if (t->tokens[id].bytes == 6) memcpy(text, t->tokens[id].text, 6);
    if (sscanf(text, "<0x%2X>%n", &byte, &end) == 1 && end == 6) t->types[id] = PDT_GGUF_TOKEN_BYTE;
    if (unknown && pdt_gguf_is(t->tokens[id], unknown)) t->types[id] = PDT_GGUF_TOKEN_UNKNOWN;
  }
}

/* Finds scores that give exactly these merges back. */
static int find_scores(table *t, bool *found) {
  json_t *own, *back = NULL;
  set_piece_types(t);
  int rc = make_scores(t, &own);
  const pdt_gguf_pieces pieces = {t->tokens, t->types,   t->scores, (size_t)t->e->vocab_size,
                                  t->vocab,  t->e->where};
  if (!rc && own) rc = pdt_gguf_merges(&back, &pieces, t->err);
  *found = !rc && own && json_equal(own, back);
  json_decref(own);
  json_decref(back);
  return rc;
}

static void put_pieces(const table *t, bool prefix, pdt_gguf_metadata *m) {
  pdt_gguf_put_string(m, "tokenizer.ggml.model", pdt_gguf_text_of("llama"));
  pdt_gguf_put_string(m, "tokenizer.ggml.pre", pdt_gguf_text_of("default"));
  pdt_gguf_put_bool(m, "tokenizer.ggml.add_space_prefix", prefix);
  for (int32_t id = 0; id < t->e->vocab_size; id++)
    if (t->types[id] == PDT_GGUF_TOKEN_UNKNOWN)
      pdt_gguf_put_u32(m, "tokenizer.ggml.unknown_token_id", (uint32_t)id);
  pdt_gguf_put_f32s(m, "tokenizer.ggml.scores", t->scores, (size_t)t->e->vocab_size);
}

/* ---- the two kinds ---- */

/* A tokenizer that GGUF has no name for: its file as a whole. */
static int put_file(const table *t, pdt_gguf_metadata *m) {
  pdt_tokenizer *alone;
  if (pdt_tokenizer_parse(&alone, t->e->text, strlen(t->e->text), t->e->where, t->err)) return -1;
  bool same = pdt_tokenizer_size(alone) == pdt_tokenizer_size(t->e->t);
  pdt_tokenizer_free(alone);
  if (!same) return refuse(t, "how this tokenizer splits texts, and other files add tokens to it");
  pdt_gguf_put_string(m, "tokenizer.ggml.model", pdt_gguf_text_of("none"));
  pdt_gguf_put_string(m, "tokenizer.huggingface.json", pdt_gguf_text_of(t->e->text));
  return 0;
}

static int put_kind(table *t, pdt_gguf_metadata *m) {
  bool prefix, found = false;
  const char *pre = pdt_gguf_pre_of(t->e->root);
  if (pre) {
    pdt_gguf_put_string(m, "tokenizer.ggml.model", pdt_gguf_text_of("gpt2"));
    pdt_gguf_put_string(m, "tokenizer.ggml.pre", pdt_gguf_text_of(pre));
    return put_merges(t, m);
  }
  if (pdt_gguf_is_sentencepiece(t->e->root, &prefix) && find_scores(t, &found)) return -1;
  if (!found) return put_file(t, m);
  put_pieces(t, prefix, m);
  return 0;
}

int pdt_gguf_put_tokenizer(pdt_gguf_metadata *m, const pdt_gguf_export *e, pdt_error *err) {
  const json_t *model;
  table t = {.e = e, .err = err};
  if (!e->t) return put_around(&t, m);
  int rc = pdt_json_object(e->root, e->where, "model", &model, err);
  if (!rc) rc = pdt_json_object(model, e->where, "vocab", &t.vocab, err);
  if (!rc) rc = pdt_json_array(model, e->where, "merges", &t.merges, err);
  if (!rc) rc = fill(&t);
  if (!rc) rc = put_kind(&t, m);
  if (!rc) rc = put_around(&t, m);
  if (!rc) {
    pdt_gguf_put_strings(m, "tokenizer.ggml.tokens", t.tokens, (size_t)e->vocab_size);
    pdt_gguf_put_i32s(m, "tokenizer.ggml.token_type", t.types, (size_t)e->vocab_size);
  }
  free(t.tokens);
  free(t.types);
  free(t.scores);
  free(t.names);
  return rc;
}
