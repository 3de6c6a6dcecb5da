#include "serve/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "page/page.h"
#include "run/result.h"

/* Where the lists of a record lie behind it. */
typedef struct places {
  size_t blocks, window, tokens, bytes;
} places;

static places places_of(const pdt_round_report *report, const pdt_stream_state *streams) {
  places p = {.blocks = sizeof(pdt_record)};
  p.window = p.blocks + (size_t)report->n_blocks * sizeof(pdt_record_block);
  p.tokens = p.window + (size_t)report->running->n_window * sizeof(pdt_note_name);
  p.bytes = p.tokens;
  for (int32_t i = 0; i < report->n_blocks; i++) {
    const pdt_block_report *b = &report->blocks[i];
    const pdt_stream_state *s = &streams[b->stream];
    p.bytes += (size_t)(s->n_tokens - s->n_committed + b->n_tokens) * sizeof(pdt_token);
  }
  return p;
}

/* A block, whose tokens go to `to`; returns where the next ones go. */
static pdt_token *put_block(pdt_record_block *out, const pdt_block_report *b,
                            const pdt_stream_state *s, pdt_token *to) {
  *out = (pdt_record_block){.stream = b->stream,
                            .attempt = b->attempt,
                            .action = b->action,
                            .readiness = b->readiness,
                            .n_committed = s->n_committed,
                            .n_pending = s->n_tokens - s->n_committed,
                            .n_tokens = b->n_tokens,
                            .tokens = to};
  if (out->n_pending > 0)
    memcpy(to, s->tokens + s->n_committed, (size_t)out->n_pending * sizeof *to);
  if (b->n_tokens > 0) memcpy(to + out->n_pending, b->tokens, (size_t)b->n_tokens * sizeof *to);
  return to + out->n_pending + b->n_tokens;
}

pdt_record *pdt_record_new(const pdt_round_report *report, const pdt_stream_state *streams) {
  const pdt_running *running = report->running;
  const places p = places_of(report, streams);
  char *memory;
  if (PDT_NEW(&memory, p.bytes, "round", NULL)) return NULL;
  pdt_record *r = (pdt_record *)(void *)memory;
  pdt_record_block *blocks = (pdt_record_block *)(void *)(memory + p.blocks);
  pdt_note_name *window = (pdt_note_name *)(void *)(memory + p.window);
  pdt_token *to = (pdt_token *)(void *)(memory + p.tokens);
  for (int32_t i = 0; i < report->n_blocks; i++)
    to = put_block(&blocks[i], &report->blocks[i], &streams[report->blocks[i].stream], to);
  if (running->n_window > 0)
    memcpy(window, running->window_names, (size_t)running->n_window * sizeof *window);
  *r = (pdt_record){.round = report->round,
                    .gate = report->gate,
                    .window = window,
                    .n_window = running->n_window,
                    .blocks = blocks,
                    .n_blocks = report->n_blocks,
                    .bytes = p.bytes};
  return r;
}

/* What the block adds to its stream's part. */
static int make_text(const pdt_record_block *b, const pdt_request *request,
                     const pdt_stream_state *s, const pdt_tokenizer *tokenizer, char **text,
                     size_t *bytes, pdt_error *err) {
  int32_t from = b->n_committed + b->n_pending, n = from + b->n_tokens;
  pdt_token *tokens;
  if (PDT_NEW(&tokens, n, "answer", err)) return -1;
  if (b->n_committed > 0) memcpy(tokens, s->tokens, (size_t)b->n_committed * sizeof *tokens);
  if (n > b->n_committed)
    memcpy(tokens + b->n_committed, b->tokens, (size_t)(n - b->n_committed) * sizeof *tokens);
  int status = pdt_result_growth(request, b->stream, tokens, from, n, tokenizer, text, bytes, err);
  free(tokens);
  return status;
}

int pdt_record_put(FILE *out, const pdt_record *r, const pdt_request *request,
                   const pdt_stream_state *streams, const pdt_tokenizer *tokenizer,
                   pdt_error *err) {
  const pdt_page_round round = {r->round, r->gate, r->window, r->n_window};
  int status = 0;
  pdt_page_round_begin(out, &round);
  for (int32_t i = 0; i < r->n_blocks && !status; i++) {
    const pdt_record_block *b = &r->blocks[i];
    char *text;
    pdt_page_block block = {.stream = b->stream,
                            .attempt = b->attempt,
                            .action = b->action,
                            .readiness = b->readiness,
                            .n_tokens = b->n_tokens};
    status = make_text(b, request, &streams[b->stream], tokenizer, &text, &block.bytes, err);
    if (status) break;
    block.text = text;
    if (!pdt_page_round_block(out, i, &block))
      status = pdt_fail(err, PDT_ERROR_RUNTIME, "stream %d: its text cannot be quoted", b->stream);
    free(text);
  }
  pdt_page_round_end(out);
  return status;
}
