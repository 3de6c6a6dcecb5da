#include "data/documents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/fields.h"
#include "request/plan_hash.h"
#include "text/unicode.h"

/* What is known of a fact beside the entry. */
typedef struct found {
  bool stated; /* its statement is placed */
  bool listed; /* its uses were given, and are not looked for */
} found;

/* A document being read. */
typedef struct document {
  const pdt_document_rules *rules;
  const char *where;
  pdt_data_entry *e;
  pdt_data_places places;
  found facts[PDT_DATA_FACTS];
  pdt_error *err;
} document;

/* ---- sections ---- */

/* A section without a name is called by its prefix, without white space and colons around it. */
static int name_section(const document *d, pdt_data_section *s) {
  static const char around[] = " \t\r\n:";
  const char *begin = s->prefix + strspn(s->prefix, around);
  size_t n = strlen(begin);
  while (n > 0 && strchr(around, begin[n - 1])) n--;
  s->name = strndup(begin, n);
  return s->name ? 0 : pdt_fail(d->err, PDT_ERROR_MEMORY, "data: no memory for a text");
}

static int read_sections(const document *d, const json_t *json) {
  static const char *const keys[] = {"name", "prefix", "text"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0;
  if (pdt_data_get_list(json, d->where, "sections", 1, PDT_DATA_SECTIONS, &list, &n, d->err) ||
      PDT_NEW(&d->e->sections, n, "sections", d->err))
    return -1;
  d->e->n_sections = n;
  for (pdt_stream k = 0; k < n; k++) {
    pdt_data_section *s = &d->e->sections[k];
    if (pdt_data_get_object(list, d->where, "sections", k, keys, 3, &item, where, d->err) ||
        pdt_data_get_string(item, where, "prefix", &s->prefix, d->err) ||
        pdt_data_get_string(item, where, "text", &s->text, d->err) ||
        pdt_data_get_string_or(item, where, "name", &s->name, d->err) ||
        (!s->name && name_section(d, s)))
      return -1;
    if (!*s->text)
      return pdt_fail(d->err, PDT_ERROR_INPUT,
                      "%s: 'text': expected what the stream writes, found nothing", where);
  }
  return 0;
}

/* ---- facts ---- */

/* Bytes [begin, end) of section k, as an object gives them, which must be free. */
static int read_span(const document *d, const json_t *json, const char *where, pdt_stream k,
                     int32_t *begin, int32_t *end) {
  const char *text = d->e->sections[k].text;
  int32_t length = (int32_t)d->places.sections[k].length;
  if (pdt_data_get_int32(json, where, "begin", 0, length - 1, begin, d->err) ||
      pdt_data_get_int32(json, where, "end", *begin + 1, length, end, d->err))
    return -1;
  if (!pdt_data_starts_character(text, *begin) || !pdt_data_starts_character(text, *end))
    return pdt_fail(d->err, PDT_ERROR_INPUT,
                    "%s: 'begin' and 'end': a place inside a character (hint: bytes of UTF-8 are "
                    "counted)",
                    where);
  if (!pdt_data_is_free(&d->places, k, (size_t)*begin, (size_t)*end))
    return pdt_fail(d->err, PDT_ERROR_INPUT,
                    "%s: 'begin' and 'end': expected bytes that no other span has, found %d to %d "
                    "of section %d",
                    where, *begin, *end, k);
  return 0;
}

/* The statement's place, where it is given; a value that is not is its text. */
static int read_statement(document *d, const json_t *json, const char *where, int32_t i) {
  pdt_data_fact *f = &d->e->facts[i];
  int32_t begin, end;
  if (!pdt_json_get(json, "begin") && !pdt_json_get(json, "end")) {
    if (f->value) return 0;
    return pdt_fail(d->err, PDT_ERROR_INPUT,
                    "%s: expected 'value', or 'begin' and 'end', found neither", where);
  }
  if (read_span(d, json, where, f->stream, &begin, &end)) return -1;
  const char *text = d->e->sections[f->stream].text + begin;
  size_t bytes = (size_t)(end - begin);
  if (f->value && (strlen(f->value) != bytes || memcmp(f->value, text, bytes) != 0))
    return pdt_fail(d->err, PDT_ERROR_INPUT,
                    "%s: 'value': expected '%.*s', bytes %d to %d of section %d, found '%.60s' "
                    "(hint: bytes of UTF-8 are counted)",
                    where, (int)(bytes < 60 ? bytes : 60), text, begin, end, f->stream, f->value);
  if (!f->value) f->value = strndup(text, bytes);
  if (!f->value) return pdt_fail(d->err, PDT_ERROR_MEMORY, "data: no memory for a text");
  const pdt_data_mention m = {i, PDT_STATES, begin, end};
  d->facts[i].stated = true;
  return pdt_data_place(&d->places, f->stream, &m, d->err);
}

/* Uses in other sections, where they are given. */
static int read_uses(document *d, const json_t *json, const char *outer, int32_t i) {
  static const char *const keys[] = {"stream", "begin", "end"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0;
  pdt_stream k;
  if (!pdt_json_get(json, "uses")) return 0;
  d->facts[i].listed = true;
  if (pdt_data_get_list(json, outer, "uses", 0, INT32_MAX, &list, &n, d->err)) return -1;
  for (int32_t j = 0; j < n; j++) {
    pdt_data_mention m = {.fact = i, .kind = PDT_USES};
    if (pdt_data_get_object(list, outer, "uses", j, keys, 3, &item, where, d->err) ||
        pdt_data_get_int32(item, where, "stream", 0, d->e->n_sections - 1, &k, d->err))
      return -1;
    if (k == d->e->facts[i].stream)
      return pdt_fail(d->err, PDT_ERROR_INPUT,
                      "%s: 'stream': expected another section than %d, which states the fact",
                      where, k);
    if (read_span(d, item, where, k, &m.begin, &m.end) || pdt_data_place(&d->places, k, &m, d->err))
      return -1;
  }
  return 0;
}

/* A value begins and ends with what can be seen, since a mention has no space before the name. */
static int check_value(const document *d, const char *where, const char *value) {
  size_t n = strlen(value), first = 0, last = n;
  if (n > 0) {
    last = pdt_utf8_back(value, n);
    if (!pdt_is_white_space(pdt_utf8_next(value, &first)) &&
        !pdt_is_white_space(pdt_utf8_next(value, &last)))
      return 0;
  }
  return pdt_fail(d->err, PDT_ERROR_INPUT,
                  "%s: 'value': expected a text without white space at its ends, found '%.60s'",
                  where, value);
}

/* Two facts of one value cannot be told apart where they are looked for. */
static int check_twins(const document *d, const char *where, int32_t i) {
  for (int32_t j = 0; j < i; j++)
    if (strcmp(d->e->facts[i].value, d->e->facts[j].value) == 0 &&
        !(d->facts[i].stated && d->facts[i].listed && d->facts[j].stated && d->facts[j].listed))
      return pdt_fail(d->err, PDT_ERROR_INPUT,
                      "%s: 'value': expected another value than that of facts[%d], found '%.60s' "
                      "(hint: 'begin', 'end' and 'uses' tell them apart)",
                      where, j, d->e->facts[i].value);
  return 0;
}

static int read_fact(document *d, const json_t *json, const char *where, int32_t i) {
  pdt_data_fact *f = &d->e->facts[i];
  if (pdt_data_get_int32(json, where, "stream", 0, d->e->n_sections - 1, &f->stream, d->err) ||
      pdt_data_get_string_or(json, where, "type", &f->type, d->err) ||
      pdt_data_get_string_or(json, where, "value", &f->value, d->err) ||
      (!f->type && pdt_data_copy(&f->type, "name", d->err)) || read_statement(d, json, where, i) ||
      check_value(d, where, f->value) || read_uses(d, json, where, i))
    return -1;
  return check_twins(d, where, i);
}

/* Facts in the order in which they are looked for: the longest first. */
static void order_facts(const pdt_data_entry *e, int32_t order[PDT_DATA_FACTS]) {
  for (int32_t i = 0; i < e->n_facts; i++) {
    int32_t at = i;
    for (; at > 0 && strlen(e->facts[order[at - 1]].value) < strlen(e->facts[i].value); at--)
      order[at] = order[at - 1];
    order[at] = i;
  }
}

/* What was not given is looked for. */
static int place_facts(document *d) {
  int32_t order[PDT_DATA_FACTS];
  order_facts(d->e, order);
  for (int32_t n = 0; n < d->e->n_facts; n++) {
    int32_t i = order[n];
    const pdt_data_fact *f = &d->e->facts[i];
    if (d->facts[i].stated && d->facts[i].listed) continue;
    if (d->facts[i].listed)
      return pdt_fail(d->err, PDT_ERROR_INPUT,
                      "%s: facts[%d]: expected 'begin' and 'end' beside 'uses', found none",
                      d->where, i);
    if (pdt_data_place_fact(&d->places, i, &d->facts[i].stated, d->err)) return -1;
    if (!d->facts[i].stated)
      return pdt_fail(
          d->err, PDT_ERROR_INPUT,
          "%s: facts[%d]: expected '%.60s' in section %d, between word borders and "
          "outside of longer values, found it nowhere (hint: as it is spelled there, or "
          "'begin' and 'end')",
          d->where, i, f->value, f->stream);
  }
  return 0;
}

static int read_facts(document *d, const json_t *json) {
  static const char *const keys[] = {"stream", "type", "value", "begin", "end", "uses"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0;
  if (!pdt_json_get(json, "facts")) {
    if (d->rules->find) return pdt_data_find_names(&d->places, d->rules->find, d->err);
    return pdt_fail(d->err, PDT_ERROR_INPUT,
                    "%s: 'facts': expected a list, found nothing (hint: --find looks for names)",
                    d->where);
  }
  if (pdt_data_get_list(json, d->where, "facts", 1, PDT_DATA_FACTS, &list, &n, d->err) ||
      PDT_NEW(&d->e->facts, n, "facts", d->err))
    return -1;
  for (int32_t i = 0; i < n; i++) {
    d->e->n_facts = i + 1;
    if (pdt_data_get_object(list, d->where, "facts", i, keys, 6, &item, where, d->err) ||
        read_fact(d, item, where, i))
      return -1;
  }
  return place_facts(d);
}

/* ---- plan ---- */

static int add_item(const document *d, pdt_stream stream, const char *text) {
  pdt_data_plan_item *p = &d->e->plan[d->e->n_plan++];
  p->stream = stream;
  return pdt_data_copy(&p->text, text, d->err) ||
                 pdt_plan_hash(d->rules->plan, stream, text, &p->id, d->err)
             ? -1
             : 0;
}

/* Without a plan: what each section states, by type. */
static int plan_of_facts(const document *d) {
  for (pdt_stream k = 0; k < d->e->n_sections; k++)
    for (int32_t i = 0; i < d->e->n_facts; i++) {
      const pdt_data_fact *f = &d->e->facts[i];
      bool known = f->stream != k;
      for (int32_t j = 0; j < d->e->n_plan && !known; j++)
        known = d->e->plan[j].stream == k && strcmp(d->e->plan[j].text, f->type) == 0;
      if (known) continue;
      if (d->e->n_plan == d->rules->plan->plan_slots)
        return pdt_fail(
            d->err, PDT_ERROR_INPUT,
            "%s: expected at most %d types of facts in sections, a slot of the plan each, "
            "found more (hint: --plan-slots, or fewer types)",
            d->where, d->rules->plan->plan_slots);
      if (add_item(d, k, f->type)) return -1;
    }
  return 0;
}

static int read_plan(const document *d, const json_t *json) {
  static const char *const keys[] = {"stream", "text"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  const char *text;
  int32_t n = 0, k;
  if (PDT_NEW(&d->e->plan, d->rules->plan->plan_slots, "plan", d->err)) return -1;
  if (!pdt_json_get(json, "plan")) return plan_of_facts(d);
  if (pdt_data_get_list(json, d->where, "plan", 0, d->rules->plan->plan_slots, &list, &n, d->err))
    return -1;
  for (int32_t i = 0; i < n; i++)
    if (pdt_data_get_object(list, d->where, "plan", i, keys, 2, &item, where, d->err) ||
        pdt_data_get_int32(item, where, "stream", 0, d->e->n_sections - 1, &k, d->err) ||
        pdt_json_string(item, where, "text", &text, d->err) || add_item(d, k, text))
      return -1;
  return 0;
}

/* ---- the whole ---- */

static int read_document(document *d, const json_t *json) {
  static const char *const keys[] = {"id", "prompt", "sections", "facts", "plan", "meta"};
  if (pdt_json_expect_object(json, d->where, d->err) ||
      pdt_json_only_keys(json, d->where, keys, 6, d->err) ||
      pdt_data_get_string_or(json, d->where, "id", &d->e->id, d->err) ||
      (!d->e->id && pdt_data_copy(&d->e->id, d->where, d->err)) ||
      pdt_data_get_string(json, d->where, "prompt", &d->e->prompt, d->err) ||
      read_sections(d, json) || pdt_data_places_new(&d->places, d->e, d->err) ||
      read_facts(d, json) || read_plan(d, json))
    return -1;
  pdt_data_places_sort(&d->places);
  return 0;
}

int pdt_document_parse(pdt_data_entry *out, const pdt_document_rules *rules, const char *text,
                       size_t bytes, const char *where, pdt_error *err) {
  json_t *json;
  *out = (pdt_data_entry){0};
  if (pdt_json_parse(&json, text, bytes, where, err)) return -1;
  document d = {.rules = rules, .where = where, .e = out, .err = err};
  int rc = read_document(&d, json);
  pdt_data_places_free(&d.places);
  json_decref(json);
  if (rc) pdt_data_entry_free(out);
  return rc;
}
