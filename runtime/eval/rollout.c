#include "eval/rollout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int pdt_rollout_owners_of(pdt_rollout_owners *out, const pdt_data_entry *e, pdt_error *err) {
  out->streams = e->n_sections;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) out->of[t] = PDT_NO_OWNER;
  for (pdt_stream k = 0; k < e->n_sections; k++) {
    int32_t section = pdt_atlas_section(e->sections[k].name);
    if (section < 0 || out->of[2 * section] != PDT_NO_OWNER)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "sections[%d]: expected a section of the Atlas that is not there yet, found "
                      "'%.60s'",
                      k, e->sections[k].name);
    out->of[2 * section] = out->of[2 * section + 1] = k;
  }
  return 0;
}

/* ---- a text ---- */

static int put_text(pdt_rollout_text *out, const char *text, size_t bytes, size_t *skip,
                    pdt_error *err) {
  size_t drop = bytes < *skip ? bytes : *skip;
  *skip -= drop;
  return pdt_buffer_put(&out->text, text + drop, bytes - drop, err);
}

/* Bytes of the prefix alone, which come out before the output's. */
static int prefix_bytes(const pdt_rollout_reader *reader, const pdt_token *prefix, int32_t n,
                        size_t *bytes, pdt_error *err) {
  char *text;
  *bytes = 0;
  if (n == 0) return 0;
  if (pdt_tokenizer_decode(reader->tokenizer, prefix, n, true, &text, bytes, err)) return -1;
  free(text);
  return 0;
}

/* Decodes prefix and tokens one after another, noting where each token's text ends. */
static int decode(pdt_rollout_text *out, pdt_text_stream *stream, size_t skip,
                  const pdt_token *prefix, int32_t n_prefix, const pdt_token *tokens, int32_t n,
                  pdt_error *err) {
  const char *part;
  size_t bytes;
  for (int32_t i = 0; i < n_prefix + n; i++) {
    pdt_token id = i < n_prefix ? prefix[i] : tokens[i - n_prefix];
    if (pdt_text_stream_push(stream, id, &part, &bytes, err) ||
        put_text(out, part, bytes, &skip, err))
      return -1;
    if (i < n_prefix) continue;
    if (PDT_GROW(&out->ends, (size_t)out->n_tokens, &out->room, err)) return -1;
    out->ends[out->n_tokens++] = (int32_t)out->text.bytes;
  }
  if (pdt_text_stream_flush(stream, &part, &bytes, err) || put_text(out, part, bytes, &skip, err))
    return -1;
  if (out->n_tokens > 0) out->ends[out->n_tokens - 1] = (int32_t)out->text.bytes;
  return 0;
}

int32_t pdt_rollout_token_at(const pdt_rollout_text *t, size_t at) {
  const pdt_data_tokens tokens = {.ends = t->ends, .n = t->n_tokens};
  return pdt_data_token_at(&tokens, (int32_t)at);
}

/* The same, of a token that there is. */
static int32_t token_at(const pdt_rollout_text *t, size_t at) {
  int32_t i = pdt_rollout_token_at(t, at);
  return i < t->n_tokens ? i : t->n_tokens - 1;
}

static int locate_mentions(pdt_rollout_text *out, bool ended, pdt_error *err) {
  for (size_t i = 0; i < out->reading.n; i++) {
    const pdt_atlas_mention *m = &out->reading.mentions[i];
    if (PDT_GROW(&out->mentions, (size_t)out->n_mentions, &out->mentions_room, err)) return -1;
    /* at the text's very end even a word that is no first half may go on */
    bool open = !ended && !m->closed && (!m->complete || m->end == out->text.bytes);
    out->mentions[out->n_mentions++] = (pdt_rollout_mention){.kind = m->kind,
                                                             .type = m->type,
                                                             .value = m->value,
                                                             .first = token_at(out, m->begin),
                                                             .last = token_at(out, m->end - 1),
                                                             .begin = m->begin,
                                                             .end = m->end,
                                                             .open = open};
  }
  return 0;
}

