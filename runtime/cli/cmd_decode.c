/* pdt decode. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text_safe.h"
#include "cli/decode_options.h"

/* A word as a shell reads it. */
static void put_word(FILE *out, const char *word) {
  static const char plain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";
  if (*word && strspn(word, plain) == strlen(word)) {
    fputs(word, out);
    return;
  }
  fputc('\'', out);
  for (; *word; word++)
    if (*word == '\'')
      fputs("'\\''", out);
    else
      fputc(*word, out);
  fputc('\'', out);
}

/* Tells how to go on with a run that a signal stopped: its own command line, with --resume. */
static void tell_resume(const pdt_cli *cli, int argc, char **argv) {
  fprintf(stderr, "%s: go on with: ", cli->name);
  put_word(stderr, program_invocation_name);
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--resume") == 0 || strcmp(argv[i], "--overwrite") == 0) continue;
    fputc(' ', stderr);
    put_word(stderr, argv[i]);
  }
  fprintf(stderr, " --resume%s\n", cli->world->size > 1 ? " (started as this run was)" : "");
}

int pdt_cmd_decode(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_decode_options options;
  int status = pdt_decode_options_parse(&options, cli, argc, argv, err);
  options.engine.listens = true;
  if (pdt_comm_agree(cli->world, err)) status = -1;
  if (status == 0) status = pdt_decode_run(cli->world, cli->name, &options, err);
  if (err->code == PDT_ERROR_STOPPED && options.journal && cli->world->rank == 0)
    tell_resume(cli, argc, argv);
  pdt_decode_options_free(&options);
  return status < 0 ? -1 : 0;
}
