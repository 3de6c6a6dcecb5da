/* Figures of pdt eval as text: aligned tables for people, JSON lines for programs. */
#ifndef PDT_RUN_EVAL_OUTPUT_H
#define PDT_RUN_EVAL_OUTPUT_H

#include "run/evaluate.h"
#include "train/teacher_forced.h"

typedef struct pdt_eval_row {
  const pdt_eval_row_options *options;
  pdt_eval_figures figures;
  const pdt_teacher_forced *teacher; /* NULL: not this arm's, or not asked for */
  int64_t note_bytes, kv_bytes;      /* of one note; of one token's keys and values */
} pdt_eval_row;

/* The line with the names of the columns, a row, and the tables of causes, of names and of work
 * under them. */
void pdt_eval_print_head(FILE *out, const pdt_eval_entries *data, const pdt_eval_options *options);
void pdt_eval_print_row(FILE *out, const pdt_eval_row *row);
void pdt_eval_print_work(FILE *out, const pdt_eval_row *rows, int32_t n);
void pdt_eval_print_causes(FILE *out, const pdt_eval_row *rows, int32_t n);

/* What altered notes do (--bus), and what notes take beside text; nothing without such rows. */
void pdt_eval_print_bus(FILE *out, const pdt_eval_row *rows, int32_t n);
void pdt_eval_print_names(FILE *out, const pdt_eval_row *rows, int32_t n);

/* Everything as one line of JSON; figures that there are none of are null. Errors: MEMORY. */
int pdt_eval_print_json(FILE *out, const pdt_eval_row *row, pdt_error *err);

#endif
