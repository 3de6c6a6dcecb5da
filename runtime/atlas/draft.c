#include "atlas/draft.h"

#include <string.h>

#include "base/shuffle.h"
#include "protocol/philox.h"

int32_t pdt_draw(pdt_draws *d, int32_t n) {
  if (d->used % 4 == 0) {
    d->counter[0] = (uint32_t)(d->used / 4);
    pdt_philox4x32(d->counter, d->key, d->block);
  }
  return (int32_t)((uint64_t)d->block[d->used++ % 4] * (uint32_t)n >> 32);
}

static int64_t draw_place(void *draws, int64_t i) {
  return pdt_draw(draws, (int32_t)i + 1);
}

/* Hard: one of the other names; half of the time, where names are all that is hard. */
static int32_t draw_value(pdt_draft *d, int32_t type) {
  bool other = d->hard && (d->tangled || pdt_draw(&d->draws, 2) == 1);
  const pdt_atlas_pool *pool = &d->pools[type][other];
  return pool->values[pdt_draw(&d->draws, pool->n)];
}

/* Any word, written as names of a type are. */
static const char *draw_word(pdt_draft *d, int32_t type) {
  bool capital = pdt_atlas_any_capital(d->world, type);
  int32_t i = pdt_draw(&d->draws, d->any->n[capital]);
  return &d->any->words[capital][i][0];
}

/* A name of a type: which of its own, or -1 and any word. */
static int32_t draw_name(pdt_draft *d, int32_t type, const char **word) {
  if (!(d->any_names > 0 && pdt_draw(&d->draws, 1000) < d->any_names * 1000))
    return draw_value(d, type);
  *word = draw_word(d, type);
  return -1;
}

static pdt_draft_name name_of(const pdt_draft *d, int32_t type, int32_t value, const char *word) {
  if (value < 0) return (pdt_draft_name){word, 1};
  const int32_t *words = d->world->name_words[type][value];
  return (pdt_draft_name){d->world->names[type][value],
                          d->costs[words[0]] + (words[1] < 0 ? 0 : d->costs[words[1]])};
}

pdt_draft_name pdt_draft_name_of(const pdt_draft *d, int32_t fact) {
  return name_of(d, d->types[fact], d->values[fact], d->word[fact]);
}

/* What a stream may take a fact's name for: that of another fact, or another one of its type. */
static pdt_draft_name draw_misread(pdt_draft *d, int32_t fact) {
  pdt_draft_name own = pdt_draft_name_of(d, fact), other = own;
  while (strcmp(own.text, other.text) == 0) {
    const char *word = NULL;
    if (pdt_draw(&d->draws, 2) == 0) {
      other = pdt_draft_name_of(d, pdt_draw(&d->draws, d->n_facts));
    } else {
      int32_t value = draw_name(d, d->types[fact], &word);
      other = name_of(d, d->types[fact], value, word);
    }
  }
  return other;
}

void pdt_draft_choose(pdt_draft *d, int32_t min_sections, int32_t max_sections) {
  int32_t order[PDT_ATLAS_SECTIONS];
  d->n = min_sections + pdt_draw(&d->draws, max_sections - min_sections + 1);
  d->n_facts = 2 * d->n;
  d->town = pdt_draw(&d->draws, d->world->n_towns);
  for (int32_t s = 0; s < PDT_ATLAS_SECTIONS; s++) order[s] = s;
  pdt_shuffle(order, PDT_ATLAS_SECTIONS, sizeof *order, draw_place, &d->draws);
  for (int32_t k = 0; k < d->n; k++)
    d->sections[k] = (pdt_draft_section){.section = order[k], .last_name = -1000};
  for (int32_t f = 0; f < d->n_facts; f++) {
    d->types[f] = 2 * order[f / 2] + f % 2;
    d->values[f] = draw_name(d, d->types[f], &d->word[f]);
    d->known_at[f] = -1;
  }
}

static int32_t cost_of(const pdt_draft *d, int32_t word, const pdt_draft_item *item) {
  if (word == PDT_ATLAS_TOWN) return d->costs[d->world->town_words[d->town]];
  return word == PDT_ATLAS_NAME ? item->name.tokens : d->costs[word];
}

