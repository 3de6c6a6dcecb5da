#include "data/lessons.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int pdt_lessons_new(pdt_lessons *l, const pdt_tokenizer *tokenizer, int32_t plan_vocab,
                    int32_t vocab, pdt_error *err) {
  *l = (pdt_lessons){.tokenizer = tokenizer, .plan_vocab = plan_vocab, .vocab = vocab};
  l->said = json_object();
  if (!l->said) return pdt_fail(err, PDT_ERROR_MEMORY, "what data teaches: no memory");
  return PDT_NEW(&l->plan_ids, plan_vocab, "plan ids", err) ||
                 PDT_NEW(&l->prompt_ids, vocab, "prompt ids", err)
             ? -1
             : 0;
}

void pdt_lessons_free(pdt_lessons *l) {
  json_decref(l->said);
  free(l->plan_ids);
  free(l->prompt_ids);
  *l = (pdt_lessons){0};
}

/* The texts of an entry as a list: its headings, or its plan. */
static json_t *texts_of(const pdt_data_entry *e, bool plan) {
  json_t *list = json_array();
  for (int32_t i = 0; i < (plan ? e->n_plan : e->n_sections); i++) {
    const char *text = plan ? e->plan[i].text : e->sections[i].prefix;
    if (strlen(text) > PDT_TRAINED_TEXT_BYTES || json_array_size(list) == PDT_TRAINED_TEXTS) {
      json_decref(list);
      return json_null();
    }
    if (plan && !*text) continue; /* an empty slot */
    json_array_append_new(list, json_string(text));
  }
  return list;
}

static int add_prompt(pdt_lessons *l, const pdt_data_entry *e, int32_t *n, pdt_error *err) {
  pdt_token *ids;
  if (pdt_tokenizer_encode(l->tokenizer, e->prompt, strlen(e->prompt), true, &ids, n, err))
    return -1;
  for (int32_t i = 0; i < *n; i++)
    if (ids[i] >= 0 && ids[i] < l->vocab) l->prompt_ids[ids[i]] = 1;
  free(ids);
  return 0;
}

/* Most notes that a block of the entry has in its window. */
static int32_t notes_of(const pdt_data_header *header, const pdt_data_entry *e) {
  int32_t notes = 1, window = header->rounds.window;
  for (int32_t s = 0; s < e->n_sections; s++) notes += e->sections[s].n_blocks;
  return window > 0 && window < notes ? window : notes;
}

int pdt_lessons_add(pdt_lessons *l, const pdt_data_header *header, const pdt_data_entry *e,
                    pdt_error *err) {
  const pdt_data_rounds *r = &header->rounds;
  int32_t n;
  if (add_prompt(l, e, &n, err)) return -1;
  for (int32_t i = 0; i < e->n_plan; i++)
    if (e->plan[i].id > 0 && e->plan[i].id < l->plan_vocab) l->plan_ids[e->plan[i].id] = 1;
  json_t *said = json_pack(
      "{s:[i,i], s:[i,i], s:[i,i], s:[i,i], s:i, s:i, s:o, s:o}", "block_tokens", r->block_tokens,
      r->block_tokens, "reveal_delay", r->reveal_delay, r->reveal_delay, "streams", e->n_sections,
      e->n_sections, "prompt_tokens", n, n, "window", r->window, "notes", notes_of(header, e),
      "headings", texts_of(e, false), "plan_texts", texts_of(e, true));
  if (!said) return pdt_fail(err, PDT_ERROR_MEMORY, "what data teaches: no memory");
  if (strlen(e->prompt) <= PDT_TRAINED_TEXT_BYTES)
    json_object_set_new(said, "prompt", json_string(e->prompt));
  int rc = pdt_trained_add(l->said, said, err);
  json_decref(said);
  return rc;
}

/* Ids that were seen, as a list; null when they are more than `most`. */
static json_t *ids_seen(const unsigned char *seen, int32_t n, size_t most) {
  json_t *list = json_array();
  for (int32_t i = 0; i < n; i++) {
    if (!seen[i]) continue;
    json_array_append_new(list, json_integer(i));
    if (json_array_size(list) <= most) continue;
    json_decref(list);
    return json_null();
  }
  return list;
}

json_t *pdt_lessons_take(const pdt_lessons *l, pdt_error *err) {
  json_t *said = json_deep_copy(l->said);
  if (said &&
      !json_object_set_new(said, "plan_ids",
                           ids_seen(l->plan_ids, l->plan_vocab, PDT_TRAINED_PLAN_IDS)) &&
      !json_object_set_new(said, "prompt_ids",
                           ids_seen(l->prompt_ids, l->vocab, PDT_TRAINED_PROMPT_IDS)))
    return said;
  json_decref(said);
  pdt_fail(err, PDT_ERROR_MEMORY, "what data teaches: no memory");
  return NULL;
}
