#include "atlas/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "atlas/generate.h"
#include "atlas/parse.h"
#include "atlas/vocabulary.h"
#include "base/memory.h"
#include "data/notes.h"
#include "data/tokens.h"

/* What a file is checked with. */
typedef struct checker {
  pdt_data_reader reader;
  pdt_atlas_world *world; /* of a file of the Atlas */
  pdt_tokenizer *own;     /* the Atlas's */
  const pdt_tokenizer *tokenizer;
  pdt_data_notes notes;
  pdt_atlas_reading reading;
  pdt_data_stats *stats;
  pdt_error *err;
} checker;

static int refuse(const checker *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An INPUT error with file and line before it. */
static int refuse(const checker *c, const char *format, ...) {
  char text[640];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return pdt_fail(c->err, PDT_ERROR_INPUT, "%s: line %lld: %s", c->reader.path,
                  (long long)c->reader.number, text);
}

/* The fact of a mention that was parsed: type and value as they stand; -1 when there is none. */
static int32_t fact_of(const checker *c, const pdt_data_entry *e, const pdt_atlas_mention *m) {
  for (int32_t i = 0; i < e->n_facts && m->value >= 0; i++)
    if (strcmp(e->facts[i].type, pdt_atlas_type_name(m->type)) == 0 &&
        strcmp(e->facts[i].value, c->world->names[m->type][m->value]) == 0)
      return i;
  return -1;
}

/* The section's text, parsed, says what its mentions say, and nothing else. */
static int check_text(checker *c, const pdt_data_entry *e, int32_t town, int32_t k) {
  const pdt_data_section *s = &e->sections[k];
  pdt_atlas_reading *r = &c->reading;
  if (pdt_atlas_parse(c->world, town, s->text, strlen(s->text), r, c->err)) return -1;
  if (r->malformed || r->other_towns || r->open)
    return refuse(c, "sections[%d]: 'text': %d malformed sentences, %d of another town%s", k,
                  r->malformed, r->other_towns, r->open ? ", the last one not ended" : "");
  if (r->n != (size_t)s->n_mentions)
    return refuse(c, "sections[%d]: 'mentions': expected the %zu that the text makes, found %d", k,
                  r->n, s->n_mentions);
  for (int32_t i = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    const pdt_atlas_mention *p = &r->mentions[i];
    if (fact_of(c, e, p) != m->fact || p->kind != m->kind || p->begin != (size_t)m->begin ||
        p->end != (size_t)m->end)
      return refuse(c,
                    "sections[%d]: mentions[%d]: the text %s a %s of value %d at bytes %zu to %zu, "
                    "which is not what the mention says",
                    k, i, p->kind == PDT_STATES ? "states" : "uses", pdt_atlas_type_name(p->type),
                    p->value, p->begin, p->end);
  }
  return 0;
}

/* The town that the prompt is about, -1 when it is not of the Atlas's form. */
static int32_t town_of(const checker *c, const char *prompt) {
  char name[PDT_ATLAS_NAME_BYTES];
  const char *verb = pdt_atlas_verb(c->reader.header.hard), *begin = prompt + strlen(verb);
  if (strncmp(prompt, verb, strlen(verb)) != 0 || *begin++ != ' ') return -1;
  size_t length = strcspn(begin, ".");
  if (length >= sizeof name) return -1;
  memcpy(name, begin, length);
  name[length] = '\0';
  return pdt_atlas_town(c->world, name);
}

/* Facts are the world's, and those of the split. */
static int check_facts(const checker *c, const pdt_data_entry *e, int32_t town) {
  int32_t types[PDT_DATA_FACTS], values[PDT_DATA_FACTS];
  pdt_atlas_split wanted, found;
  for (int32_t i = 0; i < e->n_facts; i++) {
    types[i] = pdt_atlas_type(e->facts[i].type);
    if (types[i] < 0)
      return refuse(c, "facts[%d]: 'type': '%.40s' is no type of %s", i, e->facts[i].type,
                    PDT_ATLAS_WORLD);
    values[i] = pdt_atlas_value(c->world, types[i], e->facts[i].value);
    if (values[i] < 0)
      return refuse(c, "facts[%d]: 'value': '%.40s' is no %s of %s", i, e->facts[i].value,
                    e->facts[i].type, PDT_ATLAS_WORLD);
  }
  if (!c->reader.header.split) return 0;
  if (!pdt_atlas_split_parse(c->reader.header.split, &wanted))
    return refuse(c, "the header's 'split': expected train, valid or test, found '%.40s'",
                  c->reader.header.split);
  found = pdt_atlas_split_of(town, types, values, e->n_facts);
  if (found == wanted) return 0;
  return refuse(c, "an entry of the split %s in a file of the split %s",
                pdt_atlas_split_name(found), pdt_atlas_split_name(wanted));
}

static int check_atlas(checker *c, const pdt_data_entry *e) {
  int32_t town = town_of(c, e->prompt);
  if (town < 0)
    return refuse(c, "'prompt': expected '%s TOWN. Sections: ...', found '%.60s'",
                  pdt_atlas_verb(c->reader.header.hard), e->prompt);
  if (check_facts(c, e, town)) return -1;
  for (int32_t k = 0; k < e->n_sections; k++)
    if (check_text(c, e, town, k)) return -1;
  c->stats->read_back = true;
  return 0;
}

static void free_blocks(pdt_data_block *blocks[PDT_DATA_SECTIONS], int32_t n) {
  for (int32_t k = 0; k < n; k++) free(blocks[k]);
}

/* Compares blocks with those that were there before; coverage only where plan items are types of
 * facts, as in an Atlas. */
static int compare_blocks(const checker *c, const pdt_data_entry *e,
                          pdt_data_block *const before[PDT_DATA_SECTIONS]) {
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      const pdt_data_block *is = &before[k][b], *should = &e->sections[k].blocks[b];
      const char *field = is->stated != should->stated                   ? "stated"
                          : is->used != should->used                     ? "used"
                          : is->coverage != should->coverage && c->world ? "coverage"
                          : is->ready != should->ready                   ? "ready"
                                                                         : NULL;
      if (field)
        return refuse(c, "sections[%d]: blocks[%d]: '%s': not what mentions and tokens say", k, b,
                      field);
    }
  return 0;
}

