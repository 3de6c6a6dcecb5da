#include "run/story.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/memory.h"
#include "run/result.h"

typedef struct stream {
  pdt_token *tokens; /* n_committed ones, then those that are pending */
  size_t room;
  int32_t n, n_committed;
} stream;

struct pdt_story {
  const pdt_request *request; /* until the story is finished */
  const pdt_tokenizer *tokenizer;
  int32_t K;
  stream *streams; /* [K] */
  char *json;      /* once out is closed */
  size_t bytes;
  FILE *out; /* NULL: closed */
  int32_t n_rounds;
};

static int no_memory(pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_MEMORY, "page: no memory");
}

/* ---- texts ---- */

static int put_text(pdt_story *s, const char *text, size_t bytes, pdt_error *err) {
  return pdt_json_put_string(s->out, text, bytes) ? 0 : no_memory(err);
}

/* Ids in place of a text that nobody can make: " 5 17". */
static int make_ids(const pdt_token *ids, int32_t n, char **text, size_t *bytes, pdt_error *err) {
  FILE *out = open_memstream(text, bytes);
  if (!out) return no_memory(err);
  for (int32_t i = 0; i < n; i++) (void)fprintf(out, " %d", ids[i]);
  if (fclose(out) == 0) return 0;
  free(*text);
  *text = NULL;
  return no_memory(err);
}

/* A stream's section with its first n tokens. */
static int make_part(const pdt_story *s, pdt_stream k, const pdt_token *tokens, int32_t n,
                     char **text, size_t *bytes, pdt_error *err) {
  const pdt_stream_state state = {.index = k, .tokens = (pdt_token *)(uintptr_t)tokens};
  if (!s->tokenizer) return make_ids(tokens, n, text, bytes, err);
  return pdt_result_part(s->request, &state, n, s->tokenizer, text, bytes, err);
}

/* What the last n tokens of a stream add to it. */
static int make_growth(const pdt_story *s, pdt_stream k, int32_t n, char **text, size_t *bytes,
                       pdt_error *err) {
  const stream *t = &s->streams[k];
  if (!s->tokenizer) return make_ids(t->tokens + t->n - n, n, text, bytes, err);
  return pdt_result_growth(s->request, k, t->tokens, t->n - n, t->n, s->tokenizer, text, bytes,
                           err);
}

/* ---- its beginning ---- */

static int put_prompt(pdt_story *s, pdt_error *err) {
  const pdt_request *r = s->request;
  char *text;
  size_t bytes;
  if (s->tokenizer
          ? pdt_tokenizer_decode(s->tokenizer, r->prompt, r->n_prompt, true, &text, &bytes, err)
          : make_ids(r->prompt, r->n_prompt, &text, &bytes, err))
    return -1;
  int status = put_text(s, text, bytes, err);
  free(text);
  return status;
}

static int put_sections(pdt_story *s, pdt_error *err) {
  const pdt_request *r = s->request;
  int status = 0;
  for (pdt_stream k = 0; k < s->K && !status; k++) {
    char *text;
    size_t bytes;
    if (s->tokenizer ? make_part(s, k, NULL, 0, &text, &bytes, err)
                     : make_ids(r->prefix[k], r->n_prefix[k], &text, &bytes, err))
      return -1;
    if (k > 0) (void)fputc(',', s->out);
    status = put_text(s, text, bytes, err);
    free(text);
  }
  return status;
}

static int put_head(pdt_story *s, const pdt_story_head *head, pdt_error *err) {
  (void)fputs("{\"name\":", s->out);
  if (put_text(s, head->name, strlen(head->name), err)) return -1;
  (void)fputs(",\"prompt\":", s->out);
  if (!head->has_texts) (void)fputs("null", s->out);
  if (head->has_texts && put_prompt(s, err)) return -1;
  (void)fputs(",\"sections\":[", s->out);
  if (head->has_texts && put_sections(s, err)) return -1;
  (void)fputs("],\"gamma\":", s->out);
  if (isnan(head->gamma))
    (void)fputs("null", s->out);
  else
    pdt_json_put_double(s->out, head->gamma);
  (void)fprintf(s->out, ",\"streams\":%d,\"rounds\":[", s->K);
  return 0;
}

int pdt_story_new(pdt_story **out, const pdt_story_head *head, pdt_error *err) {
  if (PDT_NEW(out, 1, "page", err)) return -1;
  pdt_story *s = *out;
  *s = (pdt_story){
      .request = head->request, .tokenizer = head->tokenizer, .K = head->request->settings.streams};
  int status = PDT_NEW(&s->streams, s->K, "page", err);
  if (!status && !(s->out = open_memstream(&s->json, &s->bytes))) status = no_memory(err);
  if (!status && !put_head(s, head, err)) return 0;
  pdt_story_free(s);
  *out = NULL;
  return -1;
}

