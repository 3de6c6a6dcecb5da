#include "atlas/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/buffer.h"

/* Ids of prefix and text together, and how many of them are the prefix's. */
static int encode(const pdt_tokenizer *tokenizer, const char *prefix, const char *text,
                  pdt_token **ids, int32_t *n, int32_t *n_prefix, pdt_error *err) {
  pdt_buffer both = {0};
  pdt_token *head = NULL;
  size_t length = strlen(prefix);
  *ids = NULL;
  int rc =
      pdt_buffer_put(&both, prefix, length, err) ||
      pdt_buffer_put(&both, text, strlen(text), err) ||
      pdt_tokenizer_encode(tokenizer, both.data ? both.data : "", both.bytes, false, ids, n, err) ||
      pdt_tokenizer_encode(tokenizer, prefix, length, false, &head, n_prefix, err);
  if (!rc && (*n_prefix > *n || memcmp(head, *ids, (size_t)*n_prefix * sizeof *head) != 0))
    rc = pdt_fail(err, PDT_ERROR_INPUT,
                  "a token of this tokenizer spans the end of the prefix '%.60s' and the start of "
                  "the text '%.60s'",
                  prefix, text);
  pdt_buffer_free(&both);
  free(head);
  if (!rc) return 0;
  free(*ids);
  *ids = NULL;
  return -1;
}

/* Decodes id by id, noting where each one's text ends. `text` is what must come out. */
static int find_ends(pdt_text_stream *stream, const pdt_token *ids, int32_t n, int32_t n_prefix,
                     const char *prefix, const char *text, pdt_data_tokens *out, pdt_error *err) {
  size_t at = 0, skip = strlen(prefix), length = strlen(text), bytes;
  const char *part;
  for (int32_t i = 0; i <= n; i++) {
    if (i < n ? pdt_text_stream_push(stream, ids[i], &part, &bytes, err)
              : pdt_text_stream_flush(stream, &part, &bytes, err))
      return -1;
    for (size_t j = 0; j < bytes; j++, at++)
      if (at >= skip + length || part[j] != (at < skip ? prefix[at] : text[at - skip]))
        return pdt_fail(err, PDT_ERROR_INPUT,
                        "this tokenizer does not give the text '%.60s' back as it was", text);
    int32_t token = (i < n ? i : n - 1) - n_prefix;
    if (token >= 0) out->ends[token] = at > skip ? (int32_t)(at - skip) : 0;
  }
  if (at == skip + length) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "this tokenizer loses the end of the text '%.60s'", text);
}

int pdt_data_tokenize(const pdt_tokenizer *tokenizer, const char *prefix, const char *text,
                      pdt_data_tokens *out, pdt_token **ids, pdt_error *err) {
  pdt_token *all;
  int32_t n, n_prefix;
  pdt_text_stream *stream = NULL;
  *out = (pdt_data_tokens){0};
  if (ids) *ids = NULL;
  if (encode(tokenizer, prefix, text, &all, &n, &n_prefix, err)) return -1;
  out->n = n - n_prefix;
  int rc = PDT_NEW(&out->ends, out->n, "tokens", err) ||
           pdt_text_stream_new(&stream, tokenizer, false, err) ||
           find_ends(stream, all, n, n_prefix, prefix, text, out, err);
  pdt_text_stream_free(stream);
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
  if (PDT_NEW(out, e->n_sections, "tokens", err)) return -1;
  for (pdt_stream k = 0; k < e->n_sections; k++)
    if (pdt_data_tokenize(tokenizer, e->sections[k].prefix, e->sections[k].text, &(*out)[k], NULL,
                          err)) {
      pdt_data_tokens_free(*out, k);
      *out = NULL;
      return pdt_fail_in(err, "sections[%d]", k);
    }
  return 0;
}

void pdt_data_tokens_free(pdt_data_tokens *tokens, int32_t n) {
  for (int32_t i = 0; tokens && i < n; i++) free(tokens[i].ends);
  free(tokens);
}
