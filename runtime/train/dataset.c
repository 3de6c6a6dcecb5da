#include "train/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/file_state.h"
#include "base/memory.h"
#include "data/lessons.h"
#include "data/notes.h"
#include "data/sequence.h"
#include "data/tokens.h"

typedef struct loading {
  pdt_dataset *d;
  const pdt_dataset_use *use;
  pdt_coder coder;
  pdt_lessons lessons;
  pdt_arena scratch;
  pdt_data_reader reader;
  pdt_data_notes notes; /* of a file that brings its own */
  uint64_t *used;  /* of every block of the entry at hand: siblings' facts it has read a name of */
  char where[512]; /* file and line, for errors */
} loading;

/* Teacher notes as the file gives them, each normalized. */
static int copy_notes(loading *l, const pdt_data_entry *e, float *notes, pdt_error *err) {
  int64_t dn = l->notes.dim;
  if (pdt_data_notes_check(&l->notes, &l->reader, e, err)) return -1;
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++, notes += dn) {
      if (pdt_data_notes_read(&l->notes, e->sections[s].blocks[b].note, notes, err)) return -1;
      pdt_coder_normalize(notes, dn);
    }
  return 0;
}

/* Teacher notes made of the entry's facts. */
static int write_notes(loading *l, const pdt_data_entry *e, float *notes, pdt_error *err) {
  int rc = pdt_coder_write(&l->coder, e, l->used, notes, &l->scratch, err);
  return rc ? pdt_fail_in(err, "%s", l->where) : 0;
}

/* The block of another stream that states a fact, -1 when none does. */
static int32_t stating_block(const pdt_data_entry *e, int32_t fact) {
  int32_t at = 0;
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++, at++)
      if (e->sections[s].blocks[b].stated >> fact & 1) return at;
  return -1;
}

/* Coverage targets and needs. */
static int label(loading *l, const pdt_data_entry *e, int32_t n_blocks, pdt_train_entry *out,
                 pdt_error *err) {
  int32_t S = l->use->config->plan_slots, at = 0;
  float *coverage;
  bool *quiet;
  pdt_train_need *needs;
  if (PDT_TAKE(&l->d->arena, &coverage, (int64_t)n_blocks * S, err) ||
      PDT_TAKE(&l->d->arena, &quiet, n_blocks, err) ||
      PDT_TAKE(&l->d->arena, &needs, (int64_t)n_blocks * e->n_facts, err))
    return -1;
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++, at++) {
      const pdt_data_block *block = &e->sections[s].blocks[b];
      quiet[at] = !block->stated && (l->use->teacher.used == 0 || !block->used);
      for (int32_t j = 0; j < S; j++)
        coverage[(int64_t)at * S + j] = j < PDT_DATA_SLOTS && block->coverage >> j & 1 ? 1 : 0;
      for (int32_t i = 0; i < e->n_facts; i++) {
        int32_t note = block->used >> i & 1 ? stating_block(e, i) : -1;
        if (note >= 0) needs[out->n_needs++] = (pdt_train_need){at, note};
      }
    }
  out->coverage = coverage;
  out->quiet = e->n_facts > 0 ? quiet : NULL;
  out->needs = needs;
  return 0;
}

/* What needs do not say of readiness: without facts, all that the file says; else what is misread.
 */
static int keep_ready(loading *l, const pdt_data_entry *e, int32_t n_blocks, pdt_train_entry *out,
                      pdt_error *err) {
  float *ready;
  if (PDT_TAKE(&l->d->arena, &ready, n_blocks, err)) return -1;
  out->ready = ready;
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++)
      *ready++ =
          (e->n_facts == 0 ? e->sections[s].blocks[b].ready : !e->sections[s].blocks[b].misread)
              ? 1
              : 0;
  return 0;
}

/* ids[n] into the arena, and `last` behind them unless it is -1. Frees ids. */
static int keep_ids(loading *l, pdt_token *ids, int32_t n, pdt_token last, const pdt_token **out,
                    pdt_error *err) {
  pdt_token *kept;
  int rc = PDT_TAKE(&l->d->arena, &kept, n + 1, err);
  if (!rc) {
    if (n > 0) memcpy(kept, ids, (size_t)n * sizeof *kept);
    kept[n] = last;
    *out = kept;
    rc = pdt_coder_check_ids(&l->coder, ids, n, err);
    if (rc) pdt_fail_in(err, "%s", l->where);
  }
  free(ids);
  return rc;
}

