#include "data/notes.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/finite.h"
#include "base/memory.h"

/* The side file's path: it lies beside the data. */
static int path_beside(char **path, const char *data, const char *name, pdt_error *err) {
  const char *slash = strrchr(data, '/');
  char *folder = strndup(data, slash ? (size_t)(slash - data) : 0);
  if (!folder) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", data);
  int rc = pdt_path_join(path, slash == data ? "/" : folder, name, err);
  free(folder);
  return rc;
}

int pdt_data_notes_open(pdt_data_notes *n, const pdt_data_reader *reader, pdt_error *err) {
  const pdt_data_header *h = &reader->header;
  char *path;
  *n = (pdt_data_notes){0};
  if (!h->notes_file) return 0;
  if (path_beside(&path, reader->path, h->notes_file, err)) return -1;
  int rc = pdt_safetensors_open(&n->file, path, err);
  free(path);
  if (rc) return pdt_fail_in(err, "%s: line 1: notes: 'file'", reader->path);
  const pdt_tensor *t = pdt_safetensors_find(n->file, "notes");
  if (!t || !t->is_float || t->dtype != PDT_F32 || t->n_dims != 2 || t->shape[1] != h->notes_dim)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: line 1: notes: 'file': expected a tensor 'notes' of F32 [rows, %d] in %s",
                    reader->path, h->notes_dim, h->notes_file);
  n->tensor = t;
  n->n_rows = t->shape[0];
  n->dim = h->notes_dim;
  return PDT_NEW(&n->row, n->dim, "teacher notes", err);
}

void pdt_data_notes_close(pdt_data_notes *n) {
  pdt_safetensors_close(n->file);
  free(n->row);
  *n = (pdt_data_notes){0};
}

int pdt_data_notes_read(const pdt_data_notes *n, int64_t row, float *out, pdt_error *err) {
  return pdt_tensor_read(n->tensor, row * n->dim, n->dim, out, err);
}

int pdt_data_notes_check(const pdt_data_notes *n, const pdt_data_reader *reader,
                         const pdt_data_entry *e, pdt_error *err) {
  for (int32_t k = 0; k < e->n_sections; k++)
    for (int32_t b = 0; b < e->sections[k].n_blocks; b++) {
      int64_t row = e->sections[k].blocks[b].note;
      if (row < 0 || row >= n->n_rows)
        return pdt_fail(err, PDT_ERROR_INPUT,
                        "%s: line %lld: sections[%d]: blocks[%d]: 'note': expected a row below "
                        "%lld, found %lld",
                        reader->path, (long long)reader->lines.number, k, b, (long long)n->n_rows,
                        (long long)row);
      if (pdt_data_notes_read(n, row, n->row, err)) return -1;
      if (!pdt_all_finite(PDT_F32, n->row, n->dim))
        return pdt_fail(err, PDT_ERROR_INPUT,
                        "%s: line %lld: sections[%d]: blocks[%d]: 'note': row %lld has a NaN or "
                        "infinity",
                        reader->path, (long long)reader->lines.number, k, b, (long long)row);
    }
  return 0;
}
