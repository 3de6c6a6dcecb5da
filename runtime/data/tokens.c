#include "data/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"

static int encode_one(const pdt_tokenizer *tokenizer, const pdt_text_context *after,
                      const char *text, size_t bytes, pdt_token **ids, int32_t *n, pdt_error *err) {
  return after ? pdt_text_context_encode(after, text, bytes, ids, n, err)
               : pdt_tokenizer_encode(tokenizer, text, bytes, false, ids, n, err);
}

/* Ids of prefix and text together, and how many of them are the prefix's. */
static int encode(const pdt_tokenizer *tokenizer, const pdt_text_context *after, const char *prefix,
                  const char *text, pdt_token **ids, int32_t *n, int32_t *n_prefix,
                  pdt_error *err) {
  pdt_buffer both = {0};
  pdt_token *head = NULL;
  size_t length = strlen(prefix);
  *ids = NULL;
  int rc = pdt_buffer_put(&both, prefix, length, err) ||
           pdt_buffer_put(&both, text, strlen(text), err) ||
           encode_one(tokenizer, after, both.data ? both.data : "", both.bytes, ids, n, err) ||
           encode_one(tokenizer, after, prefix, length, &head, n_prefix, err);
  if (!rc && (*n_prefix > *n || memcmp(head, *ids, (size_t)*n_prefix * sizeof *head) != 0))
    rc = pdt_fail(err, PDT_ERROR_INPUT,
                  "a token of this tokenizer spans the end of the prefix '%.60s' and the start of "
                  "the text '%.60s' (hint: a text begins with its space)",
                  prefix, text);
  pdt_buffer_free(&both);
  free(head);
  if (!rc) return 0;
  free(*ids);
  *ids = NULL;
  return -1;
}

/* Puts the last token of the prompt before ids, and its text, which *shown gets, before the prefix:
 * it keeps what a decoder does at the start of a text away from them. A token that is part of a
 * character is left out. *kept, how many tokens were put. */
static int put_anchor(const pdt_tokenizer *tokenizer, const pdt_text_context *after,
                      const char *prefix, pdt_token **ids, int32_t n, pdt_buffer *shown,
                      int32_t *kept, pdt_error *err) {
  pdt_token last = after ? pdt_text_context_last(after) : -1, *longer;
  char *text = NULL;
  size_t bytes = 0;
  *kept = 0;
  if (last >= 0 && pdt_tokenizer_decode(tokenizer, &last, 1, false, &text, &bytes, err)) return -1;
  int rc = 0;
  if (bytes > 0 && !strstr(text, "\xef\xbf\xbd")) {
    rc = PDT_NEW(&longer, (size_t)n + 1, "tokens", err) || pdt_buffer_put(shown, text, bytes, err);
    if (!rc) {
      longer[0] = last;
      memcpy(longer + 1, *ids, (size_t)n * sizeof *longer);
      free(*ids);
      *ids = longer;
      *kept = 1;
    }
  }
  free(text);
  return rc || pdt_buffer_put(shown, prefix, strlen(prefix) + 1, err) ? -1 : 0;
}

/* A text with its prefix, on its way through the decoder. */
typedef struct tracer {
  const pdt_tokenizer *tokenizer;
  const pdt_token *ids;
  int32_t n, n_prefix;
  const char *prefix, *text;
  size_t skip, length; /* of prefix, of text */
  size_t at;           /* bytes of both that came out so far */
  int32_t *ends;
} tracer;

/* Longest run of tokens without text of their own that is looked into. */
enum { LONGEST_RUN = 64 };

static char expected(const tracer *t, size_t at) {
  return at < t->skip ? t->prefix[at] : t->text[at - t->skip];
}

static void set_end(const tracer *t, int32_t id, size_t at) {
  if (id >= t->n_prefix) t->ends[id - t->n_prefix] = at > t->skip ? (int32_t)(at - t->skip) : 0;
}

/* Tokens [first, last) came out with a later one, as bytes in a row do: ends them where the text of
 * all up to each of them alone would end, if it is the text. The token before keeps what a decoder
 * does at the start of a text away from them. */
