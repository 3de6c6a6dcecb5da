/* Data files: JSON lines, a header first and then one entry a line (tests/data/atlas/FORMAT.md).
 * The Atlas writes them; anybody else may. Everything read is checked before it is believed: errors
 * name file, line and field. */
#ifndef PDT_DATA_DATA_H
#define PDT_DATA_DATA_H

#include "base/lines.h"
#include "data/blocks.h"
#include "sidecar/config.h"

enum { PDT_DATA_LINE_BYTES = 16 << 20 }; /* longest line */

/* What holds for all entries of a file. */
typedef struct pdt_data_header {
  char *world;       /* "atlas-2": every sentence is one of that world; NULL: any text */
  char *split;       /* NULL: none */
  char *tokenizer;   /* fingerprint of the tokenizer that cut the blocks, 16 hexadecimal digits */
  char *notes_file;  /* safetensors file with teacher notes, beside the data; NULL: none */
  int32_t notes_dim; /* width of a note: tensor "notes" is F32 [rows, notes_dim] */
  uint64_t seed;
  bool hard;
  pdt_data_rounds rounds;
  int32_t plan_slots;
  int32_t plan_vocab_size;
  char plan_salt[PDT_SALT_BYTES];
} pdt_data_header;

void pdt_data_header_free(pdt_data_header *h);

/* Fails when the plan items of a file mean nothing to a sidecar: another number of slots, another
 * vocabulary or salt. `path` names the file. Errors: INPUT. */
int pdt_data_header_fits(const pdt_data_header *h, const char *path, const pdt_sidecar_config *c,
                         pdt_error *err);

/* The line of a header (entry), newline included, freed by the caller. Errors: INPUT (a text that
 * is no UTF-8), MEMORY. */
int pdt_data_header_text(const pdt_data_header *h, char **text, size_t *bytes, pdt_error *err);
int pdt_data_entry_text(const pdt_data_entry *e, char **text, size_t *bytes, pdt_error *err);

/* Reads such a line; `where` names it in errors ("train.jsonl: line 7"). *out is zeroed before and
 * freed by the caller, after an error it is empty. Errors: INPUT, MEMORY. */
int pdt_data_header_parse(pdt_data_header *out, const char *text, size_t bytes, const char *where,
                          pdt_error *err);
int pdt_data_entry_parse(pdt_data_entry *out, const pdt_data_header *header, const char *text,
                         size_t bytes, const char *where, pdt_error *err);

/* A file being read. */
typedef struct pdt_data_reader {
  char *path;
  pdt_lines lines; /* the line read last is that of the entry */
  pdt_data_header header;
} pdt_data_reader;

/* Opens a file and reads its header. Closed by the caller, after an error too. Errors: IO, INPUT,
 * MEMORY. */
int pdt_data_open(pdt_data_reader *r, const char *path, pdt_error *err);
void pdt_data_close(pdt_data_reader *r);

/* The next entry into *out: 1, freed by the caller; 0 at the end of the file; -1 on an error: IO,
 * INPUT, MEMORY. Empty lines are passed over. */
int pdt_data_next(pdt_data_reader *r, pdt_data_entry *out, pdt_error *err);

#endif
