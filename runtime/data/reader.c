#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "data/data.h"
#include "data/fields.h"
#include "request/plan_hash.h"
#include "sidecar/sidecar.h"

enum { LONGEST_TEXT = 1 << 24 };

/* An entry being read: what it is checked against, and what errors call the value at hand. */
typedef struct entry_reader {
  const pdt_data_header *header;
  pdt_data_entry *e;
  const char *where;
  pdt_error *err;
} entry_reader;

/* Facts and plan need the number of sections: it bounds their streams. */
static int read_facts(const entry_reader *in, const json_t *json) {
  static const char *const keys[] = {"stream", "type", "value", "any"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0;
  if (pdt_data_get_list(json, in->where, "facts", 0, PDT_DATA_FACTS, &list, &n, in->err) ||
      PDT_NEW(&in->e->facts, n, "facts", in->err))
    return -1;
  in->e->n_facts = n;
  for (int32_t i = 0; i < n; i++) {
    pdt_data_fact *f = &in->e->facts[i];
    if (pdt_data_get_object(list, in->where, "facts", i, keys, 4, &item, where, in->err) ||
        pdt_data_get_int32(item, where, "stream", 0, in->e->n_sections - 1, &f->stream, in->err) ||
        pdt_data_get_string(item, where, "type", &f->type, in->err) ||
        pdt_data_get_string(item, where, "value", &f->value, in->err) ||
        pdt_json_bool_or(item, where, "any", &f->any, in->err))
      return -1;
  }
  if (n == 0 && !in->header->notes_file)
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: 'facts': expected facts, or a header that names a file of notes",
                    in->where);
  return 0;
}

static int read_plan(const entry_reader *in, const json_t *json) {
  static const char *const keys[] = {"stream", "text", "id"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  pdt_sidecar_config hash = {.plan_vocab_size = in->header->plan_vocab_size};
  memcpy(hash.plan_hash_salt, in->header->plan_salt, PDT_SALT_BYTES);
  int32_t n = 0, id;
  if (pdt_data_get_list(json, in->where, "plan", 0, in->header->plan_slots, &list, &n, in->err) ||
      PDT_NEW(&in->e->plan, n, "plan", in->err))
    return -1;
  in->e->n_plan = n;
  for (int32_t i = 0; i < n; i++) {
    pdt_data_plan_item *p = &in->e->plan[i];
    if (pdt_data_get_object(list, in->where, "plan", i, keys, 3, &item, where, in->err) ||
        pdt_data_get_int32(item, where, "stream", 0, in->e->n_sections - 1, &p->stream, in->err) ||
        pdt_data_get_int32(item, where, "id", 0, hash.plan_vocab_size - 1, &p->id, in->err) ||
        pdt_data_get_string(item, where, "text", &p->text, in->err) ||
        pdt_plan_hash(&hash, p->stream, p->text, &id, in->err))
      return -1;
    if (id != p->id)
      return pdt_fail(in->err, PDT_ERROR_INPUT,
                      "%s: 'id': expected %d, the hash of stream and text, found %d", where, id,
                      p->id);
  }
  return 0;
}

static int read_mention(const entry_reader *in, const json_t *item, const char *where,
                        const pdt_data_section *s, int32_t after, pdt_data_mention *m) {
  const char *kind;
  const json_t *bytes;
  char place[PDT_DATA_WHERE_BYTES + 16];
  int64_t begin, end, length = (int64_t)strlen(s->text);
  snprintf(place, sizeof place, "%s: bytes", where);
  if (pdt_data_get_int32(item, where, "fact", 0, in->e->n_facts - 1, &m->fact, in->err) ||
      pdt_json_string(item, where, "kind", &kind, in->err) ||
      pdt_json_array(item, where, "bytes", &bytes, in->err))
    return -1;
  if (!pdt_mention_kind_parse(kind, &m->kind))
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: 'kind': expected 'states', 'uses' or 'misreads', found '%.40s'", where,
                    kind);
  if (json_array_size(bytes) != 2)
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: 'bytes': expected begin and end, found %zu",
                    where, json_array_size(bytes));
  if (pdt_json_element_integer(bytes, place, 0, after, length - 1, &begin, in->err) ||
      pdt_json_element_integer(bytes, place, 1, begin + 1, length, &end, in->err))
    return -1;
  if (!pdt_data_starts_character(s->text, (int32_t)begin) ||
      !pdt_data_starts_character(s->text, (int32_t)end))
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: 'bytes': a place inside a character", where);
  m->begin = (int32_t)begin;
  m->end = (int32_t)end;
  return 0;
}