/* Tokens [*begin, *end) of the sentence around a mention: from behind the mark that ends the one
 * before to its own. */
static void find_sentence(const char *text, const pdt_data_mention *m,
                          const pdt_data_tokens *places, int32_t *begin, int32_t *end) {
  static const char marks[] = ".;!?\n";
  int32_t from = m->begin;
  while (from > 0 && !strchr(marks, text[from - 1])) from--;
  size_t to = (size_t)m->end + strcspn(text + m->end, marks);
  *begin = pdt_data_token_at(places, from);
  *end = pdt_data_token_at(places, (int32_t)to) + 1;
}

/* Blocks of siblings that use what section k states may be noted before it does: their notes tell
 * the name as well, and a stream that starts over can keep to it. */
static void add_told(const pdt_data_entry *e, pdt_stream k, int32_t fact, int32_t first, int32_t n,
                     pdt_train_entry *entry, pdt_train_use *uses) {
  int32_t at = 0;
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++, at++)
      if (s != k && e->sections[s].blocks[b].used >> fact & 1)
        uses[entry->n_uses++] = (pdt_train_use){PDT_OWN_FACT, k, first, n, at, 0, 0};
}

/* Tokens of the heading that the text begins with, up to its colon; 0 where the prefix has it. */
static int32_t heading_tokens(const pdt_data_section *s, const pdt_data_tokens *places) {
  const char *colon = *s->text == '\n' ? strchr(s->text, ':') : NULL;
  return *s->prefix || !colon ? 0 : pdt_data_token_at(places, (int32_t)(colon - s->text)) + 1;
}

/* Where names stand in section k: siblings' facts become uses, tokens of its own facts weigh
 * `stated`, those of a heading `heading`. used: of the section's blocks, those read. */
static int read_names(loading *l, const pdt_data_entry *e, pdt_stream k,
                      const pdt_data_tokens *places, pdt_train_entry *entry,
                      pdt_train_stream *stream, pdt_train_use *uses, uint64_t *used,
                      pdt_error *err) {
  const pdt_data_section *s = &e->sections[k];
  int32_t tau = l->reader.header.rounds.block_tokens;
  uint64_t told = 0; /* facts of its own */
  float *weights;
  if (PDT_TAKE(&l->d->arena, &weights, stream->n_tokens, err)) return -1;
  int32_t heading = heading_tokens(s, places);
  for (int32_t j = 0; j < stream->n_tokens; j++)
    weights[j] = j < heading ? (float)l->use->heading : 1;
  for (int32_t i = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    int32_t first = pdt_data_token_at(places, m->begin);
    int32_t n = pdt_data_token_at(places, m->end - 1) + 1 - first;
    if (m->kind == PDT_MISREADS) { /* not to be learned */
      for (int32_t j = first; j < first + n; j++) weights[j] = 0;
    } else if (m->kind == PDT_USES && e->facts[m->fact].stream != k) {
      int32_t begin, end;
      find_sentence(s->text, m, places, &begin, &end);
      int32_t note = stating_block(e, m->fact);
      uses[entry->n_uses++] = (pdt_train_use){PDT_SIBLINGS_FACT, k, first, n, note, begin, end};
      /* A block reads the token before each that it emits. */
      if ((first + n) / tau < s->n_blocks) used[(first + n) / tau] |= (uint64_t)1 << m->fact;
    } else {
      /* A name again in the same stream can be copied, and weighs as in a trunk's texts. */
      bool again = m->kind == PDT_USES || told >> m->fact & 1;
      double weight = again ? pdt_sequence_weights_default().later : l->use->stated;
      if (!again && e->facts[m->fact].any) weight = 0; /* not for a stream to choose */
      told |= (uint64_t)1 << m->fact;
      for (int32_t j = first; j < first + n; j++) weights[j] = (float)weight;
      if (l->use->teacher.used > 0) add_told(e, k, m->fact, first, n, entry, uses);
    }
  }
  stream->weights = weights;
  return 0;
}

