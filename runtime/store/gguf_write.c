#include "store/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { ALIGNMENT = 32, VERSION = 3 };

/* ---- metadata ---- */

static void put(pdt_gguf_metadata *m, const void *data, size_t bytes) {
  if (pdt_buffer_put(&m->bytes, data, bytes, NULL)) m->no_memory = true;
}

/* A number of so many bytes, little endian. */
static void put_number(pdt_gguf_metadata *m, uint64_t value, size_t bytes) {
  unsigned char raw[8];
  for (size_t i = 0; i < bytes; i++) raw[i] = (unsigned char)(value >> (8 * i));
  put(m, raw, bytes);
}

static void put_text(pdt_gguf_metadata *m, pdt_gguf_text text) {
  put_number(m, text.bytes, 8);
  if (text.bytes) put(m, text.text, text.bytes);
}

static void put_f32(pdt_gguf_metadata *m, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  put_number(m, bits, 4);
}

pdt_gguf_text pdt_gguf_text_of(const char *text) {
  return (pdt_gguf_text){text, strlen(text)};
}

static void begin(pdt_gguf_metadata *m, const char *key, pdt_gguf_kind kind) {
  put_text(m, pdt_gguf_text_of(key));
  put_number(m, kind, 4);
  m->n++;
}

static void begin_array(pdt_gguf_metadata *m, const char *key, pdt_gguf_kind kind, size_t n) {
  begin(m, key, PDT_GGUF_ARRAY);
  put_number(m, kind, 4);
  put_number(m, n, 8);
}

void pdt_gguf_put_u32(pdt_gguf_metadata *m, const char *key, uint32_t value) {
  begin(m, key, PDT_GGUF_U32);
  put_number(m, value, 4);
}

void pdt_gguf_put_f32(pdt_gguf_metadata *m, const char *key, float value) {
  begin(m, key, PDT_GGUF_F32);
  put_f32(m, value);
}

void pdt_gguf_put_bool(pdt_gguf_metadata *m, const char *key, bool value) {
  begin(m, key, PDT_GGUF_BOOL);
  put_number(m, value, 1);
}

void pdt_gguf_put_string(pdt_gguf_metadata *m, const char *key, pdt_gguf_text value) {
  begin(m, key, PDT_GGUF_STRING);
  put_text(m, value);
}

void pdt_gguf_put_strings(pdt_gguf_metadata *m, const char *key, const pdt_gguf_text *values,
                          size_t n) {
  begin_array(m, key, PDT_GGUF_STRING, n);
  for (size_t i = 0; i < n; i++) put_text(m, values[i]);
}

void pdt_gguf_put_i32s(pdt_gguf_metadata *m, const char *key, const int32_t *values, size_t n) {
  begin_array(m, key, PDT_GGUF_I32, n);
  for (size_t i = 0; i < n; i++) put_number(m, (uint32_t)values[i], 4);
}

void pdt_gguf_put_f32s(pdt_gguf_metadata *m, const char *key, const float *values, size_t n) {
  begin_array(m, key, PDT_GGUF_F32, n);
  for (size_t i = 0; i < n; i++) put_f32(m, values[i]);
}

void pdt_gguf_metadata_free(pdt_gguf_metadata *m) {
  pdt_buffer_free(&m->bytes);
}

/* ---- the file ---- */