/* A sentence of a pattern, measured. */
static pdt_draft_item measure(pdt_draft *d, int32_t fact, pdt_mention_kind kind, int32_t pattern) {
  const pdt_atlas_pattern *p = &d->world->patterns[pattern];
  pdt_draft_item item = {.fact = fact, .kind = kind, .pattern = pattern};
  if (kind == PDT_USES && d->misreads > 0)
    item.misread = pdt_draw(&d->draws, 1000) < d->misreads * 1000;
  if (fact >= 0) item.name = item.misread ? draw_misread(d, fact) : pdt_draft_name_of(d, fact);
  for (int32_t i = 0; i < p->n_words; i++) {
    if (i == p->name) item.name_begin = item.length;
    item.length += cost_of(d, p->words[i], &item);
    if (i == p->name) item.name_end = item.length;
  }
  return item;
}

/* Has a section to say something of a fact already? */
static bool has_fact(const pdt_draft_section *s, int32_t fact) {
  for (int32_t i = 0; i < s->n_pending; i++)
    if (s->pending[i].fact == fact) return true;
  return false;
}

static void add_form(pdt_draft *d, pdt_draft_section *s, int32_t fact, pdt_mention_kind kind,
                     int32_t form) {
  int32_t pattern = (d->types[fact] * 2 + (int32_t)kind) * d->world->n_forms + form;
  s->pending[s->n_pending++] = measure(d, fact, kind, pattern);
}

static void add_pending(pdt_draft *d, pdt_draft_section *s, int32_t fact, pdt_mention_kind kind) {
  add_form(d, s, fact, kind, pdt_draw(&d->draws, d->world->n_forms));
}

/* A section tells a fact of its own again: as siblings do, or in another form of its statement.
 * Which of two statements comes first is the same to it. */
static void add_again(pdt_draft *d, pdt_draft_section *s, int32_t fact) {
  int32_t n_forms = d->world->n_forms;
  if (pdt_draw(&d->draws, 1000) >= d->again * 1000) return;
  if (pdt_draw(&d->draws, 2) == 0) {
    add_pending(d, s, fact, PDT_USES);
    return;
  }
  int32_t first = s->pending[fact % 2].pattern % n_forms; /* statements are added before all else */
  add_form(d, s, fact, PDT_STATES, (first + 1 + pdt_draw(&d->draws, n_forms - 1)) % n_forms);
}

/* Every fact gets a user, the one with least to say; then sections take more until each has 2 or 3
 * (tangled: 3 or 4) uses, as far as there are facts. */
static void choose_uses(pdt_draft *d) {
  int32_t facts[PDT_DRAFT_FACTS];
  for (int32_t f = 0; f < d->n_facts; f++) {
    facts[f] = f;
    add_pending(d, &d->sections[f / 2], f, PDT_STATES);
  }
  pdt_shuffle(facts, d->n_facts, sizeof *facts, draw_place, &d->draws);
  for (int32_t i = 0; i < d->n_facts; i++) {
    int32_t owner = facts[i] / 2, first = pdt_draw(&d->draws, d->n);
    int32_t best = first == owner ? (first + 1) % d->n : first;
    for (int32_t j = 1; j < d->n; j++) {
      int32_t k = (first + j) % d->n;
      if (k != owner && d->sections[k].n_pending < d->sections[best].n_pending) best = k;
    }
    add_pending(d, &d->sections[best], facts[i], PDT_USES);
  }
  for (int32_t k = 0; k < d->n; k++) {
    pdt_draft_section *s = &d->sections[k];
    int32_t wanted = 2 + (d->tangled ? 3 : 2) + pdt_draw(&d->draws, 2);
    pdt_shuffle(facts, d->n_facts, sizeof *facts, draw_place, &d->draws);
    for (int32_t i = 0; i < d->n_facts && s->n_pending < wanted; i++)
      if (!has_fact(s, facts[i])) add_pending(d, s, facts[i], PDT_USES);
  }
  for (int32_t f = 0; d->again > 0 && f < d->n_facts; f++) add_again(d, &d->sections[f / 2], f);
}

static bool add_filler(pdt_draft *d, pdt_draft_section *s) {
  if (s->n_items == PDT_DRAFT_ITEMS || s->n_fillers == PDT_DRAFT_FILLERS) return false;
  int32_t n = d->world->n_fillers, i = pdt_draw(&d->draws, n);
  while (s->fillers_used >> i & 1) i = (i + 1) % n;
  s->fillers_used |= (uint32_t)1 << i;
  pdt_draft_item item = measure(d, -1, PDT_STATES, d->world->filler + i);
  s->items[s->n_items++] = item;
  s->n_fillers++;
  s->tokens += item.length;
  s->clock += item.length;
  return true;
}

/* Moves pending item i into the text. What is stated counts as visible some tokens later, and a
 * use that comes before waits for that. */