/* Cuts the blocks again and compares. The entry has the fresh ones afterwards. */
static int check_blocks(const checker *c, pdt_data_entry *e) {
  pdt_data_tokens *tokens;
  pdt_data_block *before[PDT_DATA_SECTIONS] = {NULL};
  if (pdt_data_tokenize_entry(c->tokenizer, e, &tokens, c->err))
    return pdt_fail_in(c->err, "%s: line %lld", c->reader.path, (long long)c->reader.number);
  int rc = 0;
  for (int32_t k = 0; k < e->n_sections && !rc; k++)
    if (tokens[k].n + 1 != e->sections[k].n_tokens)
      rc = refuse(c, "sections[%d]: 'tokens': expected %d, found %d", k, tokens[k].n + 1,
                  e->sections[k].n_tokens);
  for (int32_t k = 0; k < e->n_sections && !rc; k++) {
    before[k] = e->sections[k].blocks;
    e->sections[k].blocks = NULL;
  }
  if (!rc) rc = pdt_data_label(e, tokens, &c->reader.header.rounds, c->err);
  if (!rc) rc = compare_blocks(c, e, before);
  for (int32_t k = 0; k < e->n_sections && !rc; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++)
      e->sections[k].blocks[b].note = before[k][b].note;
  free_blocks(before, e->n_sections);
  pdt_data_tokens_free(tokens, e->n_sections);
  c->stats->recut = !rc;
  return rc;
}

/* Where no tokenizer can say more: readiness follows from what blocks state and use. */
static int check_ready(const checker *c, const pdt_data_entry *e) {
  if (e->n_facts == 0) return 0;
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      const pdt_data_block *block = &e->sections[k].blocks[b];
      if (block->ready == pdt_data_is_ready(e, &c->reader.header.rounds, k, b)) continue;
      return refuse(c, "sections[%d]: blocks[%d]: 'ready': expected %s, found %s", k, b,
                    block->ready ? "false" : "true", block->ready ? "true" : "false");
    }
  return 0;
}

