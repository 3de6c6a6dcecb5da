/* Training data of anyone's documents. */
#ifndef PDT_RUN_DOCUMENTS_H
#define PDT_RUN_DOCUMENTS_H

#include "atlas/generate.h"
#include "data/documents.h"

typedef struct pdt_documents_file {
  const char *model;      /* directory whose tokenizer cuts the blocks */
  const char *in, *out;   /* JSON lines; "-": standard input, standard output */
  const char *stop_words; /* file of words that are no names, one a line; NULL: none but English */
  bool find;              /* facts of documents that bring none are found */
  bool part;              /* entries of `split` alone; else all, and the file is of no split */
  pdt_atlas_split split;
  pdt_data_rounds rounds;
  pdt_sidecar_config plan; /* slots, vocabulary, salt */
  bool overwrite;
} pdt_documents_file;

/* The split that a prompt belongs to: by its bytes alone, 14 of 16 in train, one each in valid and
 * test, so that no prompt is in two of them. Pure. */
pdt_atlas_split pdt_documents_split_of(const char *prompt);

/* Reads the documents, labels them and writes them whole or not at all; says on standard output (or
 * error, when that is `out`) what there was. Progress on a terminal. Errors: USAGE (an output that
 * would cost an input, or that is there), INPUT naming file and line, IO, MEMORY. */
int pdt_documents_write(const pdt_documents_file *file, pdt_error *err);

#endif
