#include "train/entry.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/philox.h"
#include "protocol/window.h"

int32_t pdt_train_stream_blocks(const pdt_train_stream *stream, int32_t block_tokens) {
  return (stream->n_tokens - 1) / block_tokens + 1;
}

int32_t pdt_train_entry_blocks(const pdt_train_entry *entry, int32_t block_tokens) {
  int32_t n = 0;
  for (int32_t i = 0; i < entry->n_streams; i++)
    n += pdt_train_stream_blocks(&entry->streams[i], block_tokens);
  return n;
}

static int32_t filled_slots(const pdt_train_entry *entry, int32_t slots) {
  int32_t n = 0;
  for (int32_t i = 0; i < slots; i++) n += entry->plan_ids[i] != 0;
  return n;
}

/* How much L_spec asks of a block. */
static double note_weight(const pdt_train_entry *entry, int32_t block,
                          const pdt_train_losses *losses) {
  return entry->quiet && entry->quiet[block] ? losses->quiet : 1;
}

void pdt_train_count(const pdt_train_entry *entry, int32_t block_tokens, int32_t slots,
                     const pdt_train_losses *losses, pdt_train_totals *totals) {
  int32_t blocks = pdt_train_entry_blocks(entry, block_tokens), filled = filled_slots(entry, slots);
  for (int32_t i = 0; i < entry->n_streams; i++) {
    const pdt_train_stream *s = &entry->streams[i];
    for (int32_t j = 0; j < s->n_tokens; j++)
      totals->tokens += s->weights ? (double)s->weights[j] : 1;
  }
  totals->blocks += blocks;
  for (int32_t b = 0; b < blocks; b++) totals->speculated += note_weight(entry, b, losses);
  totals->slots += losses->empty ? slots : filled;
  totals->coverage += (int64_t)blocks * filled;
}

/* The k-th uniform number of an entry. */
static double draw(const pdt_train_rounds *rules, uint64_t number, uint32_t k) {
  return pdt_uniform(rules->seed, k, 0, 0, number);
}

enum { MOST_START = 6, MOST_WAIT = 3 };

void pdt_train_draw_rounds(const pdt_train_entry *entry, const pdt_train_rounds *rules,
                           uint64_t number, int32_t *rounds) {
  uint32_t k = 0;
  bool lockstep = draw(rules, number, k++) < rules->lockstep;
  for (int32_t i = 0, at = 0; i < entry->n_streams; i++) {
    int32_t n = pdt_train_stream_blocks(&entry->streams[i], rules->block_tokens);
    int32_t round = lockstep ? 0 : (int32_t)(draw(rules, number, k++) * (MOST_START + 1));
    for (int32_t j = 0; j < n; j++) {
      round++;
      if (!lockstep && draw(rules, number, k++) < rules->wait)
        round += 1 + (int32_t)(draw(rules, number, k++) * MOST_WAIT);
      rounds[at++] = round;
    }
  }
}

/* ---- windows ---- */

/* A note of an entry. */
typedef struct note {
  pdt_note_name name;
  int32_t block; /* of the entry; -1: the plan's */
} note;

/* As windows ask for them: rounds ascend, and streams within a round. */
static int by_name(const void *a, const void *b) {
  const pdt_note_name x = ((const note *)a)->name, y = ((const note *)b)->name;
  if (x.round != y.round) return x.round < y.round ? -1 : 1;
  return (x.stream > y.stream) - (x.stream < y.stream);
}

/* The batch while it is laid out; writable faces of its arrays. */
typedef struct layout {
  const pdt_train_rounds *rules;
  const pdt_sidecar_config *config;
  int32_t n_entries, rows, conditioned, sequences, blocks, items; /* so far */
  int32_t *begin, *cond_rows, *run_begin, *window_begin, *first, *window_items;
  pdt_stream *run_stream;
  int32_t *block_begin, *block_steps, *block_entry, *plan_ids, *slot_targets, *target_rows;
  pdt_token *tokens, *target_tokens;
  int32_t targets;
  uint8_t *kinds; /* of targets */
  float *ce_weight, *mean_states, *place_states, *teacher, *coverage, *coverage_weight, *ready;
  float *notes_weight, *spec_weight, *ready_weight;
  float *lower;          /* NULL: not known */
  int32_t *prompt_begin; /* [entries + 1] of what follows, with orders */
  float *order_states, *mark_target, *mark_weight;
  note *sorted;    /* of the entry at hand: the plan's, then those of its blocks by name */
  int32_t *rounds; /* the same */
} layout;