static pdt_bytes aligned(pdt_bytes bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* One tensor's entry in the list; *offset moves past its data. */
static int put_tensor(pdt_gguf_metadata *list, const pdt_tensor_spec *t, pdt_bytes *offset,
                      pdt_error *err) {
  enum { MAX_NAME = 63 };
  const pdt_gguf_type *type = pdt_gguf_type_by_name(pdt_dtype_name(t->dtype));
  if (!type || strlen(t->name) > MAX_NAME || t->n_dims < 1 || t->n_dims > PDT_GGUF_DIMS ||
      t->shape[t->n_dims - 1] % type->elems)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "tensor '%.200s': expected a name of at most %d bytes, 1 to 4 dimensions, and "
                    "rows of whole blocks of %s",
                    t->name, MAX_NAME, pdt_dtype_name(t->dtype));
  put_text(list, pdt_gguf_text_of(t->name));
  put_number(list, (uint64_t)t->n_dims, 4);
  for (int32_t i = t->n_dims - 1; i >= 0; i--) put_number(list, (uint64_t)t->shape[i], 8);
  put_number(list, type->number, 4);
  put_number(list, (uint64_t)*offset, 8);
  *offset = aligned(*offset + pdt_dtype_row_bytes(t->dtype, pdt_tensor_spec_elems(t)));
  return 0;
}

/* All that stands before the data, up to its alignment. */
static int make_header(pdt_gguf_metadata *out, const pdt_gguf_metadata *m,
                       const pdt_tensor_spec *specs, int32_t n_specs, pdt_error *err) {
  pdt_bytes offset = 0;
  put(out, "GGUF", 4);
  put_number(out, VERSION, 4);
  put_number(out, (uint64_t)n_specs, 8);
  put_number(out, m->n, 8);
  if (m->bytes.bytes) put(out, m->bytes.data, m->bytes.bytes);
  for (int32_t i = 0; i < n_specs; i++)
    if (put_tensor(out, &specs[i], &offset, err)) return -1;
  while (!out->no_memory && out->bytes.bytes % ALIGNMENT) put_number(out, 0, 1);
  return out->no_memory || m->no_memory ? pdt_fail(err, PDT_ERROR_MEMORY, "header: no memory") : 0;
}

/* One tensor's data and the bytes up to the next one's. */
static int write_tensor(pdt_new_file *file, const pdt_tensor_spec *spec, int32_t index,
                        pdt_tensor_source source, void *context, void *chunk, pdt_error *err) {
  static const char zeros[ALIGNMENT];
  int64_t total = pdt_tensor_spec_elems(spec);
  pdt_bytes bytes = pdt_dtype_row_bytes(spec->dtype, total);
  for (int64_t at = 0; at < total; at += PDT_WRITE_CHUNK_ELEMS) {
    int64_t n = total - at < PDT_WRITE_CHUNK_ELEMS ? total - at : PDT_WRITE_CHUNK_ELEMS;
    if (source(context, index, at, n, chunk, err) ||
        pdt_new_file_write(file, chunk, pdt_dtype_row_bytes(spec->dtype, n), err))
      return -1;
  }
  return pdt_new_file_write(file, zeros, aligned(bytes) - bytes, err);
}

static int write_all(pdt_new_file *file, const pdt_buffer *header, const pdt_tensor_spec *specs,
                     int32_t n_specs, pdt_tensor_source source, void *context, pdt_error *err) {
  float *chunk; /* room for the widest type */
  if (PDT_NEW(&chunk, PDT_WRITE_CHUNK_ELEMS, "chunk", err)) return -1;
  int rc = pdt_new_file_write(file, header->data, (pdt_bytes)header->bytes, err);
  for (int32_t i = 0; !rc && i < n_specs; i++)
    rc = write_tensor(file, &specs[i], i, source, context, chunk, err);
  free(chunk);
  return rc;
}

int pdt_gguf_write(const char *path, const pdt_gguf_metadata *m, const pdt_tensor_spec *specs,
                   int32_t n_specs, pdt_tensor_source source, void *context, pdt_error *err) {
  pdt_gguf_metadata header = {0};
  pdt_new_file file;
  int rc = make_header(&header, m, specs, n_specs, err);
  if (rc) pdt_fail_in(err, "%.200s", path);
  if (!rc) rc = pdt_new_file_open(&file, path, err);
  if (!rc && write_all(&file, &header.bytes, specs, n_specs, source, context, err)) {
    pdt_new_file_abandon(&file);
    rc = -1;
  }
  pdt_gguf_metadata_free(&header);
  return rc ? rc : pdt_new_file_commit(&file, err);
}