static int read_stream(loading *l, const pdt_data_entry *e, pdt_stream k,
                       const pdt_text_context *prompt, pdt_train_entry *entry,
                       pdt_train_stream *out, pdt_train_use *uses, uint64_t *used, pdt_error *err) {
  const pdt_data_section *section = &e->sections[k];
  pdt_data_tokens places;
  pdt_token *ids;
  *out = (pdt_train_stream){.stream = k};
  if (pdt_text_context_encode(prompt, section->prefix, strlen(section->prefix), &ids,
                              &out->n_prefix, err))
    return pdt_fail_in(err, "%s", l->where);
  if (keep_ids(l, ids, out->n_prefix, -1, &out->prefix, err)) return -1;
  if (pdt_data_tokenize(l->use->tokenizer, prompt, section->prefix, section->text, &places, &ids,
                        err))
    return pdt_fail_in(err, "%s: section %d", l->where, k);
  int32_t n = places.n;
  out->n_tokens = n + 1;
  int rc = read_names(l, e, k, &places, entry, out, uses, used, err);
  free(places.ends);
  if (rc) {
    free(ids);
    return -1;
  }
  if (keep_ids(l, ids, n, l->use->trunk->config.eos[0], &out->tokens, err)) return -1;
  int32_t tau = l->reader.header.rounds.block_tokens;
  if (out->n_tokens != section->n_tokens || pdt_train_stream_blocks(out, tau) != section->n_blocks)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: section %d: the file counts %d tokens in %d blocks, this tokenizer %d "
                    "(hint: data made with --model of this model)",
                    l->where, k, section->n_tokens, section->n_blocks, out->n_tokens);
  return 0;
}

int64_t pdt_train_prompt_floats(const pdt_sidecar_config *config, const pdt_train_entry *e) {
  int64_t orders = config->plan_orders > 0 ? e->n_prompt : 0;
  return (1 + config->plan_places + orders) * config->hidden_size;
}

int pdt_train_prompt_states(const pdt_nn_trunk *trunk, const pdt_sidecar_config *config,
                            const pdt_train_entry *e, float *out, pdt_arena *scratch,
                            pdt_error *err) {
  int64_t d = config->hidden_size, places = config->plan_places, n = e->n_prompt;
  const int32_t begin[] = {0, e->n_prompt};
  const pdt_nn_sequences sequences = {1, begin};
  pdt_nn_pass pass;
  if (pdt_nn_trunk_forward(trunk, &pass, &sequences, e->prompt, NULL, false, scratch, err))
    return -1;
  memset(out, 0, (size_t)((1 + places) * d) * sizeof *out);
  for (int64_t r = 0; r < n; r++) pdt_nn_axpy(1 / (float)e->n_prompt, pass.hidden + r * d, d, out);
  memcpy(out + d, pass.hidden, (size_t)((places < n ? places : n) * d) * sizeof *out);
  if (config->plan_orders == 0) return 0;
  float *read = out + (1 + places) * d;
  if (pdt_nn_trunk_lower(trunk, &sequences, e->prompt, config->plan_layer + 1, read, scratch, err))
    return -1;
  pdt_nn_rms_norm((pdt_nn_weight){0}, 1e-6, d, read, n, read);
  return 0;
}

void pdt_train_set_states(pdt_train_entry *e, const pdt_sidecar_config *config,
                          const float *states) {
  int64_t d = config->hidden_size;
  e->mean_state = states;
  e->place_states = config->plan_places > 0 ? states + d : NULL;
  e->order_states = config->plan_orders > 0 ? states + (1 + config->plan_places) * d : NULL;
}

/* The same, kept. */
static int prompt_states(loading *l, pdt_train_entry *out, pdt_error *err) {
  const pdt_sidecar_config *config = l->use->config;
  float *states;
  if (PDT_TAKE(&l->d->arena, &states, pdt_train_prompt_floats(config, out), err) ||
      pdt_train_prompt_states(l->use->trunk, config, out, states, &l->scratch, err))
    return -1;
  pdt_train_set_states(out, config, states);
  return 0;
}

