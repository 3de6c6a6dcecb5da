#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the root parser needs: argp writes its complaints into a stream of ours. */
typedef struct root_input {
  const pdt_cli *cli;
  FILE *complaints;
  void *input;
} root_input;

static error_t root_parser(int key, char *arg, struct argp_state *state) {
  (void)arg;
  root_input *root = state->input;
  if (key != ARGP_KEY_INIT) return ARGP_ERR_UNKNOWN;
  state->err_stream = root->complaints;
  state->name = (char *)(uintptr_t)root->cli->name;
  state->child_inputs[0] = root->input;
  return 0;
}

/* Answers --help and --usage on rank 0; true when one of them was asked for. */
static bool answer_help(const pdt_cli *cli, const struct argp *argp, int argc, char **argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    bool help = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0;
    if (!help && strcmp(argv[i], "--usage") != 0) continue;
    if (cli->world->rank == 0)
      argp_help(argp, stdout,
                help ? ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK : ARGP_HELP_USAGE,
                (char *)(uintptr_t)cli->name);
    return true;
  }
  return false;
}

int pdt_cli_parse(const pdt_cli *cli, const struct argp *argp, int argc, char **argv, void *input,
                  pdt_error *err) {
  if (answer_help(cli, argp, argc, argv)) return 1;
  char *text = NULL;
  size_t length = 0;
  FILE *complaints = open_memstream(&text, &length);
  if (!complaints) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", cli->name);
  root_input root = {cli, complaints, input};
  struct argp_child children[] = {{argp, 0, NULL, 0}, {0}};
  struct argp wrapper = {.parser = root_parser, .children = children};
  /* getopt, below argp, knows no stream but stderr; glibc lets it be set like any variable */
  FILE *standard_error = stderr;
  char *first_word = argv[0];
  stderr = complaints;
  argv[0] = (char *)(uintptr_t)cli->name;
  error_t code = argp_parse(&wrapper, argc, argv, ARGP_NO_EXIT | ARGP_NO_HELP, NULL, &root);
  argv[0] = first_word;
  stderr = standard_error;
  fclose(complaints);
  if (code) {
    text[strcspn(text, "\n")] = '\0'; /* the first line says what is wrong, behind the name */
    size_t name = strlen(cli->name);
    const char *what =
        strncmp(text, cli->name, name) == 0 && text[name] == ':' ? text + name + 2 : text;
    pdt_fail(err, PDT_ERROR_USAGE, "%s (hint: %s --help)",
             *what ? what : "the command line could not be read", cli->name);
  }
  free(text);
  return code ? -1 : 0;
}

error_t pdt_cli_integer(struct argp_state *state, const char *option, const char *arg, int64_t low,
                        int64_t high, int64_t *out) {
  char *end;
  errno = 0;
  long long value = strtoll(arg, &end, 10);
  if (end == arg || *end || errno || value < low || value > high) {
    argp_error(state, "--%s: expected an integer from %lld to %lld, found '%s'", option,
               (long long)low, (long long)high, arg);
    return EINVAL;
  }
  *out = value;
  return 0;
}

error_t pdt_cli_real(struct argp_state *state, const char *option, const char *arg, double low,
                     double high, double *out) {
  char *end;
  double value = strtod(arg, &end);
  if (end == arg || *end || !isfinite(value) || value < low || value > high) {
    argp_error(state, "--%s: expected a number from %g to %g, found '%s'", option, low, high, arg);
    return EINVAL;
  }
  *out = value;
  return 0;
}