int pdt_rollout_read(pdt_rollout_text *out, const pdt_rollout_reader *reader,
                     const pdt_token *prefix, int32_t n_prefix, const pdt_token *tokens, int32_t n,
                     bool ended, pdt_error *err) {
  pdt_text_stream *stream = NULL;
  size_t skip;
  out->text.bytes = 0;
  out->n_tokens = out->n_mentions = 0;
  if (prefix_bytes(reader, prefix, n_prefix, &skip, err) ||
      pdt_text_stream_new(&stream, reader->tokenizer, true, err))
    return -1;
  int rc = decode(out, stream, skip, prefix, n_prefix, tokens, n, err);
  pdt_text_stream_free(stream);
  if (rc || pdt_atlas_parse(reader->world, -1, out->text.data ? out->text.data : "",
                            out->text.bytes, &out->reading, err))
    return -1;
  return locate_mentions(out, ended, err);
}

void pdt_rollout_text_free(pdt_rollout_text *t) {
  pdt_buffer_free(&t->text);
  free(t->ends);
  free(t->mentions);
  pdt_atlas_reading_free(&t->reading);
  *t = (pdt_rollout_text){0};
}

/* ---- a session ---- */

int pdt_rollout_new(pdt_rollout *r, const pdt_rollout_reader *reader,
                    const pdt_rollout_owners *owners, pdt_token *const *prefix,
                    const int32_t *n_prefix, pdt_error *err) {
  *r = (pdt_rollout){.reader = *reader, .owners = *owners};
  if (PDT_NEW(&r->streams, owners->streams, "rollout", err)) return -1;
  for (pdt_stream k = 0; k < owners->streams; k++)
    r->streams[k] = (pdt_rollout_stream){.prefix = prefix[k], .n_prefix = n_prefix[k]};
  return 0;
}

void pdt_rollout_free(pdt_rollout *r) {
  for (pdt_stream k = 0; r->streams && k < r->owners.streams; k++) {
    free(r->streams[k].tokens);
    free(r->streams[k].blocks);
  }
  free(r->streams);
  pdt_rollout_text_free(&r->scratch);
  *r = (pdt_rollout){0};
}

/* The block that a note is of; NULL for the plan's. */
static const pdt_rollout_block *block_of_note(const pdt_rollout *r, pdt_note_name name) {
  if (name.stream < 0 || name.stream >= r->owners.streams) return NULL;
  const pdt_rollout_stream *s = &r->streams[name.stream];
  for (int32_t i = s->n_blocks - 1; i >= 0 && s->blocks[i].round >= name.round; i--)
    if (s->blocks[i].round == name.round) return &s->blocks[i];
  return NULL;
}

/* What siblings' notes in the window state: sets `seen` and, per type, the first statement's round
 * and block. */
static void look(const pdt_rollout *r, const pdt_rollout_emission *e, pdt_rollout_block *out,
                 const pdt_rollout_block **told) {
  for (int32_t i = 0; i < e->n_window; i++) {
    const pdt_rollout_block *block = block_of_note(r, e->window[i]);
    if (!block || e->window[i].stream == e->stream) continue;
    for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
      bool earlier = !(out->seen >> t & 1) || block->round < out->seen_in[t];
      if (!(block->stated >> t & 1) || !earlier) continue;
      out->seen |= 1u << t;
      out->seen_in[t] = block->round;
      told[t] = block;
    }
  }
}

/* Is what is mentioned that name, or the beginning of it while it is open? */
static bool says(const pdt_rollout *r, const pdt_rollout_mention *m, const char *name,
                 size_t whole) {
  size_t bytes = m->end - m->begin;
  return (m->open ? bytes <= whole : bytes == whole) &&
         memcmp(name, r->scratch.text.data + m->begin, bytes) == 0;
}

/* Is the name what a block states, or the beginning of it while it is open? */
static bool is_name(const pdt_rollout *r, const pdt_rollout_mention *m,
                    const pdt_rollout_block *told) {
  int16_t value = told->value[m->type];
  if (!m->open && value >= 0) return m->value == value;
  const char *name = value < 0 ? told->unlisted[m->type] : r->reader.world->names[m->type][value];
  return *name && says(r, m, name, strlen(name));
}

/* What one name makes the block do. first: the statement of the type that the stream's text has
 * before it; NULL: none. */
