/* Any bytes as a safetensors file: what is accepted lies inside the bytes and covers them. The
 * first eight bytes, the header's length, are made right half of the time so that headers get read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "sidecar/config.h"
#include "store/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads everything that an accepted file says. */
static void use(const pdt_safetensors *file) {
  pdt_bytes covered = 0;
  for (int32_t i = 0; i < file->n_tensors; i++) {
    const pdt_tensor *t = &file->tensors[i];
    if (t->at < file->data_offset || t->bytes > file->file_bytes - t->at) abort();
    if (i > 0 && strcmp(file->tensors[i - 1].name, t->name) >= 0) abort();
    if (pdt_safetensors_find(file, t->name) != t) abort();
    if (t->is_float && t->bytes != t->n_elems * (pdt_bytes)pdt_dtype_bytes(t->dtype)) abort();
    if (t->is_float) {
      char *data = malloc((size_t)t->bytes + 1);
      if (data && pdt_tensor_read(t, 0, t->n_elems, data, NULL)) abort();
      if (data) (void)pdt_first_not_finite(t->dtype, data, t->n_elems);
      free(data);
    }
    covered += t->bytes;
  }
  if (covered != file->file_bytes - file->data_offset) abort();
  uint64_t hash;
  (void)pdt_safetensors_fingerprint(file, PDT_FINGERPRINT_QUICK, &hash, NULL);
  pdt_sidecar_config config;
  pdt_error err;
  if (!pdt_sidecar_config_load(&config, file, NULL, &err)) pdt_sidecar_config_free(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  uint8_t *bytes = malloc(size + 8); /* of exact size, so that reading past it is caught */
  if (!bytes) return 0;
  size_t n = size - 1;
  memcpy(bytes, data + 1, n);
  if (data[0] & 1) { /* the header ends at the last brace; what follows is data */
    memmove(bytes + 8, bytes, n);
    size_t length = n;
    while (length > 0 && bytes[8 + length - 1] != '}') length--;
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)length >> (8 * i));
    n += 8;
  }
  uint8_t *exact = realloc(bytes, n ? n : 1);
  pdt_safetensors *file;
  pdt_error err = {0};
  if (!exact) {
    free(bytes);
    return 0;
  }
  if (!pdt_safetensors_open_memory(&file, exact, (pdt_bytes)n, "fuzz", &err)) {
    use(file);
    pdt_safetensors_close(file);
  } else if (err.code == PDT_ERROR_NONE || !*err.message) {
    abort();
  }
  free(exact);
  return 0;
}
