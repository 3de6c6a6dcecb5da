#include "atlas/generate.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atlas/draft.h"
#include "atlas/pools.h"
#include "atlas/prompt.h"
#include "base/buffer.h"
#include "base/memory.h"
#include "data/tokens.h"
#include "request/plan_hash.h"
#include "sidecar/sidecar.h"

/* Draws before a generator gives up: one in 16 is of the rarer splits, and nearly all of those
 * fit. */
enum { MOST_ATTEMPTS = 20000 };

/* Part of what splits are, and so of every entry: two facts of one sum cannot be told apart there,
 * which only makes them go together. */
enum { SPLIT_STRIDE = 96 };

/* Block sizes for which the default Atlas promises an order without circles, beside its own. */
enum { FIRST_TAU = 4, LAST_TAU = 8 };

static const char *const split_names[] = {"train", "valid", "test"};

const char *pdt_atlas_split_name(pdt_atlas_split split) {
  return split_names[split];
}

bool pdt_atlas_split_parse(const char *name, pdt_atlas_split *out) {
  for (int i = 0; i < 3; i++)
    if (strcmp(name, split_names[i]) == 0) {
      *out = (pdt_atlas_split)i;
      return true;
    }
  return false;
}

static const char *const part_names[] = {"seen", "held-out", "all"};

bool pdt_atlas_part_parse(const char *name, pdt_atlas_part *out) {
  for (int i = 0; i < 3; i++)
    if (strcmp(name, part_names[i]) == 0) {
      *out = (pdt_atlas_part)i;
      return true;
    }
  return false;
}

pdt_atlas_split pdt_atlas_split_of(int32_t town, const int32_t *types, const int32_t *values,
                                   int32_t n) {
  uint64_t sum = (uint64_t)town + 1;
  for (int32_t i = 0; i < n; i++) { /* a sum, so that the order of sections does not matter */
    uint64_t x = (uint64_t)types[i] * SPLIT_STRIDE + (uint64_t)values[i] + 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    sum += x ^ x >> 31;
  }
  sum = (sum ^ sum >> 30) * 0xBF58476D1CE4E5B9;
  uint64_t part = sum >> 60;
  return part == 0 ? PDT_TEST : part == 1 ? PDT_VALID : PDT_TRAIN;
}

/* Do hard entries of these options tangle? */
static bool is_tangled(const pdt_atlas_world *world, const pdt_atlas_options *o) {
  return o->hard && world->tangled;
}

static int check_parts(const pdt_atlas_world *world, const pdt_atlas_options *o, pdt_error *err) {
  if (o->names != PDT_ATLAS_SEEN && world->held_out == 0)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "names: expected seen, found %s: the world '%s' holds none out of training "
                    "(hint: --world words)",
                    part_names[o->names], pdt_atlas_kind_option(world->kind));
  bool held_out = o->names != PDT_ATLAS_SEEN || (o->wordings && o->wordings_of != PDT_ATLAS_SEEN);
  if (o->split != PDT_TRAIN || !held_out) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "names and wordings: expected seen ones in the split train, found %s (hint: "
                  "--split valid, or test)",
                  part_names[o->names != PDT_ATLAS_SEEN ? o->names : o->wordings_of]);
}

static int check_chances(const pdt_atlas_world *world, const pdt_atlas_options *o, pdt_error *err) {
  if (!(o->any_names >= 0 && o->any_names <= 1) || (o->any_names > 0 && !world->pretrained))
    return pdt_fail(
        err, PDT_ERROR_USAGE,
        "any names: expected a chance of 0 to 1, and 0 but for the world 'words', found "
        "%g (hint: --world words)",
        o->any_names);
  if (!(o->again >= 0 && o->again <= 1) || (o->again > 0 && is_tangled(world, o)))
    return pdt_fail(
        err, PDT_ERROR_USAGE, "facts told again: expected a chance of 0 to 1%s, found %g",
        is_tangled(world, o) ? ", and 0 where statements share sentences (--hard)" : "", o->again);
  if (!(o->misreads >= 0 && o->misreads <= 1))
    return pdt_fail(err, PDT_ERROR_USAGE, "misreadings: expected a chance of 0 to 1, found %g",
                    o->misreads);
  if (!(o->untitled >= 0 && o->untitled <= 1))
    return pdt_fail(err, PDT_ERROR_USAGE, "untitled entries: expected a chance of 0 to 1, found %g",
                    o->untitled);
  return 0;
}

