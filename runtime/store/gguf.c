#include "store/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/utf8.h"

enum {
  READ_BYTES = 1 << 20, /* of the header at a time */
  MAX_KEY_BYTES = 65535,
  MAX_NAME_BYTES = 63,
  DEFAULT_ALIGNMENT = 32,
  MAX_ALIGNMENT = 1 << 24
};

static const pdt_gguf_type types[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
};

const pdt_gguf_type *pdt_gguf_type_by_number(uint32_t number) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].number == number) return &types[i];
  return NULL;
}

const pdt_gguf_type *pdt_gguf_type_by_name(const char *name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i].name, name) == 0) return &types[i];
  return NULL;
}

static const struct kind_info {
  const char *name;
  uint32_t bytes; /* 0: of no fixed size */
} kinds[PDT_GGUF_KINDS] = {
    [PDT_GGUF_U8] = {"u8", 1},         [PDT_GGUF_I8] = {"i8", 1},
    [PDT_GGUF_U16] = {"u16", 2},       [PDT_GGUF_I16] = {"i16", 2},
    [PDT_GGUF_U32] = {"u32", 4},       [PDT_GGUF_I32] = {"i32", 4},
    [PDT_GGUF_F32] = {"f32", 4},       [PDT_GGUF_BOOL] = {"bool", 1},
    [PDT_GGUF_STRING] = {"string", 0}, [PDT_GGUF_ARRAY] = {"array", 0},
    [PDT_GGUF_U64] = {"u64", 8},       [PDT_GGUF_I64] = {"i64", 8},
    [PDT_GGUF_F64] = {"f64", 8},
};

const char *pdt_gguf_kind_name(pdt_gguf_kind kind) {
  return kinds[kind].name;
}

bool pdt_is_gguf(const char *path) {
  struct stat status;
  char magic[4] = "";
  if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) return false;
  const char *end = strrchr(path, '.');
  if (end && strcmp(end, ".gguf") == 0) return true;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  bool is = fd >= 0 && read(fd, magic, sizeof magic) == sizeof magic &&
            memcmp(magic, "GGUF", sizeof magic) == 0;
  if (fd >= 0) close(fd);
  return is;
}

int pdt_gguf_read(const pdt_gguf *g, pdt_bytes first, pdt_bytes n, void *out, pdt_error *err) {
  if (g->bytes) {
    memcpy(out, g->bytes + first, (size_t)n);
    return 0;
  }
  for (char *to = out; n > 0;) {
    ssize_t got = pread(g->fd, to, (size_t)n, first);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return pdt_fail(err, PDT_ERROR_IO, "%s: cannot read: %s", g->path, strerror(errno));
    if (got == 0)
      return pdt_fail(err, PDT_ERROR_IO,
                      "%s: the file's byte %lld of %lld is gone (hint: it was cut while it was "
                      "being read)",
                      g->path, (long long)first, (long long)g->file_bytes);
    to += got;
    first += got;
    n -= got;
  }
  return 0;
}

/* ---- the header, from its first byte to its last ---- */

/* Where the reading stands. */
typedef struct reader {
  pdt_gguf *g;
  uint64_t at;
  char where[256]; /* what is being read, for errors */
  pdt_error *err;
} reader;

static int refuse(const reader *r, const char *expected, const char *found) {
  return pdt_fail(r->err, PDT_ERROR_INPUT, "%s: %s: expected %s, found %s", r->g->path, r->where,
                  expected, found);
}

static uint64_t left(const reader *r) {
  return (uint64_t)r->g->file_bytes - r->at;
}

