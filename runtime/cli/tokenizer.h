/* The tokenizer of a model directory. */
#ifndef PDT_CLI_TOKENIZER_H
#define PDT_CLI_TOKENIZER_H

#include "cli/cli.h"
#include "text/tokenizer.h"

/* The tokenizer of a model that has one; *out is NULL where it has none: such a model serves
 * requests in ids. Errors: those of pdt_tokenizer_load_folder. */
int pdt_cli_tokenizer_if_any(const char *directory, pdt_tokenizer **out, pdt_error *err);

#endif
