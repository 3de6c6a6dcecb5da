/* What the command line of pdt eval says. */
#ifndef PDT_CLI_EVAL_OPTIONS_H
#define PDT_CLI_EVAL_OPTIONS_H

#include "cli/cli.h"
#include "eval/eval.h"

enum { PDT_EVAL_ROWS = 256, PDT_EVAL_LABEL_BYTES = 64 };

/* What a row is asked for with. */
typedef struct pdt_eval_row_options {
  char label[PDT_EVAL_LABEL_BYTES]; /* "system", "system gamma=0.5" */
  pdt_eval_setup setup;             /* its settings are owned */
} pdt_eval_row_options;

typedef struct pdt_eval_options {
  pdt_engine_options engine;
  const char *data, *out; /* files; out may be NULL */
  int64_t count;          /* most entries */
  const char *arms, *sweep;
  json_t *settings; /* those that flags give; never NULL */
  bool json, no_teacher;
  int32_t n_rows;
  pdt_eval_row_options rows[PDT_EVAL_ROWS];
} pdt_eval_options;

/* Parses argv. As pdt_cli_parse: 0, 1 after help, -1 on error. Free in any case. */
int pdt_eval_options_parse(pdt_eval_options *o, const pdt_cli *cli, int argc, char **argv,
                           pdt_error *err);
void pdt_eval_options_free(pdt_eval_options *o);

#endif