/* Makes sure that n bytes from here on are in memory. */
static int need(reader *r, uint64_t n) {
  pdt_gguf *g = r->g;
  if (n > left(r))
    return pdt_fail(r->err, PDT_ERROR_INPUT,
                    "%s: %s: expected %llu bytes more, found %llu (hint: the file is cut short, or "
                    "a length in it is damaged)",
                    g->path, r->where, (unsigned long long)n, (unsigned long long)left(r));
  while (g->header.bytes < r->at + n) {
    uint64_t rest = (uint64_t)g->file_bytes - g->header.bytes,
             missing = r->at + n - g->header.bytes;
    uint64_t more = missing < READ_BYTES ? READ_BYTES : missing;
    if (more > rest) more = rest;
    if (pdt_buffer_reserve(&g->header, more, r->err) ||
        pdt_gguf_read(g, (pdt_bytes)g->header.bytes, (pdt_bytes)more,
                      g->header.data + g->header.bytes, r->err))
      return -1;
    g->header.bytes += more;
  }
  return 0;
}

static uint64_t number_at(const char *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i-- > 0;) value = value << 8 | (unsigned char)at[i];
  return value;
}

/* An unsigned number of so many bytes, little endian. */
static int take(reader *r, size_t bytes, uint64_t *out) {
  if (need(r, bytes)) return -1;
  *out = number_at(r->g->header.data + r->at, bytes);
  r->at += bytes;
  return 0;
}

/* A string's place. */
static int take_string(reader *r, size_t *at, size_t *bytes) {
  uint64_t n;
  if (take(r, 8, &n) || need(r, n)) return -1;
  *at = (size_t)r->at;
  *bytes = (size_t)n;
  r->at += n;
  return 0;
}

/* A key or a tensor's name: text without control characters. */
static int take_name(reader *r, size_t most, size_t *at, size_t *bytes) {
  char found[48];
  if (take_string(r, at, bytes)) return -1;
  const char *text = r->g->header.data + *at;
  if (*bytes < 1 || *bytes > most) {
    snprintf(found, sizeof found, "%zu", *bytes);
    return refuse(
        r, most == MAX_NAME_BYTES ? "a name of 1 to 63 bytes" : "a key of 1 to 65535 bytes", found);
  }
  bool plain = pdt_utf8_valid(text, *bytes) == *bytes;
  for (size_t i = 0; plain && i < *bytes; i++) plain = (unsigned char)text[i] >= ' ';
  return plain ? 0 : refuse(r, "a name of printable UTF-8", "other bytes");
}

/* ---- metadata ---- */

/* Passes over the values of an entry, each of which lies inside the file. */
static int pass_values(reader *r, const pdt_gguf_entry *e) {
  char found[48];
  uint32_t size = kinds[e->kind].bytes;
  uint64_t least = size ? size : 8;
  if (e->n > left(r) / least) {
    snprintf(found, sizeof found, "%llu", (unsigned long long)e->n);
    return refuse(r, "no more values than the file has room for", found);
  }
  if (size) {
    if (need(r, e->n * size)) return -1;
    r->at += e->n * size;
    return 0;
  }
  for (uint64_t i = 0; i < e->n; i++) {
    size_t at, bytes;
    if (take_string(r, &at, &bytes)) return -1;
  }
  return 0;
}

static int take_kind(reader *r, bool in_array, pdt_gguf_kind *out) {
  uint64_t number;
  char found[48];
  if (take(r, 4, &number)) return -1;
  snprintf(found, sizeof found, "%llu", (unsigned long long)number);
  if (number >= PDT_GGUF_KINDS) return refuse(r, "a type of value from 0 to 12", found);
  if (in_array && number == PDT_GGUF_ARRAY) return refuse(r, "an array of plain values", "arrays");
  *out = (pdt_gguf_kind)number;
  return 0;
}

