#include "run/result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "protocol/merge.h"

/* A text made from tokens. */
typedef struct decoded_text {
  char *text;
  size_t bytes;
} decoded_text;

/* Is `text` the text `start` followed by replacement characters alone, at least one? */
static bool is_cut_short(const decoded_text *text, const decoded_text *start) {
  static const char replacement[] = "\xEF\xBF\xBD";
  if (text->bytes <= start->bytes || memcmp(text->text, start->text, start->bytes) != 0)
    return false;
  for (size_t at = start->bytes; at < text->bytes; at += 3)
    if (text->bytes - at < 3 || memcmp(text->text + at, replacement, 3) != 0) return false;
  return true;
}

/* The text of ids, behind an id that is not shown; -1: at the start of a text. */
static int decode_ids(const pdt_tokenizer *t, pdt_token before, const pdt_token *ids, int32_t n,
                      decoded_text *out, pdt_error *err) {
  return before >= 0 ? pdt_tokenizer_decode_after(t, before, ids, n, &out->text, &out->bytes, err)
                     : pdt_tokenizer_decode(t, ids, n, true, &out->text, &out->bytes, err);
}

/* The text of tokens, special ones left out. A text that ends inside a character, whose last one to
 * three tokens decode to replacement characters alone, ends before it. */
static int decode_tokens(const pdt_tokenizer *t, pdt_token before, const pdt_token *ids, int32_t n,
                         decoded_text *out, pdt_error *err) {
  if (!t) {
    out->text = calloc(1, 1);
    return out->text ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "text: no memory");
  }
  if (decode_ids(t, before, ids, n, out, err)) return -1;
  bool replaced = out->bytes >= 3 && memcmp(out->text + out->bytes - 3, "\xEF\xBF\xBD", 3) == 0;
  for (int32_t cut = 1; replaced && cut <= 3 && cut <= n; cut++) {
    decoded_text shorter;
    if (decode_ids(t, before, ids, n - cut, &shorter, err)) return -1;
    bool found = is_cut_short(out, &shorter);
    if (found) out->bytes = shorter.bytes;
    free(shorter.text);
    if (found) break;
  }
  return 0;
}

static int copy_ints(const int32_t *from, int32_t n, int32_t **to, pdt_error *err) {
  if (PDT_NEW(to, n, "result", err)) return -1;
  if (n > 0) memcpy(*to, from, (size_t)n * sizeof *from);
  return 0;
}

/* What one stream came to, in memory of its own. */
static int make_artifact(const pdt_outcome *o, const pdt_tokenizer *tokenizer,
                         const pdt_stream *owner, pdt_stream k, pdt_artifact *a, pdt_error *err) {
  const pdt_stream_state *stream = &o->streams[k];
  int32_t *tokens = NULL, *forced = NULL, *slots = NULL;
  decoded_text text = {0};
  int status = copy_ints(stream->tokens, stream->n_committed, &tokens, err) ||
               copy_ints(stream->forced, stream->n_forced, &forced, err) ||
               PDT_NEW(&slots, o->slots, "result", err) ||
               decode_tokens(tokenizer, -1, stream->tokens, stream->n_committed, &text, err);
  *a = (pdt_artifact){.session = o->request->session,
                      .request = o->index,
                      .stream = k,
                      .tokens = tokens,
                      .n_tokens = stream->n_committed,
                      .text = text.text,
                      .n_text_bytes = text.bytes,
                      .done = stream->done,
                      .forced_rounds = forced,
                      .n_forced = stream->n_forced,
                      .uncommitted_tokens = stream->n_tokens - stream->n_committed,
                      .slots = slots,
                      .complete = o->complete};
  for (int32_t i = 0; i < o->slots && !status; i++)
    if (owner[i] == k) slots[a->n_slots++] = i;
  return status ? -1 : 0;
}

/* The first n of `tokens`, those of stream k, behind its section. */
static int decode_part(const pdt_request *r, pdt_stream k, const pdt_token *tokens, int32_t n,
                       const pdt_tokenizer *tokenizer, decoded_text *out, pdt_error *err) {
  int32_t n_prefix = r->n_prefix[k];
  pdt_token *ids;
  if (PDT_NEW(&ids, n_prefix + n, "answer", err)) return -1;
  if (n_prefix) memcpy(ids, r->prefix[k], (size_t)n_prefix * sizeof *ids);
  if (n) memcpy(ids + n_prefix, tokens, (size_t)n * sizeof *ids);
  /* A section is read in the middle of a text, and keeps a space in front there. */
  pdt_token before = n_prefix > 0 ? r->prompt[r->n_prompt - 1] : -1;
  int status = decode_tokens(tokenizer, before, ids, n_prefix + n, out, err);
  free(ids);
  return status;
}

