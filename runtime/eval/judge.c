#include "eval/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *pdt_judge_cause_name(pdt_judge_cause cause) {
  static const char *const names[PDT_JUDGE_CAUSES] = {"unseen", "withdrawn", "crowded", "split",
                                                      "second", "name",      "other"};
  return names[cause];
}

/* ---- contradictions ---- */

/* What the sections of one entry say, and where each fact is first stated. */
typedef struct court {
  const pdt_atlas_world *world;
  const pdt_rollout_owners *owners;
  const pdt_judge_section *sections;
  const pdt_judge_lent *lent;
  pdt_judge_counts *counts;
  const pdt_rollout_mention *statements[PDT_ATLAS_TYPES]; /* by the owner; NULL: none */
} court;

/* The facts of section k: which it states, and how often. */
static void judge_statements(court *c, pdt_stream k) {
  const pdt_rollout_text *text = c->sections[k].text;
  for (int32_t i = 0; i < text->n_mentions; i++) {
    const pdt_rollout_mention *m = &text->mentions[i];
    if (m->kind != PDT_STATES || c->owners->of[m->type] != k || m->open) continue;
    c->counts->duplicates += c->statements[m->type] != NULL;
    if (!c->statements[m->type]) c->statements[m->type] = m;
  }
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    if (c->owners->of[t] == k) {
      c->counts->facts++;
      c->counts->missing += c->statements[t] == NULL;
    }
}

static void judge_sentences(court *c, pdt_stream k) {
  const pdt_judge_section *s = &c->sections[k];
  const pdt_atlas_reading *r = &s->text->reading;
  bool broken = r->open && !s->unfinished; /* the section ends inside a sentence */
  c->counts->sections++;
  c->counts->unfinished += s->unfinished;
  /* a heading in a text that has one before it is no sentence */
  bool again = !s->untitled && r->heading >= 0;
  c->counts->sentences += r->sentences + broken + again;
  c->counts->malformed += r->malformed + broken + again;
  c->counts->untitled += s->untitled;
  c->counts->titled += s->untitled && r->heading >= 0 && c->owners->of[2 * r->heading] == k;
}

/* Is the first token of the name that of the owner's, which has more of them? */
static bool starts_right(const court *c, const pdt_rollout_text *text, const pdt_rollout_mention *m,
                         int32_t value) {
  if (value < 0) return false;
  const char *name = c->world->names[m->type][value];
  size_t first_end = (size_t)text->ends[m->first], end = first_end < m->end ? first_end : m->end;
  size_t bytes = end - m->begin;
  return bytes < strlen(name) && strncmp(name, text->text.data + m->begin, bytes) == 0;
}

/* The block that reads token `at` of a stream's output. */
static const pdt_rollout_block *reads(const pdt_rollout_stream *s, int32_t at) {
  return pdt_rollout_block_of(s, at + 1);
}

static int count_types(uint32_t set) {
  return __builtin_popcount(set);
}

static pdt_judge_cause cause_of(const court *c, pdt_stream k, const pdt_rollout_mention *m) {
  const pdt_rollout_mention *told = c->statements[m->type];
  const pdt_rollout_stream *owner = c->sections[c->owners->of[m->type]].stream;
  const pdt_rollout_stream *own = c->sections[k].stream;
  if (c->sections[k].place < c->sections[c->owners->of[m->type]].place) return PDT_CAUSE_UNSEEN;
  if (own && owner) {
    const pdt_rollout_block *here = pdt_rollout_block_of(own, m->first);
    const pdt_rollout_block *there = reads(owner, told->last);
    if (!here || !(here->seen >> m->type & 1)) return PDT_CAUSE_UNSEEN;
    if (!there || there->round != here->seen_in[m->type]) return PDT_CAUSE_WITHDRAWN;
    if (count_types(there->stated) > 1) return PDT_CAUSE_CROWDED;
    if (reads(owner, told->first) != there) return PDT_CAUSE_SPLIT;
  }
  if (starts_right(c, c->sections[k].text, m, told->value)) return PDT_CAUSE_SECOND;
  return m->value >= 0 ? PDT_CAUSE_NAME : PDT_CAUSE_OTHER;
}

/* Does a use tell the name that the owner states? Of names that are not listed, the text tells. */
static bool is_same_name(const court *c, const pdt_rollout_text *text, const pdt_rollout_mention *m,
                         const pdt_rollout_text *owner, const pdt_rollout_mention *told) {
  if (m->value >= 0 || told->value >= 0) return m->value == told->value;
  size_t bytes = m->end - m->begin;
  return c->world->pretrained && bytes == told->end - told->begin &&
         memcmp(text->text.data + m->begin, owner->text.data + told->begin, bytes) == 0;
}

