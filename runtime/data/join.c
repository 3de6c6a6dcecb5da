#include "data/join.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "data/tokens.h"

static int put(pdt_buffer *b, const char *text, pdt_error *err) {
  return pdt_buffer_put(b, text, strlen(text), err);
}

/* Adds a section's text to the one, and its mentions where they then are. */
static int append(const pdt_data_section *s, pdt_data_section *one, pdt_buffer *text,
                  pdt_error *err) {
  if (put(text, s->prefix, err)) return -1;
  int32_t from = (int32_t)text->bytes;
  for (int32_t i = 0; i < s->n_mentions; i++) {
    pdt_data_mention m = s->mentions[i];
    m.begin += from;
    m.end += from;
    one->mentions[one->n_mentions++] = m;
  }
  return put(text, s->text, err);
}

static int join_texts(const pdt_data_entry *e, pdt_data_section *one, pdt_error *err) {
  int32_t mentions = 0;
  pdt_buffer text = {0};
  for (int32_t k = 0; k < e->n_sections; k++) mentions += e->sections[k].n_mentions;
  if (pdt_data_copy(&one->name, "all", err) || pdt_data_copy(&one->prefix, "", err) ||
      PDT_NEW(&one->mentions, mentions, "mentions", err))
    return -1;
  int rc = 0;
  for (int32_t k = 0; k < e->n_sections && !rc; k++) rc = append(&e->sections[k], one, &text, err);
  if (!rc) rc = pdt_buffer_take(&text, &one->text, NULL, err);
  pdt_buffer_free(&text);
  return rc ? -1 : 0;
}

/* The one section in place of all; no plan. */
static void replace_sections(pdt_data_entry *e, pdt_data_section *one) {
  pdt_data_entry old = {
      .sections = e->sections, .n_sections = e->n_sections, .plan = e->plan, .n_plan = e->n_plan};
  e->sections = one;
  e->n_sections = 1;
  e->plan = NULL;
  e->n_plan = 0;
  for (int32_t f = 0; f < e->n_facts; f++) e->facts[f].stream = 0;
  pdt_data_entry_free(&old);
}

int pdt_data_join(pdt_data_entry *e, const pdt_tokenizer *tokenizer, const pdt_data_rounds *rounds,
                  pdt_error *err) {
  pdt_data_section *one;
  pdt_data_tokens *tokens;
  if (PDT_NEW(&one, 1, "sections", err)) return -1;
  int rc = join_texts(e, one, err);
  replace_sections(e, one);
  if (rc || pdt_data_tokenize_entry(tokenizer, e, &tokens, err)) return -1;
  rc = pdt_data_label(e, tokens, rounds, err);
  pdt_data_tokens_free(tokens, 1);
  return rc;
}