static int read_mentions(const entry_reader *in, const json_t *json, const char *outer,
                         pdt_data_section *s) {
  static const char *const keys[] = {"fact", "kind", "bytes"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0, after = 0;
  if (pdt_data_get_list(json, outer, "mentions", 0, PDT_DATA_LINE_BYTES, &list, &n, in->err) ||
      PDT_NEW(&s->mentions, n, "mentions", in->err))
    return -1;
  for (int32_t i = 0; i < n; i++, after = s->mentions[i - 1].end) {
    s->n_mentions = i + 1;
    if (pdt_data_get_object(list, outer, "mentions", i, keys, 3, &item, where, in->err) ||
        read_mention(in, item, where, s, after, &s->mentions[i]))
      return -1;
  }
  return 0;
}

/* A list of different numbers below n, possibly absent: a set. */
static int read_set(const entry_reader *in, const json_t *json, const char *where, const char *key,
                    int32_t n, uint64_t *set) {
  const json_t *list;
  char name[PDT_DATA_WHERE_BYTES + 16];
  *set = 0;
  if (pdt_json_array_or(json, where, key, &list, in->err)) return -1;
  snprintf(name, sizeof name, "%s: %s", where, key);
  for (size_t i = 0; list && i < json_array_size(list); i++) {
    int64_t member;
    if (pdt_json_element_integer(list, name, i, 0, n - 1, &member, in->err)) return -1;
    if (*set >> member & 1)
      return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: [%zu]: %lld for the second time", name, i,
                      (long long)member);
    *set |= (uint64_t)1 << member;
  }
  return 0;
}

/* Facts are stated by their stream and used by the others. */
static int check_streams(const entry_reader *in, const char *where, pdt_stream k,
                         const pdt_data_block *b) {
  for (int32_t i = 0; i < in->e->n_facts; i++) {
    pdt_stream owner = in->e->facts[i].stream;
    if ((b->stated >> i & 1 && owner != k) || (b->used >> i & 1 && owner == k))
      return pdt_fail(in->err, PDT_ERROR_INPUT,
                      "%s: '%s': fact %d is of stream %d, the block of stream %d", where,
                      owner == k ? "used" : "stated", i, owner, k);
  }
  return 0;
}

static int read_block(const entry_reader *in, const json_t *json, const char *where, pdt_stream k,
                      pdt_data_block *b) {
  b->note = -1;
  if (!pdt_json_get(json, "ready"))
    return pdt_fail(in->err, PDT_ERROR_INPUT, "%s: 'ready': expected true or false, found nothing",
                    where);
  if (read_set(in, json, where, "stated", in->e->n_facts, &b->stated) ||
      read_set(in, json, where, "used", in->e->n_facts, &b->used) ||
      read_set(in, json, where, "misread", in->e->n_facts, &b->misread) ||
      read_set(in, json, where, "coverage", in->e->n_plan, &b->coverage) ||
      pdt_json_bool_or(json, where, "ready", &b->ready, in->err) || check_streams(in, where, k, b))
    return -1;
  if (in->header->notes_file)
    return pdt_json_integer(json, where, "note", 0, INT64_MAX, &b->note, in->err);
  if (!pdt_json_get(json, "note")) return 0;
  return pdt_fail(in->err, PDT_ERROR_INPUT,
                  "%s: 'note': the header names no file of notes that it could be in", where);
}

