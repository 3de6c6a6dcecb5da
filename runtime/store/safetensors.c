#include "store/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

/* The format's own limit: a larger header is a damaged length. */
static const pdt_bytes max_header_bytes = 100000000;

typedef struct dtype_info {
  const char *name;
  int32_t bits;
} dtype_info;

static const dtype_info dtypes[] = {
    {"F32", 32},        {"F16", 16},        {"BF16", 16},   {"F64", 64},    {"I64", 64},
    {"I32", 32},        {"I16", 16},        {"I8", 8},      {"U64", 64},    {"U32", 32},
    {"U16", 16},        {"U8", 8},          {"BOOL", 8},    {"C64", 64},    {"F8_E4M3", 8},
    {"F4", 4},          {"F8_E5M2", 8},     {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};

static const dtype_info *find_dtype(const char *name) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(name, dtypes[i].name) == 0) return &dtypes[i];
  return NULL;
}

void pdt_shape_text(int32_t n_dims, const int64_t *shape, char *text, size_t room) {
  size_t at = (size_t)snprintf(text, room, "[");
  for (int32_t i = 0; i < n_dims && at < room; i++)
    at += (size_t)snprintf(text + at, room - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
  if (at < room) snprintf(text + at, room - at, "]");
}

/* Reads "shape" and the number of elements it makes. */
static int parse_shape(pdt_tensor *t, const json_t *entry, const char *where, pdt_error *err) {
  const json_t *shape;
  if (pdt_json_array(entry, where, "shape", &shape, err)) return -1;
  size_t n = json_array_size(shape);
  if (n > PDT_TENSOR_DIMS)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'shape': expected at most %d dimensions, found %zu",
                    where, PDT_TENSOR_DIMS, n);
  char list[560];
  snprintf(list, sizeof list, "%s: shape", where);
  t->n_dims = (int32_t)n;
  t->n_elems = 1;
  for (size_t i = 0; i < n; i++) {
    if (pdt_json_element_integer(shape, list, i, 0, INT64_MAX, &t->shape[i], err)) return -1;
    if (__builtin_mul_overflow(t->n_elems, t->shape[i], &t->n_elems))
      return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'shape': more elements than can be counted",
                      where);
  }
  return 0;
}

/* Reads "data_offsets" and holds them against the file and, where the type is known (bits > 0), the
 * shape. */
static int parse_place(pdt_tensor *t, const json_t *entry, int32_t bits, const char *where,
                       pdt_error *err) {
  const pdt_safetensors *file = t->file;
  const json_t *offsets;
  if (pdt_json_array(entry, where, "data_offsets", &offsets, err)) return -1;
  if (json_array_size(offsets) != 2)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: 'data_offsets': expected 2 numbers, found %zu",
                    where, json_array_size(offsets));
  pdt_bytes room = file->file_bytes - file->data_offset;
  int64_t begin, end, total_bits;
  char what[32] = "data_offsets";
  if (pdt_json_element_integer(offsets, what, 0, 0, room, &begin, err) ||
      pdt_json_element_integer(offsets, what, 1, begin, room, &end, err))
    return pdt_fail_in(err, "%s (the file has %lld bytes of data)", where, (long long)room);
  if (bits > 0 && (__builtin_mul_overflow(t->n_elems, bits, &total_bits) || total_bits % 8 ||
                   total_bits / 8 != end - begin)) {
    char shape[160];
    pdt_shape_text(t->n_dims, t->shape, shape, sizeof shape);
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %lld bytes of data do not make shape %s of %s",
                    where, (long long)(end - begin), shape, t->dtype_name);
  }
  t->at = file->data_offset + begin;
  t->bytes = end - begin;
  return 0;
}

static int parse_tensor(pdt_tensor *t, const json_t *entry, pdt_error *err) {
  char where[512];
  snprintf(where, sizeof where, "%s: tensor '%.200s'", t->file->path, t->name);
  const char *dtype_name;
  if (pdt_json_expect_object(entry, where, err) ||
      pdt_json_string(entry, where, "dtype", &dtype_name, err))
    return -1;
  const dtype_info *dtype = find_dtype(dtype_name);
  t->dtype_name = dtype ? dtype->name : dtype_name;
  t->is_float = pdt_dtype_parse_float(t->dtype_name, &t->dtype);
  if (parse_shape(t, entry, where, err)) return -1;
  return parse_place(t, entry, dtype ? dtype->bits : 0, where, err);
}

