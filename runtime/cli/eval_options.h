/* What the command line of pdt eval says. */
#ifndef PDT_CLI_EVAL_OPTIONS_H
#define PDT_CLI_EVAL_OPTIONS_H

#include "cli/cli.h"
#include "run/evaluate.h"

/* Parses argv. As pdt_cli_parse: 0, 1 after help, -1 on error. Free in any case. */
int pdt_eval_options_parse(pdt_eval_options *o, const pdt_cli *cli, int argc, char **argv,
                           pdt_error *err);
void pdt_eval_options_free(pdt_eval_options *o);

#endif
