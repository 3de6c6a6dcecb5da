#include "data/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "protocol/window.h"

int32_t pdt_data_token_at(const pdt_data_tokens *t, int32_t at) {
  int32_t low = 0, high = t->n;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (t->ends[middle] > at)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

/* The plan's slots that fact i fills. */
static uint64_t slots_of(const pdt_data_entry *e, int32_t i) {
  uint64_t slots = 0;
  for (int32_t s = 0; s < e->n_plan; s++)
    if (e->plan[s].stream == e->facts[i].stream && strcmp(e->plan[s].text, e->facts[i].type) == 0)
      slots |= (uint64_t)1 << s;
  return slots;
}

/* Marks what one mention does to the blocks of stream k. */
static int mark(pdt_data_entry *e, pdt_stream k, const pdt_data_mention *m,
                const pdt_data_tokens *tokens, int32_t tau, pdt_error *err) {
  pdt_data_section *s = &e->sections[k];
  int32_t length = tokens->n ? tokens->ends[tokens->n - 1] : 0;
  if (m->fact < 0 || m->fact >= e->n_facts || m->begin < 0 || m->begin >= m->end || m->end > length)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "section %d: a mention of fact %d at bytes %d to %d of a text of %d", k,
                    m->fact, m->begin, m->end, length);
  uint64_t bit = (uint64_t)1 << m->fact;
  int32_t first = pdt_data_token_at(tokens, m->begin), last = pdt_data_token_at(tokens, m->end - 1);
  if (m->kind == PDT_MISREADS) {
    for (int32_t b = first / tau; b <= last / tau; b++) s->blocks[b].misread |= bit;
    return 0;
  }
  if (m->kind == PDT_STATES && e->facts[m->fact].stream == k) {
    s->blocks[(last + 1) / tau].stated |= bit;
    s->blocks[(last + 1) / tau].coverage |= slots_of(e, m->fact);
  }
  if (e->facts[m->fact].stream != k)
    for (int32_t b = first / tau; b <= last / tau; b++) s->blocks[b].used |= bit;
  return 0;
}

/* The first block that states a fact, -1 when none does. */
static int32_t stated_in(const pdt_data_entry *e, int32_t fact) {
  const pdt_data_section *s = &e->sections[e->facts[fact].stream];
  for (int32_t b = 0; b < s->n_blocks; b++)
    if (s->blocks[b].stated >> fact & 1) return b;
  return -1;
}

/* Is the note of block j of stream k in the window of block b? */
static bool is_visible(const pdt_data_entry *e, const pdt_data_rounds *r, pdt_stream k, int32_t j,
                       int32_t b) {
  const pdt_note_name note = {j, k};
  if (!pdt_note_is_revealed(note, b, r->reveal_delay)) return false;
  int64_t before = 1; /* notes that a window shows before it; the plan's comes first */
  for (pdt_stream i = 0; i < e->n_sections && r->window > 0; i++)
    for (int32_t at = e->sections[i].n_blocks - 1; at >= j; at--) { /* older ones come behind it */
      const pdt_note_name other = {at, i};
      before += pdt_note_is_revealed(other, b, r->reveal_delay) && pdt_note_order(other, note) < 0;
    }
  return r->window == 0 || before < r->window;
}

/* Facts whose notes block b of stream k sees. */
static uint64_t visible_facts(const pdt_data_entry *e, const pdt_data_rounds *r,
                              const int32_t *stated, int32_t b) {
  uint64_t facts = 0;
  for (int32_t i = 0; i < e->n_facts; i++)
    if (stated[i] >= 0 && is_visible(e, r, e->facts[i].stream, stated[i], b))
      facts |= (uint64_t)1 << i;
  return facts;
}

/* Fresh blocks for a text of n_tokens, with the notes of those before. */
static int renew_blocks(pdt_data_section *s, int32_t n_tokens, int32_t tau, pdt_error *err) {
  int32_t n = (n_tokens + tau - 1) / tau;
  pdt_data_block *blocks;
  if (PDT_NEW(&blocks, n, "blocks", err)) return -1;
  for (int32_t b = 0; b < n; b++)
    blocks[b].note = s->blocks && s->n_blocks == n ? s->blocks[b].note : -1;
  free(s->blocks);
  s->blocks = blocks;
  s->n_blocks = n;
  s->n_tokens = n_tokens;
  return 0;
}

