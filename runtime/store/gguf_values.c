/* What the metadata of a GGUF file says, asked for by key. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/gguf.h"

pdt_gguf_text pdt_gguf_key(const pdt_gguf *g, const pdt_gguf_entry *e) {
  return (pdt_gguf_text){g->header.data + e->key_at, e->key_bytes};
}

bool pdt_gguf_is(pdt_gguf_text text, const char *other) {
  return strlen(other) == text.bytes && memcmp(text.text, other, text.bytes) == 0;
}

const pdt_gguf_entry *pdt_gguf_find(const pdt_gguf *g, const char *key) {
  size_t low = 0, high = g->n_entries, bytes = strlen(key);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    pdt_gguf_text at = pdt_gguf_key(g, &g->entries[middle]);
    int order = memcmp(key, at.text, bytes < at.bytes ? bytes : at.bytes);
    if (order == 0) order = (bytes > at.bytes) - (bytes < at.bytes);
    if (order == 0) return &g->entries[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

static int refuse(const pdt_gguf *g, const char *key, const char *expected,
                  const pdt_gguf_entry *found, pdt_error *err) {
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected %s, found %s%s", g->path, key, expected,
                  found->is_array ? "an array of " : "", pdt_gguf_kind_name(found->kind));
}

/* A key's entry; *found tells whether it is there, and without `found` it must be. */
static int look_up(const pdt_gguf *g, const char *key, const pdt_gguf_entry **e, bool *found,
                   pdt_error *err) {
  *e = pdt_gguf_find(g, key);
  if (found) *found = *e != NULL;
  if (*e || found) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s' is missing in the metadata", g->path, key);
}

/* The bytes of a number, as an unsigned one. */
static uint64_t raw(const char *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i-- > 0;) value = value << 8 | (unsigned char)at[i];
  return value;
}

/* An element of an integer type; false where it is of another, or beyond 2^63 - 1. */
static bool integer_of(pdt_gguf_kind kind, const char *at, int64_t *out) {
  uint64_t wide;
  switch (kind) {
  case PDT_GGUF_U8:
    *out = (int64_t)raw(at, 1);
    return true;
  case PDT_GGUF_I8:
    *out = (int64_t)(raw(at, 1) ^ 0x80) - 0x80;
    return true;
  case PDT_GGUF_U16:
    *out = (int64_t)raw(at, 2);
    return true;
  case PDT_GGUF_I16:
    *out = (int16_t)raw(at, 2);
    return true;
  case PDT_GGUF_U32:
    *out = (int64_t)raw(at, 4);
    return true;
  case PDT_GGUF_I32:
    *out = (int32_t)raw(at, 4);
    return true;
  case PDT_GGUF_U64:
  case PDT_GGUF_I64:
    wide = raw(at, 8);
    *out = (int64_t)wide;
    return kind == PDT_GGUF_I64 || wide <= INT64_MAX;
  default:
    return false;
  }
}

static size_t size_of(pdt_gguf_kind kind) {
  static const size_t sizes[PDT_GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return sizes[kind];
}

int pdt_gguf_integer(const pdt_gguf *g, const char *key, int64_t low, int64_t high, int64_t *out,
                     bool *found, pdt_error *err) {
  const pdt_gguf_entry *e;
  int64_t value;
  char expected[80];
  if (look_up(g, key, &e, found, err)) return -1;
  if (!e) return 0;
  snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)low,
           (long long)high);
  if (e->is_array || !integer_of(e->kind, g->header.data + e->at, &value))
    return refuse(g, key, expected, e, err);
  if (value < low || value > high)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected %s, found %lld", g->path, key,
                    expected, (long long)value);
  *out = value;
  return 0;
}

/* A number of either floating type. */
static double float_of(pdt_gguf_kind kind, const char *at) {
  float narrow;
  double wide;
  uint64_t bits = raw(at, size_of(kind));
  uint32_t low_bits = (uint32_t)bits;
  memcpy(&narrow, &low_bits, sizeof narrow);
  memcpy(&wide, &bits, sizeof wide);
  return kind == PDT_GGUF_F32 ? narrow : wide;
}

