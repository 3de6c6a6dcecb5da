#include "data/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/notes.h"
#include "data/tokens.h"

/* What a file is checked with. */
typedef struct checker {
  pdt_data_reader reader;
  const pdt_data_world *world; /* that the file is of; NULL: none */
  const pdt_tokenizer *tokenizer;
  pdt_data_notes notes;
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
                  (long long)c->reader.lines.number, text);
}

static void free_blocks(pdt_data_block *blocks[PDT_DATA_SECTIONS], int32_t n) {
  for (int32_t k = 0; k < n; k++) free(blocks[k]);
}

/* Compares blocks with those that were there before; coverage only where plan items are types of
 * facts, as in a world that is known. */
static int compare_blocks(const checker *c, const pdt_data_entry *e,
                          pdt_data_block *const before[PDT_DATA_SECTIONS]) {
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      const pdt_data_block *is = &before[k][b], *should = &e->sections[k].blocks[b];
      const char *field = is->stated != should->stated                   ? "stated"
                          : is->used != should->used                     ? "used"
                          : is->misread != should->misread               ? "misread"
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
    return pdt_fail_in(c->err, "%s: line %lld", c->reader.path, (long long)c->reader.lines.number);
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
      *(s->mentions[i].kind == PDT_STATES ? &t->statements
        : s->mentions[i].kind == PDT_USES ? &t->mentions_of_uses
                                          : &t->misreadings) += 1;
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

static int read_back(const checker *c, const pdt_data_entry *e) {
  if (c->world->check(c->world->context, &c->reader.header, e, c->err))
    return pdt_fail_in(c->err, "%s: line %lld", c->reader.path, (long long)c->reader.lines.number);
  c->stats->read_back = true;
  return 0;
}

static int check_entry(checker *c, pdt_data_entry *e) {
  if (c->world && read_back(c, e)) return -1;
  if (c->notes.file && pdt_data_notes_check(&c->notes, &c->reader, e, c->err)) return -1;
  if (c->tokenizer && e->n_facts > 0 ? check_blocks(c, e) : check_ready(c, e)) return -1;
  return count(c, e);
}

/* The tokenizer that the file's blocks were cut by: the one given, or the world's. */
static int choose_tokenizer(checker *c, const pdt_data_tokenizer *given) {
  const char *name = c->reader.header.tokenizer;
  char found[17];
  const pdt_tokenizer *own;
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
  if (c->world->tokenizer(c->world->context, &own, &fingerprint, c->err)) return -1;
  snprintf(found, sizeof found, "%016" PRIx64, fingerprint);
  if (strcmp(found, name) == 0) c->tokenizer = own;
  return 0;
}

static int prepare(checker *c, const char *path, const pdt_data_world *world,
                   const pdt_data_tokenizer *given) {
  if (pdt_data_open(&c->reader, path, c->err)) return -1;
  const char *name = c->reader.header.world;
  if (name) c->world = world;
  if (name && world->begin(world->context, name, c->err))
    return pdt_fail_in(c->err, "%s: line %lld", path, (long long)c->reader.lines.number);
  return pdt_data_notes_open(&c->notes, &c->reader, c->err) || choose_tokenizer(c, given) ? -1 : 0;
}

int pdt_data_check(const char *path, const pdt_data_world *world, const pdt_data_tokenizer *given,
                   pdt_data_stats *out, pdt_error *err) {
  *out = (pdt_data_stats){0};
  checker c = {.stats = out, .err = err};
  int rc = prepare(&c, path, world, given), found = 1;
  while (!rc && found == 1) {
    pdt_data_entry e;
    found = pdt_data_next(&c.reader, &e, err);
    if (found == 1) rc = check_entry(&c, &e);
    if (found < 0) rc = -1;
    pdt_data_entry_free(&e);
  }
  if (!rc && out->entries == 0) rc = refuse(&c, "expected an entry after the header, found none");
  out->bytes = c.reader.lines.n_bytes;
  pdt_data_notes_close(&c.notes);
  pdt_data_close(&c.reader);
  return rc;
}
