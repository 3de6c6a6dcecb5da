#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/internal.h"
#include "text/normalizer.h"
#include "text/postprocessor.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

#define MAX_FILE_BYTES ((pdt_bytes)512 << 20)

struct pdt_tokenizer {
  pdt_bpe model;
  pdt_added added;
  pdt_normalizer *normalizer;
  pdt_pretokenizer *pretokenizer;
  pdt_postprocessor postprocessor;
  pdt_decoder *decoder;
};

/* Every id that the post-processor adds must be one of a token. */
static int check_template(const pdt_tokenizer *t, const char *where, pdt_error *err) {
  for (size_t i = 0; i < t->postprocessor.template.n; i++) {
    pdt_token id = t->postprocessor.template.items[i];
    size_t bytes;
    if (id >= 0 && !pdt_added_by_id(&t->added, id) &&
        !pdt_vocabulary_text(&t->model.vocabulary, id, &bytes))
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: id %d: expected an id of a token", where, id);
  }
  return 0;
}

/* The tokens that stand in tokenizer.json, and those that other files add. */
static int load_added(pdt_tokenizer *t, const json_t *root, const char *name,
                      const pdt_tokenizer_extras *extras, bool *changed, pdt_error *err) {
  char where[512];
  const pdt_vocabulary *vocabulary = &t->model.vocabulary;
  snprintf(where, sizeof where, "%.400s: added_tokens", name);
  if (pdt_added_load(&t->added, pdt_json_get(root, "added_tokens"), vocabulary, t->normalizer,
                     where, err))
    return -1;
  t->added.changed = false;
  pdt_added_begin(&t->added, vocabulary);
  for (size_t i = 0; extras && i < extras->n; i++)
    if (pdt_added_add(&t->added, &extras->tokens[i], vocabulary, t->normalizer, err)) return -1;
  t->added.split_special = extras && extras->split_special;
  if (changed) *changed = t->added.changed || t->added.split_special;
  return pdt_added_finish(&t->added, where, err);
}

static int load_parts(pdt_tokenizer *t, const json_t *root, const char *name,
                      const pdt_tokenizer_extras *extras, bool *changed, pdt_error *err) {
  const json_t *model;
  char where[5][512];
  static const char *const parts[] = {"model", "normalizer", "pre_tokenizer", "post_processor",
                                      "decoder"};
  for (int i = 0; i < 5; i++) snprintf(where[i], sizeof where[i], "%.400s: %s", name, parts[i]);
  if (pdt_json_object(root, name, "model", &model, err) ||
      pdt_bpe_load(&t->model, model, where[0], err) ||
      pdt_normalizer_load(&t->normalizer, pdt_json_get(root, parts[1]), where[1], err) ||
      pdt_pretokenizer_load(&t->pretokenizer, pdt_json_get(root, parts[2]), where[2], err) ||
      pdt_postprocessor_load(&t->postprocessor, pdt_json_get(root, parts[3]), where[3], err) ||
      pdt_decoder_load(&t->decoder, pdt_json_get(root, parts[4]), where[4], err))
    return -1;
  if (load_added(t, root, name, extras, changed, err)) return -1;
  return check_template(t, where[3], err);
}