/* How much there will be of everything. */
typedef struct extent {
  int64_t rows, conditioned, sequences, blocks, targets, items, most_blocks, prompt_tokens;
  bool lower; /* what stands behind the trunk's lower layers is known */
} extent;

static extent measure(const pdt_train_entry *const *entries, int32_t n,
                      const pdt_train_rounds *rules) {
  extent x = {.lower = n > 0 && entries[0]->lower};
  for (int32_t e = 0; e < n; e++) {
    int64_t blocks = pdt_train_entry_blocks(entries[e], rules->block_tokens);
    int64_t widest = blocks + 1 < rules->window ? blocks + 1 : rules->window;
    for (int32_t i = 0; i < entries[e]->n_streams; i++) {
      const pdt_train_stream *s = &entries[e]->streams[i];
      x.conditioned += s->n_prefix + s->n_tokens;
      x.rows += entries[e]->n_prompt - 1 + s->n_prefix + s->n_tokens;
      x.targets += s->n_tokens;
    }
    x.sequences += entries[e]->n_streams;
    x.prompt_tokens += entries[e]->n_prompt;
    x.blocks += blocks;
    x.items += blocks * widest;
    x.most_blocks = blocks > x.most_blocks ? blocks : x.most_blocks;
  }
  return x;
}

static int take_layout(layout *l, const extent *x, pdt_arena *arena, pdt_error *err) {
  int64_t S = l->config->plan_slots, E = l->n_entries, Nb = x->blocks;
  if (x->lower && PDT_TAKE(arena, &l->lower, x->rows * l->config->hidden_size, err)) return -1;
#define TAKE(field, count) PDT_TAKE(arena, &l->field, count, err)
  if (l->config->plan_orders > 0 &&
      (TAKE(prompt_begin, E + 1) || TAKE(mark_target, x->prompt_tokens) ||
       TAKE(mark_weight, x->prompt_tokens) ||
       TAKE(order_states, x->prompt_tokens * l->config->hidden_size)))
    return -1;
  return TAKE(begin, x->sequences + 1) || TAKE(cond_rows, x->conditioned) ||
                 TAKE(run_begin, x->sequences + 1) || TAKE(run_stream, x->sequences) ||
                 TAKE(window_begin, Nb + 1) || TAKE(first, Nb + 1) ||
                 TAKE(window_items, x->items) || TAKE(block_begin, Nb) || TAKE(block_steps, Nb) ||
                 TAKE(block_entry, Nb) || TAKE(plan_ids, E * S) || TAKE(slot_targets, E * S) ||
                 TAKE(target_rows, x->targets) || TAKE(tokens, x->rows) ||
                 TAKE(target_tokens, x->targets) || TAKE(ce_weight, x->targets) ||
                 TAKE(kinds, x->targets) || TAKE(mean_states, E * l->config->hidden_size) ||
                 TAKE(place_states, E * l->config->plan_places * l->config->hidden_size) ||
                 TAKE(teacher, Nb * l->config->notes_dim) || TAKE(coverage, Nb * S) ||
                 TAKE(coverage_weight, Nb * S) || TAKE(ready, Nb) || TAKE(notes_weight, Nb) ||
                 TAKE(spec_weight, Nb) || TAKE(ready_weight, Nb) ||
                 TAKE(sorted, x->most_blocks + 1) || TAKE(rounds, x->most_blocks)
             ? -1
             : 0;
#undef TAKE
}

/* The window of a block emitted in `round`, of the entry whose notes are sorted [n]. `base`: number
 * of the entry's first block in the batch. */
static void add_window(layout *l, int32_t entry, int32_t round, int32_t n, int32_t base) {
  const pdt_window_rule rule = {l->rules->reveal_delay, l->rules->window};
  const pdt_note_names names = {&l->sorted[0].name, sizeof *l->sorted, n};
  int32_t *items = l->window_items + l->items, shown = pdt_window_notes(names, round, rule, items);
  for (int32_t i = 0; i < shown; i++) {
    int32_t block = l->sorted[items[i]].block;
    items[i] = block < 0 ? entry : l->n_entries + base + block;
  }
  l->items += shown;
}

/* A stream's sequence: the prompt but its last token, then the rows that are conditioned, and its
 * blocks with their windows. */
