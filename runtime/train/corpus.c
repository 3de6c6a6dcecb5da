#include "train/corpus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/lines.h"
#include "base/memory.h"

enum { LONGEST_LINE = 1 << 30 };

static int add_tokens(pdt_corpus *c, const pdt_token *tokens, const float *weights, int64_t n,
                      pdt_error *err) {
  size_t weights_room = c->room; /* two arrays, one number */
  if (n == 0) return 0;
  if (PDT_GROW_BY(&c->weights, (size_t)c->n_tokens, (size_t)n, &weights_room, err) ||
      PDT_GROW_BY(&c->tokens, (size_t)c->n_tokens, (size_t)n, &c->room, err))
    return -1;
  memcpy(c->tokens + c->n_tokens, tokens, (size_t)n * sizeof *tokens);
  for (int64_t i = 0; i < n; i++) c->weights[c->n_tokens + i] = weights ? weights[i] : 1;
  c->n_tokens += n;
  return 0;
}

/* Cuts the tokens from `first` on into pieces; each starts with the last token of the one before.
 */
static int add_pieces(pdt_corpus *c, int64_t first, int32_t context, pdt_error *err) {
  int64_t rows = c->n_tokens - first - 1;
  for (int64_t at = 0; at < rows; at += context) {
    if (PDT_GROW(&c->pieces, (size_t)c->n_pieces, &c->pieces_room, err)) return -1;
    int64_t n = rows - at < context ? rows - at : context;
    c->pieces[c->n_pieces++] = (struct pdt_piece){first + at, (int32_t)n};
  }
  return 0;
}

/* What the lines of a file are read with. */
typedef struct reading {
  const pdt_tokenizer *tokenizer;
  const pdt_model_config *config;
  const char *where;
} reading;

static int add_text(pdt_corpus *c, const reading *r, const json_t *text, pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  if (!r->tokenizer)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: a text, and no tokenizer to read it with (hint: a tokenizer.json beside "
                    "the model, or --tokenizer)",
                    r->where);
  if (pdt_tokenizer_encode(r->tokenizer, json_string_value(text), json_string_length(text), true,
                           &ids, &n, err))
    return pdt_fail_in(err, "%s", r->where);
  int rc = 0;
  for (int32_t i = 0; i < n && !rc; i++)
    if (ids[i] < 0 || ids[i] >= r->config->vocab_size)
      rc = pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: token %d is id %d, the model has %d (hint: is the tokenizer of another "
                    "model?)",
                    r->where, i, ids[i], r->config->vocab_size);
  if (!rc) rc = add_tokens(c, ids, NULL, n, err);
  if (!rc && r->config->n_eos > 0) rc = add_tokens(c, &r->config->eos[0], NULL, 1, err);
  free(ids);
  return rc;
}

static int read_weights(const json_t *weights, const char *where, size_t n, float *out,
                        pdt_error *err) {
  if (json_array_size(weights) != n)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'weights': expected %zu numbers as in 'ids', found %zu", where, n,
                    json_array_size(weights));
  for (size_t i = 0; i < n; i++) {
    const json_t *w = json_array_get(weights, i);
    double value = json_number_value(w);
    if (!json_is_number(w) || !(value >= 0 && value <= 1e6))
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: 'weights': element %zu: expected a number from 0 to 1e6", where, i);
    out[i] = (float)value;
  }
  return 0;
}

static int add_ids(pdt_corpus *c, const reading *r, const json_t *ids, const json_t *weights,
                   pdt_error *err) {
  size_t n = json_array_size(ids);
  pdt_token *tokens;
  float *w = NULL;
  char where[600];
  snprintf(where, sizeof where, "%s: 'ids'", r->where);
  if (PDT_NEW(&tokens, n, "document", err)) return -1;
  int rc = weights ? PDT_NEW(&w, n, "document", err) : 0;
  if (!rc && weights) rc = read_weights(weights, r->where, n, w, err);
  for (size_t i = 0; i < n && !rc; i++) {
    int64_t id = 0;
    rc = pdt_json_element_integer(ids, where, i, 0, r->config->vocab_size - 1, &id, err);
    tokens[i] = (pdt_token)id;
  }
  if (!rc) rc = add_tokens(c, tokens, w, (int64_t)n, err);
  free(tokens);
  free(w);
  return rc;
}

static int add_document(pdt_corpus *c, const reading *r, const json_t *line, int32_t context,
                        pdt_error *err) {
  const json_t *ids, *weights;
  const json_t *text = pdt_json_get(line, "text");
  int64_t first = c->n_tokens;
  if (pdt_json_expect_object(line, r->where, err) ||
      pdt_json_array_or(line, r->where, "ids", &ids, err) ||
      pdt_json_array_or(line, r->where, "weights", &weights, err))
    return -1;
  if (!ids && !text && pdt_json_get(line, "format")) return 0;
  if (!ids && !json_is_string(text))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a 'text' or 'ids', found %s", r->where,
                    text ? pdt_json_type_name(text) : "neither");
  if (weights && !ids)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'weights' belong to 'ids', and there are none",
                    r->where);
  if (ids ? add_ids(c, r, ids, weights, err) : add_text(c, r, text, err)) return -1;
  if (c->n_tokens - first < 2)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at least 2 tokens, found %lld", r->where,
                    (long long)(c->n_tokens - first));
  c->n_documents++;
  return add_pieces(c, first, context, err);
}

static uint64_t fingerprint_of(const pdt_corpus *c) {
  uint64_t hash = XXH3_64bits(c->tokens, (size_t)c->n_tokens * sizeof *c->tokens);
  hash = XXH3_64bits_withSeed(c->weights, (size_t)c->n_tokens * sizeof *c->weights, hash);
  for (int64_t i = 0; i < c->n_pieces; i++) { /* a piece has bytes that are no value */
    const int64_t piece[] = {c->pieces[i].first, c->pieces[i].rows};
    hash = XXH3_64bits_withSeed(piece, sizeof piece, hash);
  }
  return hash;
}

int pdt_corpus_load(pdt_corpus *c, const char *path, const pdt_tokenizer *tokenizer,
                    const pdt_model_config *config, int32_t context, pdt_error *err) {
  char where[PDT_WHERE_BYTES];
  const reading r = {tokenizer, config, where};
  pdt_lines lines;
  *c = (pdt_corpus){0};
  int rc = pdt_lines_open(&lines, path, LONGEST_LINE, err), more = 0;
  while (!rc && (more = pdt_lines_next_filled(&lines, err)) == 1) {
    json_t *json = NULL;
    pdt_where(where, path, lines.number);
    rc = pdt_json_parse(&json, lines.text, lines.bytes, where, err);
    if (!rc) rc = add_document(c, &r, json, context, err);
    json_decref(json);
  }
  pdt_lines_close(&lines);
  if (!rc && more < 0) rc = -1;
  if (!rc && c->n_pieces == 0)
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected one document a line, found none", path);
  if (!rc) c->fingerprint = fingerprint_of(c);
  return rc;
}

void pdt_corpus_free(pdt_corpus *c) {
  free(c->tokens);
  free(c->weights);
  free(c->pieces);
  *c = (pdt_corpus){0};
}
