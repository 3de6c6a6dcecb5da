/* Writing a GGUF file, version 3. */
#ifndef PDT_STORE_GGUF_WRITE_H
#define PDT_STORE_GGUF_WRITE_H

#include "store/gguf.h"
#include "store/safetensors.h"

/* Metadata in the making: a zeroed one is empty. What memory does not allow is told when it is
 * written. Keys are the caller's to keep apart. */
typedef struct pdt_gguf_metadata {
  pdt_buffer bytes;
  uint64_t n;
  bool no_memory;
} pdt_gguf_metadata;

void pdt_gguf_put_u32(pdt_gguf_metadata *m, const char *key, uint32_t value);
void pdt_gguf_put_f32(pdt_gguf_metadata *m, const char *key, float value);
void pdt_gguf_put_bool(pdt_gguf_metadata *m, const char *key, bool value);
void pdt_gguf_put_string(pdt_gguf_metadata *m, const char *key, pdt_gguf_text value);
void pdt_gguf_put_strings(pdt_gguf_metadata *m, const char *key, const pdt_gguf_text *values,
                          size_t n);
void pdt_gguf_put_i32s(pdt_gguf_metadata *m, const char *key, const int32_t *values, size_t n);
void pdt_gguf_put_f32s(pdt_gguf_metadata *m, const char *key, const float *values, size_t n);
void pdt_gguf_metadata_free(pdt_gguf_metadata *m);

/* The bytes of a zero-terminated string. */
pdt_gguf_text pdt_gguf_text_of(const char *text);

/* Writes a file whose tensors lie in the order given; shapes are row-major, their last dimension
 * is a row, of whole blocks. `source` is asked for chunks of whole blocks in the order of the file.
 * Atomic, as pdt_safetensors_write. Errors: IO, MEMORY, INPUT (a name that is too long, rows that
 * are no whole blocks), and those of the source. */
int pdt_gguf_write(const char *path, const pdt_gguf_metadata *m, const pdt_tensor_spec *specs,
                   int32_t n_specs, pdt_tensor_source source, void *context, pdt_error *err);

#endif