static void place(pdt_draft *d, pdt_draft_section *s, int32_t i) {
  pdt_draft_item item = s->pending[i];
  s->pending[i] = s->pending[--s->n_pending];
  if (item.kind == PDT_USES && s->clock + item.name_begin < d->known_at[item.fact])
    s->clock = d->known_at[item.fact] - item.name_begin;
  if (item.kind == PDT_STATES) {
    s->last_name = s->tokens + item.name_end;
    if (d->known_at[item.fact] < 0) d->known_at[item.fact] = s->clock + item.name_end + d->gap;
  }
  s->items[s->n_items++] = item;
  s->tokens += item.length;
  s->clock += item.length;
}

/* How much a pending item wants to be next: 0 when it cannot be. A use cannot before its fact is
 * stated anywhere, which keeps an order in which nobody waits for ever. */
static int32_t weight_of(const pdt_draft *d, const pdt_draft_section *s,
                         const pdt_draft_item *item) {
  if (item->kind == PDT_STATES) return s->tokens + item->name_end >= s->last_name + d->gap ? 4 : 0;
  if (d->known_at[item->fact] < 0) return 0;
  return s->clock + item->name_begin >= d->known_at[item->fact] ? 3 : 2;
}

/* The section that has something to say and the lowest clock; -1 when all is said. */
static int32_t next_section(pdt_draft *d) {
  int32_t best = -1, first = pdt_draw(&d->draws, d->n);
  for (int32_t j = 0; j < d->n; j++) {
    int32_t k = (first + j) % d->n;
    if (d->sections[k].n_pending > 0 &&
        (best < 0 || d->sections[k].clock < d->sections[best].clock))
      best = k;
  }
  return best;
}

/* One step of the default order: the section that is behind says something, or waits for others. */
static bool place_next(pdt_draft *d, pdt_draft_section *s) {
  int32_t weights[PDT_DRAFT_PENDING], total = 0;
  bool spaced_out = false;
  for (int32_t i = 0; i < s->n_pending; i++) {
    weights[i] = weight_of(d, s, &s->pending[i]);
    total += weights[i];
    spaced_out |= weights[i] == 0 && s->pending[i].kind == PDT_STATES;
  }
  int32_t filler = total == 0 ? spaced_out : s->n_fillers == 0;
  if (total + filler == 0) {
    s->clock++;
    return true;
  }
  if (s->n_items == PDT_DRAFT_ITEMS) return false;
  int32_t choice = pdt_draw(&d->draws, total + filler);
  for (int32_t i = 0; i < s->n_pending; i++) {
    if (choice < weights[i]) {
      place(d, s, i);
      return true;
    }
    choice -= weights[i];
  }
  return add_filler(d, s);
}

/* Index of a pending statement, -1 when there is none. */
static int32_t find_statement(const pdt_draft_section *s) {
  for (int32_t i = 0; i < s->n_pending; i++)
    if (s->pending[i].kind == PDT_STATES) return i;
  return -1;
}

/* Places a statement, and the other one in the second half of the same sentence. */
static void place_both(pdt_draft *d, pdt_draft_section *s, int32_t i) {
  for (int half = 0; i >= 0; half++, i = find_statement(s)) {
    int32_t fact = s->pending[i].fact;
    s->pending[i] = measure(d, fact, PDT_STATES, d->world->terse + 2 * d->types[fact] + half);
    place(d, s, i);
  }
}

/* The tangled order: anything anywhere, both statements of three sections in four in one sentence.
 */
static bool place_anyhow(pdt_draft *d, pdt_draft_section *s) {
  bool dense = pdt_draw(&d->draws, 4) != 0;
  while (s->n_pending > 0) {
    int32_t i = pdt_draw(&d->draws, s->n_pending);
    if (s->n_items + 2 > PDT_DRAFT_ITEMS) return false;
    if (dense && s->pending[i].kind == PDT_STATES)
      place_both(d, s, i);
    else
      place(d, s, i);
    if (s->n_fillers < 2 && pdt_draw(&d->draws, 6) == 0 && !add_filler(d, s)) return false;
  }
  return true;
}

bool pdt_draft_arrange(pdt_draft *d, int32_t min_tokens, int32_t max_tokens) {
  choose_uses(d);
  for (int32_t k = 0; d->tangled && k < d->n; k++)
    if (!place_anyhow(d, &d->sections[k])) return false;
  for (int32_t k = next_section(d); !d->tangled && k >= 0; k = next_section(d))
    if (!place_next(d, &d->sections[k])) return false;
  for (int32_t k = 0; k < d->n; k++) {
    while (d->sections[k].tokens < min_tokens)
      if (!add_filler(d, &d->sections[k])) return false;
    if (d->sections[k].tokens > max_tokens) return false;
  }
  return true;
}