static int check_options(const pdt_atlas_world *world, const pdt_atlas_options *o, pdt_error *err) {
  if (o->min_sections < 2 || o->max_sections > PDT_ATLAS_SECTIONS ||
      o->min_sections > o->max_sections)
    return pdt_fail(err, PDT_ERROR_USAGE, "sections: expected 2 to %d, found %d to %d",
                    PDT_ATLAS_SECTIONS, o->min_sections, o->max_sections);
  if (o->min_tokens < 1 || o->min_tokens > o->max_tokens)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "tokens of a section: expected at least 1 and an ordered pair, found %d to %d",
                    o->min_tokens, o->max_tokens);
  if (o->rounds.block_tokens < 1 || o->rounds.reveal_delay < 1 || o->rounds.window < 0)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "expected block tokens and reveal delay of at least 1 and a window of at least "
                    "0, found %d, %d and %d",
                    o->rounds.block_tokens, o->rounds.reveal_delay, o->rounds.window);
  if (!is_tangled(world, o) && o->rounds.block_tokens > PDT_ATLAS_MAX_TAU)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "the default Atlas keeps statements apart for blocks of at most %d tokens, "
                    "found %d%s",
                    PDT_ATLAS_MAX_TAU, o->rounds.block_tokens,
                    world->tangled ? " (hint: --hard)" : "");
  if (o->plan_slots < 2 * o->max_sections || o->plan_slots > PDT_DATA_SLOTS)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "plan slots: expected %d to %d, two for each of %d sections, found %d",
                    2 * o->max_sections, PDT_DATA_SLOTS, o->max_sections, o->plan_slots);
  if (o->plan_vocab_size < 2 || strlen(o->plan_salt) >= PDT_SALT_BYTES)
    return pdt_fail(err, PDT_ERROR_USAGE,
                    "expected a plan vocabulary of at least 2 and a salt of at most %d bytes, "
                    "found %d and %zu",
                    PDT_SALT_BYTES - 1, o->plan_vocab_size, strlen(o->plan_salt));
  return check_parts(world, o, err) || check_chances(world, o, err) ? -1 : 0;
}

static int count_tokens(const pdt_tokenizer *tokenizer, const char *text, int32_t *n,
                        pdt_error *err) {
  pdt_token *ids;
  if (pdt_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, n, err)) return -1;
  free(ids);
  return 0;
}

/* Tokens that every word of the world adds to a sentence, the space before it included. */
static int measure_words(pdt_atlas_generator *g, pdt_error *err) {
  static const char before[] = " The";
  const pdt_atlas_world *w = g->world;
  int32_t alone;
  if (PDT_NEW(&g->costs, w->n_words, "costs of words", err) ||
      count_tokens(g->tokenizer, before, &alone, err))
    return -1;
  for (int32_t i = 0; i < w->n_words; i++) {
    char text[PDT_ATLAS_NAME_BYTES + sizeof before + 1];
    const char *space = isalnum((unsigned char)w->words[i][0]) ? " " : "";
    snprintf(text, sizeof text, "%s%s%s", before, space, w->words[i]);
    if (count_tokens(g->tokenizer, text, &g->costs[i], err)) return -1;
    g->costs[i] = g->costs[i] > alone ? g->costs[i] - alone : 1;
  }
  return 0;
}

int pdt_atlas_generator_init(pdt_atlas_generator *g, const pdt_atlas_world *world,
                             const pdt_tokenizer *tokenizer, const pdt_atlas_options *options,
                             pdt_error *err) {
  *g = (pdt_atlas_generator){.world = world, .tokenizer = tokenizer, .options = *options};
  if (check_options(world, options, err) || PDT_NEW(&g->plan, 1, "plan", err)) return -1;
  g->plan->plan_slots = options->plan_slots;
  g->plan->plan_vocab_size = options->plan_vocab_size;
  snprintf(g->plan->plan_hash_salt, PDT_SALT_BYTES, "%s", options->plan_salt);
  bool held_out = options->split != PDT_TRAIN;
  if (measure_words(g, err) || pdt_atlas_pools_fill(g, err)) return -1;
  return options->any_names > 0 ? pdt_atlas_any_new(&g->any, world, tokenizer, held_out, err) : 0;
}

void pdt_atlas_generator_free(pdt_atlas_generator *g) {
  free(g->costs);
  free(g->pools);
  pdt_buffer_free(&g->left_out);
  pdt_atlas_any_free(&g->any);
  free(g->plan);
  *g = (pdt_atlas_generator){0};
}

static int put(pdt_buffer *b, const char *text, pdt_error *err) {
  return pdt_buffer_put(b, text, strlen(text), err);
}