static void count_mention(const pdt_rollout *r, const pdt_rollout_emission *e,
                          const pdt_rollout_mention *m, const pdt_rollout_mention *first,
                          const pdt_rollout_block *const *told, pdt_rollout_block *out) {
  pdt_stream owner = r->owners.of[m->type];
  uint32_t bit = 1u << m->type;
  int32_t end = out->begin + out->n, reads = m->last + 1;
  bool emitted = m->first < end && m->last >= out->begin;
  if (owner == e->stream) {
    if (first && emitted &&
        !says(r, m, r->scratch.text.data + first->begin, first->end - first->begin))
      out->agrees = false;
    if (m->kind != PDT_STATES || reads < out->begin || reads >= end || out->stated & bit) return;
    out->stated |= bit;
    out->value[m->type] = (int16_t)m->value;
    if (m->value < 0 && r->reader.world->pretrained)
      snprintf(out->unlisted[m->type], PDT_ROLLOUT_NAME_BYTES, "%.*s", (int)(m->end - m->begin),
               r->scratch.text.data + m->begin);
  } else if (owner != PDT_NO_OWNER && emitted) {
    out->used |= bit;
    if (out->seen & bit && !is_name(r, m, told[m->type])) out->agrees = false;
  }
}

/* The stream's tokens with the block's behind them; they are not kept. */
static int put_tokens(pdt_rollout_stream *s, const pdt_token *tokens, int32_t n, pdt_error *err) {
  for (int32_t i = 0; i < n; i++) {
    if (PDT_GROW(&s->tokens, (size_t)(s->n_tokens + i), &s->tokens_room, err)) return -1;
    s->tokens[s->n_tokens + i] = tokens[i];
  }
  return 0;
}

int pdt_rollout_label(pdt_rollout *r, const pdt_rollout_emission *e, pdt_rollout_block *out,
                      pdt_error *err) {
  pdt_rollout_stream *s = &r->streams[e->stream];
  const pdt_rollout_block *told[PDT_ATLAS_TYPES];
  const pdt_rollout_mention *first[PDT_ATLAS_TYPES] = {0};
  *out = (pdt_rollout_block){.round = e->round, .begin = s->n_tokens, .n = e->n, .agrees = true};
  if (put_tokens(s, e->tokens, e->n, err) ||
      pdt_rollout_read(&r->scratch, &r->reader, s->prefix, s->n_prefix, s->tokens,
                       s->n_tokens + e->n, e->ended, err))
    return -1;
  look(r, e, out, told);
  for (int32_t i = 0; i < r->scratch.n_mentions; i++) {
    const pdt_rollout_mention *m = &r->scratch.mentions[i];
    count_mention(r, e, m, first[m->type], told, out);
    if (m->kind == PDT_STATES && !first[m->type]) first[m->type] = m;
  }
  out->ready = (out->used & ~out->seen) == 0;
  return 0;
}

/* Is the whole block among the first n tokens? */
static bool reaches(const pdt_rollout_block *block, int32_t n) {
  return block->begin + block->n <= n;
}

int pdt_rollout_follow(pdt_rollout *r, pdt_stream stream, const pdt_rollout_output *output,
                       const pdt_rollout_block *emitted, pdt_error *err) {
  pdt_rollout_stream *s = &r->streams[stream];
  while (s->n_blocks > 0 && !reaches(&s->blocks[s->n_blocks - 1], output->n)) s->n_blocks--;
  if (emitted && reaches(emitted, output->n)) {
    if (PDT_GROW(&s->blocks, (size_t)s->n_blocks, &s->blocks_room, err)) return -1;
    s->blocks[s->n_blocks++] = *emitted;
  }
  s->n_tokens = 0;
  if (put_tokens(s, output->tokens, output->n, err)) return -1;
  s->n_tokens = output->n;
  for (s->n_committed = 0;
       s->n_committed < s->n_blocks && reaches(&s->blocks[s->n_committed], output->n_committed);
       s->n_committed++)
    s->blocks[s->n_committed].committed = true;
  return 0;
}

const pdt_rollout_block *pdt_rollout_block_of(const pdt_rollout_stream *s, int32_t at) {
  int32_t low = 0, high = s->n_blocks;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (s->blocks[middle].begin + s->blocks[middle].n > at)
      high = middle;
    else
      low = middle + 1;
  }
  return low < s->n_blocks && at >= 0 ? &s->blocks[low] : NULL;
}