static int take_entry(reader *r, uint64_t index) {
  pdt_gguf *g = r->g;
  pdt_gguf_entry e = {.n = 1};
  snprintf(r->where, sizeof r->where, "metadata %llu", (unsigned long long)index);
  if (take_name(r, MAX_KEY_BYTES, &e.key_at, &e.key_bytes)) return -1;
  snprintf(r->where, sizeof r->where, "'%.*s'", e.key_bytes < 200 ? (int)e.key_bytes : 200,
           g->header.data + e.key_at);
  if (take_kind(r, false, &e.kind)) return -1;
  e.is_array = e.kind == PDT_GGUF_ARRAY;
  if (e.is_array && (take_kind(r, true, &e.kind) || take(r, 8, &e.n))) return -1;
  e.at = (size_t)r->at;
  if (pass_values(r, &e) || PDT_GROW(&g->entries, g->n_entries, &g->room_entries, r->err))
    return -1;
  g->entries[g->n_entries++] = e;
  return 0;
}

/* A key's bytes, and then its length. */
static int compare_texts(pdt_gguf_text a, pdt_gguf_text b) {
  int order = memcmp(a.text, b.text, a.bytes < b.bytes ? a.bytes : b.bytes);
  return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int by_key(const void *a, const void *b, void *g) {
  return compare_texts(pdt_gguf_key(g, a), pdt_gguf_key(g, b));
}

static int sort_entries(pdt_gguf *g, pdt_error *err) {
  if (g->n_entries) qsort_r(g->entries, g->n_entries, sizeof *g->entries, by_key, g);
  for (size_t i = 1; i < g->n_entries; i++) {
    pdt_gguf_text key = pdt_gguf_key(g, &g->entries[i]);
    if (compare_texts(key, pdt_gguf_key(g, &g->entries[i - 1])) == 0)
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: '%.*s': expected the key once, found it twice",
                      g->path, key.bytes < 200 ? (int)key.bytes : 200, key.text);
  }
  return 0;
}

/* ---- tensors ---- */

static int take_dims(reader *r, pdt_gguf_tensor *t) {
  uint64_t n, dim;
  char found[48];
  if (take(r, 4, &n)) return -1;
  snprintf(found, sizeof found, "%llu", (unsigned long long)n);
  if (n < 1 || n > PDT_GGUF_DIMS) return refuse(r, "1 to 4 dimensions", found);
  t->n_dims = (int32_t)n;
  t->n_elems = 1;
  for (int32_t i = 0; i < t->n_dims; i++) {
    if (take(r, 8, &dim)) return -1;
    snprintf(found, sizeof found, "%llu", (unsigned long long)dim);
    if (dim < 1 || dim > INT64_MAX) return refuse(r, "a dimension of 1 or more", found);
    t->dims[i] = (int64_t)dim;
    if (__builtin_mul_overflow(t->n_elems, t->dims[i], &t->n_elems))
      return refuse(r, "a shape that can be counted", "more elements than that");
  }
  return 0;
}

/* The type, and the bytes that it makes of the shape. */
static int take_type(reader *r, pdt_gguf_tensor *t) {
  uint64_t number;
  char found[48], expected[64];
  if (take(r, 4, &number)) return -1;
  snprintf(found, sizeof found, "%llu", (unsigned long long)number);
  t->type = pdt_gguf_type_by_number((uint32_t)number);
  if (!t->type) return refuse(r, "a known type", found);
  snprintf(found, sizeof found, "%lld", (long long)t->dims[0]);
  snprintf(expected, sizeof expected, "rows of a multiple of %d elements, for %s", t->type->elems,
           t->type->name);
  if (t->dims[0] % t->type->elems) return refuse(r, expected, found);
  if (__builtin_mul_overflow(t->n_elems / t->type->elems, t->type->bytes, &t->bytes))
    return refuse(r, "a shape that can be counted", "more bytes than that");
  return 0;
}

