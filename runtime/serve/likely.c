#include "serve/likely.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/memory.h"

int64_t pdt_likely_characters(const char *text, size_t bytes) {
  int64_t n = 0;
  for (size_t i = 0; i < bytes; i++) n += ((unsigned char)text[i] & 0xC0) != 0x80;
  return n;
}

void pdt_likely_free(pdt_likely *l) {
  free(l->tokens);
  *l = (pdt_likely){0};
}

/* ---- where tokens stand ---- */

/* The text of a part, token by token. */
typedef struct walk {
  pdt_text_stream *stream; /* NULL: there is no text */
  size_t bytes;
  int64_t characters;
} walk;

static int step(walk *w, pdt_token id, pdt_error *err) {
  const char *text;
  size_t bytes;
  if (!w->stream) return 0;
  if (pdt_text_stream_push(w->stream, id, &text, &bytes, err)) return -1;
  w->bytes += bytes;
  w->characters += pdt_likely_characters(text, bytes);
  return 0;
}

/* From the part's beginning to the end of its section, which goes on behind the prompt. */
static int walk_section(walk *w, const pdt_likely *l, pdt_stream k, pdt_error *err) {
  const pdt_request *r = &l->job->request;
  if (l->tokenizer && pdt_text_stream_new(&w->stream, l->tokenizer, true, err)) return -1;
  if (r->n_prefix[k] == 0) return 0;
  int64_t characters = w->characters;
  if (step(w, r->prompt[r->n_prompt - 1], err)) return -1;
  w->bytes = 0;
  w->characters = characters;
  for (int32_t i = 0; i < r->n_prefix[k]; i++)
    if (step(w, r->prefix[k][i], err)) return -1;
  return 0;
}

int pdt_likely_add(pdt_likely *l, pdt_stream k, int32_t from, int32_t to, int64_t characters,
                   pdt_error *err) {
  const pdt_request *r = &l->job->request;
  const pdt_token *tokens = l->job->streams[k].tokens;
  pdt_token before = r->n_prefix[k] > 0 ? r->prefix[k][r->n_prefix[k] - 1] : -1;
  walk w = {.characters = characters};
  int status = walk_section(&w, l, k, err);
  for (int32_t i = 0; i < to && !status; i++) {
    if (i >= from && PDT_GROW(&l->tokens, l->n, &l->room, err)) status = -1;
    if (i >= from && !status)
      l->tokens[l->n++] = (pdt_likely_token){l->job->logprobs[k] + i * (int64_t)l->job->n_logprobs,
                                             before, w.bytes, w.characters};
    if (!status) status = step(&w, tokens[i], err);
    before = tokens[i];
  }
  pdt_text_stream_free(w.stream);
  return status;
}

void pdt_likely_cut(pdt_likely *l, size_t first, size_t byte) {
  while (l->n > first && l->tokens[l->n - 1].byte >= byte) l->n--;
}

/* ---- their texts ---- */

/* The text of a token by itself, behind the one before it, from malloc; NULL without memory. Parts
 * of a character are U+FFFD. */
static char *text_of(const pdt_likely *l, pdt_token before, pdt_token id) {
  char *text = NULL;
  size_t bytes;
  if (!l->tokenizer) return asprintf(&text, "token_id:%d", id) < 0 ? NULL : text;
  if (pdt_tokenizer_is_special(l->tokenizer, id))
    return strdup(pdt_tokenizer_added(l->tokenizer, id, &bytes));
  int status = before >= 0
                   ? pdt_tokenizer_decode_after(l->tokenizer, before, &id, 1, &text, &bytes, NULL)
                   : pdt_tokenizer_decode(l->tokenizer, &id, 1, true, &text, &bytes, NULL);
  if (status) free(text);
  return status ? NULL : text;
}

static bool put_token(const pdt_likely *l, pdt_token before, pdt_token id, FILE *out) {
  char *text = text_of(l, before, id);
  bool good = text && pdt_json_put_string(out, text, strlen(text));
  free(text);
  return good;
}