/* Counts a use by what its owner states. */
static void count_kind(court *c, const pdt_rollout_mention *told, bool contradicted) {
  bool unlisted = told->value < 0;
  if (!unlisted && !pdt_atlas_is_held_out(c->world, told->value)) return;
  ++*(unlisted ? &c->counts->unlisted_uses : &c->counts->held_out_uses);
  *(unlisted ? &c->counts->unlisted_contradictions : &c->counts->held_out_contradictions) +=
      contradicted;
}

/* Counts a use of a fact that was lent. */
static void count_lent(court *c, pdt_stream k, const pdt_rollout_mention *m) {
  const pdt_rollout_stream *own = c->sections[k].stream;
  const pdt_rollout_block *here = own ? pdt_rollout_block_of(own, m->first) : NULL;
  bool lent = c->lent && c->lent->types >> m->type & 1;
  if (!lent || !here || !(here->seen >> m->type & 1)) return;
  c->counts->lent_uses++;
  c->counts->lent_own += m->value >= 0 && m->value == c->statements[m->type]->value;
  c->counts->lent_followed += m->value >= 0 && m->value == c->lent->value[m->type];
}

/* What section k says of its siblings' facts. */
static void judge_uses(court *c, pdt_stream k, int64_t *uses, int64_t *contradictions) {
  const pdt_rollout_text *text = c->sections[k].text;
  for (int32_t i = 0; i < text->n_mentions; i++) {
    const pdt_rollout_mention *m = &text->mentions[i];
    pdt_stream owner = c->owners->of[m->type];
    if (owner == k || m->open) continue;
    if (owner == PDT_NO_OWNER) {
      c->counts->ownerless++;
      continue;
    }
    c->counts->strays += m->kind == PDT_STATES;
    if (!c->statements[m->type]) {
      c->counts->unstated++;
      continue;
    }
    ++*uses;
    bool same = is_same_name(c, text, m, c->sections[owner].text, c->statements[m->type]);
    count_kind(c, c->statements[m->type], !same);
    count_lent(c, k, m);
    if (same) continue;
    ++*contradictions;
    c->counts->mistaken += m->value >= 0;
    c->counts->causes[cause_of(c, k, m)]++;
  }
}

/* How many things are wrong so far. */
static int64_t count_flaws(const pdt_judge_counts *c) {
  return c->unfinished + c->untitled - c->titled + c->missing + c->duplicates + c->malformed +
         c->contradictions + c->strays + c->ownerless;
}

void pdt_judge_entry(const pdt_atlas_world *world, const pdt_rollout_owners *owners,
                     const pdt_judge_section *sections, const pdt_judge_lent *lent,
                     pdt_judge_counts *counts) {
  court c = {
      .world = world, .owners = owners, .sections = sections, .lent = lent, .counts = counts};
  int64_t uses = 0, contradictions = 0, before = count_flaws(counts);
  for (pdt_stream k = 0; k < owners->streams; k++) {
    judge_statements(&c, k);
    judge_sentences(&c, k);
  }
  for (pdt_stream k = 0; k < owners->streams; k++) judge_uses(&c, k, &uses, &contradictions);
  counts->entries++;
  counts->uses += uses;
  counts->contradictions += contradictions;
  counts->flawed += count_flaws(counts) > before;
  pdt_ratio_add(&counts->contradicted, (double)contradictions, (double)uses);
}

pdt_ratio pdt_judge_contradictions(const pdt_judge_counts *c) {
  return pdt_ratio_of(&c->contradicted);
}

/* ---- plan and coverage ---- */

static double part(int64_t some, int64_t all) {
  return all > 0 ? (double)some / (double)all : NAN;
}

double pdt_judge_precision(const pdt_judge_retrieval *r) {
  return part(r->hit, r->hit + r->wrong);
}

double pdt_judge_recall(const pdt_judge_retrieval *r) {
  return part(r->hit, r->hit + r->missed);
}

double pdt_judge_f1(const pdt_judge_retrieval *r) {
  return part(2 * r->hit, 2 * r->hit + r->wrong + r->missed);
}

pdt_judge_plan pdt_judge_plan_of(const pdt_atlas_world *world, const pdt_data_entry *e,
                                 const pdt_rollout_owners *owners, const int32_t *ids,
                                 int32_t n_slots) {
  pdt_judge_plan out = {0};
  for (int32_t s = 0; s < n_slots && s < PDT_DATA_SLOTS; s++) {
    uint64_t bit = (uint64_t)1 << s;
    const pdt_data_plan_item *item = s < e->n_plan ? &e->plan[s] : NULL;
    if (ids[s] != 0) out.filled |= bit;
    if (!item || item->id == 0) continue;
    out.true_slots++;
    if (ids[s] == item->id) {
      out.right |= bit;
      out.right_slots++;
    }
    int32_t type = pdt_atlas_type(world, item->text);
    if (type >= 0 && owners->of[type] == item->stream) out.slots[type] |= bit;
  }
  return out;
}