static void add_stream(layout *l, const pdt_train_entry *entry, int32_t e, int32_t i,
                       int32_t first_block, int32_t n_blocks, int32_t base) {
  const pdt_train_stream *s = &entry->streams[i];
  int32_t tau = l->rules->block_tokens, blocks = pdt_train_stream_blocks(s, tau);
  l->begin[l->sequences] = l->rows;
  l->run_begin[l->sequences] = l->conditioned;
  l->run_stream[l->sequences++] = s->stream;
  /* The last token is predicted and not read. */
  int32_t emit = l->rows + entry->n_prompt + s->n_prefix - 1;
  pdt_token *to = l->tokens + l->rows;
  memcpy(to, entry->prompt, (size_t)entry->n_prompt * sizeof *to);
  if (s->n_prefix > 0) memcpy(to + entry->n_prompt, s->prefix, (size_t)s->n_prefix * sizeof *to);
  memcpy(l->tokens + emit + 1, s->tokens, (size_t)(s->n_tokens - 1) * sizeof *to);
  int32_t conditioned = s->n_prefix + s->n_tokens;
  for (int32_t j = 0; j < conditioned; j++)
    l->cond_rows[l->conditioned + j] = l->rows + entry->n_prompt - 1 + j;
  for (int32_t b = 0; b < blocks; b++) {
    int32_t at = l->blocks++, left = s->n_tokens - b * tau;
    l->block_begin[at] = emit + b * tau;
    l->block_steps[at] = left < tau ? left : tau;
    l->block_entry[at] = e;
    l->window_begin[at] = l->conditioned + (b == 0 ? 0 : s->n_prefix + b * tau);
    l->first[at] = l->items;
    add_window(l, e, l->rounds[first_block + b], 1 + n_blocks, base);
  }
  l->conditioned += conditioned;
  l->rows = emit + s->n_tokens;
}

/* Is the note of a block of the entry whose first block is `base` in the window of block `at`? */
static bool sees(const layout *l, int32_t base, int32_t at, int32_t block) {
  int32_t wanted = l->n_entries + base + block;
  for (int32_t i = l->first[at]; i < l->first[at + 1]; i++)
    if (l->window_items[i] == wanted) return true;
  return false;
}

/* What token j of an entry's stream i is, whose first block is `first` of the batch. */
static pdt_nn_kind kind_of(const layout *l, const pdt_train_entry *entry, int32_t i, int32_t j,
                           int32_t base, int32_t first) {
  pdt_nn_kind kind = PDT_NN_OTHER;
  for (int32_t u = 0; u < entry->n_uses; u++) {
    const pdt_train_use *use = &entry->uses[u];
    if (use->stream != i || j < use->first || j >= use->first + use->n) continue;
    int32_t at = first + j / l->rules->block_tokens;
    if (use->note >= 0 && sees(l, base, at, use->note))
      return j == use->first ? PDT_NN_USE : PDT_NN_LATER;
    if (use->kind == PDT_SIBLINGS_FACT) kind = PDT_NN_UNSEEN;
  }
  return kind;
}

/* Does token j stand in a sentence whose name begins under a window without its note? */
static bool tells_unseen(const layout *l, const pdt_train_entry *entry, int32_t i, int32_t j,
                         int32_t base, int32_t first) {
  for (int32_t u = 0; u < entry->n_uses; u++) {
    const pdt_train_use *use = &entry->uses[u];
    if (use->kind != PDT_SIBLINGS_FACT || use->stream != i) continue;
    if (j < use->begin || j >= use->end) continue;
    int32_t at = first + use->first / l->rules->block_tokens;
    if (use->note < 0 || !sees(l, base, at, use->note)) return true;
  }
  return false;
}

/* Tokens that the rows of an entry's stream i predict; `base`, `first`: its entry's first block in
 * the batch, and its own. Windows are laid out already. */
static void add_targets(layout *l, const pdt_train_entry *entry, int32_t i, int32_t emit,
                        int32_t base, int32_t first, const pdt_train_losses *losses, double scale) {
  const pdt_train_stream *s = &entry->streams[i];
  for (int32_t j = 0; j < s->n_tokens; j++) {
    pdt_nn_kind kind = kind_of(l, entry, i, j, base, first);
    double weight = s->weights ? (double)s->weights[j] : 1;
    if (kind == PDT_NN_USE) weight *= losses->use;
    if (kind == PDT_NN_LATER) weight *= losses->later;
    if (tells_unseen(l, entry, i, j, base, first)) weight *= losses->unseen;
    if (weight == 0 && losses->kd == 0) continue;
    l->target_rows[l->targets] = emit + j;
    l->target_tokens[l->targets] = s->tokens[j];
    l->kinds[l->targets] = (uint8_t)kind;
    l->ce_weight[l->targets++] = (float)(weight * scale);
  }
}