static int by_place(const void *a, const void *b) {
  const pdt_tensor *x = a, *y = b;
  if (x->at != y->at) return x->at < y->at ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first */
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const pdt_tensor *)a)->name, ((const pdt_tensor *)b)->name);
}

/* Tensors must follow one another from the first byte of data to the last. */
static int check_cover(pdt_safetensors *file, pdt_error *err) {
  pdt_bytes data = file->data_offset, at = data, end = file->file_bytes;
  qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_place);
  for (int32_t i = 0; i < file->n_tensors; i++) {
    const pdt_tensor *t = &file->tensors[i];
    if (t->at != at)
      return pdt_fail(err, PDT_ERROR_INPUT,
                      "%s: tensor '%.200s': %s: expected its data at offset %lld, found %lld",
                      file->path, t->name, t->at < at ? "overlaps another" : "hole before it",
                      (long long)(at - data), (long long)(t->at - data));
    at += t->bytes;
  }
  if (at != end)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: %lld bytes after the last tensor's data", file->path,
                    (long long)(end - at));
  qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_name);
  return 0;
}

static int check_metadata(const pdt_safetensors *file, const json_t *metadata, pdt_error *err) {
  char where[320];
  snprintf(where, sizeof where, "%.256s: __metadata__", file->path);
  if (json_is_null(metadata)) return 0;
  if (pdt_json_expect_object(metadata, where, err)) return -1;
  const char *key, *text;
  const json_t *value;
  json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
    if (pdt_json_unusable(value)) continue; /* nobody asks for it: a text with a zero in it */
    if (pdt_json_string(metadata, where, key, &text, err)) return -1;
  }
  return 0;
}

static int parse_tensors(pdt_safetensors *file, pdt_error *err) {
  if (PDT_NEW(&file->tensors, json_object_size(file->header), "list of tensors", err)) return -1;
  const char *key;
  json_t *entry;
  json_object_foreach(file->header, key, entry) {
    if (strcmp(key, "__metadata__") == 0) {
      if (check_metadata(file, entry, err)) return -1;
      continue;
    }
    pdt_tensor *t = &file->tensors[file->n_tensors];
    t->file = file;
    t->name = key;
    if (parse_tensor(t, entry, err)) return -1;
    file->n_tensors++;
  }
  return check_cover(file, err);
}

/* Bytes [first, first + n) of the file into `out`. */
static int read_bytes(const pdt_safetensors *file, pdt_bytes first, pdt_bytes n, void *out,
                      const char *what, pdt_error *err) {
  if (file->bytes) {
    memcpy(out, file->bytes + first, (size_t)n);
    return 0;
  }
  for (char *to = out; n > 0;) {
    ssize_t got = pread(file->fd, to, (size_t)n, first);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return pdt_fail(err, PDT_ERROR_IO, "%s: %.200s: cannot read: %s", file->path, what,
                      strerror(errno));
    if (got == 0)
      return pdt_fail(err, PDT_ERROR_IO,
                      "%s: %.200s: the file's byte %lld of %lld is gone (hint: it was cut while it "
                      "was being read)",
                      file->path, what, (long long)first, (long long)file->file_bytes);
    to += got;
    first += got;
    n -= got;
  }
  return 0;
}

static int parse_header(pdt_safetensors *file, pdt_bytes length, pdt_error *err) {
  char where[320], *text;
  snprintf(where, sizeof where, "%.256s: header", file->path);
  if (PDT_NEW(&text, length, where, err)) return -1;
  int rc = read_bytes(file, 8, length, text, "header", err);
  pdt_bytes blank = 0;
  while (!rc && blank < length && strchr(" \t\r\n", text[blank]) && text[blank]) blank++;
  if (!rc && (blank == length || text[blank] != '{'))
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected it to begin with '{'", where);
  if (!rc) rc = pdt_json_parse_serde(&file->header, text, (size_t)length, where, err);
  free(text);
  return rc;
}

