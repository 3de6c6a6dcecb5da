/* Figures of pdt eval as text: aligned tables for people, JSON lines for programs. */
#ifndef PDT_RUN_EVAL_OUTPUT_H
#define PDT_RUN_EVAL_OUTPUT_H

#include "run/evaluate.h"
#include "train/teacher_forced.h"

typedef struct pdt_eval_row {
  const pdt_eval_row_options *options;
  pdt_ratio
      difference; /* of contradictions from the first row's, paired by entry; NaN: this is it */
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

/* Differences of contradictions from the first row's; nothing where there is but one. */
void pdt_eval_print_differences(FILE *out, const pdt_eval_row *rows, int32_t n);

/* Curves of coverage and readiness (--curves). */
void pdt_eval_print_curves(FILE *out, const pdt_eval_row *row);

/* One entry that was judged, as a line of JSON; `row` is the row's label. Errors: MEMORY. */
int pdt_eval_print_text(FILE *out, const char *row, const pdt_eval_written *w, pdt_error *err);
void pdt_eval_print_names(FILE *out, const pdt_eval_row *rows, int32_t n);

/* Everything as one line of JSON; figures that there are none of are null. curves: with them.
 * Errors: MEMORY. */
int pdt_eval_print_json(FILE *out, const pdt_eval_row *row, bool curves, pdt_error *err);

#endif
