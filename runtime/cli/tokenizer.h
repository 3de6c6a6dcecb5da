/* The tokenizer of a model directory. */
#ifndef PDT_CLI_TOKENIZER_H
#define PDT_CLI_TOKENIZER_H

#include "cli/cli.h"
#include "text/tokenizer.h"

/* Reads DIRECTORY/tokenizer.json; *fingerprint is pdt_tokenizer_fingerprint of the file. *out is
 * freed by the caller. Errors: those of pdt_tokenizer_load. */
int pdt_cli_tokenizer(const char *directory, pdt_tokenizer **out, uint64_t *fingerprint,
                      pdt_error *err);

/* The tokenizer of a model that has one; *out is NULL where it has none: such a model serves
 * requests in ids. Errors: as above. */
int pdt_cli_tokenizer_if_any(const char *directory, pdt_tokenizer **out, pdt_error *err);

#endif