int pdt_tokenizer_build(pdt_tokenizer **out, const json_t *root, const char *name,
                        const pdt_tokenizer_extras *extras, bool *changed, pdt_error *err) {
  const char *version = "1.0";
  *out = NULL;
  if (pdt_json_expect_object(root, name, err) ||
      pdt_json_string_or(root, name, "version", &version, err))
    return -1;
  if (strcmp(version, "1.0") != 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected version 1.0, found '%.40s'", name, version);
  pdt_tokenizer *t;
  if (PDT_NEW(&t, 1, "tokenizer", err)) return -1;
  if (load_parts(t, root, name, extras, changed, err)) {
    pdt_tokenizer_free(t);
    return -1;
  }
  *out = t;
  return 0;
}

int pdt_tokenizer_load(pdt_tokenizer **out, const char *path, pdt_error *err) {
  char *text;
  pdt_bytes bytes;
  *out = NULL;
  if (pdt_file_read(&text, &bytes, path, MAX_FILE_BYTES, err)) return -1;
  int rc = pdt_tokenizer_parse(out, text, (size_t)bytes, path, err);
  free(text);
  return rc;
}

int pdt_tokenizer_parse(pdt_tokenizer **out, const char *json, size_t bytes, const char *name,
                        pdt_error *err) {
  json_t *root;
  *out = NULL;
  if (pdt_json_parse_serde(&root, json, bytes, name, err)) return -1;
  int rc = pdt_tokenizer_build(out, root, name, NULL, NULL, err);
  json_decref(root);
  return rc;
}

void pdt_tokenizer_free(pdt_tokenizer *t) {
  if (!t) return;
  pdt_bpe_free(&t->model);
  pdt_added_free(&t->added);
  pdt_normalizer_free(t->normalizer);
  pdt_pretokenizer_free(t->pretokenizer);
  pdt_postprocessor_free(&t->postprocessor);
  pdt_decoder_free(t->decoder);
  free(t);
}

int32_t pdt_tokenizer_size(const pdt_tokenizer *t) {
  int32_t model = t->model.vocabulary.n_ids;
  int32_t added = t->added.n ? t->added.tokens[t->added.n - 1].id + 1 : 0;
  return model > added ? model : added;
}

/* What encoding works with. */
typedef struct work {
  pdt_pieces raw, pieces;
  pdt_buffer normalized;
  pdt_bpe_scratch scratch;
  pdt_ids ids, out;
} work;

/* Where a text stands. */
typedef struct place {
  bool middle;    /* behind another text, which ends with the character `before` */
  int32_t before; /* -1 when there is none, or it is not known */
} place;

/* Finds the added tokens that stand in the raw text; normalizes what is between them, piece by
 * piece; finds in that the added tokens that are looked for there. */
static int extract(const pdt_tokenizer *t, const char *text, size_t bytes, const place *where,
                   work *w, pdt_error *err) {
  pdt_origin whole = {.middle = where->middle};
  if (bytes && !where->middle) pdt_utf8_next(text, &whole.leading);
  if (pdt_added_extract(&t->added, &t->added.raw, text, bytes, whole, where->before, &w->raw, err))
    return -1;
  for (size_t i = 0; i < w->raw.n; i++) {
    const pdt_piece *piece = &w->raw.items[i];
    pdt_origin origin = piece->origin;
    int32_t before = origin.middle ? where->before : -1;
    if (piece->id >= 0) {
      if (pdt_pieces_copy(&w->pieces, &w->raw, i, err)) return -1;
      continue;
    }
    w->normalized.bytes = 0;
    if (pdt_normalizer_apply(t->normalizer, w->raw.text.data + piece->at, piece->bytes, &origin,
                             &w->normalized, err) ||
        pdt_added_extract(&t->added, &t->added.normalized, w->normalized.data, w->normalized.bytes,
                          origin, before, &w->pieces, err))
      return -1;
  }
  return 0;
}

static int encode(const pdt_tokenizer *t, const char *text, size_t bytes, const place *where,
                  bool add_special, work *w, pdt_error *err) {
  if (extract(t, text, bytes, where, w, err) ||
      pdt_pretokenizer_apply(t->pretokenizer, &w->pieces, err))
    return -1;
  for (size_t i = 0; i < w->pieces.n; i++) {
    const pdt_piece *piece = &w->pieces.items[i];
    int rc = piece->id >= 0 ? pdt_ids_add(&w->ids, piece->id, err)
                            : pdt_bpe_encode(&t->model, w->pieces.text.data + piece->at,
                                             piece->bytes, &w->scratch, &w->ids, err);
    if (rc) return -1;
  }
  if (pdt_postprocessor_apply(&t->postprocessor, &w->ids, add_special, &w->out, err)) return -1;
  if (w->out.n <= INT32_MAX) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "text: expected at most %d ids, found %zu", INT32_MAX,
                  w->out.n);
}

static int encode_at(const pdt_tokenizer *t, const char *text, size_t bytes, const place *where,
                     bool add_special, pdt_token **ids, int32_t *n, pdt_error *err) {
  *ids = NULL;
  *n = 0;
  size_t valid = pdt_utf8_valid(text, bytes);
  if (valid < bytes)
    return pdt_fail(err, PDT_ERROR_INPUT, "text: byte %zu: expected UTF-8, found 0x%02x", valid,
                    (unsigned char)text[valid]);
  work w = {0};
  int rc = encode(t, text, bytes, where, add_special, &w, err);
  if (!rc && !w.out.n) rc = PDT_GROW(&w.out.items, 0, &w.out.room, err); /* never NULL */
  if (!rc) {
    *ids = w.out.items;
    *n = (int32_t)w.out.n;
    w.out.items = NULL;
  }
  free(w.out.items);
  free(w.ids.items);
  pdt_bpe_scratch_free(&w.scratch);
  pdt_buffer_free(&w.normalized);
  pdt_pieces_free(&w.pieces);
  pdt_pieces_free(&w.raw);
  return rc;
}

int pdt_tokenizer_encode(const pdt_tokenizer *t, const char *text, size_t bytes, bool add_special,
                         pdt_token **ids, int32_t *n, pdt_error *err) {
  static const place alone = {.before = -1};
  return encode_at(t, text, bytes, &alone, add_special, ids, n, err);
}

int pdt_tokenizer_encode_middle(const pdt_tokenizer *t, int32_t before, const char *text,
                                size_t bytes, pdt_token **ids, int32_t *n, pdt_error *err) {
  const place middle = {true, before};
  return encode_at(t, text, bytes, &middle, false, ids, n, err);
}

/* The string of an id for decoding, NULL when there is none or it is to be skipped. */
static const char *spelling(const pdt_tokenizer *t, pdt_token id, bool skip_special,
                            size_t *bytes) {
  const pdt_added_token *added = pdt_added_by_id(&t->added, id);
  if (!added) return pdt_vocabulary_text(&t->model.vocabulary, id, bytes);
  if (skip_special && added->skipped) return NULL;
  *bytes = added->spelling_bytes;
  return added->spelling;
}