/* JSON has no infinity. */
static void put_value(const pdt_logprob *p, FILE *out) {
  fprintf(out, "%.9g", isfinite(p->value) ? (double)p->value : -9999.0);
}

/* ---- of a completion ---- */

/* The likeliest, and the token itself; of those that read alike, the likeliest. */
static bool put_top(const pdt_likely *l, const pdt_likely_token *t, FILE *out) {
  int32_t n = l->job->n_logprobs;
  char *texts[PDT_MOST_LOGPROBS + 1] = {NULL};
  bool good = true;
  fputc('{', out);
  for (int32_t i = 0; i < n && good; i++) {
    const pdt_logprob *p = &t->logprobs[(i + 1) % n]; /* the token itself comes last */
    bool again = false;
    texts[i] = text_of(l, t->before, p->token);
    good = texts[i] != NULL;
    for (int32_t j = 0; j < i && good; j++) again = again || strcmp(texts[i], texts[j]) == 0;
    if (again || !good) continue;
    if (i > 0) fputc(',', out);
    good = pdt_json_put_string(out, texts[i], strlen(texts[i]));
    fputc(':', out);
    put_value(p, out);
  }
  fputc('}', out);
  for (int32_t i = 0; i < n; i++) free(texts[i]);
  return good;
}

static bool put_lists(const pdt_likely *l, FILE *out) {
  static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
  bool good = true;
  for (int list = 0; list < 4; list++) {
    bool none = list == 2 && l->job->n_logprobs == 1;
    fprintf(out, "%c\"%s\":%s", list == 0 ? '{' : ',', names[list], none ? "null" : "[");
    for (size_t i = 0; i < l->n && !none; i++) {
      const pdt_likely_token *t = &l->tokens[i];
      if (i > 0) fputc(',', out);
      if (list == 0) good = put_token(l, t->before, t->logprobs->token, out) && good;
      if (list == 1) put_value(t->logprobs, out);
      if (list == 2) good = put_top(l, t, out) && good;
      if (list == 3) fprintf(out, "%lld", (long long)t->character);
    }
    if (!none) fputc(']', out);
  }
  fputc('}', out);
  return good;
}

/* ---- of a chat ---- */

/* "token", "logprob" and "bytes"; those of a part of a character are not known. */
static bool put_fields(const pdt_likely *l, pdt_token before, const pdt_logprob *p, FILE *out) {
  char *text = text_of(l, before, p->token);
  if (!text) return false;
  fputs("\"token\":", out);
  bool good = pdt_json_put_string(out, text, strlen(text));
  fputs(",\"logprob\":", out);
  put_value(p, out);
  fputs(",\"bytes\":", out);
  if (strstr(text, "\xEF\xBF\xBD")) {
    fputs("null", out);
  } else {
    fputc('[', out);
    for (const char *c = text; *c; c++)
      fprintf(out, "%s%u", c > text ? "," : "", (unsigned)(unsigned char)*c);
    fputc(']', out);
  }
  free(text);
  return good;
}

static bool put_content(const pdt_likely *l, FILE *out) {
  bool good = true;
  fputs("{\"content\":[", out);
  for (size_t i = 0; i < l->n; i++) {
    const pdt_likely_token *t = &l->tokens[i];
    fputs(i > 0 ? ",{" : "{", out);
    good = put_fields(l, t->before, t->logprobs, out) && good;
    fputs(",\"top_logprobs\":[", out);
    for (int32_t j = 1; j < l->job->n_logprobs; j++) {
      fputs(j > 1 ? ",{" : "{", out);
      good = put_fields(l, t->before, &t->logprobs[j], out) && good;
      fputc('}', out);
    }
    fputs("]}", out);
  }
  fputs("],\"refusal\":null}", out);
  return good;
}

bool pdt_likely_put(const pdt_likely *l, bool chat, FILE *out) {
  return chat ? put_content(l, out) : put_lists(l, out);
}
