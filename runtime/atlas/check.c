#include "atlas/check.h"

#include <string.h>

#include "atlas/any_words.h"
#include "atlas/generate.h"
#include "atlas/parse.h"
#include "atlas/prompt.h"
#include "atlas/vocabulary.h"

/* What entries are read back with. */
typedef struct reader {
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer; /* the Atlas's, once it was asked for */
  pdt_atlas_reading reading;
  const pdt_data_header *header; /* of the file */
  pdt_error *err;
} reader;

/* Is the name of a mention that was parsed the fact's? */
static bool names_fact(const reader *r, const pdt_data_fact *f, const char *text,
                       const pdt_atlas_mention *m) {
  if (strcmp(f->type, pdt_atlas_type_name(r->world, m->type)) != 0) return false;
  if (!f->any) return m->value >= 0 && strcmp(f->value, r->world->names[m->type][m->value]) == 0;
  return strlen(f->value) == m->end - m->begin &&
         memcmp(f->value, text + m->begin, m->end - m->begin) == 0;
}

/* The fact of a mention; -1 when there is none. */
static int32_t fact_of(const reader *r, const pdt_data_entry *e, const char *text,
                       const pdt_atlas_mention *m) {
  for (int32_t i = 0; i < e->n_facts; i++)
    if (names_fact(r, &e->facts[i], text, m)) return i;
  return -1;
}

/* Says a mention what the text does at this place? What is misread is named as none of its type's
 * facts is. */
static bool says(const reader *r, const pdt_data_entry *e, const char *text,
                 const pdt_data_mention *m, const pdt_atlas_mention *p) {
  int32_t fact = fact_of(r, e, text, p);
  if (p->begin != (size_t)m->begin || p->end != (size_t)m->end) return false;
  if (m->kind != PDT_MISREADS) return fact == m->fact && p->kind == m->kind;
  return fact < 0 && p->kind == PDT_USES &&
         strcmp(e->facts[m->fact].type, pdt_atlas_type_name(r->world, p->type)) == 0;
}

/* The section's text, parsed, says what its mentions say, and nothing else. */
static int check_text(reader *r, const pdt_data_entry *e, int32_t town, int32_t k) {
  const pdt_data_section *s = &e->sections[k];
  pdt_atlas_reading *text = &r->reading;
  if (pdt_atlas_parse(r->world, town, s->text, strlen(s->text), text, r->err)) return -1;
  if (text->malformed || text->other_towns || text->open)
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "sections[%d]: 'text': %d malformed sentences, %d of another town%s", k,
                    text->malformed, text->other_towns,
                    text->open ? ", the last one not ended" : "");
  int32_t heading = *s->prefix ? -1 : pdt_atlas_section(s->name);
  if (text->heading != heading)
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "sections[%d]: 'text': expected %s, as its prefix is%s empty, found %s", k,
                    heading < 0 ? "no heading" : "the section's heading", heading < 0 ? " not" : "",
                    text->heading < 0 ? "none" : pdt_atlas_section_name(text->heading));
  if (text->n != (size_t)s->n_mentions)
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "sections[%d]: 'mentions': expected the %zu that the text makes, found %d", k,
                    text->n, s->n_mentions);
  for (int32_t i = 0; i < s->n_mentions; i++) {
    const pdt_data_mention *m = &s->mentions[i];
    const pdt_atlas_mention *p = &text->mentions[i];
    if (!says(r, e, s->text, m, p))
      return pdt_fail(
          r->err, PDT_ERROR_INPUT,
          "sections[%d]: mentions[%d]: the text %s a %s of value %d at bytes %zu to %zu, "
          "which is not what the mention says",
          k, i, pdt_mention_kind_name(p->kind), pdt_atlas_type_name(r->world, p->type), p->value,
          p->begin, p->end);
  }
  return 0;
}

/* The town that the prompt is about, which may be in a conversation; -1 when it is not of the
 * Atlas's form. */
static int read_prompt(const reader *r, const pdt_data_entry *e, int32_t *town) {
  int32_t sections[PDT_DATA_SECTIONS];
  *town = -1;
  for (int32_t k = 0; k < e->n_sections; k++) {
    sections[k] = pdt_atlas_section(e->sections[k].name);
    if (sections[k] < 0) return 0;
  }
  return pdt_atlas_prompt_read(r->world, r->header->hard, e->prompt, sections, e->n_sections, town,
                               r->err);
}