/* The prompt token that ends at a byte of the prompt: the last one that the text up to there shares
 * with it. -1: none. */
static int token_that_ends(loading *l, const char *prompt, size_t bytes, const pdt_train_entry *e,
                           int32_t *at, pdt_error *err) {
  pdt_token *ids;
  int32_t n, same = 0;
  if (pdt_tokenizer_encode(l->use->tokenizer, prompt, bytes, true, &ids, &n, err))
    return pdt_fail_in(err, "%s: prompt", l->where);
  while (same < n && same < e->n_prompt && ids[same] == e->prompt[same]) same++;
  *at = same - 1;
  free(ids);
  return 0;
}

/* Which prompt tokens end the name of a section, where all are named there in their order. */
static int read_marks(loading *l, const pdt_data_entry *e, pdt_train_entry *out, pdt_error *err) {
  const char *from = e->prompt;
  uint8_t *marks;
  if (l->use->config->plan_orders == 0) return 0;
  if (PDT_TAKE_ZEROS(&l->d->arena, &marks, out->n_prompt, err)) return -1;
  for (int32_t k = 0; k < e->n_sections; k++) {
    const char *name = e->sections[k].name, *found = name && *name ? strcasestr(from, name) : NULL;
    int32_t at = -1;
    if (!found) return 0;
    from = found + strlen(name);
    if (token_that_ends(l, e->prompt, (size_t)(from - e->prompt), out, &at, err)) return -1;
    if (at >= 0) marks[at] = 1;
  }
  out->marks = marks;
  return 0;
}

static int read_plan(loading *l, const pdt_data_entry *e, pdt_train_entry *out, pdt_error *err) {
  int32_t S = l->use->config->plan_slots, *ids;
  if (e->n_plan > S)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %d plan items, the sidecar has %d slots", l->where,
                    e->n_plan, S);
  if (PDT_TAKE(&l->d->arena, &ids, S, err)) return -1;
  for (int32_t i = 0; i < S; i++) ids[i] = i < e->n_plan ? e->plan[i].id : 0;
  out->plan_ids = ids;
  return 0;
}

/* Room for an entry's uses, and the number of its blocks. */
static int64_t most_uses(const pdt_data_entry *e, int32_t *blocks) {
  int64_t n = 0;
  uint64_t everywhere[PDT_DATA_FACTS] = {0};
  *blocks = 0;
  for (int32_t s = 0; s < e->n_sections; s++) {
    for (int32_t b = 0; b < e->sections[s].n_blocks; b++)
      for (int32_t f = 0; f < e->n_facts; f++)
        everywhere[f] += e->sections[s].blocks[b].used >> f & 1;
    *blocks += e->sections[s].n_blocks;
  }
  for (int32_t s = 0; s < e->n_sections; s++)
    for (int32_t i = 0; i < e->sections[s].n_mentions; i++)
      n += 1 + (int64_t)everywhere[e->sections[s].mentions[i].fact];
  return n;
}

/* All streams, each behind the prompt. */
static int read_sections(loading *l, const pdt_data_entry *e, const pdt_text_context *prompt,
                         pdt_train_entry *out, pdt_train_stream *streams, pdt_train_use *uses,
                         pdt_error *err) {
  uint64_t *used = l->used;
  for (int32_t k = 0; k < e->n_sections; used += e->sections[k++].n_blocks) {
    if (read_stream(l, e, k, prompt, out, &streams[k], uses, used, err)) return -1;
    int64_t length = (int64_t)out->n_prompt + streams[k].n_prefix + streams[k].n_tokens;
    if (length > l->use->trunk->config.max_positions)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: section %d: %lld tokens with its prompt, the model "
                      "has %d positions",
                      l->where, k, (long long)length, l->use->trunk->config.max_positions);
  }
  return 0;
}

