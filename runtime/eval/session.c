/* One entry while it is decoded, and what is made of it at its end. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/internal.h"

static const pdt_data_entry *entry_of(const pdt_eval_trial *t, int32_t i) {
  return &t->eval->data->entries[t->entries[i]];
}

static const pdt_rollout_owners *owners_of(const pdt_eval_trial *t, int32_t i) {
  return &t->eval->data->owners[t->entries[i]];
}

static pdt_rollout_reader reader_of(const pdt_eval_trial *t) {
  return (pdt_rollout_reader){t->eval->atlas, t->eval->tokenizer};
}

int pdt_eval_session_begin(pdt_eval_trial *t, int32_t i, pdt_error *err) {
  pdt_eval_session *s = &t->sessions[i];
  const pdt_request *r = &t->requests[i];
  const pdt_rollout_reader reader = reader_of(t);
  return pdt_rollout_new(&s->rollout, &reader, owners_of(t, i), r->prefix, r->n_prefix, err) ||
                 PDT_NEW(&s->blocks, owners_of(t, i)->streams, "blocks", err)
             ? -1
             : 0;
}

void pdt_eval_session_free(pdt_eval_session *s) {
  pdt_rollout_free(&s->rollout);
  free(s->blocks);
  *s = (pdt_eval_session){0};
}

int pdt_eval_session_block(pdt_eval_trial *t, int32_t i, const pdt_rollout_emission *emission,
                           float readiness, const float *coverage, pdt_error *err) {
  pdt_eval_session *s = &t->sessions[i];
  pdt_rollout_block *block = &s->blocks[emission->stream];
  if (pdt_rollout_label(&s->rollout, emission, block, err)) return -1;
  int32_t slots = pdt_engine_loaded(t->eval->engine)->sidecar.config.plan_slots;
  for (int32_t j = 0; j < slots && j < PDT_DATA_SLOTS && coverage; j++) {
    block->coverage[j] = coverage[j];
    block->covered |= (uint64_t)(coverage[j] > 0) << j;
  }
  t->figures->labelled++;
  t->figures->ready += block->ready;
  const pdt_judge_score score = {readiness, block->ready, block->ready && block->agrees};
  return pdt_judge_add_score(&t->figures->readiness, score, err);
}

/* Adds plan and coverage of a session. */
static int judge_plan(pdt_eval_trial *t, int32_t i, const int32_t *plan_ids, pdt_error *err) {
  const pdt_rollout *r = &t->sessions[i].rollout;
  int32_t slots = pdt_engine_loaded(t->eval->engine)->sidecar.config.plan_slots;
  const pdt_judge_plan plan =
      pdt_judge_plan_of(t->eval->atlas, entry_of(t, i), owners_of(t, i), plan_ids, slots);
  t->figures->true_slots += plan.true_slots;
  t->figures->right_slots += plan.right_slots;
  for (pdt_stream k = 0; k < r->owners.streams; k++)
    pdt_judge_coverage(&plan, &r->streams[k], &t->figures->block_coverage,
                       &t->figures->section_coverage);
  return pdt_judge_coverage_scores(&plan, r->streams, r->owners.streams, &t->figures->block_scores,
                                   &t->figures->slot_scores, err);
}

/* Judges the sections of entry i of the trial, and tells of them. */
static int judge_sections(pdt_eval_trial *t, int32_t i, const pdt_judge_section *sections,
                          pdt_error *err) {
  const pdt_eval *eval = t->eval;
  const pdt_alteration *a = t->alteration;
  const pdt_judge_lent lent =
      a && a->pairs ? pdt_alteration_lent(a, t->entries[i]) : (pdt_judge_lent){0};
  pdt_judge_counts *counts = &t->figures->counts, before = *counts;
  pdt_judge_entry(eval->atlas, owners_of(t, i), sections, &lent, counts);
  const pdt_eval_written written = {.entry = entry_of(t, i),
                                    .seed = t->requests[i].settings.seed,
                                    .sections = sections,
                                    .uses = counts->uses - before.uses,
                                    .contradictions =
                                        counts->contradictions - before.contradictions};
  if (t->figures->tally) {
    pdt_eval_tally *tally = &t->figures->tally[t->entries[i]];
    tally->taken = true;
    tally->uses += (double)written.uses;
    tally->contradictions += (double)written.contradictions;
  }
  return eval->written ? eval->written(eval->written_context, &written, err) : 0;
}