/* The true plan's slots of a set of types. */
static uint64_t slots_of(const pdt_judge_plan *plan, uint32_t stated) {
  uint64_t slots = 0;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    if (stated >> t & 1) slots |= plan->slots[t];
  return slots;
}

static void compare(const pdt_judge_plan *plan, uint64_t covered, uint32_t stated,
                    pdt_judge_retrieval *out) {
  uint64_t target = slots_of(plan, stated);
  uint64_t found = covered & plan->filled, hit = found & target & plan->right;
  out->hit += __builtin_popcountll(hit);
  out->wrong += __builtin_popcountll(found & ~hit);
  out->missed += __builtin_popcountll(target & ~hit);
}

void pdt_judge_coverage(const pdt_judge_plan *plan, const pdt_rollout_stream *stream,
                        pdt_judge_retrieval *blocks, pdt_judge_retrieval *sections) {
  uint64_t covered = 0;
  uint32_t stated = 0;
  for (int32_t b = 0; b < stream->n_committed; b++) {
    const pdt_rollout_block *block = &stream->blocks[b];
    compare(plan, block->covered, block->stated, blocks);
    covered |= block->covered;
    stated |= block->stated;
  }
  compare(plan, covered, stated, sections);
}

/* ---- scores ---- */

int pdt_judge_coverage_scores(const pdt_judge_plan *plan, const pdt_rollout_stream *streams,
                              int32_t n, pdt_judge_scores *blocks, pdt_judge_scores *slots,
                              pdt_error *err) {
  for (int32_t s = 0; s < PDT_DATA_SLOTS; s++) {
    pdt_judge_score best = {-INFINITY, false, false};
    if (!(plan->filled >> s & 1)) continue;
    for (int32_t k = 0; k < n; k++)
      for (int32_t b = 0; b < streams[k].n_committed; b++) {
        const pdt_rollout_block *block = &streams[k].blocks[b];
        bool stated = (slots_of(plan, block->stated) & plan->right) >> s & 1;
        const pdt_judge_score score = {block->coverage[s], stated, stated};
        if (pdt_judge_add_score(blocks, score, err)) return -1;
        best.score = score.score > best.score ? score.score : best.score;
        best.label = best.other_label = best.label || stated;
      }
    if (pdt_judge_add_score(slots, best, err)) return -1;
  }
  return 0;
}

pdt_judge_cut pdt_judge_cut_at(const pdt_judge_scores *s, double threshold, bool other) {
  pdt_judge_cut cut = {0};
  for (size_t i = 0; i < s->n; i++) {
    bool label = other ? s->items[i].other_label : s->items[i].label;
    bool above = (double)s->items[i].score > threshold;
    ++*(above   ? label ? &cut.true_above : &cut.false_above
        : label ? &cut.true_below
                : &cut.false_below);
  }
  return cut;
}

int pdt_judge_add_score(pdt_judge_scores *s, pdt_judge_score item, pdt_error *err) {
  if (PDT_GROW(&s->items, s->n, &s->room, err)) return -1;
  s->items[s->n++] = item;
  return 0;
}

void pdt_judge_scores_free(pdt_judge_scores *s) {
  free(s->items);
  *s = (pdt_judge_scores){0};
}

static int by_score(const void *a, const void *b) {
  float x = ((const pdt_judge_score *)a)->score, y = ((const pdt_judge_score *)b)->score;
  return x < y ? -1 : x > y;
}

double pdt_judge_average_precision(pdt_judge_scores *s) {
  int64_t above = 0, right = 0; /* items from here on, and the true ones among them */
  double sum = 0;
  if (s->n > 0) qsort(s->items, s->n, sizeof *s->items, by_score);
  for (size_t i = s->n; i > 0;) {
    int64_t before = right;
    float score = s->items[i - 1].score; /* those alike come together */
    for (; i > 0 && !(s->items[i - 1].score < score); i--) {
      above++;
      right += s->items[i - 1].label;
    }
    sum += (double)(right - before) * (double)right / (double)above;
  }
  return right > 0 ? sum / (double)right : NAN;
}

double pdt_judge_auc(pdt_judge_scores *s, bool other) {
  double below = 0, wins = 0, positives = 0; /* below: false items with a lower score */
  if (s->n > 0) qsort(s->items, s->n, sizeof *s->items, by_score);
  for (size_t i = 0, end; i < s->n; i = end) {
    double hits = 0, misses = 0;
    for (end = i; end < s->n && s->items[end].score == s->items[i].score; end++) {
      bool label = other ? s->items[end].other_label : s->items[end].label;
      hits += label;
      misses += !label;
    }
    wins += hits * (below + misses / 2);
    below += misses;
    positives += hits;
  }
  return positives > 0 && below > 0 ? wins / (positives * below) : NAN;
}