void pdt_story_free(pdt_story *s) {
  if (!s) return;
  if (s->out) (void)fclose(s->out);
  for (pdt_stream k = 0; s->streams && k < s->K; k++) free(s->streams[k].tokens);
  free(s->streams);
  free(s->json);
  free(s);
}

/* ---- its rounds ---- */

/* Puts the block behind what its stream has, and writes it. */
static int add_block(pdt_story *s, int32_t i, const pdt_block_verdict *b, pdt_error *err) {
  stream *t = &s->streams[b->stream];
  pdt_page_block block = {.stream = b->stream,
                          .attempt = b->attempt,
                          .action = b->action,
                          .readiness = b->readiness,
                          .n_tokens = b->n_tokens};
  char *text;
  if (PDT_GROW_BY(&t->tokens, (size_t)t->n, (size_t)b->n_tokens, &t->room, err)) return -1;
  if (b->n_tokens > 0) memcpy(t->tokens + t->n, b->tokens, (size_t)b->n_tokens * sizeof *b->tokens);
  t->n += b->n_tokens;
  if (make_growth(s, b->stream, b->n_tokens, &text, &block.bytes, err)) return -1;
  block.text = text;
  bool good = pdt_page_round_block(s->out, i, &block);
  free(text);
  return good ? 0 : no_memory(err);
}

int pdt_story_round(pdt_story *s, const pdt_page_round *round, const pdt_block_verdict *blocks,
                    int32_t n, pdt_error *err) {
  if (s->n_rounds++ > 0) (void)fputc(',', s->out);
  pdt_page_round_begin(s->out, round);
  for (int32_t i = 0; i < n; i++) {
    stream *t = &s->streams[blocks[i].stream];
    if (add_block(s, i, &blocks[i], err)) return -1;
    if (blocks[i].action == PDT_ACTION_ROLLBACK) t->n = t->n_committed;
    if (blocks[i].action == PDT_ACTION_FORCE) t->n_committed = t->n;
  }
  pdt_page_round_end(s->out);
  for (pdt_stream k = 0; round->gate && k < s->K; k++) s->streams[k].n_committed = s->streams[k].n;
  return 0;
}

int32_t pdt_story_committed(const pdt_story *s, pdt_stream k, const pdt_token **tokens) {
  *tokens = s->streams[k].tokens;
  return s->streams[k].n_committed;
}

/* ---- its end ---- */

/* The answer: the streams' parts in their order, a line break between them. */
static int put_answer(pdt_story *s, const pdt_stream *order, pdt_error *err) {
  char *answer;
  size_t n;
  int status = 0;
  FILE *out = open_memstream(&answer, &n);
  if (!out) return no_memory(err);
  for (int32_t i = 0; i < s->K && !status; i++) {
    const stream *t = &s->streams[order[i]];
    char *text = NULL;
    size_t bytes = 0;
    if (i > 0) (void)fputc('\n', out);
    status = make_part(s, order[i], t->tokens, t->n_committed, &text, &bytes, err);
    if (text) (void)fwrite(text, 1, bytes, out);
    free(text);
  }
  if (fclose(out) != 0 && !status) status = no_memory(err);
  if (!status) status = put_text(s, answer, n, err);
  free(answer);
  return status;
}

int pdt_story_finish(pdt_story *s, const pdt_story_end *end, pdt_error *err) {
  (void)fputs("],\"order\":", s->out);
  if (end->order) {
    pdt_json_put_i32s(s->out, end->order, (size_t)s->K);
    (void)fputs(",\"text\":", s->out);
    if (put_answer(s, end->order, err)) return -1;
  } else {
    (void)fputs("null,\"text\":null", s->out);
  }
  const char *quote = end->ended_by ? "\"" : "";
  (void)fprintf(s->out, ",\"ended_by\":%s%s%s,\"error\":", quote,
                end->ended_by ? end->ended_by : "null", quote);
  if (end->error && put_text(s, end->error, end->error_bytes, err)) return -1;
  (void)fputs(end->error ? "}" : "null}", s->out);
  bool good = !ferror(s->out);
  good = fclose(s->out) == 0 && good;
  s->out = NULL;
  return good ? 0 : no_memory(err);
}

const char *pdt_story_json(const pdt_story *s, size_t *bytes) {
  *bytes = s->bytes;
  return s->json;
}