int pdt_tokenizer_decode(const pdt_tokenizer *t, const pdt_token *ids, int32_t n, bool skip_special,
                         char **text, size_t *bytes, pdt_error *err) {
  pdt_decoding *decoding;
  pdt_buffer out = {0};
  *text = NULL;
  *bytes = 0;
  if (pdt_decoding_new(&decoding, t->decoder, err)) return -1;
  int rc = 0;
  for (int32_t i = 0; !rc && i < n; i++) {
    size_t length = 0;
    const char *token = spelling(t, ids[i], skip_special, &length);
    if (token) rc = pdt_decoding_push(decoding, token, length, &out, err);
  }
  if (!rc) rc = pdt_decoding_finish(decoding, &out, err);
  if (!rc) rc = pdt_buffer_take(&out, text, bytes, err);
  pdt_buffer_free(&out);
  pdt_decoding_free(decoding);
  return rc;
}

int pdt_tokenizer_decode_after(const pdt_tokenizer *t, pdt_token before, const pdt_token *ids,
                               int32_t n, char **text, size_t *bytes, pdt_error *err) {
  char *head;
  pdt_token *all;
  size_t length;
  *text = NULL;
  *bytes = 0;
  if (pdt_tokenizer_decode(t, &before, 1, true, &head, &length, err)) return -1;
  int rc = PDT_NEW(&all, (size_t)n + 1, "ids", err);
  if (!rc) {
    all[0] = before;
    if (n > 0) memcpy(all + 1, ids, (size_t)n * sizeof *all);
    rc = pdt_tokenizer_decode(t, all, n + 1, true, text, bytes, err);
    free(all);
  }
  if (!rc && *bytes >= length && memcmp(*text, head, length) == 0) {
    *bytes -= length;
    memmove(*text, *text + length, *bytes + 1);
  } else if (!rc) { /* `before` and the first id are parts of one character */
    free(*text);
    rc = pdt_tokenizer_decode(t, ids, n, true, text, bytes, err);
  }
  free(head);
  return rc;
}

bool pdt_tokenizer_is_special(const pdt_tokenizer *t, pdt_token id) {
  const pdt_added_token *added = pdt_added_by_id(&t->added, id);
  return added && added->skipped;
}

const char *pdt_tokenizer_added(const pdt_tokenizer *t, pdt_token id, size_t *bytes) {
  const pdt_added_token *added = pdt_added_by_id(&t->added, id);
  *bytes = added ? added->bytes : 0;
  return added ? added->content : NULL;
}

pdt_token pdt_tokenizer_token_id(const pdt_tokenizer *t, const char *content) {
  size_t bytes = strlen(content);
  pdt_token id = pdt_added_id(&t->added, content, bytes);
  return id >= 0 ? id : pdt_vocabulary_id(&t->model.vocabulary, content, bytes);
}

struct pdt_text_stream {
  const pdt_tokenizer *tokenizer;
  pdt_decoding *decoding;
  pdt_buffer out;
  bool skip_special;
};

int pdt_text_stream_new(pdt_text_stream **out, const pdt_tokenizer *t, bool skip_special,
                        pdt_error *err) {
  if (PDT_NEW(out, 1, "text stream", err)) return -1;
  (*out)->tokenizer = t;
  (*out)->skip_special = skip_special;
  if (!pdt_decoding_new(&(*out)->decoding, t->decoder, err)) return 0;
  free(*out);
  *out = NULL;
  return -1;
}

void pdt_text_stream_free(pdt_text_stream *s) {
  if (!s) return;
  pdt_decoding_free(s->decoding);
  pdt_buffer_free(&s->out);
  free(s);
}

/* Lends what is in the buffer. */
static int lend(pdt_text_stream *s, const char **text, size_t *bytes, pdt_error *err) {
  size_t n = s->out.bytes;
  if (pdt_buffer_put(&s->out, "", 1, err)) return -1;
  *text = s->out.data;
  *bytes = n;
  return 0;
}

int pdt_text_stream_push(pdt_text_stream *s, pdt_token id, const char **text, size_t *bytes,
                         pdt_error *err) {
  size_t length = 0;
  *text = NULL;
  *bytes = 0;
  s->out.bytes = 0;
  const char *token = spelling(s->tokenizer, id, s->skip_special, &length);
  if (token && pdt_decoding_push(s->decoding, token, length, &s->out, err)) return -1;
  return lend(s, text, bytes, err);
}

int pdt_text_stream_flush(pdt_text_stream *s, const char **text, size_t *bytes, pdt_error *err) {
  pdt_decoding *next;
  *text = NULL;
  *bytes = 0;
  s->out.bytes = 0;
  if (pdt_decoding_new(&next, s->tokenizer->decoder, err)) return -1;
  int rc = pdt_decoding_finish(s->decoding, &s->out, err);
  pdt_decoding_free(s->decoding);
  s->decoding = next;
  return rc ? -1 : lend(s, text, bytes, err);
}