/* Which name of its type a fact has; -1 when it has any word. */
static int read_value(const reader *r, const pdt_data_fact *f, int32_t i, int32_t type,
                      int32_t *out) {
  *out = f->any ? -1 : pdt_atlas_value(r->world, type, f->value);
  if (f->any && !pdt_atlas_any_is_word(r->world, type, f->value))
    return pdt_fail(
        r->err, PDT_ERROR_INPUT,
        "facts[%d]: 'value': expected a word as names of the type %s are, found '%.40s'", i,
        f->type, f->value);
  if (f->any || *out >= 0) return 0;
  return pdt_fail(r->err, PDT_ERROR_INPUT, "facts[%d]: 'value': '%.40s' is no %s of %s", i,
                  f->value, f->type, r->header->world);
}

/* Facts are the world's, and those of the split. */
static int check_facts(const reader *r, const pdt_data_entry *e, int32_t town) {
  int32_t types[PDT_DATA_FACTS], values[PDT_DATA_FACTS];
  pdt_atlas_split wanted, found;
  bool held_out = false;
  for (int32_t i = 0; i < e->n_facts; i++) {
    types[i] = pdt_atlas_type(r->world, e->facts[i].type);
    if (types[i] < 0)
      return pdt_fail(r->err, PDT_ERROR_INPUT, "facts[%d]: 'type': '%.40s' is no type of %s", i,
                      e->facts[i].type, r->header->world);
    if (read_value(r, &e->facts[i], i, types[i], &values[i])) return -1;
    held_out |= pdt_atlas_is_held_out(r->world, values[i]);
  }
  if (!r->header->split) return 0;
  if (!pdt_atlas_split_parse(r->header->split, &wanted))
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "the header's 'split': expected train, valid or test, found '%.40s'",
                    r->header->split);
  found = pdt_atlas_split_of(town, types, values, e->n_facts);
  if (wanted == PDT_TRAIN && held_out)
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "a name that is held out of training in a file of the split train");
  if (found == wanted) return 0;
  return pdt_fail(r->err, PDT_ERROR_INPUT, "an entry of the split %s in a file of the split %s",
                  pdt_atlas_split_name(found), pdt_atlas_split_name(wanted));
}

static int begin(void *context, const char *name, pdt_error *err) {
  pdt_atlas_kind kind;
  if (pdt_atlas_kind_named(name, &kind))
    return pdt_atlas_world_new(&((reader *)context)->world, kind, err);
  return pdt_fail(err, PDT_ERROR_INPUT, "'world': expected '%s' or '%s', found '%.40s'",
                  pdt_atlas_kind_name(PDT_ATLAS_SYLLABLES), pdt_atlas_kind_name(PDT_ATLAS_WORDS),
                  name);
}

static int check(void *context, const pdt_data_header *header, const pdt_data_entry *e,
                 pdt_error *err) {
  reader *r = context;
  r->header = header;
  r->err = err;
  int32_t town;
  if (read_prompt(r, e, &town)) return -1;
  if (town < 0)
    return pdt_fail(
        err, PDT_ERROR_INPUT,
        "'prompt': expected '%s TOWN. Sections: ...' with the sections' names, or another "
        "wording of it, found '%.60s'",
        pdt_atlas_verb(header->hard), e->prompt);
  if (check_facts(r, e, town)) return -1;
  for (int32_t k = 0; k < e->n_sections; k++)
    if (check_text(r, e, town, k)) return -1;
  return 0;
}

static int tokenizer(void *context, const pdt_tokenizer **out, uint64_t *fingerprint,
                     pdt_error *err) {
  reader *r = context;
  int rc = pdt_atlas_tokenizer(r->world, &r->tokenizer, fingerprint, err);
  *out = r->tokenizer;
  return rc;
}

int pdt_atlas_check(const char *path, const pdt_data_tokenizer *given, pdt_data_stats *out,
                    pdt_error *err) {
  reader r = {0};
  const pdt_data_world world = {&r, begin, check, tokenizer};
  int rc = pdt_data_check(path, &world, given, out, err);
  pdt_atlas_reading_free(&r.reading);
  pdt_tokenizer_free(r.tokenizer);
  pdt_atlas_world_free(r.world);
  return rc;
}
