/* Safetensors files: eight bytes of header length (little endian), a JSON header that gives every
 * tensor's type, shape and place, then the tensors' bytes. Nothing of a tensor is read before it is
 * asked for, and then into the caller's memory: the file is not mapped, so that one that is cut
 * meanwhile is an error and no signal. A header is believed only after everything in it was
 * checked: tensors lie inside the file, cover it without holes or overlap, and are as large as
 * shape and type say. Who has read what is needed asks pdt_safetensors_unchanged whether it was all
 * of one file. */
#ifndef PDT_STORE_SAFETENSORS_H
#define PDT_STORE_SAFETENSORS_H

#include "base/dtype.h"
#include "base/error.h"
#include "base/file_state.h"
#include "base/types.h"

enum { PDT_TENSOR_DIMS = 8 }; /* most dimensions of a tensor */

typedef struct pdt_safetensors pdt_safetensors;

/* One tensor, row-major, little endian. Everything is borrowed from the file it lies in. */
typedef struct pdt_tensor {
  const char *name;
  const char *dtype_name; /* as in the file: "F32", "I64", "F8_E4M3", ... */
  bool is_float;          /* F32, F16 or BF16: `dtype` says which; of others there is a name only */
  pdt_dtype dtype;
  int32_t n_dims; /* 0 for a scalar */
  int64_t shape[PDT_TENSOR_DIMS];
  int64_t n_elems;
  pdt_bytes at, bytes; /* its place in the file */
  int32_t pairs;       /* size of the heads whose rows the file has in pairs (gguf_model.h); or 0 */
  const pdt_safetensors *file;
} pdt_tensor;

/* A file that was opened. Read-only to its users. */
struct pdt_safetensors {
  char *path;
  int32_t n_tensors;
  pdt_tensor *tensors; /* sorted by name */
  pdt_bytes file_bytes;
  pdt_bytes data_offset; /* of the first tensor's byte: 8 + header length */
  int fd;                /* -1: in memory */
  const char *bytes;     /* in memory: they belong to the caller of open_memory */
  pdt_file_state state;  /* as it was opened */
  struct json_t *header; /* owns names and metadata */
  char *names;           /* or this does: of a file of another format; NULL without */
};

/* Opens a file and checks its header. Sets *out, closed by the caller. Errors: IO when it cannot be
 * opened or read, INPUT when it is not a sound safetensors file, MEMORY. */
int pdt_safetensors_open(pdt_safetensors **out, const char *path, pdt_error *err);

/* The same for bytes that are in memory and outlive *out; `path` names them in errors. */
int pdt_safetensors_open_memory(pdt_safetensors **out, const void *bytes, pdt_bytes n_bytes,
                                const char *path, pdt_error *err);

/* Every tensor of the file is gone then. NULL is allowed. */
void pdt_safetensors_close(pdt_safetensors *file);

/* The tensor of that name, NULL when there is none. */
const pdt_tensor *pdt_safetensors_find(const pdt_safetensors *file, const char *name);

/* A string of the file's __metadata__, NULL when there is none of that key. */
const char *pdt_safetensors_metadata(const pdt_safetensors *file, const char *key);

/* Refuses a tensor that is not of one of the computable types and of exactly this shape.
 * Errors: INPUT, naming file, tensor, expected and found. */
int pdt_tensor_expect(const pdt_tensor *tensor, int32_t n_dims, const int64_t *shape,
                      pdt_error *err);

/* "[512, 64]", "[]" for a scalar; cut to fit `room` bytes. */
void pdt_shape_text(int32_t n_dims, const int64_t *shape, char *text, size_t room);

/* Reads elements [first, first + n_elems) of a tensor of F32, F16 or BF16, as they stand in the
 * file (rows in Hugging Face's order), into `out`. The range lies inside the tensor. Errors: IO, as
 * when the file was cut meanwhile. */
int pdt_tensor_read(const pdt_tensor *tensor, int64_t first, int64_t n_elems, void *out,
                    pdt_error *err);

/* Says that elements [first, first + n_elems), which lie inside the tensor, will be read soon: a
 * disk can bring them meanwhile. */
void pdt_tensor_will_read(const pdt_tensor *tensor, int64_t first, int64_t n_elems);

/* Fails when the file was written to since it was opened: then what was read may be of two
 * contents. A file that was renamed, or that another one replaced by name, is unchanged. Errors:
 * IO. */
int pdt_safetensors_unchanged(const pdt_safetensors *file, pdt_error *err);

/* How much of a file a fingerprint reads. */
typedef enum pdt_fingerprint_mode {
  PDT_FINGERPRINT_QUICK, /* file size, header, first and last 4 KiB of every tensor */
  PDT_FINGERPRINT_FULL,  /* every byte */
} pdt_fingerprint_mode;

/* XXH3-64 over what the mode says, the mode included. Equal files have equal fingerprints; files
 * that differ differ in FULL (up to chance, 2^-64), in QUICK unless the change keeps header and
 * both ends of every tensor. Independent of the file's name. Errors: IO, MEMORY. */
int pdt_safetensors_fingerprint(const pdt_safetensors *file, pdt_fingerprint_mode mode,
                                uint64_t *out, pdt_error *err);

/* A tensor to be written. */
typedef struct pdt_tensor_spec {
  const char *name;
  pdt_dtype dtype;
  int32_t n_dims;
  int64_t shape[PDT_TENSOR_DIMS];
} pdt_tensor_spec;

/* Elements of a spec: the product of its shape, which the caller knows not to overflow. */
int64_t pdt_tensor_spec_elems(const pdt_tensor_spec *spec);

/* A string for __metadata__. */
typedef struct pdt_metadata {
  const char *key, *value;
} pdt_metadata;

/* Puts elements [first, first + n_elems) of tensor `index`, in its dtype, into chunk. Called for
 * tensors in order and elements in order, at most PDT_WRITE_CHUNK_ELEMS at a time. Returns 0, or -1
 * with err, which ends the writing. */
typedef int (*pdt_tensor_source)(void *context, int32_t index, int64_t first, int64_t n_elems,
                                 void *chunk, pdt_error *err);
enum { PDT_WRITE_CHUNK_ELEMS = 1 << 18 };

/* Writes a safetensors file whose tensors lie in the order given, one chunk in memory at a time.
 * Atomic: a temporary file beside `path` is written, synchronized and renamed, so `path` holds
 * either what it held or all of the new file. Errors: IO, MEMORY, INPUT (duplicate name, impossible
 * shape), and those of the source. */
int pdt_safetensors_write(const char *path, const pdt_tensor_spec *specs, int32_t n_specs,
                          const pdt_metadata *metadata, int32_t n_metadata,
                          pdt_tensor_source source, void *context, pdt_error *err);

#endif