static int read_streams(loading *l, const pdt_data_entry *e, pdt_train_entry *out, pdt_error *err) {
  pdt_train_stream *streams;
  pdt_train_use *uses;
  pdt_token *ids;
  pdt_text_context *prompt;
  int32_t blocks = 0;
  if (e->n_sections < 1 || e->n_sections > l->use->config->streams)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %d sections, the sidecar has adapters for %d",
                    l->where, e->n_sections, l->use->config->streams);
  if (pdt_tokenizer_encode(l->use->tokenizer, e->prompt, strlen(e->prompt), true, &ids,
                           &out->n_prompt, err))
    return pdt_fail_in(err, "%s: prompt", l->where);
  if (keep_ids(l, ids, out->n_prompt, -1, &out->prompt, err) ||
      PDT_TAKE(&l->d->arena, &streams, e->n_sections, err) ||
      PDT_TAKE(&l->d->arena, &uses, most_uses(e, &blocks), err) ||
      PDT_TAKE(&l->scratch, &l->used, blocks, err))
    return -1;
  memset(l->used, 0, (size_t)blocks * sizeof *l->used);
  if (out->n_prompt < 1) return pdt_fail(err, PDT_ERROR_INPUT, "%s: the prompt is empty", l->where);
  if (read_marks(l, e, out, err)) return -1;
  if (pdt_text_context_new(&prompt, l->use->tokenizer, e->prompt, strlen(e->prompt), err))
    return pdt_fail_in(err, "%s: prompt", l->where);
  int rc = read_sections(l, e, prompt, out, streams, uses, err);
  pdt_text_context_free(prompt);
  out->uses = uses;
  out->streams = streams;
  out->n_streams = e->n_sections;
  return rc;
}

static int add_entry(loading *l, const pdt_data_entry *e, pdt_error *err) {
  pdt_dataset *d = l->d;
  pdt_train_entry *out;
  float *teacher;
  if (PDT_GROW(&d->entries, (size_t)d->n, &d->room, err) || PDT_TAKE(&d->arena, &out, 1, err))
    return -1;
  *out = (pdt_train_entry){0};
  if (read_plan(l, e, out, err) || read_streams(l, e, out, err) ||
      (!l->use->without_states && prompt_states(l, out, err)))
    return -1;
  int32_t n_blocks = pdt_train_entry_blocks(out, d->rounds.block_tokens);
  if (PDT_TAKE(&d->arena, &teacher, (int64_t)n_blocks * l->use->config->notes_dim, err) ||
      (l->notes.file ? copy_notes(l, e, teacher, err) : write_notes(l, e, teacher, err)) ||
      label(l, e, n_blocks, out, err) || keep_ready(l, e, n_blocks, out, err))
    return -1;
  out->teacher_notes = teacher;
  d->entries[d->n++] = out;
  return 0;
}

/* Does the file's plan belong to the sidecar? */
static int check_header(const loading *l, pdt_error *err) {
  const pdt_data_header *h = &l->reader.header;
  const pdt_sidecar_config *c = l->use->config;
  if (h->notes_file && h->notes_dim != c->notes_dim)
    return pdt_fail(
        err, PDT_ERROR_INPUT,
        "%s: line 1: notes: 'dim': expected %d, the width of the sidecar's notes, found %d",
        l->reader.path, c->notes_dim, h->notes_dim);
  if (pdt_data_header_fits(h, l->reader.path, c, err)) return -1;
  if (l->use->trunk->config.n_eos < 1)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "the model's config.json: expected an eos_token_id, which ends a section");
  return 0;
}

/* The rounds of all files must be the same. */
static int check_rounds(loading *l, const char *path, pdt_error *err) {
  const pdt_data_rounds *a = &l->d->rounds, *b = &l->reader.header.rounds;
  if (l->d->n == 0) l->d->rounds = *b;
  if (a->block_tokens == b->block_tokens && a->reveal_delay == b->reveal_delay &&
      a->window == b->window)
    return 0;
  return pdt_fail(
      err, PDT_ERROR_INPUT,
      "%s: block tokens, reveal delay and window: expected %d, %d and %d as in the file "
      "before, found %d, %d and %d",
      path, a->block_tokens, a->reveal_delay, a->window, b->block_tokens, b->reveal_delay,
      b->window);
}