int pdt_gguf_real(const pdt_gguf *g, const char *key, double *out, bool *found, pdt_error *err) {
  const pdt_gguf_entry *e;
  if (look_up(g, key, &e, found, err)) return -1;
  if (!e) return 0;
  if (e->is_array || (e->kind != PDT_GGUF_F32 && e->kind != PDT_GGUF_F64))
    return refuse(g, key, "a number of f32 or f64", e, err);
  double value = float_of(e->kind, g->header.data + e->at);
  if (!isfinite(value))
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected a finite number, found %g", g->path,
                    key, value);
  *out = value;
  return 0;
}

int pdt_gguf_bool(const pdt_gguf *g, const char *key, bool *out, bool *found, pdt_error *err) {
  const pdt_gguf_entry *e;
  if (look_up(g, key, &e, found, err)) return -1;
  if (!e) return 0;
  if (e->is_array || e->kind != PDT_GGUF_BOOL) return refuse(g, key, "true or false", e, err);
  unsigned char value = (unsigned char)g->header.data[e->at];
  if (value > 1)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%s': expected 0 or 1, found %d", g->path, key,
                    value);
  *out = value == 1;
  return 0;
}

int pdt_gguf_string(const pdt_gguf *g, const char *key, pdt_gguf_text *out, bool *found,
                    pdt_error *err) {
  const pdt_gguf_entry *e;
  if (look_up(g, key, &e, found, err)) return -1;
  if (!e) return 0;
  if (e->is_array || e->kind != PDT_GGUF_STRING) return refuse(g, key, "a string", e, err);
  *out = (pdt_gguf_text){g->header.data + e->at + 8, (size_t)raw(g->header.data + e->at, 8)};
  return 0;
}

/* ---- arrays ---- */

/* An array's entry, NULL where the key is not there. */
static int look_up_array(const pdt_gguf *g, const char *key, const pdt_gguf_entry **e, size_t *n,
                         pdt_error *err) {
  bool found;
  *n = 0;
  if (look_up(g, key, e, &found, err)) return -1;
  if (*e && !(*e)->is_array) return refuse(g, key, "an array", *e, err);
  if (*e) *n = (size_t)(*e)->n;
  return 0;
}

int pdt_gguf_strings(const pdt_gguf *g, const char *key, pdt_gguf_text **out, size_t *n,
                     pdt_error *err) {
  const pdt_gguf_entry *e;
  *out = NULL;
  if (look_up_array(g, key, &e, n, err)) return -1;
  if (!e) return 0;
  if (e->kind != PDT_GGUF_STRING) return refuse(g, key, "an array of strings", e, err);
  if (PDT_NEW(out, *n, key, err)) return -1;
  const char *at = g->header.data + e->at;
  for (size_t i = 0; i < *n; i++) {
    (*out)[i] = (pdt_gguf_text){at + 8, (size_t)raw(at, 8)};
    at += 8 + (*out)[i].bytes;
  }
  return 0;
}

int pdt_gguf_integers(const pdt_gguf *g, const char *key, int32_t **out, size_t *n,
                      pdt_error *err) {
  const pdt_gguf_entry *e;
  *out = NULL;
  if (look_up_array(g, key, &e, n, err)) return -1;
  if (!e) return 0;
  if (PDT_NEW(out, *n, key, err)) return -1;
  for (size_t i = 0; i < *n; i++) {
    int64_t value;
    if (integer_of(e->kind, g->header.data + e->at + i * size_of(e->kind), &value) &&
        value >= INT32_MIN && value <= INT32_MAX) {
      (*out)[i] = (int32_t)value;
      continue;
    }
    free(*out);
    *out = NULL;
    return refuse(g, key, "an array of integers that fit into 32 bits", e, err);
  }
  return 0;
}

int pdt_gguf_floats(const pdt_gguf *g, const char *key, float **out, size_t *n, pdt_error *err) {
  const pdt_gguf_entry *e;
  *out = NULL;
  if (look_up_array(g, key, &e, n, err)) return -1;
  if (!e) return 0;
  if (e->kind != PDT_GGUF_F32) return refuse(g, key, "an array of f32", e, err);
  if (PDT_NEW(out, *n, key, err)) return -1;
  for (size_t i = 0; i < *n; i++)
    (*out)[i] = (float)float_of(e->kind, g->header.data + e->at + i * sizeof(float));
  return 0;
}
