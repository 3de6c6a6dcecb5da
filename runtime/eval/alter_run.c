#include "eval/alter_run.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/internal.h"

int pdt_alteration_new(pdt_alteration *a, const pdt_eval_trial *t, pdt_error *err) {
  int64_t n = t->eval->data->n;
  int32_t dim = pdt_engine_loaded(t->eval->engine)->sidecar.config.notes_dim;
  *a = (pdt_alteration){
      .trial = t, .mode = t->setup->alter, .dim = dim, .seed = t->requests[0].settings.seed};
  if (PDT_NEW(&a->note, dim, "notes", err)) return -1;
  if (!pdt_alter_borrows(a->mode))
    return pdt_scramble_new(&a->scramble, a->mode, dim, a->seed, err);
  if (PDT_NEW(&a->records, n, "notes", err) || PDT_NEW(&a->facts, n, "facts", err) ||
      PDT_NEW(&a->pairs, n, "pairs", err))
    return -1;
  for (int64_t i = 0; i < n; i++) a->facts[i] = pdt_alter_no_facts();
  return 0;
}

void pdt_alteration_free(pdt_alteration *a) {
  for (int64_t i = 0; a->records && i < a->trial->eval->data->n; i++)
    for (pdt_stream k = 0; k < PDT_DATA_SECTIONS; k++) {
      free(a->records[i][k].notes);
      free(a->records[i][k].tokens);
    }
  free(a->records);
  free(a->facts);
  free(a->pairs);
  free(a->note);
  pdt_scramble_free(&a->scramble);
  pdt_rollout_text_free(&a->scratch);
  *a = (pdt_alteration){0};
}

/* ---- what is written ---- */

static int add_note(const pdt_alteration *a, pdt_alter_record *r, const float *note,
                    pdt_error *err) {
  size_t dim = (size_t)a->dim, at = (size_t)r->n_notes * dim;
  if (PDT_GROW_BY(&r->notes, at, dim, &r->notes_room, err)) return -1;
  memcpy(r->notes + at, note, dim * sizeof *note);
  r->n_notes++;
  return 0;
}

/* All anew in every round: blocks that were there may have been rolled back. */
int pdt_alteration_record(void *alteration, const pdt_running *running, float *notes,
                          pdt_error *err) {
  pdt_alteration *a = alteration;
  const pdt_session *session = &running->session;
  pdt_alter_record *records = a->records[a->trial->entries[running->index]];
  (void)notes;
  for (pdt_stream k = 0; k < session->settings.streams; k++) {
    const pdt_stream_state *s = &session->streams[k];
    pdt_alter_record *r = &records[k];
    r->n_notes = r->n_tokens = 0;
    if (PDT_GROW_BY(&r->tokens, 0, (size_t)s->n_tokens, &r->tokens_room, err)) return -1;
    if (s->n_tokens > 0) memcpy(r->tokens, s->tokens, (size_t)s->n_tokens * sizeof *s->tokens);
    r->n_tokens = s->n_tokens;
  }
  for (int32_t i = 0; i < session->bus.count; i++) {
    const pdt_note *note = &session->bus.notes[i];
    if (note->name.stream != PDT_PLANNER && note->filled &&
        add_note(a, &records[note->name.stream], note->vector, err))
      return -1;
  }
  return 0;
}

/* Reads a stream's tokens so far into a->scratch. */
static int read_stream(pdt_alteration *a, int32_t i, pdt_stream k, const pdt_token *tokens,
                       int32_t n, pdt_error *err) {
  const pdt_eval *eval = a->trial->eval;
  const pdt_request *r = &a->trial->requests[i];
  const pdt_rollout_reader reader = {eval->atlas, eval->tokenizer};
  return pdt_rollout_read(&a->scratch, &reader, r->prefix[k], r->n_prefix[k], tokens, n, false,
                          err);
}

static int32_t block_tokens_of(const pdt_alteration *a, int32_t i) {
  return a->trial->requests[i].settings.limits.block_tokens;
}

