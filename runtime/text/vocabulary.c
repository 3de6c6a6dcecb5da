#include "text/vocabulary.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

static uint32_t find(const pdt_vocabulary *v, const char *text, size_t bytes) {
  uint32_t slot = (uint32_t)XXH3_64bits(text, bytes) & v->mask;
  for (;; slot = (slot + 1) & v->mask) {
    const struct pdt_vocabulary_entry *e = &v->slots[slot];
    if (e->id < 0 || (e->bytes == bytes && memcmp(v->text + e->at, text, bytes) == 0)) return slot;
  }
}

/* Checks every id and sizes the tables. */
static int measure(const json_t *object, const char *where, size_t *text_bytes, int32_t *n_ids,
                   pdt_error *err) {
  const char *key;
  const json_t *value;
  *text_bytes = 0;
  *n_ids = 0;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id > PDT_MAX_TOKEN_ID)
      return pdt_fail(
          err, PDT_ERROR_INPUT, "%s: '%.80s': expected an id from 0 to %d, found %s%lld", where,
          key, PDT_MAX_TOKEN_ID, json_is_integer(value) ? "" : "something else: ", (long long)id);
    if (id >= *n_ids) *n_ids = (int32_t)id + 1;
    *text_bytes += strlen(key) + 1;
  }
  if (*text_bytes > UINT32_MAX)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: expected at most 4 GiB of strings, found %zu bytes",
                    where, *text_bytes);
  return 0;
}

static int insert_all(pdt_vocabulary *v, const json_t *object, const char *where, pdt_error *err) {
  const char *key;
  const json_t *value;
  size_t at = 0;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    size_t bytes = strlen(key);
    pdt_token id = (pdt_token)json_integer_value(value);
    memcpy(v->text + at, key, bytes + 1);
    uint32_t slot = find(v, key, bytes);
    if (v->by_id[id] != UINT32_MAX)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.80s' and '%.80s': both have the id %d", where,
                      v->text + v->slots[v->by_id[id]].at, key, id);
    v->slots[slot] = (struct pdt_vocabulary_entry){(uint32_t)at, (uint32_t)bytes, id};
    v->by_id[id] = slot;
    v->n++;
    at += bytes + 1;
  }
  return 0;
}

int pdt_vocabulary_load(pdt_vocabulary *v, const json_t *object, const char *where,
                        pdt_error *err) {
  size_t text_bytes;
  int32_t n_ids;
  if (measure(object, where, &text_bytes, &n_ids, err)) return -1;
  size_t n_slots = 16;
  while (n_slots < 2 * json_object_size(object)) n_slots *= 2;
  if (PDT_NEW(&v->text, text_bytes, "vocabulary", err) ||
      PDT_NEW(&v->slots, n_slots, "vocabulary", err) ||
      PDT_NEW(&v->by_id, n_ids, "vocabulary", err))
    return -1;
  for (size_t i = 0; i < n_slots; i++) v->slots[i].id = -1;
  memset(v->by_id, 0xff, (size_t)n_ids * sizeof *v->by_id);
  v->mask = (uint32_t)(n_slots - 1);
  v->n_ids = n_ids;
  return insert_all(v, object, where, err);
}

void pdt_vocabulary_free(pdt_vocabulary *v) {
  free(v->text);
  free(v->slots);
  free(v->by_id);
  *v = (pdt_vocabulary){0};
}

pdt_token pdt_vocabulary_id(const pdt_vocabulary *v, const char *text, size_t bytes) {
  return v->slots[find(v, text, bytes)].id;
}

const char *pdt_vocabulary_text(const pdt_vocabulary *v, pdt_token id, size_t *bytes) {
  if (id < 0 || id >= v->n_ids || v->by_id[id] == UINT32_MAX) return NULL;
  const struct pdt_vocabulary_entry *e = &v->slots[v->by_id[id]];
  *bytes = e->bytes;
  return v->text + e->at;
}