static int read_entries(loading *l, const char *path, pdt_error *err) {
  if (check_header(l, err) || check_rounds(l, path, err)) return -1;
  int64_t before = l->d->n;
  for (;;) {
    pdt_data_entry e;
    int more = pdt_data_next(&l->reader, &e, err);
    if (more <= 0) break;
    snprintf(l->where, sizeof l->where, "%.400s: line %lld", path,
             (long long)l->reader.lines.number);
    pdt_arena_reset(&l->scratch);
    int rc = add_entry(l, &e, err) || pdt_lessons_add(&l->lessons, &l->reader.header, &e, err);
    pdt_data_entry_free(&e);
    if (rc) return -1;
  }
  if (err->code != PDT_ERROR_NONE) return -1;
  return l->d->n > before
             ? 0
             : pdt_fail(err, PDT_ERROR_INPUT, "%s: expected entries, found none", path);
}

static void add_bytes(pdt_dataset *d, const void *bytes, size_t n) {
  d->fingerprint = XXH3_64bits_withSeed(bytes, n, d->fingerprint);
}

/* All rows of a side file, row by row, onto the fingerprint as one run of bytes. */
static int add_rows(pdt_dataset *d, const pdt_data_notes *n, pdt_error *err) {
  XXH3_state_t *state = XXH3_createState();
  if (!state) return pdt_fail(err, PDT_ERROR_MEMORY, "fingerprint: no memory");
  int rc = 0;
  XXH3_64bits_reset_withSeed(state, d->fingerprint);
  for (int64_t row = 0; row < n->n_rows && !rc; row++) {
    rc = pdt_data_notes_read(n, row, n->row, err);
    XXH3_64bits_update(state, n->row, (size_t)n->dim * sizeof *n->row);
  }
  d->fingerprint = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return rc;
}

/* A file is read twice, for its fingerprint and for its entries: it must not change in between.
 * Afterwards everything is in memory. */
static int read_file(loading *l, const char *path, pdt_error *err) {
  pdt_file_state state;
  if (pdt_file_state_of(&state, path, err) || pdt_file_hash(&l->d->fingerprint, path, err) ||
      pdt_file_hash(&l->d->files, path, err))
    return -1;
  int rc = pdt_data_open(&l->reader, path, err);
  if (!rc) rc = pdt_data_notes_open(&l->notes, &l->reader, err);
  if (!rc && l->notes.file) rc = add_rows(l->d, &l->notes, err);
  if (!rc) rc = read_entries(l, path, err);
  if (!rc) rc = pdt_file_unchanged(&state, path, err);
  if (!rc && l->notes.file) rc = pdt_safetensors_unchanged(l->notes.file, err);
  pdt_data_notes_close(&l->notes);
  pdt_data_close(&l->reader);
  return rc;
}

int pdt_dataset_load(pdt_dataset *d, const char *const *paths, int32_t n_paths,
                     const pdt_dataset_use *use, pdt_error *err) {
  loading l = {.d = d, .use = use};
  *d = (pdt_dataset){0};
  const double made_of[] = {use->teacher.codes, use->stated, use->teacher.used};
  add_bytes(d, made_of, sizeof made_of);
  if (use->heading != 1) add_bytes(d, &use->heading, sizeof use->heading);
  int rc = pdt_coder_init(&l.coder, use->trunk, use->tokenizer, use->config->notes_dim,
                          &use->teacher, &d->arena, err);
  if (!rc)
    rc = pdt_lessons_new(&l.lessons, use->tokenizer, use->config->plan_vocab_size,
                         use->trunk->config.vocab_size, err);
  for (int32_t i = 0; i < n_paths && !rc; i++) rc = read_file(&l, paths[i], err);
  if (!rc) d->trained = pdt_lessons_take(&l.lessons, err);
  if (!rc && !d->trained) rc = -1;
  pdt_lessons_free(&l.lessons);
  pdt_arena_free(&l.scratch);
  return rc;
}

void pdt_dataset_complete(pdt_dataset *d, int64_t i, const pdt_sidecar_config *config,
                          const float *states, const uint16_t *lower) {
  pdt_train_entry *e;
  memcpy(&e, &d->entries[i], sizeof e); /* constant to all but who makes it */
  pdt_train_set_states(e, config, states);
  e->lower = lower;
}

void pdt_dataset_free(pdt_dataset *d) {
  pdt_arena_free(&d->arena);
  json_decref(d->trained);
  free(d->entries);
  *d = (pdt_dataset){0};
}