static int read_blocks(const entry_reader *in, const json_t *json, const char *outer, pdt_stream k,
                       pdt_data_section *s) {
  static const char *const keys[] = {"stated", "used", "misread", "coverage", "ready", "note"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0, tau = in->header->rounds.block_tokens, expected = 1 + (s->n_tokens - 1) / tau;
  if (pdt_data_get_list(json, outer, "blocks", 0, PDT_DATA_LINE_BYTES, &list, &n, in->err))
    return -1;
  if (n != expected)
    return pdt_fail(in->err, PDT_ERROR_INPUT,
                    "%s: 'blocks': expected %d, for %d tokens in blocks of %d, found %d", outer,
                    expected, s->n_tokens, tau, n);
  if (PDT_NEW(&s->blocks, n, "blocks", in->err)) return -1;
  s->n_blocks = n;
  for (int32_t i = 0; i < n; i++)
    if (pdt_data_get_object(list, outer, "blocks", i, keys, 6, &item, where, in->err) ||
        read_block(in, item, where, k, &s->blocks[i]))
      return -1;
  return 0;
}

static int read_section(const entry_reader *in, const json_t *json, const char *where,
                        pdt_stream k) {
  pdt_data_section *s = &in->e->sections[k];
  if (pdt_data_get_string(json, where, "name", &s->name, in->err) ||
      pdt_data_get_string(json, where, "prefix", &s->prefix, in->err) ||
      pdt_data_get_string(json, where, "text", &s->text, in->err) ||
      pdt_data_get_int32(json, where, "tokens", 1, LONGEST_TEXT, &s->n_tokens, in->err) ||
      read_mentions(in, json, where, s))
    return -1;
  return read_blocks(in, json, where, k, s);
}

static int read_entry(const entry_reader *in, const json_t *json) {
  static const char *const keys[] = {"id", "prompt", "facts", "plan", "sections", "meta"};
  static const char *const section_keys[] = {"name",   "prefix",   "text",
                                             "tokens", "mentions", "blocks"};
  const json_t *list, *item;
  char where[PDT_DATA_WHERE_BYTES];
  int32_t n = 0;
  if (pdt_json_expect_object(json, in->where, in->err) ||
      pdt_json_only_keys(json, in->where, keys, 6, in->err) ||
      pdt_data_get_string(json, in->where, "id", &in->e->id, in->err) ||
      pdt_data_get_string(json, in->where, "prompt", &in->e->prompt, in->err) ||
      pdt_data_get_list(json, in->where, "sections", 1, PDT_DATA_SECTIONS, &list, &n, in->err) ||
      PDT_NEW(&in->e->sections, n, "sections", in->err))
    return -1;
  in->e->n_sections = n;
  if (read_facts(in, json) || read_plan(in, json)) return -1;
  for (int32_t k = 0; k < n; k++)
    if (pdt_data_get_object(list, in->where, "sections", k, section_keys, 6, &item, where,
                            in->err) ||
        read_section(in, item, where, k))
      return -1;
  return 0;
}

int pdt_data_entry_parse(pdt_data_entry *out, const pdt_data_header *header, const char *text,
                         size_t bytes, const char *where, pdt_error *err) {
  json_t *json;
  *out = (pdt_data_entry){0};
  if (pdt_json_parse(&json, text, bytes, where, err)) return -1;
  const entry_reader in = {header, out, where, err};
  int rc = read_entry(&in, json);
  json_decref(json);
  if (rc) pdt_data_entry_free(out);
  return rc;
}

void pdt_data_header_free(pdt_data_header *h) {
  free(h->world);
  free(h->split);
  free(h->tokenizer);
  free(h->notes_file);
  *h = (pdt_data_header){0};
}

/* Sixteen hexadecimal digits, or nothing. */
static int check_tokenizer(const pdt_data_header *h, const char *where, pdt_error *err) {
  if (!h->tokenizer ||
      (strlen(h->tokenizer) == 16 && strspn(h->tokenizer, "0123456789abcdef") == 16))
    return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'tokenizer': expected a fingerprint of 16 hexadecimal digits, found '%.40s'",
                  where, h->tokenizer);
}

static int read_notes(pdt_data_header *out, const json_t *json, const char *where, pdt_error *err) {
  static const char *const keys[] = {"file", "dim"};
  const json_t *notes;
  char inner[PDT_DATA_WHERE_BYTES];
  if (pdt_json_object_or(json, where, "notes", &notes, err)) return -1;
  if (!notes) return 0;
  snprintf(inner, sizeof inner, "%s: notes", where);
  if (pdt_json_only_keys(notes, inner, keys, 2, err) ||
      pdt_data_get_string(notes, inner, "file", &out->notes_file, err) ||
      pdt_data_get_int32(notes, inner, "dim", 1, 1 << 16, &out->notes_dim, err))
    return -1;
  if (*out->notes_file && !strchr(out->notes_file, '/')) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: 'file': expected the name of a file beside the data, found '%.80s'", inner,
                  out->notes_file);
}

static int read_salt(pdt_data_header *out, const json_t *json, const char *where, pdt_error *err) {
  const char *salt;
  if (pdt_json_string(json, where, "plan_hash_salt", &salt, err)) return -1;
  if (strlen(salt) >= PDT_SALT_BYTES)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'plan_hash_salt': expected at most %d bytes, found %zu", where,
                    PDT_SALT_BYTES - 1, strlen(salt));
  memcpy(out->plan_salt, salt, strlen(salt) + 1);
  return 0;
}

/* Of 64 bits: beyond 2^63 - 1 as a text of its digits, for readers that have no larger integers. */
static int read_seed(const json_t *json, const char *where, uint64_t *seed, pdt_error *err) {
  const json_t *value = pdt_json_get(json, "seed");
  if (!value || pdt_json_u64_of(value, seed)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'seed': expected an integer from 0 to 2^64 - 1",
                  where);
}

