/* GGUF files, versions 2 and 3, little endian: a header, metadata (keys with typed values), a list
 * of tensors, then their data, each tensor's at a multiple of the file's alignment. As with
 * safetensors nothing is mapped, and nothing in the file is believed before it was checked: every
 * count and length against the bytes that are left, types, names, duplicates, and that tensors
 * follow one another from the first byte of data to the last. Metadata and list are in memory while
 * the file is open, as they stand in it; data is read by those who need it. */
#ifndef PDT_STORE_GGUF_H
#define PDT_STORE_GGUF_H

#include "base/buffer.h"
#include "base/file_state.h"
#include "base/types.h"

enum { PDT_GGUF_DIMS = 4 };

/* Types of metadata, by their numbers in the file. */
typedef enum pdt_gguf_kind {
  PDT_GGUF_U8,
  PDT_GGUF_I8,
  PDT_GGUF_U16,
  PDT_GGUF_I16,
  PDT_GGUF_U32,
  PDT_GGUF_I32,
  PDT_GGUF_F32,
  PDT_GGUF_BOOL,
  PDT_GGUF_STRING,
  PDT_GGUF_ARRAY,
  PDT_GGUF_U64,
  PDT_GGUF_I64,
  PDT_GGUF_F64,
  PDT_GGUF_KINDS
} pdt_gguf_kind;

/* Bytes of a string, borrowed from the file and not zero-terminated. */
typedef struct pdt_gguf_text {
  const char *text;
  size_t bytes;
} pdt_gguf_text;

/* One key and its value, or the elements of its array. */
typedef struct pdt_gguf_entry {
  size_t key_at, key_bytes; /* in the header's bytes */
  pdt_gguf_kind kind;       /* of an array: of its elements */
  bool is_array;
  uint64_t n; /* elements; 1 without an array */
  size_t at;  /* of the first one */
} pdt_gguf_entry;

/* A type of tensors: `elems` of a row make a block of `bytes`. */
typedef struct pdt_gguf_type {
  uint32_t number;
  const char *name; /* "F32", "Q4_K", ... */
  int32_t elems, bytes;
} pdt_gguf_type;

typedef struct pdt_gguf_tensor {
  char *name;
  const pdt_gguf_type *type;
  int32_t n_dims;
  int64_t dims[PDT_GGUF_DIMS]; /* the first is a row's length */
  int64_t n_elems;
  pdt_bytes at, bytes; /* its place in the file */
} pdt_gguf_tensor;

/* A file that was opened. Read-only to its users. */
typedef struct pdt_gguf {
  char *path;
  uint32_t version;
  pdt_buffer header; /* the file's bytes before its data, or a few more */
  pdt_gguf_entry *entries;
  size_t n_entries, room_entries; /* sorted by key */
  pdt_gguf_tensor *tensors;       /* in the file's order */
  size_t n_tensors, room_tensors;
  pdt_bytes file_bytes, data_offset;
  int fd;            /* -1: in memory */
  const char *bytes; /* in memory: the caller's */
  pdt_file_state state;
} pdt_gguf;

/* Is this to be read as GGUF: a file, be it there or not, that is called *.gguf or begins with
 * "GGUF"? A folder never is. */
bool pdt_is_gguf(const char *path);

/* Opens a file and checks all but its tensors' values. Sets *out, closed by the caller. Errors: IO,
 * INPUT (no sound file, or a version or byte order that is not read), MEMORY. */
int pdt_gguf_open(pdt_gguf **out, const char *path, pdt_error *err);

/* The same for bytes that are in memory and outlive *out; `path` names them in errors. */
int pdt_gguf_open_memory(pdt_gguf **out, const void *bytes, pdt_bytes n_bytes, const char *path,
                         pdt_error *err);

/* NULL is allowed. */
void pdt_gguf_close(pdt_gguf *g);

/* Bytes [first, first + n) of the file, inside of it, into `out`. Errors: IO. */
int pdt_gguf_read(const pdt_gguf *g, pdt_bytes first, pdt_bytes n, void *out, pdt_error *err);

/* The type of that name or number, NULL when there is none. */
const pdt_gguf_type *pdt_gguf_type_by_name(const char *name);
const pdt_gguf_type *pdt_gguf_type_by_number(uint32_t number);

/* "u32", "string", ...: what errors call a kind. */
const char *pdt_gguf_kind_name(pdt_gguf_kind kind);

/* ---- values ---- */

/* NULL when there is no such key. */
const pdt_gguf_entry *pdt_gguf_find(const pdt_gguf *g, const char *key);

/* An entry's key. */
pdt_gguf_text pdt_gguf_key(const pdt_gguf *g, const pdt_gguf_entry *e);

/* A value as an integer in [low, high], of whatever integer type. *found (may be NULL) tells
 * whether there is one; without, and with found NULL, the key must be there. Where it is not, *out
 * keeps what it has. Errors: INPUT, naming file, key, expected and found; so too below. */
int pdt_gguf_integer(const pdt_gguf *g, const char *key, int64_t low, int64_t high, int64_t *out,
                     bool *found, pdt_error *err);
/* A finite number. */
int pdt_gguf_real(const pdt_gguf *g, const char *key, double *out, bool *found, pdt_error *err);
int pdt_gguf_bool(const pdt_gguf *g, const char *key, bool *out, bool *found, pdt_error *err);
int pdt_gguf_string(const pdt_gguf *g, const char *key, pdt_gguf_text *out, bool *found,
                    pdt_error *err);

/* Arrays, each a new one of *n elements that is freed by the caller: of strings (borrowed), of
 * integers of any type that fit into 32 bits, of floats. Where the key is not there, *out is NULL
 * and *n is 0. Errors: INPUT, MEMORY. */
int pdt_gguf_strings(const pdt_gguf *g, const char *key, pdt_gguf_text **out, size_t *n,
                     pdt_error *err);
int pdt_gguf_integers(const pdt_gguf *g, const char *key, int32_t **out, size_t *n, pdt_error *err);
int pdt_gguf_floats(const pdt_gguf *g, const char *key, float **out, size_t *n, pdt_error *err);

/* Does a string equal this one? */
bool pdt_gguf_is(pdt_gguf_text text, const char *other);

#endif