/* Adds an entry's figures. */
static int count(const checker *c, const pdt_data_entry *e) {
  pdt_data_stats *t = c->stats;
  pdt_data_shape shape;
  int32_t lockstep = 0;
  if (pdt_data_shape_of(e, &c->reader.header.rounds, &shape, c->err)) return -1;
  t->entries++;
  t->by_sections[e->n_sections < PDT_STATS_SECTIONS ? e->n_sections : PDT_STATS_SECTIONS - 1]++;
  t->sections += e->n_sections;
  t->facts += e->n_facts;
  for (int32_t k = 0; k < e->n_sections; k++) {
    const pdt_data_section *s = &e->sections[k];
    t->tokens += s->n_tokens;
    if (t->min_tokens == 0 || s->n_tokens < t->min_tokens) t->min_tokens = s->n_tokens;
    if (s->n_tokens > t->max_tokens) t->max_tokens = s->n_tokens;
    if (s->n_blocks > lockstep) lockstep = s->n_blocks;
    t->begin_with_use += s->n_mentions > 0 && s->mentions[0].kind == PDT_USES;
    for (int32_t i = 0; i < s->n_mentions; i++)
      *(s->mentions[i].kind == PDT_STATES ? &t->statements : &t->mentions_of_uses) += 1;
  }
  t->blocks += shape.blocks;
  t->crowded += shape.crowded;
  t->unready += shape.unready;
  t->uses += shape.uses;
  t->unseen += shape.unseen;
  t->circular += shape.circular;
  if (!shape.circular) {
    t->rounds += lockstep;
    t->waiting_rounds += shape.rounds;
  }
  return 0;
}

static int check_entry(checker *c, pdt_data_entry *e) {
  if (c->world && check_atlas(c, e)) return -1;
  if (c->notes.file && pdt_data_notes_check(&c->notes, &c->reader, e, c->err)) return -1;
  if (c->tokenizer && e->n_facts > 0 ? check_blocks(c, e) : check_ready(c, e)) return -1;
  return count(c, e);
}

/* The tokenizer that the file's blocks were cut by: the one given, or the Atlas's. */
static int choose_tokenizer(checker *c, const pdt_data_tokenizer *given) {
  const char *name = c->reader.header.tokenizer;
  char found[17];
  uint64_t fingerprint;
  if (given) {
    snprintf(found, sizeof found, "%016" PRIx64, given->fingerprint);
    if (name && strcmp(found, name) != 0)
      return refuse(c,
                    "'tokenizer': expected %s, the fingerprint of the model's, found %s (hint: "
                    "the data was cut by another tokenizer)",
                    found, name);
    c->tokenizer = given->tokenizer;
    return 0;
  }
  if (!c->world || !name) return 0;
  if (pdt_atlas_tokenizer(c->world, &c->own, &fingerprint, c->err)) return -1;
  snprintf(found, sizeof found, "%016" PRIx64, fingerprint);
  if (strcmp(found, name) == 0) c->tokenizer = c->own;
  return 0;
}

static int prepare(checker *c, const char *path, const pdt_data_tokenizer *given) {
  if (pdt_data_open(&c->reader, path, c->err)) return -1;
  const char *world = c->reader.header.world;
  if (world && strcmp(world, PDT_ATLAS_WORLD) != 0)
    return refuse(c, "'world': expected '%s', found '%.40s'", PDT_ATLAS_WORLD, world);
  if (world && pdt_atlas_world_new(&c->world, c->err)) return -1;
  return pdt_data_notes_open(&c->notes, &c->reader, c->err) || choose_tokenizer(c, given) ? -1 : 0;
}

int pdt_data_check(const char *path, const pdt_data_tokenizer *given, pdt_data_stats *out,
                   pdt_error *err) {
  *out = (pdt_data_stats){0};
  checker c = {.stats = out, .err = err};
  int rc = prepare(&c, path, given), found = 1;
  while (!rc && found == 1) {
    pdt_data_entry e;
    found = pdt_data_next(&c.reader, &e, err);
    if (found == 1) rc = check_entry(&c, &e);
    if (found < 0) rc = -1;
    pdt_data_entry_free(&e);
  }
  if (!rc && out->entries == 0) rc = refuse(&c, "expected an entry after the header, found none");
  out->bytes = c.reader.n_bytes;
  pdt_atlas_reading_free(&c.reading);
  pdt_data_notes_close(&c.notes);
  pdt_tokenizer_free(c.own);
  pdt_atlas_world_free(c.world);
  pdt_data_close(&c.reader);
  return rc;
}
