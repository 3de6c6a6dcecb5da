/* Evaluating a system on held-out entries: rows of figures, a way of decoding each. */
#ifndef PDT_RUN_EVALUATE_H
#define PDT_RUN_EVALUATE_H

#include "comm/comm.h"
#include "eval/eval.h"

enum { PDT_EVAL_ROWS = 256, PDT_EVAL_LABEL_BYTES = 64 };

/* What a row is asked for with. */
typedef struct pdt_eval_row_options {
  char label[PDT_EVAL_LABEL_BYTES]; /* "system", "system gamma=0.5" */
  pdt_eval_setup setup;             /* its settings are owned */
} pdt_eval_row_options;

typedef struct pdt_eval_options {
  pdt_engine_options engine;
  const char *data, *out, *texts; /* files; the last two may be NULL */
  int64_t count;                  /* most entries */
  const char *arms, *sweep, *bus;
  pdt_chat_flags chat;
  json_t *settings; /* those that flags give; never NULL */
  bool json, no_teacher, curves;
  int64_t seeds; /* decode seeds of every row */
  int32_t n_rows;
  pdt_eval_row_options rows[PDT_EVAL_ROWS];
} pdt_eval_options;

/* Runs every row, prints the figures as they come, on rank 0, and writes them to `out`, and what
 * was judged to `texts`, JSON lines. `name` is
 * what messages call the program. Collective over world, blocking; all ranks fail alike. Errors:
 * USAGE (an output that would cost an input), INPUT, IO, MEMORY, RUNTIME. */
int pdt_evaluate(const pdt_comm *world, const char *name, const pdt_eval_options *options,
                 pdt_error *err);

#endif
