/* What the command line of pdt decode says. */
#ifndef PDT_CLI_DECODE_OPTIONS_H
#define PDT_CLI_DECODE_OPTIONS_H

#include "cli/cli.h"
#include "run/decode.h"

/* Parses argv. As pdt_cli_parse: 0, 1 after help, -1 on error. Free in any case. */
int pdt_decode_options_parse(pdt_decode_options *o, const pdt_cli *cli, int argc, char **argv,
                             pdt_error *err);
void pdt_decode_options_free(pdt_decode_options *o);

#endif
