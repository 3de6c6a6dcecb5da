#include "data/sequence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shuffle.h"
#include "data/tokens.h"
#include "protocol/philox.h"

/* The text while it grows: two lists, printed into one line at its end. */
typedef struct text {
  const pdt_data_entry *e;
  const pdt_tokenizer *tokenizer;
  pdt_text_context *prompt; /* what every section is read behind, as a stream reads it */
  const pdt_sequence_weights *weights;
  pdt_buffer ids, counts;
  uint64_t known; /* facts that were named */
} text;

pdt_sequence_weights pdt_sequence_weights_default(void) {
  return (pdt_sequence_weights){.first = 0.3, .later = 3};
}

static int put_token(text *t, pdt_token id, double weight, pdt_error *err) {
  char number[40];
  const char *comma = t->ids.bytes > 0 ? "," : "";
  int n = snprintf(number, sizeof number, "%s%d", comma, id);
  if (pdt_buffer_put(&t->ids, number, (size_t)n, err)) return -1;
  n = snprintf(number, sizeof number, "%s%g", comma, weight);
  return pdt_buffer_put(&t->counts, number, (size_t)n, err);
}

/* The prompt, with special tokens, or what goes on with it. */
static int put_plain(text *t, const char *words, bool is_prompt, pdt_error *err) {
  pdt_token *ids;
  int32_t n;
  size_t bytes = strlen(words);
  if (is_prompt ? pdt_tokenizer_encode(t->tokenizer, words, bytes, true, &ids, &n, err)
                : pdt_text_context_encode(t->prompt, words, bytes, &ids, &n, err))
    return -1;
  int rc = 0;
  for (int32_t i = 0; i < n && !rc; i++) rc = put_token(t, ids[i], 1, err);
  free(ids);
  return rc;
}

/* Weight of token i of a section; the facts of names behind it become known. */
static double weight_of(text *t, const pdt_data_section *s, const pdt_data_tokens *tokens,
                        int32_t i) {
  for (int32_t j = 0; j < s->n_mentions; j++) {
    const pdt_data_mention *m = &s->mentions[j];
    int32_t first = pdt_data_token_at(tokens, m->begin);
    int32_t last = pdt_data_token_at(tokens, m->end - 1);
    if (i < first || i > last) continue;
    uint64_t bit = (uint64_t)1 << m->fact;
    if (m->kind == PDT_MISREADS) return 0; /* not to be learned */
    double weight = t->known & bit ? t->weights->later : t->weights->first;
    if (i == last) t->known |= bit;
    return weight;
  }
  return 1;
}

static int put_section(text *t, const pdt_data_section *s, pdt_token end, pdt_error *err) {
  pdt_data_tokens tokens;
  pdt_token *ids;
  if (put_plain(t, s->prefix, false, err) ||
      pdt_data_tokenize(t->tokenizer, t->prompt, s->prefix, s->text, &tokens, &ids, err))
    return -1;
  int rc = 0;
  for (int32_t i = 0; i < tokens.n && !rc; i++)
    rc = put_token(t, ids[i], weight_of(t, s, &tokens, i), err);
  free(ids);
  free(tokens.ends);
  return rc ? rc : put_token(t, end, 1, err);
}

static int put_line(const text *t, pdt_buffer *out, pdt_error *err) {
  static const char before[] = "{\"ids\":[", between[] = "],\"weights\":[", after[] = "]}\n";
  return pdt_buffer_put(out, before, sizeof before - 1, err) ||
                 pdt_buffer_put(out, t->ids.data, t->ids.bytes, err) ||
                 pdt_buffer_put(out, between, sizeof between - 1, err) ||
                 pdt_buffer_put(out, t->counts.data, t->counts.bytes, err) ||
                 pdt_buffer_put(out, after, sizeof after - 1, err)
             ? -1
             : 0;
}

int pdt_sequence_put(const pdt_data_entry *e, const pdt_tokenizer *tokenizer, const int32_t *order,
                     pdt_token end, pdt_token eos, const pdt_sequence_weights *weights,
                     pdt_buffer *out, pdt_error *err) {
  text t = {.e = e, .tokenizer = tokenizer, .weights = weights};
  int rc = pdt_text_context_new(&t.prompt, tokenizer, e->prompt, strlen(e->prompt), err) ||
           put_plain(&t, e->prompt, true, err);
  for (int32_t k = 0; k < e->n_sections && !rc; k++)
    rc = put_section(&t, &e->sections[order[k]], end, err);
  if (!rc) rc = put_token(&t, eos, 1, err) || put_line(&t, out, err);
  pdt_text_context_free(t.prompt);
  pdt_buffer_free(&t.ids);
  pdt_buffer_free(&t.counts);
  return rc ? -1 : 0;
}

/* Which entry of which seed. */
typedef struct draws {
  uint64_t seed;
  uint32_t index;
} draws;

static int64_t draw_place(void *context, int64_t i) {
  const draws *d = context;
  return (int64_t)(pdt_uniform(d->seed, (uint32_t)i, 0, 0, d->index) * (double)(i + 1));
}

void pdt_sequence_order(uint64_t seed, uint32_t index, int32_t n, int32_t *order) {
  draws d = {seed, index};
  for (int32_t i = 0; i < n; i++) order[i] = i;
  if (pdt_uniform(seed, 0, 0, 0, index) < 0.5) return;
  pdt_shuffle(order, n, sizeof *order, draw_place, &d);
}
