#include "text/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "text/unicode.h"

/* A text is read again from a border that lies at least so far before its end, in bytes: further
 * than what a continuation can change looks back. */
#define NEAR ((size_t)1024)

struct pdt_text_context {
  const pdt_tokenizer *tokenizer;
  bool known;      /* the text is known, not only its ids */
  pdt_buffer tail; /* the end of the text, from a border on, or all of it */
  bool whole;      /* all of it */
  int32_t before;  /* the character before the tail, -1 when it is the whole */
  int32_t last;    /* the last character, -1 when there is none or it is not known */
  pdt_token *ids;  /* [n], of the tail */
  int32_t n;
};

/* Encodes text that stands where the tail does. */
static int encode_tail(const pdt_text_context *c, const char *text, size_t bytes, pdt_token **ids,
                       int32_t *n, pdt_error *err) {
  return c->whole ? pdt_tokenizer_encode(c->tokenizer, text, bytes, false, ids, n, err)
                  : pdt_tokenizer_encode_middle(c->tokenizer, c->before, text, bytes, ids, n, err);
}

static bool is_space(char byte) {
  return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* Does an ideograph follow a full stop, a comma or the like of its script? */
static bool begins_phrase(const char *text, size_t at) {
  static const char stops[][4] = {"\xe3\x80\x82", "\xe3\x80\x81", "\xef\xbc\x8c", "\xef\xbc\x81",
                                  "\xef\xbc\x9f", "\xef\xbc\x9b", "\xef\xbc\x9a"};
  unsigned char first = (unsigned char)text[at];
  for (size_t i = 0; at >= 3 && first >= 0xe4 && first <= 0xe9 && i < 7; i++)
    if (memcmp(text + at - 3, stops[i], 3) == 0) return true;
  return false;
}

/* The last place at or before `at` where a single space or line break stands between two words, or
 * a phrase of ideographs begins; 0 when there is none. */
static size_t find_border(const char *text, size_t at) {
  for (; at > 0; at--) {
    if (begins_phrase(text, at)) return at;
    if ((text[at] == ' ' || text[at] == '\n') && !is_space(text[at - 1]) && !is_space(text[at + 1]))
      return at;
  }
  return 0;
}

/* Takes the text from `from` on as the tail if its ids are the last of all, as they are where no
 * token and no rule of the tokenizer spans the border. */
static int try_tail(pdt_text_context *c, const char *text, size_t bytes, size_t from,
                    const pdt_token *all, int32_t n_all, bool *taken, pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  size_t at = pdt_utf8_back(text, from);
  c->before = pdt_utf8_next(text, &at);
  c->whole = false;
  if (encode_tail(c, text + from, bytes - from, &ids, &n, err)) return -1;
  *taken = n < n_all && memcmp(ids, all + (n_all - n), (size_t)n * sizeof *ids) == 0;
  if (!*taken) {
    free(ids);
    return 0;
  }
  c->ids = ids;
  c->n = n;
  return pdt_buffer_put(&c->tail, text + from, bytes - from, err);
}

/* Looks for a border further and further back; without one, the tail is the whole text. */
static int find_tail(pdt_text_context *c, const char *text, size_t bytes, pdt_error *err) {
  pdt_token *all;
  int32_t n;
  if (pdt_tokenizer_encode(c->tokenizer, text, bytes, false, &all, &n, err)) return -1;
  for (size_t distance = NEAR; distance < bytes / 2; distance *= 2) {
    size_t from = find_border(text, bytes - distance);
    bool taken = false;
    if (from == 0) break;
    int rc = try_tail(c, text, bytes, from, all, n, &taken, err);
    if (rc || taken) {
      free(all);
      return rc;
    }
    if (bytes - from > distance) distance = bytes - from;
  }
  c->whole = true;
  c->before = -1;
  c->ids = all;
  c->n = n;
  return pdt_buffer_put(&c->tail, text, bytes, err);
}

static int new_context(pdt_text_context **out, const pdt_tokenizer *t, pdt_error *err) {
  if (PDT_NEW(out, 1, "context of a text", err)) return -1;
  (*out)->tokenizer = t;
  (*out)->before = (*out)->last = -1;
  return 0;
}

int pdt_text_context_new(pdt_text_context **out, const pdt_tokenizer *t, const char *text,
                         size_t bytes, pdt_error *err) {
  if (new_context(out, t, err)) return -1;
  pdt_text_context *c = *out;
  c->known = true;
  if (!find_tail(c, text, bytes, err)) {
    size_t at = bytes ? pdt_utf8_back(text, bytes) : 0;
    if (bytes) c->last = pdt_utf8_next(text, &at);
    return 0;
  }
  pdt_text_context_free(c);
  *out = NULL;
  return -1;
}

/* Are these the ids of the text with (or without) its special tokens? */
static int are_ids_of(const pdt_tokenizer *t, const char *text, size_t bytes, bool special,
                      const pdt_token *ids, int32_t n, bool *out, pdt_error *err) {
  pdt_token *of_text;
  int32_t n_of_text;
  if (pdt_tokenizer_encode(t, text, bytes, special, &of_text, &n_of_text, err)) return -1;
  *out = n == n_of_text && (n == 0 || memcmp(ids, of_text, (size_t)n * sizeof *ids) == 0);
  free(of_text);
  return 0;
}

int pdt_text_context_from_ids(pdt_text_context **out, const pdt_tokenizer *t, const pdt_token *ids,
                              int32_t n, pdt_error *err) {
  bool same = false;
  size_t bytes = 0;
  *out = NULL;
  if (are_ids_of(t, "", 0, true, ids, n, &same, err)) return -1;
  if (same) return pdt_text_context_new(out, t, "", 0, err);
  const char *content = n > 0 ? pdt_tokenizer_added(t, ids[n - 1], &bytes) : NULL;
  if (content && are_ids_of(t, content, bytes, false, ids + n - 1, 1, &same, err)) return -1;
  return same ? pdt_text_context_new(out, t, content, bytes, err) : new_context(out, t, err);
}

void pdt_text_context_free(pdt_text_context *c) {
  if (!c) return;
  pdt_buffer_free(&c->tail);
  free(c->ids);
  free(c);
}

int pdt_text_context_encode(const pdt_text_context *c, const char *text, size_t bytes,
                            pdt_token **ids, int32_t *n, pdt_error *err) {
  *ids = NULL;
  *n = 0;
  pdt_buffer joined = {0};
  int rc = 0;
  if (c->known) {
    rc = pdt_buffer_put(&joined, c->tail.data, c->tail.bytes, err) ||
         pdt_buffer_put(&joined, text, bytes, err) ||
         encode_tail(c, joined.data ? joined.data : "", joined.bytes, ids, n, err);
    pdt_buffer_free(&joined);
    if (rc) return -1;
    size_t skip = (size_t)c->n;
    if (*n >= c->n && memcmp(*ids, c->ids, skip * sizeof **ids) == 0) {
      *n -= c->n;
      memmove(*ids, *ids + skip, (size_t)*n * sizeof **ids);
      return 0;
    }
    free(*ids);
  }
  return pdt_tokenizer_encode_middle(c->tokenizer, c->last, text, bytes, ids, n, err);
}

pdt_token pdt_text_context_last(const pdt_text_context *c) {
  return c->n > 0 ? c->ids[c->n - 1] : -1;
}