/* A block is ready when every note it needs is in its window, or as it is labelled. */
static void label_ready(layout *l, const pdt_train_entry *entry, int32_t base, int32_t n_blocks) {
  for (int32_t b = 0; b < n_blocks; b++) l->ready[base + b] = entry->ready ? entry->ready[b] : 1;
  for (int32_t i = 0; i < entry->n_needs; i++) {
    int32_t block = base + entry->needs[i].block;
    if (!sees(l, base, block, entry->needs[i].note)) l->ready[block] = 0;
  }
}

/* Labels and weights of an entry's blocks and plan. */
static void add_labels(layout *l, const pdt_train_entry *entry, int32_t e, int32_t base,
                       int32_t n_blocks, bool empty) {
  int64_t S = l->config->plan_slots, dn = l->config->notes_dim, d = l->config->hidden_size;
  memcpy(l->plan_ids + e * S, entry->plan_ids, (size_t)S * sizeof *l->plan_ids);
  for (int64_t j = 0; j < S; j++)
    l->slot_targets[e * S + j] = entry->plan_ids[j] != 0 || empty ? entry->plan_ids[j] : -1;
  memcpy(l->mean_states + e * d, entry->mean_state, (size_t)d * sizeof(float));
  int64_t places = l->config->plan_places * d;
  if (places > 0)
    memcpy(l->place_states + e * places, entry->place_states, (size_t)places * sizeof(float));
  memcpy(l->teacher + base * dn, entry->teacher_notes, (size_t)(n_blocks * dn) * sizeof(float));
  memcpy(l->coverage + base * S, entry->coverage, (size_t)(n_blocks * S) * sizeof(float));
  label_ready(l, entry, base, n_blocks);
}

static float share(double loss, double total) {
  return total > 0 ? (float)(loss / total) : 0;
}

/* An entry's prompt as the planner reads it in order; `weight`: of telling whether a token ends the
 * name of a section. */
static void add_prompt(layout *l, const pdt_train_entry *entry, int32_t e, float weight) {
  int64_t d = l->config->hidden_size;
  if (l->config->plan_orders == 0) return;
  if (e == 0) l->prompt_begin[0] = 0;
  int32_t begin = l->prompt_begin[e], n = entry->n_prompt;
  l->prompt_begin[e + 1] = begin + n;
  memcpy(l->order_states + begin * d, entry->order_states, (size_t)(n * d) * sizeof(float));
  for (int32_t t = 0; t < n; t++) {
    l->mark_target[begin + t] = entry->marks ? (float)entry->marks[t] : 0;
    l->mark_weight[begin + t] = entry->marks ? weight : 0;
  }
}

static void add_entry(layout *l, const pdt_train_entry *entry, int32_t e, uint64_t number,
                      const pdt_train_losses *losses, double token_scale) {
  int32_t tau = l->rules->block_tokens, base = l->blocks, rows = l->rows;
  int32_t n_blocks = pdt_train_entry_blocks(entry, tau);
  pdt_train_draw_rounds(entry, l->rules, number, l->rounds);
  for (int32_t i = 0, at = 0; i < entry->n_streams; i++)
    for (int32_t b = pdt_train_stream_blocks(&entry->streams[i], tau); b > 0; b--, at++)
      l->sorted[1 + at] = (note){{l->rounds[at], entry->streams[i].stream}, at};
  l->sorted[0] = (note){{0, PDT_PLANNER}, -1};
  qsort(l->sorted + 1, (size_t)n_blocks, sizeof *l->sorted, by_name);
  for (int32_t i = 0, at = 0; i < entry->n_streams; i++) {
    int32_t emit = l->rows + entry->n_prompt + entry->streams[i].n_prefix - 1;
    add_stream(l, entry, e, i, at, n_blocks, base);
    l->first[l->blocks] = l->items;
    add_targets(l, entry, i, emit, base, base + at, losses, token_scale);
    at += pdt_train_stream_blocks(&entry->streams[i], tau);
  }
  add_labels(l, entry, e, base, n_blocks, losses->empty);
  for (int32_t b = 0; b < n_blocks; b++)
    l->spec_weight[base + b] = (float)note_weight(entry, b, losses);
  int64_t d = l->config->hidden_size;
  if (l->lower) pdt_to_float(PDT_BF16, entry->lower, (l->rows - rows) * d, l->lower + rows * d);
}

static void fill(float *x, int64_t n, float value) {
  for (int64_t i = 0; i < n; i++) x[i] = value;
}