int pdt_data_label(pdt_data_entry *e, const pdt_data_tokens *tokens, const pdt_data_rounds *rounds,
                   pdt_error *err) {
  int32_t stated[PDT_DATA_FACTS];
  for (pdt_stream k = 0; k < e->n_sections; k++) {
    pdt_data_section *s = &e->sections[k];
    if (renew_blocks(s, tokens[k].n + 1, rounds->block_tokens, err)) return -1;
    for (int32_t i = 0; i < s->n_mentions; i++)
      if (mark(e, k, &s->mentions[i], &tokens[k], rounds->block_tokens, err)) return -1;
  }
  for (int32_t i = 0; i < e->n_facts; i++) stated[i] = stated_in(e, i);
  for (pdt_stream k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      pdt_data_block *block = &e->sections[k].blocks[b];
      block->ready = !block->misread && !(block->used & ~visible_facts(e, rounds, stated, b));
    }
  return 0;
}

bool pdt_data_is_ready(const pdt_data_entry *e, const pdt_data_rounds *rounds, pdt_stream stream,
                       int32_t block) {
  uint64_t used = e->sections[stream].blocks[block].used;
  if (e->sections[stream].blocks[block].misread) return false;
  for (int32_t i = 0; i < e->n_facts; i++) {
    if (!(used >> i & 1)) continue;
    int32_t j = stated_in(e, i);
    if (j < 0 || !is_visible(e, rounds, e->facts[i].stream, j, block)) return false;
  }
  return true;
}

static int32_t count_bits(uint64_t set) {
  int32_t n = 0;
  for (; set; set &= set - 1) n++;
  return n;
}

/* Uses that begin in block b: in its set, not in that of the block before. */
static uint64_t begun(const pdt_data_section *s, int32_t b) {
  return b == 0 ? s->blocks[b].used : s->blocks[b].used & ~s->blocks[b - 1].used;
}

/* Runs the rounds with every block waiting until what it uses is visible; the window is taken to
 * hold all notes. done[k] counts blocks, at[k * most + b] is the round of a block. */
static void run_waiting(const pdt_data_entry *e, const pdt_data_rounds *r, const int32_t *stated,
                        int32_t *done, int32_t *at, int32_t most, pdt_data_shape *out) {
  int32_t last_move = 0, left = out->blocks;
  for (int32_t round = 1; left > 0 && round - last_move <= r->reveal_delay; round++) {
    uint64_t visible = 0;
    for (int32_t i = 0; i < e->n_facts; i++) {
      pdt_stream k = e->facts[i].stream;
      if (stated[i] >= 0 && stated[i] < done[k] &&
          pdt_note_is_revealed((pdt_note_name){at[(int64_t)k * most + stated[i]], k}, round,
                               r->reveal_delay))
        visible |= (uint64_t)1 << i;
    }
    for (pdt_stream k = 0; k < e->n_sections; k++) {
      const pdt_data_section *s = &e->sections[k];
      if (done[k] == s->n_blocks || (s->blocks[done[k]].used & ~visible)) continue;
      at[(int64_t)k * most + done[k]++] = round;
      last_move = out->rounds = round;
      left--;
    }
  }
  out->circular = left > 0;
}

int pdt_data_shape_of(const pdt_data_entry *e, const pdt_data_rounds *rounds, pdt_data_shape *out,
                      pdt_error *err) {
  int32_t stated[PDT_DATA_FACTS], done[PDT_DATA_SECTIONS] = {0}, most = 1, *at;
  *out = (pdt_data_shape){0};
  for (int32_t i = 0; i < e->n_facts; i++) stated[i] = stated_in(e, i);
  for (pdt_stream k = 0; k < e->n_sections; k++) {
    const pdt_data_section *s = &e->sections[k];
    if (s->n_blocks > most) most = s->n_blocks;
    out->blocks += s->n_blocks;
    for (int32_t b = 0; b < s->n_blocks; b++) {
      uint64_t uses = begun(s, b);
      out->crowded += count_bits(s->blocks[b].stated) > 1;
      out->unready += !s->blocks[b].ready;
      out->uses += count_bits(uses);
      out->unseen += count_bits(uses & ~visible_facts(e, rounds, stated, b));
    }
  }
  if (PDT_NEW(&at, (int64_t)most * (e->n_sections > 0 ? e->n_sections : 1), "rounds", err))
    return -1;
  run_waiting(e, rounds, stated, done, at, most, out);
  free(at);
  return 0;
}