static int parse_file(pdt_safetensors *file, pdt_error *err) {
  if (file->file_bytes < 10)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: truncated: %lld bytes are too few for a safetensors file", file->path,
                    (long long)file->file_bytes);
  unsigned char start[8]; /* the header's length */
  uint64_t length = 0;
  if (read_bytes(file, 0, sizeof start, start, "header", err)) return -1;
  for (int i = 7; i >= 0; i--) length = length << 8 | start[i];
  if (length > (uint64_t)max_header_bytes || (pdt_bytes)length > file->file_bytes - 8)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: header length: expected at most %lld, found %llu (hint: the file is cut "
                    "short, or is no safetensors file)",
                    file->path,
                    (long long)(file->file_bytes - 8 < max_header_bytes ? file->file_bytes - 8
                                                                        : max_header_bytes),
                    (unsigned long long)length);
  if (length < 2)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: header: expected it to begin with '{'", file->path);
  file->data_offset = 8 + (pdt_bytes)length;
  if (parse_header(file, (pdt_bytes)length, err)) return -1;
  return parse_tensors(file, err);
}

/* A file whose bytes are set, checked; frees it on error. */
static int finish_open(pdt_safetensors **out, pdt_safetensors *file, pdt_error *err) {
  if (parse_file(file, err)) {
    pdt_safetensors_close(file);
    return -1;
  }
  *out = file;
  return 0;
}

static int new_file(pdt_safetensors **out, const char *path, pdt_error *err) {
  if (PDT_NEW(out, 1, "safetensors file", err)) return -1;
  (*out)->fd = -1;
  (*out)->path = strdup(path);
  if ((*out)->path) return 0;
  free(*out);
  *out = NULL;
  return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", path);
}

int pdt_safetensors_open_memory(pdt_safetensors **out, const void *bytes, pdt_bytes n_bytes,
                                const char *path, pdt_error *err) {
  *out = NULL;
  pdt_safetensors *file;
  if (new_file(&file, path, err)) return -1;
  file->bytes = bytes;
  file->file_bytes = n_bytes;
  return finish_open(out, file, err);
}

int pdt_safetensors_open(pdt_safetensors **out, const char *path, pdt_error *err) {
  *out = NULL;
  pdt_safetensors *file;
  if (new_file(&file, path, err)) return -1;
  file->fd = pdt_file_open(path, err);
  int rc = file->fd < 0 ? -1 : 0;
  if (!rc) rc = pdt_file_state_of_open(&file->state, file->fd, path, err);
  if (!rc && !file->state.regular)
    rc = pdt_fail(err, PDT_ERROR_INPUT, "%s: expected a regular file, found another kind", path);
  file->file_bytes = file->state.bytes;
  if (!rc) return finish_open(out, file, err);
  pdt_safetensors_close(file);
  return -1;
}

int pdt_safetensors_unchanged(const pdt_safetensors *file, pdt_error *err) {
  return file->fd < 0 ? 0 : pdt_file_unchanged_open(&file->state, file->fd, file->path, err);
}

void pdt_safetensors_close(pdt_safetensors *file) {
  if (!file) return;
  if (file->fd >= 0) close(file->fd);
  json_decref(file->header);
  free(file->names);
  free(file->tensors);
  free(file->path);
  free(file);
}

const pdt_tensor *pdt_safetensors_find(const pdt_safetensors *file, const char *name) {
  const pdt_tensor key = {.name = name};
  return bsearch(&key, file->tensors, (size_t)file->n_tensors, sizeof key, by_name);
}

const char *pdt_safetensors_metadata(const pdt_safetensors *file, const char *key) {
  return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

int pdt_tensor_expect(const pdt_tensor *tensor, int32_t n_dims, const int64_t *shape,
                      pdt_error *err) {
  if (!tensor->is_float)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: tensor '%.200s': expected dtype F32, F16 or BF16, found %s",
                    tensor->file->path, tensor->name, tensor->dtype_name);
  bool same = tensor->n_dims == n_dims;
  for (int32_t i = 0; same && i < n_dims; i++) same = tensor->shape[i] == shape[i];
  if (same) return 0;
  char expected[160], found[160];
  pdt_shape_text(n_dims, shape, expected, sizeof expected);
  pdt_shape_text(tensor->n_dims, tensor->shape, found, sizeof found);
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: tensor '%.200s': expected shape %s, found %s",
                  tensor->file->path, tensor->name, expected, found);
}

