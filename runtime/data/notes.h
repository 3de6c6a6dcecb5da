/* The side file of a data file: teacher notes as vectors, for entries that name no facts. */
#ifndef PDT_DATA_NOTES_H
#define PDT_DATA_NOTES_H

#include "data/data.h"
#include "store/safetensors.h"

/* An open side file; zeroed: none. */
typedef struct pdt_data_notes {
  pdt_safetensors *file;
  const pdt_tensor *tensor; /* "notes": [n_rows, dim] */
  int64_t n_rows;
  int32_t dim;
  float *row; /* [dim]: room for one */
} pdt_data_notes;

/* Opens the side file that the reader's header names, beside the data; *n is zeroed where it names
 * none. Closed by the caller, after an error too. Errors: IO; INPUT: no tensor "notes" of F32
 * [rows, notes_dim]; MEMORY. */
int pdt_data_notes_open(pdt_data_notes *n, const pdt_data_reader *reader, pdt_error *err);
void pdt_data_notes_close(pdt_data_notes *n);

/* Row `row` < n_rows into out[dim]. Errors: IO. */
int pdt_data_notes_read(const pdt_data_notes *n, int64_t row, float *out, pdt_error *err);

/* Every block of `e`, the entry read last, has a row, and the rows are finite. Errors: INPUT naming
 * file, line and field; IO. */
int pdt_data_notes_check(const pdt_data_notes *n, const pdt_data_reader *reader,
                         const pdt_data_entry *e, pdt_error *err);

#endif