static int read_header(pdt_data_header *out, const json_t *json, const char *where,
                       pdt_error *err) {
  static const char *const keys[] = {
      "format",         "version",      "world",        "split",      "seed",
      "hard",           "block_tokens", "window",       "plan_slots", "plan_vocab_size",
      "plan_hash_salt", "tokenizer",    "reveal_delay", "notes",      "meta"};
  const char *format;
  int32_t version, *tau = &out->rounds.block_tokens;
  if (pdt_json_expect_object(json, where, err) ||
      pdt_json_string(json, where, "format", &format, err))
    return -1;
  if (strcmp(format, "pdt-data") != 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'format': expected 'pdt-data', found '%.40s'", where,
                    format);
  if (pdt_data_get_int32(json, where, "version", 1, 1, &version, err) ||
      pdt_json_only_keys(json, where, keys, sizeof keys / sizeof *keys, err) ||
      pdt_data_get_string_or(json, where, "world", &out->world, err) ||
      pdt_data_get_string_or(json, where, "split", &out->split, err) ||
      pdt_data_get_string_or(json, where, "tokenizer", &out->tokenizer, err) ||
      check_tokenizer(out, where, err) || read_seed(json, where, &out->seed, err) ||
      pdt_json_bool_or(json, where, "hard", &out->hard, err) ||
      pdt_data_get_int32(json, where, "block_tokens", 1, 1 << 20, tau, err) ||
      pdt_data_get_int32(json, where, "reveal_delay", 1, 1 << 20, &out->rounds.reveal_delay, err) ||
      pdt_data_get_int32(json, where, "window", 0, 1 << 20, &out->rounds.window, err) ||
      pdt_data_get_int32(json, where, "plan_slots", 1, PDT_DATA_SLOTS, &out->plan_slots, err) ||
      pdt_data_get_int32(json, where, "plan_vocab_size", 2, 1 << 24, &out->plan_vocab_size, err) ||
      read_salt(out, json, where, err))
    return -1;
  return read_notes(out, json, where, err);
}

int pdt_data_header_parse(pdt_data_header *out, const char *text, size_t bytes, const char *where,
                          pdt_error *err) {
  json_t *json;
  *out = (pdt_data_header){0};
  if (pdt_json_parse(&json, text, bytes, where, err)) return -1;
  int rc = read_header(out, json, where, err);
  json_decref(json);
  if (rc) pdt_data_header_free(out);
  return rc;
}

int pdt_data_header_fits(const pdt_data_header *h, const char *path, const pdt_sidecar_config *c,
                         pdt_error *err) {
  if (h->plan_slots == c->plan_slots && h->plan_vocab_size == c->plan_vocab_size &&
      strcmp(h->plan_salt, c->plan_hash_salt) == 0)
    return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: a plan of %d slots, vocabulary %d, salt '%s'; the sidecar's has %d, %d, "
                  "'%s' (hint: --plan-slots, --plan-vocab and --plan-salt of what made it)",
                  path, h->plan_slots, h->plan_vocab_size, h->plan_salt, c->plan_slots,
                  c->plan_vocab_size, c->plan_hash_salt);
}

int pdt_data_open(pdt_data_reader *r, const char *path, pdt_error *err) {
  char where[PDT_WHERE_BYTES];
  *r = (pdt_data_reader){0};
  if (pdt_data_copy(&r->path, path, err) ||
      pdt_lines_open(&r->lines, r->path, PDT_DATA_LINE_BYTES, err))
    return -1;
  int found = pdt_lines_next(&r->lines, err);
  if (found == 0)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a header in line 1, found nothing", path);
  pdt_where(where, path, 1);
  if (found < 0) return -1;
  return pdt_data_header_parse(&r->header, r->lines.text, r->lines.bytes, where, err);
}

void pdt_data_close(pdt_data_reader *r) {
  pdt_lines_close(&r->lines);
  free(r->path);
  pdt_data_header_free(&r->header);
  *r = (pdt_data_reader){0};
}

int pdt_data_next(pdt_data_reader *r, pdt_data_entry *out, pdt_error *err) {
  char where[PDT_WHERE_BYTES];
  *out = (pdt_data_entry){0};
  int found = pdt_lines_next_filled(&r->lines, err);
  if (found < 1) return found;
  pdt_where(where, r->path, r->lines.number);
  return pdt_data_entry_parse(out, &r->header, r->lines.text, r->lines.bytes, where, err) ? -1 : 1;
}