/* Appends a sentence, with its mention when it has a name. */
static int write_sentence(const pdt_draft *d, const pdt_draft_item *item, pdt_buffer *text,
                          pdt_data_section *s, pdt_error *err) {
  const pdt_atlas_pattern *p = &d->world->patterns[item->pattern];
  pdt_mention_kind kind = item->misread ? PDT_MISREADS : item->kind;
  for (int32_t i = 0; i < p->n_words; i++) {
    bool is_name = i == p->name;
    const char *word = is_name                         ? item->name.text
                       : p->words[i] == PDT_ATLAS_TOWN ? d->world->towns[d->town]
                                                       : d->world->words[p->words[i]];
    if (isalnum((unsigned char)*word) && put(text, " ", err)) return -1;
    int32_t begin = (int32_t)text->bytes;
    if (put(text, word, err)) return -1;
    if (is_name)
      s->mentions[s->n_mentions++] =
          (pdt_data_mention){item->fact, kind, begin, (int32_t)text->bytes};
  }
  return 0;
}

static int write_section(const pdt_draft *d, int32_t k, pdt_data_section *s, pdt_error *err) {
  const pdt_draft_section *from = &d->sections[k];
  char heading[PDT_ATLAS_HEADING_BYTES];
  pdt_atlas_heading(from->section, heading);
  if (pdt_data_copy(&s->name, pdt_atlas_section_name(from->section), err) ||
      pdt_data_copy(&s->prefix, d->untitled ? "" : heading, err) ||
      PDT_NEW(&s->mentions, from->n_items, "mentions", err))
    return -1;
  pdt_buffer text = {0};
  int rc = d->untitled ? put(&text, heading, err) : 0;
  for (int32_t i = 0; i < from->n_items && !rc; i++)
    rc = write_sentence(d, &from->items[i], &text, s, err);
  if (!rc) rc = pdt_buffer_take(&text, &s->text, NULL, err);
  pdt_buffer_free(&text);
  return rc;
}

static int write_prompt(const pdt_draft *d, pdt_data_entry *e, pdt_error *err) {
  pdt_buffer text = {0};
  int32_t sections[PDT_ATLAS_SECTIONS];
  for (int32_t k = 0; k < d->n; k++) sections[k] = d->sections[k].section;
  int rc = pdt_atlas_prompt_put(&text, d->wording, d->hard, d->world->towns[d->town], sections,
                                d->n, err) ||
           pdt_buffer_take(&text, &e->prompt, NULL, err);
  pdt_buffer_free(&text);
  return rc ? -1 : 0;
}

/* Facts, and the plan: slot i is fact i. */
static int write_facts(const pdt_atlas_generator *g, const pdt_draft *d, pdt_data_entry *e,
                       pdt_error *err) {
  if (PDT_NEW(&e->facts, d->n_facts, "facts", err) || PDT_NEW(&e->plan, d->n_facts, "plan", err))
    return -1;
  for (int32_t f = 0; f < d->n_facts; f++) {
    const char *type = pdt_atlas_type_name(d->world, d->types[f]);
    e->n_facts = e->n_plan = f + 1;
    e->facts[f].stream = e->plan[f].stream = f / 2;
    e->facts[f].any = d->values[f] < 0;
    if (pdt_data_copy(&e->facts[f].type, type, err) ||
        pdt_data_copy(&e->facts[f].value, pdt_draft_name_of(d, f).text, err) ||
        pdt_data_copy(&e->plan[f].text, type, err) ||
        pdt_plan_hash(g->plan, f / 2, type, &e->plan[f].id, err))
      return -1;
  }
  return 0;
}

static int write_entry(const pdt_atlas_generator *g, const pdt_draft *d, uint32_t index,
                       pdt_data_entry *e, pdt_error *err) {
  char id[128];
  const pdt_atlas_options *o = &g->options;
  static const char *const names[] = {"", "-held-out", "-all"};
  static const char *const wordings[] = {"-worded", "-worded-held-out", "-worded-all"};
  snprintf(id, sizeof id, "%s%s%s%s%s%s%s%s/%s/%llu/%u", pdt_atlas_kind_name(g->world->kind),
           o->hard ? "-hard" : "", names[o->names], o->wordings ? wordings[o->wordings_of] : "",
           o->any_names > 0 ? "-any" : "", o->again > 0 ? "-again" : "",
           o->misreads > 0 ? "-misread" : "", o->untitled > 0 ? "-untitled" : "",
           split_names[o->split], (unsigned long long)o->seed, index);
  if (pdt_data_copy(&e->id, id, err) || write_prompt(d, e, err) || write_facts(g, d, e, err) ||
      PDT_NEW(&e->sections, d->n, "sections", err))
    return -1;
  e->n_sections = d->n;
  for (int32_t k = 0; k < d->n; k++)
    if (write_section(d, k, &e->sections[k], err)) return -1;
  return 0;
}