/* Texts of an entry's sections on their way to the judge. */
typedef struct texts {
  int32_t n;
  pdt_rollout_text *texts;
  pdt_judge_section *sections;
} texts;

static int texts_new(texts *x, int32_t n, pdt_error *err) {
  *x = (texts){.n = n};
  if (PDT_NEW(&x->texts, n, "texts", err) || PDT_NEW(&x->sections, n, "texts", err)) return -1;
  for (int32_t k = 0; k < n; k++) x->sections[k].text = &x->texts[k];
  return 0;
}

static void texts_free(texts *x) {
  for (int32_t k = 0; x->texts && k < x->n; k++) pdt_rollout_text_free(&x->texts[k]);
  free(x->texts);
  free(x->sections);
}

static int read_streams(const pdt_rollout *r, texts *x, const bool *ended, pdt_error *err) {
  for (pdt_stream k = 0; k < x->n; k++) {
    const pdt_rollout_stream *s = &r->streams[k];
    x->sections[k].stream = s;
    x->sections[k].unfinished = !ended[k];
    x->sections[k].untitled = s->n_prefix == 0;
    if (pdt_rollout_read(&x->texts[k], &r->reader, s->prefix, s->n_prefix, s->tokens, s->n_tokens,
                         ended[k], err))
      return -1;
  }
  return 0;
}

int pdt_eval_session_end(pdt_eval_trial *t, int32_t i, const bool *ended, const int32_t *plan_ids,
                         pdt_error *err) {
  const pdt_rollout_owners *owners = owners_of(t, i);
  texts x;
  int rc =
      texts_new(&x, owners->streams, err) || read_streams(&t->sessions[i].rollout, &x, ended, err);
  if (!rc) rc = judge_sections(t, i, x.sections, err);
  if (!rc && plan_ids) rc = judge_plan(t, i, plan_ids, err);
  texts_free(&x);
  pdt_eval_session_free(&t->sessions[i]);
  return rc ? -1 : 0;
}

/* ---- one text of all sections ---- */

/* The tokens of the section behind this heading, up to the next line; false when it is not there.
 * *last: nothing follows it. */
static bool find_section(const pdt_rollout_text *text, const char *heading, int32_t *begin,
                         int32_t *end, bool *last) {
  const char *from = text->text.data;
  size_t length = strlen(heading), bytes = text->text.bytes;
  const char *found = from && length > 0 ? memmem(from, bytes, heading, length) : NULL;
  if (!found) return false;
  size_t at = (size_t)(found - from) + length;
  const char *next = memchr(from + at, '\n', bytes - at);
  *begin = pdt_rollout_token_at(text, at);
  *end = pdt_rollout_token_at(text, next ? (size_t)(next - from) : bytes);
  *last = !next;
  return true;
}

static int read_sections(pdt_eval_trial *t, const pdt_data_entry *e, const pdt_rollout_text *whole,
                         const pdt_token *tokens, bool ended, texts *x, pdt_error *err) {
  const pdt_rollout_reader reader = reader_of(t);
  for (pdt_stream k = 0; k < x->n; k++) {
    int32_t begin = 0, end = 0;
    char heading[PDT_ATLAS_HEADING_BYTES];
    bool last = false;
    pdt_atlas_heading(pdt_atlas_section(e->sections[k].name), heading);
    bool found = find_section(whole, heading, &begin, &end, &last);
    bool finished = found && (ended || !last);
    x->sections[k].unfinished = !finished;
    x->sections[k].place = found ? begin + 1 : 0;
    if (pdt_rollout_read(&x->texts[k], &reader, NULL, 0, tokens + begin, end - begin, finished,
                         err))
      return -1;
  }
  return 0;
}

int pdt_eval_judge_sequence(pdt_eval_trial *t, int32_t i, const pdt_token *tokens, int32_t n,
                            bool ended, pdt_error *err) {
  const pdt_data_entry *e = entry_of(t, i);
  const pdt_rollout_reader reader = reader_of(t);
  pdt_rollout_text whole = {0};
  texts x;
  int rc = texts_new(&x, e->n_sections, err) ||
           pdt_rollout_read(&whole, &reader, NULL, 0, tokens, n, ended, err) ||
           read_sections(t, e, &whole, tokens, ended, &x, err);
  if (!rc) rc = judge_sections(t, i, x.sections, err);
  texts_free(&x);
  pdt_rollout_text_free(&whole);
  return rc ? -1 : 0;
}