static int read_elems(const pdt_tensor *tensor, int64_t first, int64_t n_elems, void *out,
                      pdt_error *err) {
  return read_bytes(tensor->file, tensor->at + pdt_dtype_row_bytes(tensor->dtype, first),
                    pdt_dtype_row_bytes(tensor->dtype, n_elems), out, tensor->name, err);
}

/* The row of the file that is row `row` of a tensor whose heads have their rows in pairs: of the
 * head's first half the even ones, of its second half the odd ones. */
static int64_t row_in_file(const pdt_tensor *tensor, int64_t row) {
  int64_t head = row / tensor->pairs, at = row % tensor->pairs, half = tensor->pairs / 2;
  return head * tensor->pairs + 2 * (at % half) + at / half;
}

int pdt_tensor_read(const pdt_tensor *tensor, int64_t first, int64_t n_elems, void *out,
                    pdt_error *err) {
  if (!tensor->pairs) return read_elems(tensor, first, n_elems, out, err);
  int64_t width = tensor->n_dims > 1 ? tensor->shape[1] : 1;
  for (char *to = out; n_elems > 0;) {
    int64_t col = first % width, n = n_elems < width - col ? n_elems : width - col;
    if (read_elems(tensor, row_in_file(tensor, first / width) * width + col, n, to, err)) return -1;
    to += pdt_dtype_row_bytes(tensor->dtype, n);
    first += n;
    n_elems -= n;
  }
  return 0;
}

void pdt_tensor_will_read(const pdt_tensor *tensor, int64_t first, int64_t n_elems) {
  if (tensor->file->fd < 0) return;
  (void)posix_fadvise(tensor->file->fd, tensor->at + pdt_dtype_row_bytes(tensor->dtype, first),
                      pdt_dtype_row_bytes(tensor->dtype, n_elems), POSIX_FADV_WILLNEED);
}

/* A fingerprint under way. */
typedef struct hashing {
  uint64_t value;
  XXH3_state_t *state;
  char *room; /* [HASH_BYTES], read at once */
} hashing;
enum { HASH_BYTES = 1 << 20, HASH_CHUNK = 16 << 20 };

/* Bytes [first, first + bytes) of the file, chained onto the value chunk by chunk. */
static int hash_range(const pdt_safetensors *file, pdt_bytes first, pdt_bytes bytes, hashing *h,
                      pdt_error *err) {
  for (pdt_bytes at = 0; at < bytes; at += HASH_BYTES) {
    pdt_bytes n = bytes - at < HASH_BYTES ? bytes - at : HASH_BYTES;
    if (read_bytes(file, first + at, n, h->room, "fingerprint", err)) return -1;
    if (at % HASH_CHUNK == 0) XXH3_64bits_reset_withSeed(h->state, h->value);
    XXH3_64bits_update(h->state, h->room, (size_t)n);
    if ((at + n) % HASH_CHUNK == 0 || at + n == bytes) h->value = XXH3_64bits_digest(h->state);
  }
  return 0;
}

/* Header, and both ends of every tensor. */
static int hash_samples(const pdt_safetensors *file, hashing *h, pdt_error *err) {
  const pdt_bytes sample = 4096;
  if (hash_range(file, 0, file->data_offset, h, err)) return -1;
  for (int32_t i = 0; i < file->n_tensors; i++) {
    const pdt_tensor *t = &file->tensors[i];
    pdt_bytes n = t->bytes < sample ? t->bytes : sample;
    if (hash_range(file, t->at, n, h, err) || hash_range(file, t->at + t->bytes - n, n, h, err))
      return -1;
  }
  return 0;
}

int pdt_safetensors_fingerprint(const pdt_safetensors *file, pdt_fingerprint_mode mode,
                                uint64_t *out, pdt_error *err) {
  uint64_t start[2] = {(uint64_t)mode, (uint64_t)file->file_bytes};
  hashing h = {.value = XXH3_64bits(start, sizeof start), .state = XXH3_createState()};
  int rc = PDT_NEW(&h.room, HASH_BYTES, "fingerprint", err);
  if (!rc && !h.state) rc = pdt_fail(err, PDT_ERROR_MEMORY, "fingerprint: no memory");
  if (!rc)
    rc = mode == PDT_FINGERPRINT_FULL ? hash_range(file, 0, file->file_bytes, &h, err)
                                      : hash_samples(file, &h, err);
  free(h.room);
  XXH3_freeState(h.state);
  *out = h.value;
  return rc;
}
