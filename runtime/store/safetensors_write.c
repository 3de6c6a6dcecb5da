#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "store/safetensors.h"

int64_t pdt_tensor_spec_elems(const pdt_tensor_spec *spec) {
  int64_t n = 1;
  for (int32_t i = 0; i < spec->n_dims; i++) n *= spec->shape[i];
  return n;
}

static int spec_bytes(const pdt_tensor_spec *spec, pdt_bytes *out, pdt_error *err) {
  int64_t n = 1;
  bool sound = spec->n_dims >= 0 && spec->n_dims <= PDT_TENSOR_DIMS;
  for (int32_t i = 0; sound && i < spec->n_dims; i++)
    sound = spec->shape[i] >= 0 && !__builtin_mul_overflow(n, spec->shape[i], &n);
  if (sound && !__builtin_mul_overflow(n, (int64_t)pdt_dtype_bytes(spec->dtype), out)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "tensor '%.200s': impossible shape", spec->name);
}

/* Adds one tensor's entry at *offset, which moves past its data. */
static int add_entry(json_t *header, const pdt_tensor_spec *spec, pdt_bytes *offset,
                     pdt_error *err) {
  pdt_bytes bytes = 0, end;
  if (json_object_get(header, spec->name))
    return pdt_fail(err, PDT_ERROR_INPUT, "tensor '%.200s': there are two of that name",
                    spec->name);
  if (spec_bytes(spec, &bytes, err)) return -1;
  if (__builtin_add_overflow(*offset, bytes, &end))
    return pdt_fail(err, PDT_ERROR_INPUT, "tensor '%.200s': the file would be too large",
                    spec->name);
  json_t *shape = json_array();
  for (int32_t i = 0; i < spec->n_dims; i++)
    json_array_append_new(shape, json_integer(spec->shape[i]));
  json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", pdt_dtype_name(spec->dtype), "shape",
                            shape, "data_offsets", (json_int_t)*offset, (json_int_t)end);
  if (!entry || json_object_set_new(header, spec->name, entry))
    return pdt_fail(err, PDT_ERROR_INPUT, "tensor '%.200s': the name cannot be written as JSON",
                    spec->name);
  *offset = end;
  return 0;
}

static int add_metadata(json_t *header, const pdt_metadata *metadata, int32_t n, pdt_error *err) {
  if (n == 0) return 0;
  json_t *object = json_object();
  for (int32_t i = 0; i < n; i++)
    if (json_object_set_new(object, metadata[i].key, json_string(metadata[i].value))) {
      json_decref(object);
      return pdt_fail(err, PDT_ERROR_INPUT, "metadata '%.80s': it cannot be written as JSON",
                      metadata[i].key);
    }
  if (json_object_set_new(header, "__metadata__", object))
    return pdt_fail(err, PDT_ERROR_MEMORY, "header: no memory");
  return 0;
}

/* The header as text, padded with spaces so that data begins at a multiple of 8 bytes. */
static int header_text(char **out, const pdt_tensor_spec *specs, int32_t n_specs,
                       const pdt_metadata *metadata, int32_t n_metadata, pdt_error *err) {
  *out = NULL;
  json_t *header = json_object();
  pdt_bytes offset = 0;
  int rc = header ? add_metadata(header, metadata, n_metadata, err)
                  : pdt_fail(err, PDT_ERROR_MEMORY, "header: no memory");
  for (int32_t i = 0; !rc && i < n_specs; i++) rc = add_entry(header, &specs[i], &offset, err);
  char *compact = rc ? NULL : json_dumps(header, JSON_COMPACT);
  json_decref(header);
  if (rc) return -1;
  if (!compact) return pdt_fail(err, PDT_ERROR_MEMORY, "header: no memory");
  size_t length = strlen(compact), padded = (length + 7) / 8 * 8;
  rc = PDT_NEW(out, padded + 1, "header", err);
  if (!rc) {
    memset(*out, ' ', padded);
    memcpy(*out, compact, length);
  }
  free(compact);
  return rc;
}

static int write_header(pdt_new_file *file, const char *text, pdt_error *err) {
  uint64_t length = strlen(text);
  unsigned char prefix[8];
  for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)(length >> (8 * i));
  if (pdt_new_file_write(file, prefix, sizeof prefix, err)) return -1;
  return pdt_new_file_write(file, text, (pdt_bytes)length, err);
}

static int write_data(pdt_new_file *file, const pdt_tensor_spec *specs, int32_t n_specs,
                      pdt_tensor_source source, void *context, pdt_error *err) {
  float *chunk; /* room for the widest type */
  if (PDT_NEW(&chunk, PDT_WRITE_CHUNK_ELEMS, "chunk", err)) return -1;
  int rc = 0;
  for (int32_t i = 0; !rc && i < n_specs; i++) {
    int64_t total = pdt_tensor_spec_elems(&specs[i]);
    for (int64_t at = 0; !rc && at < total; at += PDT_WRITE_CHUNK_ELEMS) {
      int64_t n = total - at < PDT_WRITE_CHUNK_ELEMS ? total - at : PDT_WRITE_CHUNK_ELEMS;
      rc = source(context, i, at, n, chunk, err);
      if (!rc)
        rc = pdt_new_file_write(file, chunk, n * (pdt_bytes)pdt_dtype_bytes(specs[i].dtype), err);
    }
  }
  free(chunk);
  return rc;
}

int pdt_safetensors_write(const char *path, const pdt_tensor_spec *specs, int32_t n_specs,
                          const pdt_metadata *metadata, int32_t n_metadata,
                          pdt_tensor_source source, void *context, pdt_error *err) {
  char *text;
  if (header_text(&text, specs, n_specs, metadata, n_metadata, err))
    return pdt_fail_in(err, "%.200s", path);
  pdt_new_file file;
  int rc = pdt_new_file_open(&file, path, err);
  if (!rc &&
      (write_header(&file, text, err) || write_data(&file, specs, n_specs, source, context, err))) {
    pdt_new_file_abandon(&file);
    rc = -1;
  }
  free(text);
  return rc ? rc : pdt_new_file_commit(&file, err);
}