int pdt_result_part(const pdt_request *r, const pdt_stream_state *stream, int32_t n,
                    const pdt_tokenizer *tokenizer, char **text, size_t *bytes, pdt_error *err) {
  decoded_text decoded = {0};
  int status = decode_part(r, stream->index, stream->tokens, n, tokenizer, &decoded, err);
  *text = decoded.text;
  *bytes = decoded.bytes;
  return status;
}

int pdt_result_growth(const pdt_request *request, pdt_stream k, const pdt_token *tokens,
                      int32_t from, int32_t n, const pdt_tokenizer *tokenizer, char **text,
                      size_t *bytes, pdt_error *err) {
  decoded_text before = {0}, after = {0};
  *text = NULL;
  *bytes = 0;
  int status = decode_part(request, k, tokens, from, tokenizer, &before, err) ||
               decode_part(request, k, tokens, n, tokenizer, &after, err);
  if (!status) {
    size_t same = 0;
    while (same < before.bytes && same < after.bytes && before.text[same] == after.text[same])
      same++;
    while (same > 0 && same < after.bytes && ((unsigned char)after.text[same] & 0xC0) == 0x80)
      same--; /* not inside a character */
    *text = after.text;
    *bytes = after.bytes - same;
    memmove(after.text, after.text + same, *bytes);
  } else {
    free(after.text);
  }
  free(before.text);
  return status ? -1 : 0;
}

/* A stream's part of the answer: its section, then what it committed. */
static int append_section(const pdt_outcome *o, const pdt_tokenizer *tokenizer, pdt_stream k,
                          FILE *answer, pdt_error *err) {
  const pdt_stream_state *stream = &o->streams[k];
  char *text;
  size_t bytes;
  int status =
      pdt_result_part(o->request, stream, stream->n_committed, tokenizer, &text, &bytes, err);
  if (!status && fwrite(text, 1, bytes, answer) != bytes)
    status = pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  free(text);
  return status;
}

/* The merged text: the parts of streams that had something to write in merge order, a line break
 * between them. */
static int make_text(const pdt_outcome *o, const pdt_tokenizer *tokenizer, const pdt_result *r,
                     decoded_text *out, pdt_error *err) {
  FILE *answer = open_memstream(&out->text, &out->bytes);
  if (!answer) return pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  int status = 0;
  int32_t n = 0;
  for (int32_t i = 0; i < r->K && !status; i++) {
    if (pdt_stream_left_out(&o->streams[r->order[i]])) continue;
    if (n++ > 0) fputc('\n', answer);
    status = append_section(o, tokenizer, r->order[i], answer, err);
  }
  if (fclose(answer) != 0 && !status) status = pdt_fail(err, PDT_ERROR_MEMORY, "answer: no memory");
  return status;
}

int pdt_result_make(pdt_result *r, const pdt_outcome *o, const pdt_tokenizer *tokenizer,
                    pdt_error *err) {
  int32_t K = o->request->settings.streams;
  decoded_text text = {0};
  *r = (pdt_result){0};
  if (PDT_NEW(&r->artifacts, K, "result", err)) return -1;
  r->K = K;
  if (PDT_NEW(&r->order, K, "result", err) || PDT_NEW(&r->owner, o->slots, "result", err))
    return -1;
  pdt_merge(o->streams, K, o->plan_ids, o->slots, o->request->settings.keep_order == 1, r->owner,
            r->order);
  for (pdt_stream k = 0; k < K; k++)
    if (make_artifact(o, tokenizer, r->owner, k, &r->artifacts[k], err)) return -1;
  int status = make_text(o, tokenizer, r, &text, err);
  r->answer = (pdt_answer){.session = o->request->session,
                           .request = o->index,
                           .order = r->order,
                           .n_order = K,
                           .text = text.text,
                           .n_text_bytes = text.bytes,
                           .complete = o->complete};
  return status;
}

void pdt_result_free(pdt_result *r) {
  for (int32_t k = 0; k < r->K; k++) {
    free((void *)(uintptr_t)r->artifacts[k].tokens);
    free((void *)(uintptr_t)r->artifacts[k].text);
    free((void *)(uintptr_t)r->artifacts[k].forced_rounds);
    free((void *)(uintptr_t)r->artifacts[k].slots);
  }
  free(r->artifacts);
  free(r->owner);
  free(r->order);
  free((void *)(uintptr_t)r->answer.text);
  *r = (pdt_result){0};
}

int pdt_result_write(const pdt_result *r, pdt_output *output, pdt_error *err) {
  for (int32_t k = 0; k < r->K; k++)
    if (pdt_output_artifact(output, &r->artifacts[k], err)) return -1;
  return pdt_output_answer(output, &r->answer, err);
}