static int take_tensor(reader *r, uint64_t index) {
  pdt_gguf *g = r->g;
  pdt_gguf_tensor t = {0};
  size_t at, bytes;
  uint64_t offset;
  snprintf(r->where, sizeof r->where, "tensor %llu", (unsigned long long)index);
  if (take_name(r, MAX_NAME_BYTES, &at, &bytes)) return -1;
  snprintf(r->where, sizeof r->where, "tensor '%.*s'", (int)bytes, g->header.data + at);
  if (take_dims(r, &t) || take_type(r, &t) || take(r, 8, &offset)) return -1;
  if (offset > INT64_MAX) return refuse(r, "an offset in the file", "one beyond 2^63");
  t.at = (pdt_bytes)offset;
  if (PDT_GROW(&g->tensors, g->n_tensors, &g->room_tensors, r->err)) return -1;
  t.name = strndup(g->header.data + at, bytes);
  if (!t.name) return pdt_fail(r->err, PDT_ERROR_MEMORY, "%s: no memory", g->path);
  g->tensors[g->n_tensors++] = t;
  return 0;
}

static int alignment_of(const pdt_gguf *g, pdt_bytes *out, pdt_error *err) {
  int64_t value = DEFAULT_ALIGNMENT;
  bool found;
  if (pdt_gguf_integer(g, "general.alignment", 1, MAX_ALIGNMENT, &value, &found, err)) return -1;
  if (value & (value - 1))
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: 'general.alignment': expected a power of two, found %lld", g->path,
                    (long long)value);
  *out = value;
  return 0;
}

/* Puts tensors where they are in the file: one behind another, each at the next multiple. */
static int place_tensors(reader *r) {
  pdt_gguf *g = r->g;
  pdt_bytes align = 1, at = 0;
  if (alignment_of(g, &align, r->err)) return -1;
  pdt_bytes data = ((pdt_bytes)r->at + align - 1) / align * align;
  g->data_offset = g->n_tensors ? data : (pdt_bytes)r->at;
  for (size_t i = 0; i < g->n_tensors; i++) {
    pdt_gguf_tensor *t = &g->tensors[i];
    if (t->at != at)
      return pdt_fail(r->err, PDT_ERROR_INPUT,
                      "%s: tensor '%s': %s: expected its data at offset %lld, found %lld", g->path,
                      t->name, t->at < at ? "overlaps another" : "hole before it", (long long)at,
                      (long long)t->at);
    if (data > g->file_bytes || t->bytes > g->file_bytes - data - at)
      return pdt_fail(r->err, PDT_ERROR_INPUT,
                      "%s: tensor '%s': expected %lld bytes at offset %lld, found %lld in the file "
                      "(hint: the file is cut short)",
                      g->path, t->name, (long long)t->bytes, (long long)at,
                      (long long)(g->file_bytes - data - at < 0 ? 0 : g->file_bytes - data - at));
    t->at = data + at;
    at = (at + t->bytes + align - 1) / align * align;
    if (data + at > g->file_bytes)
      at = g->file_bytes - data; /* the last one's padding is optional */
  }
  if (data + at < g->file_bytes && g->n_tensors)
    return pdt_fail(r->err, PDT_ERROR_INPUT, "%s: %lld bytes after the last tensor's data", g->path,
                    (long long)(g->file_bytes - data - at));
  return 0;
}

static int by_name(const void *a, const void *b) {
  const pdt_gguf_tensor *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

static int check_names(const pdt_gguf *g, pdt_error *err) {
  const pdt_gguf_tensor **sorted;
  int rc = 0;
  if (PDT_NEW(&sorted, g->n_tensors, "list of tensors", err)) return -1;
  for (size_t i = 0; i < g->n_tensors; i++) sorted[i] = &g->tensors[i];
  if (g->n_tensors) qsort((void *)sorted, g->n_tensors, sizeof *sorted, by_name);
  for (size_t i = 1; i < g->n_tensors && !rc; i++)
    if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0)
      rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%s': there are two of that name", g->path,
                    sorted[i]->name);
  free((void *)sorted);
  return rc;
}

/* ---- the file ---- */