static void finish(const layout *l, const pdt_train_losses *losses, const pdt_train_totals *totals,
                   pdt_nn_sidecar_batch *batch) {
  int64_t S = l->config->plan_slots;
  fill(l->notes_weight, l->blocks, share(losses->notes, (double)totals->blocks));
  for (int32_t b = 0; b < l->blocks; b++)
    l->spec_weight[b] *= share(losses->speculation, totals->speculated);
  fill(l->ready_weight, l->blocks, share(losses->ready, (double)totals->blocks));
  for (int64_t i = 0; i < l->blocks * S; i++)
    l->coverage_weight[i] = l->plan_ids[l->block_entry[i / S] * S + i % S] != 0
                                ? share(losses->coverage, (double)totals->coverage)
                                : 0;
  *batch = (pdt_nn_sidecar_batch){
      .sequences = {l->sequences, l->begin},
      .tokens = l->tokens,
      .lower = l->lower,
      .conditioning = {.n_rows = l->conditioned,
                       .rows = l->cond_rows,
                       .n_runs = l->sequences,
                       .run_begin = l->run_begin,
                       .run_stream = l->run_stream,
                       .windows = {l->blocks, l->window_begin, l->first, l->window_items},
                       .n_notes = l->n_entries + l->blocks},
      .blocks = {l->blocks, l->block_begin, l->block_steps, l->block_entry},
      .plans = {l->n_entries, l->plan_ids},
      .prompts = {.n = l->n_entries,
                  .mean = l->mean_states,
                  .places = l->place_states,
                  .begin = l->prompt_begin,
                  .read = l->order_states,
                  .mark_target = l->mark_target,
                  .mark_weight = l->mark_weight},
      .slot_targets = l->slot_targets,
      .slot_weight = share(losses->plan, (double)totals->slots),
      .teacher_notes = l->teacher,
      .notes_weight = losses->notes > 0 ? l->notes_weight : NULL,
      .spec_weight = losses->speculation > 0 ? l->spec_weight : NULL,
      .targets = {.n = losses->ce > 0 || losses->kd > 0 ? l->targets : 0,
                  .rows = l->target_rows,
                  .tokens = l->target_tokens,
                  .ce_weight = l->ce_weight,
                  .kinds = l->kinds},
      .coverage_target = l->coverage,
      .coverage_weight = losses->coverage > 0 ? l->coverage_weight : NULL,
      .ready_target = l->ready,
      .ready_weight = losses->ready > 0 ? l->ready_weight : NULL};
}

int pdt_train_batch(pdt_nn_sidecar_batch *batch, const pdt_train_entry *const *entries,
                    const uint64_t *number, int32_t n, const pdt_sidecar_config *config,
                    const pdt_train_rounds *rules, const pdt_train_losses *losses,
                    const pdt_train_totals *totals, pdt_arena *arena, pdt_error *err) {
  layout l = {.rules = rules, .config = config, .n_entries = n};
  extent x = measure(entries, n, rules);
  if (x.rows > INT32_MAX / 2 || x.items > INT32_MAX / 2)
    return pdt_fail(err, PDT_ERROR_USAGE, "a batch of %lld tokens (hint: fewer entries)",
                    (long long)x.rows);
  if (take_layout(&l, &x, arena, err)) return -1;
  for (int32_t e = 0; e < n; e++) {
    add_prompt(&l, entries[e], e, share(losses->plan, (double)totals->slots));
    add_entry(&l, entries[e], e, number[e], losses, share(losses->ce, totals->tokens));
  }
  l.begin[l.sequences] = l.rows;
  l.run_begin[l.sequences] = l.conditioned;
  l.window_begin[l.blocks] = l.conditioned;
  l.first[l.blocks] = l.items;
  finish(&l, losses, totals, batch);
  return 0;
}

int pdt_train_number_altered(pdt_nn_sidecar_batch *b, int32_t **sequences, pdt_arena *arena,
                             pdt_error *err) {
  pdt_nn_windows *w = &b->conditioning.windows;
  int32_t *of, *items, blocks = b->blocks.n, plans = b->plans.n;
  if (PDT_TAKE(arena, &of, blocks, err) || PDT_TAKE(arena, &items, w->first[w->n], err)) return -1;
  for (int32_t i = 0, s = 0; i < blocks; i++) {
    while (b->blocks.begin[i] >= b->sequences.begin[s + 1]) s++;
    of[i] = s;
  }
  for (int32_t i = 0; i < blocks; i++)
    for (int32_t j = w->first[i]; j < w->first[i + 1]; j++) {
      int32_t from = w->items[j] - plans;
      bool siblings = from >= 0 && of[from] != of[i];
      items[j] = w->items[j] + (siblings ? blocks : 0);
    }
  w->items = items;
  b->conditioning.n_notes += blocks;
  *sequences = of;
  return 0;
}
