/* What the command line of pdt decode says. */
#ifndef PDT_CLI_DECODE_OPTIONS_H
#define PDT_CLI_DECODE_OPTIONS_H

#include <jansson.h>

#include "cli/cli.h"
#include "engine/engine.h"

typedef struct pdt_decode_options {
  pdt_engine_options engine;
  const char *request, *requests, *prompt; /* exactly one is not NULL */
  const char *plan;                        /* file, or NULL */
  json_t *sections;                        /* list of texts, or NULL */
  json_t *settings;                        /* those that flags override; never NULL */
  int64_t session;                         /* -1: not given */
  const char *trace, *out, *journal;       /* files, or NULL */
  bool json, overwrite, quiet, verbose, rounds;
} pdt_decode_options;

/* Parses argv. As pdt_cli_parse: 0, 1 after help, -1 on error. Free in any case. */
int pdt_decode_options_parse(pdt_decode_options *o, const pdt_cli *cli, int argc, char **argv,
                             pdt_error *err);
void pdt_decode_options_free(pdt_decode_options *o);

#endif