static int take_version(reader *r) {
  uint64_t magic, version;
  snprintf(r->where, sizeof r->where, "header");
  if (take(r, 4, &magic) || take(r, 4, &version)) return -1;
  if (magic != 0x46554747) return refuse(r, "a file that begins with 'GGUF'", "another one");
  r->g->version = (uint32_t)version;
  if (version == 2 || version == 3) return 0;
  uint32_t swapped = __builtin_bswap32((uint32_t)version);
  if (swapped >= 1 && swapped <= 3)
    return refuse(r, "little-endian numbers", "a big-endian file (hint: convert it)");
  char found[64];
  snprintf(found, sizeof found, "%llu%s", (unsigned long long)version,
           version == 1 ? " (hint: convert the model anew; version 1 is of 2023)" : "");
  return refuse(r, "version 2 or 3", found);
}

/* A count of things that take at least so many bytes each. */
static int take_count(reader *r, const char *what, uint64_t least, uint64_t *out) {
  char expected[80], found[48];
  if (take(r, 8, out)) return -1;
  snprintf(expected, sizeof expected, "no more %s than the file has room for", what);
  snprintf(found, sizeof found, "%llu", (unsigned long long)*out);
  return *out <= left(r) / least ? 0 : refuse(r, expected, found);
}

static int parse(pdt_gguf *g, pdt_error *err) {
  enum { LEAST_ENTRY = 8 + 1 + 4 + 1, LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8 };
  reader r = {.g = g, .err = err};
  uint64_t n_tensors, n_entries;
  if (take_version(&r) || take_count(&r, "tensors", LEAST_TENSOR, &n_tensors) ||
      take_count(&r, "metadata", LEAST_ENTRY, &n_entries))
    return -1;
  for (uint64_t i = 0; i < n_entries; i++)
    if (take_entry(&r, i)) return -1;
  if (sort_entries(g, err)) return -1;
  for (uint64_t i = 0; i < n_tensors; i++)
    if (take_tensor(&r, i)) return -1;
  return check_names(g, err) || place_tensors(&r) ? -1 : 0;
}

static int new_file(pdt_gguf **out, const char *path, pdt_error *err) {
  *out = NULL;
  pdt_gguf *g;
  if (PDT_NEW(&g, 1, "GGUF file", err)) return -1;
  g->fd = -1;
  g->path = strdup(path);
  if (!g->path) {
    free(g);
    return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
  }
  *out = g;
  return 0;
}

/* A file whose bytes are set, checked; closed on error. */
static int finish_open(pdt_gguf **out, pdt_gguf *g, pdt_error *err) {
  *out = NULL;
  if (parse(g, err)) {
    pdt_gguf_close(g);
    return -1;
  }
  *out = g;
  return 0;
}

int pdt_gguf_open_memory(pdt_gguf **out, const void *bytes, pdt_bytes n_bytes, const char *path,
                         pdt_error *err) {
  pdt_gguf *g;
  if (new_file(out, path, err)) return -1;
  g = *out;
  g->bytes = bytes;
  g->file_bytes = n_bytes;
  return finish_open(out, g, err);
}

int pdt_gguf_open(pdt_gguf **out, const char *path, pdt_error *err) {
  pdt_gguf *g;
  if (new_file(out, path, err)) return -1;
  g = *out;
  g->fd = pdt_file_open(path, err);
  int rc = g->fd < 0 ? -1 : pdt_file_state_of_open(&g->state, g->fd, path, err);
  if (!rc && !g->state.regular)
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a regular file, found another kind", path);
  g->file_bytes = g->state.bytes;
  if (!rc) return finish_open(out, g, err);
  pdt_gguf_close(g);
  *out = NULL;
  return -1;
}

void pdt_gguf_close(pdt_gguf *g) {
  if (!g) return;
  if (g->fd >= 0) close(g->fd);
  for (size_t i = 0; i < g->n_tensors; i++) free(g->tensors[i].name);
  free(g->tensors);
  free(g->entries);
  pdt_buffer_free(&g->header);
  free(g->path);
  free(g);
}