/* Labels for one tau; *fits turns false when the default Atlas promised otherwise. */
static int label(const pdt_atlas_generator *g, pdt_data_entry *e, const pdt_data_tokens *tokens,
                 int32_t tau, bool *fits, pdt_error *err) {
  pdt_data_rounds rounds = g->options.rounds;
  pdt_data_shape shape;
  rounds.block_tokens = tau;
  if (pdt_data_label(e, tokens, &rounds, err)) return -1;
  if (is_tangled(g->world, &g->options)) return 0;
  if (pdt_data_shape_of(e, &rounds, &shape, err)) return -1;
  *fits = *fits && !shape.circular && shape.crowded == 0;
  return 0;
}

/* Labels the entry; *fits: it keeps what its kind promises, as its real tokens are. */
static int finish_entry(const pdt_atlas_generator *g, pdt_data_entry *e, bool *fits,
                        pdt_error *err) {
  pdt_data_tokens *tokens;
  *fits = true;
  if (pdt_data_tokenize_entry(g->tokenizer, e, &tokens, err)) return -1;
  for (int32_t k = 0; k < e->n_sections; k++)
    *fits &= tokens[k].n >= g->options.min_tokens && tokens[k].n <= g->options.max_tokens;
  int rc = 0;
  bool tangled = is_tangled(g->world, &g->options);
  for (int32_t tau = FIRST_TAU; !tangled && tau <= LAST_TAU && *fits && !rc; tau++)
    rc = label(g, e, tokens, tau, fits, err);
  if (*fits && !rc) rc = label(g, e, tokens, g->options.rounds.block_tokens, fits, err);
  pdt_data_tokens_free(tokens, e->n_sections);
  return rc;
}

static int32_t draw_wording(pdt_draft *d, pdt_atlas_part part) {
  for (;;) {
    int32_t wording = pdt_draw(&d->draws, PDT_ATLAS_WORDINGS);
    bool held_out = pdt_atlas_wording_is_held_out(wording);
    if (part == PDT_ATLAS_ALL || held_out == (part == PDT_ATLAS_HELD_OUT)) return wording;
  }
}

/* Draws once; false when it is of another split or too long. */
static bool try_draft(pdt_atlas_generator *g, uint32_t index, uint32_t attempt, pdt_draft *d) {
  const pdt_atlas_options *o = &g->options;
  int32_t tau = o->rounds.block_tokens;
  bool tangled = is_tangled(g->world, o);
  *d = (pdt_draft){.world = g->world,
                   .pools = g->pools,
                   .costs = g->costs,
                   .hard = o->hard,
                   .tangled = tangled,
                   .gap = tangled          ? 0
                          : tau > LAST_TAU ? tau
                                           : LAST_TAU,
                   .any_names = o->any_names,
                   .any = &g->any,
                   .again = o->again,
                   .misreads = o->misreads};
  d->draws.key[0] = (uint32_t)o->seed;
  d->draws.key[1] = (uint32_t)(o->seed >> 32);
  d->draws.counter[1] = index;
  d->draws.counter[2] = attempt;
  d->draws.counter[3] = (uint32_t)o->split * 2 + (uint32_t)o->hard + 8 * (uint32_t)o->names +
                        (o->wordings ? 32 * (1 + (uint32_t)o->wordings_of) : 0);
  g->attempts++;
  pdt_draft_choose(d, o->min_sections, o->max_sections);
  if (o->wordings) d->wording = draw_wording(d, o->wordings_of);
  if (pdt_atlas_split_of(d->town, d->types, d->values, d->n_facts) != o->split ||
      !pdt_draft_arrange(d, o->min_tokens, o->max_tokens))
    return false;
  d->untitled = o->untitled > 0 && pdt_draw(&d->draws, 1000) < o->untitled * 1000;
  return true;
}

int pdt_atlas_generate(pdt_atlas_generator *g, uint32_t index, pdt_data_entry *out,
                       pdt_error *err) {
  pdt_draft draft;
  for (uint32_t attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
    bool fits = false;
    if (!try_draft(g, index, attempt, &draft)) continue;
    int rc = write_entry(g, &draft, index, out, err);
    if (!rc && g->chat) rc = pdt_request_chat_say(g->chat, &out->prompt, err);
    if (!rc) rc = finish_entry(g, out, &fits, err);
    if (!rc && fits) return 0;
    pdt_data_entry_free(out);
    if (rc) return -1;
  }
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "entry %u: none of %d draws has sections of %d to %d tokens that keep its rules "
                  "(hint: more tokens a section, fewer block tokens, or another tokenizer)",
                  index, MOST_ATTEMPTS, g->options.min_tokens, g->options.max_tokens);
}