static int end_run(const tracer *t, int32_t first, int32_t last, size_t base, pdt_error *err) {
  int32_t anchor = first > 0 ? first - 1 : first;
  size_t before = 0;
  char *text;
  if (last - first > LONGEST_RUN) return 0;
  if (anchor < first) {
    if (pdt_tokenizer_decode(t->tokenizer, t->ids + anchor, 1, false, &text, &before, err))
      return -1;
    free(text);
  }
  for (int32_t i = first; i < last; i++) {
    size_t bytes, same = before;
    if (pdt_tokenizer_decode(t->tokenizer, t->ids + anchor, i + 1 - anchor, false, &text, &bytes,
                             err))
      return -1;
    while (same < bytes && base + same - before < t->at &&
           text[same] == expected(t, base + same - before))
      same++;
    if (bytes >= before && same == bytes) set_end(t, i, base + bytes - before);
    free(text);
  }
  return 0;
}

/* Decodes id by id, noting where each one's text ends, and that it is the text. */
static int find_ends(tracer *t, pdt_text_stream *stream, pdt_error *err) {
  int32_t run = 0; /* tokens before i without text yet */
  for (int32_t i = 0; i <= t->n; i++) {
    size_t base = t->at, bytes;
    const char *part;
    if (i < t->n ? pdt_text_stream_push(stream, t->ids[i], &part, &bytes, err)
                 : pdt_text_stream_flush(stream, &part, &bytes, err))
      return -1;
    for (size_t j = 0; j < bytes; j++, t->at++)
      if (t->at >= t->skip + t->length || part[j] != expected(t, t->at))
        return pdt_fail(err, PDT_ERROR_INPUT,
                        "this tokenizer does not give the text '%.60s' back as it was", t->text);
    if (i < t->n) set_end(t, i, t->at);
    if (bytes > 0 && run > 0 && end_run(t, i - run, i, base, err)) return -1;
    run = bytes > 0 ? 0 : run + 1;
  }
  if (t->n > t->n_prefix) set_end(t, t->n - 1, t->at);
  if (t->at == t->skip + t->length) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "this tokenizer loses the end of the text '%.60s'",
                  t->text);
}

int pdt_data_tokenize(const pdt_tokenizer *tokenizer, const pdt_text_context *after,
                      const char *prefix, const char *text, pdt_data_tokens *out, pdt_token **ids,
                      pdt_error *err) {
  pdt_token *all;
  int32_t n, n_prefix, n_anchor = 0;
  pdt_text_stream *stream = NULL;
  pdt_buffer shown = {0};
  *out = (pdt_data_tokens){0};
  if (ids) *ids = NULL;
  if (encode(tokenizer, after, prefix, text, &all, &n, &n_prefix, err)) return -1;
  out->n = n - n_prefix;
  int rc = PDT_NEW(&out->ends, out->n, "tokens", err) ||
           put_anchor(tokenizer, after, prefix, &all, n, &shown, &n_anchor, err) ||
           pdt_text_stream_new(&stream, tokenizer, false, err);
  n_prefix += n_anchor;
  if (!rc) {
    tracer t = {tokenizer,    all, n + n_anchor, n_prefix, shown.data, text, shown.bytes - 1,
                strlen(text), 0,   out->ends};
    rc = find_ends(&t, stream, err);
  }
  pdt_text_stream_free(stream);
  pdt_buffer_free(&shown);
  if (!rc && ids) {
    memmove(all, all + n_prefix, (size_t)out->n * sizeof *all);
    *ids = all;
    all = NULL;
  }
  free(all);
  if (!rc) return 0;
  free(out->ends);
  *out = (pdt_data_tokens){0};
  return -1;
}

int pdt_data_tokenize_entry(const pdt_tokenizer *tokenizer, const pdt_data_entry *e,
                            pdt_data_tokens **out, pdt_error *err) {
  pdt_text_context *after;
  int32_t k = 0;
  if (pdt_text_context_new(&after, tokenizer, e->prompt, strlen(e->prompt), err))
    return pdt_fail_in(err, "prompt");
  int rc = PDT_NEW(out, e->n_sections, "tokens", err);
  while (!rc && k < e->n_sections) {
    rc = pdt_data_tokenize(tokenizer, after, e->sections[k].prefix, e->sections[k].text, &(*out)[k],
                           NULL, err);
    if (rc) pdt_fail_in(err, "sections[%d]", k);
    k += !rc;
  }
  pdt_text_context_free(after);
  if (!rc) return 0;
  pdt_data_tokens_free(*out, k);
  *out = NULL;
  return -1;
}

void pdt_data_tokens_free(pdt_data_tokens *tokens, int32_t n) {
  for (int32_t i = 0; tokens && i < n; i++) free(tokens[i].ends);
  free(tokens);
}