int pdt_alteration_pair(pdt_alteration *a, pdt_error *err) {
  const pdt_eval_trial *t = a->trial;
  const pdt_alter_entries all = {t->eval->data->n, t->eval->data->owners, a->facts};
  for (int32_t i = 0; i < t->n; i++) {
    int32_t e = t->entries[i];
    for (pdt_stream k = 0; k < all.owners[e].streams; k++) {
      const pdt_alter_record *r = &a->records[e][k];
      if (read_stream(a, i, k, r->tokens, r->n_tokens, err)) return -1;
      pdt_alter_add_facts(&a->facts[e], &all.owners[e], k, &a->scratch, block_tokens_of(a, i));
    }
    /* a note that no round has shown can be lent to nobody */
    for (int32_t type = 0; type < PDT_ATLAS_TYPES; type++) {
      pdt_stream k = all.owners[e].of[type];
      if (k != PDT_NO_OWNER && a->facts[e].block[type] >= a->records[e][k].n_notes)
        a->facts[e].value[type] = -1;
    }
  }
  for (int32_t i = 0; i < t->n; i++)
    a->pairs[t->entries[i]] = pdt_alter_pair_of(&all, t->entries[i], a->mode, a->seed);
  return 0;
}

/* ---- what is read ---- */

/* Which of its stream's notes it is, from 0. */
static int32_t ordinal_of(const pdt_bus *bus, pdt_note_name name) {
  int32_t n = 0;
  for (int32_t i = 0; i < bus->count && bus->notes[i].name.round < name.round; i++)
    n += bus->notes[i].name.stream == name.stream;
  return n;
}

/* Which note of the pair's stream tells the pair's one fact by now; -1: none yet. */
static int find_told(pdt_alteration *a, const pdt_running *running, const pdt_alter_pair *pair,
                     int32_t *out, pdt_error *err) {
  const pdt_stream_state *s = &running->session.streams[pair->stream];
  const pdt_rollout_owners *owners =
      &a->trial->eval->data->owners[a->trial->entries[running->index]];
  pdt_alter_facts facts = pdt_alter_no_facts();
  if (read_stream(a, running->index, pair->stream, s->tokens, s->n_tokens, err)) return -1;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) facts.block[t] = -1;
  pdt_alter_add_facts(&facts, owners, pair->stream, &a->scratch,
                      block_tokens_of(a, running->index));
  *out = facts.block[__builtin_ctz(pair->types)];
  return 0;
}

/* Puts the donor's notes into a window in place of the pair's stream's. */
static int lend(pdt_alteration *a, const pdt_running *running, float *notes, pdt_error *err) {
  const pdt_alter_pair *pair = &a->pairs[a->trial->entries[running->index]];
  int32_t told = -1, type = pair->types ? __builtin_ctz(pair->types) : 0;
  if (pair->donor < 0) return 0;
  const pdt_alter_record *donor = &a->records[pair->donor][pair->stream];
  if (a->mode == PDT_ALTER_ONE && find_told(a, running, pair, &told, err)) return -1;
  for (int32_t j = 0; j < running->n_window; j++) {
    const pdt_note_name name = running->window_names[j];
    if (name.stream != pair->stream) continue;
    int32_t at = ordinal_of(&running->session.bus, name);
    if (a->mode == PDT_ALTER_ONE) {
      if (at != told) continue;
      at = a->facts[pair->donor].block[type];
    }
    if (at >= donor->n_notes) at = donor->n_notes - 1; /* it was done by then */
    memcpy(notes + (int64_t)j * a->dim, donor->notes + (int64_t)at * a->dim,
           (size_t)a->dim * sizeof *notes);
  }
  return 0;
}

int pdt_alteration_act(void *alteration, const pdt_running *running, float *notes, pdt_error *err) {
  pdt_alteration *a = alteration;
  if (pdt_alter_borrows(a->mode)) return lend(a, running, notes, err);
  for (int32_t j = 0; j < running->n_window; j++) {
    float *note = notes + (int64_t)j * a->dim;
    pdt_scramble_note(&a->scramble, note, a->note);
    memcpy(note, a->note, (size_t)a->dim * sizeof *note);
  }
  return 0;
}

pdt_judge_lent pdt_alteration_lent(const pdt_alteration *a, int64_t entry) {
  const pdt_alter_pair *pair = &a->pairs[entry];
  pdt_judge_lent lent = {.types = pair->donor < 0 ? 0 : pair->types};
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    lent.value[t] = lent.types >> t & 1 ? a->facts[pair->donor].value[t] : -1;
  return lent;
}
