#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_HELP = '?', KEY_USAGE = 1 << 20 };

/* What every command understands besides its own options; the command's help does not list them. */
static const struct argp_option common_options[] = {
    {"help", KEY_HELP, NULL, OPTION_HIDDEN, NULL, -1},
    {"usage", KEY_USAGE, NULL, OPTION_HIDDEN, NULL, -1},
    {0},
};

/* What the parsers around a command's own need. */
typedef struct parse_input {
  const pdt_cli *cli;
  const struct argp *argp; /* the command's */
  void *input;             /* of its parser */
  FILE *complaints;        /* argp writes into a stream of ours */
  int asked;               /* KEY_HELP or KEY_USAGE; 0: neither */
} parse_input;

/* Where argp itself has told an option from the value of another one, so that `--prompt --help` is
 * a prompt. */
static error_t common_parser(int key, char *arg, struct argp_state *state) {
  (void)arg;
  parse_input *in = state->input;
  switch (key) {
  case ARGP_KEY_INIT:
    state->err_stream = in->complaints;
    state->name = (char *)(uintptr_t)in->cli->name;
    state->child_inputs[0] = in;
    return 0;
  case KEY_HELP:
  case KEY_USAGE:
    in->asked = key;
    return ECANCELED; /* ends the parsing: what follows is not looked at */
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

/* What a path names, by the word that stands for it in the help; NULL for other words. */
static const char *path_kind(const char *word) {
  if (word && strcmp(word, "FILE") == 0) return "a file";
  if (word && strcmp(word, "DIR") == 0) return "a directory";
  return word && strcmp(word, "PATH") == 0 ? "a file or a directory" : NULL;
}

/* The command's parser, behind a look at its arguments: no path is an empty text, which the system
 * would take for the folder the program was started in. */
static error_t command_parser(int key, char *arg, struct argp_state *state) {
  const parse_input *in = state->input;
  const struct argp_option *o = in->argp->options;
  const char *kind = NULL, *dashes = "--", *name = NULL;
  if (key == ARGP_KEY_ARG) {
    kind = path_kind(in->argp->args_doc);
    dashes = "";
    name = in->argp->args_doc;
  }
  for (; o && (o->name || o->key || o->doc) && !kind; o++) /* a heading has a doc alone */
    if (o->name && o->key == key) {
      kind = path_kind(o->arg);
      name = o->name;
    }
  if (kind && arg && !*arg) {
    argp_error(state, "%s%s: expected %s, found an empty string", dashes, name, kind);
    return EINVAL;
  }
  state->input = in->input;
  error_t code = in->argp->parser(key, arg, state);
  state->input = (void *)(uintptr_t)in;
  return code;
}

/* Cuts the complaint down to what is wrong: behind the name, and without the line on where to find
 * help, which argp puts last; a value that is quoted may have line breaks of its own. */
static const char *trim(char *text, const char *name) {
  char *help = NULL, *at = text;
  while ((at = strstr(at, "\nTry `"))) help = at++;
  size_t n = strlen(text), named = strlen(name);
  if (help)
    *help = '\0';
  else if (n > 0 && text[n - 1] == '\n')
    text[n - 1] = '\0';
  return strncmp(text, name, named) == 0 && text[named] == ':' ? text + named + 2 : text;
}

/* Runs argp over argv with its complaints, and those of getopt below it, in in->complaints. getopt
 * knows no stream but stderr; glibc lets it be set like any variable. */
static error_t parse(parse_input *in, int argc, char **argv) {
  const struct argp command = {
      in->argp->options, command_parser, in->argp->args_doc, in->argp->doc, NULL, NULL, NULL};
  const struct argp_child children[] = {{&command, 0, NULL, 0}, {0}};
  const struct argp common = {
      .options = common_options, .parser = common_parser, .children = children};
  FILE *standard_error = stderr;
  char *first_word = argv[0];
  stderr = in->complaints;
  argv[0] = (char *)(uintptr_t)in->cli->name;
  error_t code = argp_parse(&common, argc, argv, ARGP_NO_EXIT | ARGP_NO_HELP, NULL, in);
  argv[0] = first_word;
  stderr = standard_error;
  return code;
}

int pdt_cli_parse(const pdt_cli *cli, const struct argp *argp, int argc, char **argv, void *input,
                  pdt_error *err) {
  char *text = NULL, *name = (char *)(uintptr_t)cli->name;
  size_t length = 0;
  parse_input in = {.cli = cli, .argp = argp, .input = input};
  in.complaints = open_memstream(&text, &length);
  if (!in.complaints) return pdt_fail(err, PDT_ERROR_MEMORY, "%s: no memory", name);
  error_t code = parse(&in, argc, argv);
  fclose(in.complaints);
  if (in.asked && cli->world->rank == 0) {
    const unsigned help = ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK;
    argp_help(argp, stdout, in.asked == KEY_HELP ? help : ARGP_HELP_USAGE, name);
  }
  if (code && !in.asked) {
    const char *what = trim(text, name);
    pdt_fail(err, PDT_ERROR_USAGE, "%s (hint: %s --help)",
             *what ? what : "the command line could not be read", name);
  }
  free(text);
  return in.asked ? 1 : code ? -1 : 0;
}

bool pdt_cli_keep(const pdt_cli_kept *options, size_t n, int key, const char *arg) {
  for (size_t i = 0; i < n; i++) {
    if (options[i].key != key) continue;
    if (options[i].text) *options[i].text = arg;
    if (options[i].given) *options[i].given = true;
    return true;
  }
  return false;
}

error_t pdt_cli_argument(struct argp_state *state, const char *word, const char *arg,
                         const char **place) {
  if (place && !*place) {
    *place = arg;
    return 0;
  }
  if (place)
    argp_error(state, "expected one %s, found '%s' after it", word, arg);
  else
    argp_error(state, "expected options only, found '%s'", arg);
  return EINVAL;
}

/* Are these the only characters? The C library also takes white space in front, and hexadecimal. */
static bool is_written_as(const char *arg, const char *characters) {
  return arg[strspn(arg, characters)] == '\0';
}

error_t pdt_cli_seed(struct argp_state *state, const char *option, const char *arg, uint64_t *out) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(arg, &end, 10);
  if (!is_written_as(arg, "+0123456789") || end == arg || *end || errno) {
    argp_error(state, "--%s: expected an integer from 0 to %llu, found '%s'", option,
               (unsigned long long)UINT64_MAX, arg);
    return EINVAL;
  }
  *out = value;
  return 0;
}

error_t pdt_cli_integer(struct argp_state *state, const char *option, const char *arg, int64_t low,
                        int64_t high, int64_t *out) {
  char *end;
  errno = 0;
  long long value = strtoll(arg, &end, 10);
  if (!is_written_as(arg, "+-0123456789") || end == arg || *end || errno || value < low ||
      value > high) {
    argp_error(state, "--%s: expected an integer from %lld to %lld, found '%s'", option,
               (long long)low, (long long)high, arg);
    return EINVAL;
  }
  *out = value;
  return 0;
}

error_t pdt_cli_int32(struct argp_state *state, const char *option, const char *arg, int32_t low,
                      int32_t high, int32_t *out) {
  int64_t value;
  error_t rc = pdt_cli_integer(state, option, arg, low, high, &value);
  if (!rc) *out = (int32_t)value;
  return rc;
}

error_t pdt_cli_real(struct argp_state *state, const char *option, const char *arg, double low,
                     double high, double *out) {
  char *end;
  double value = strtod(arg, &end);
  if (!is_written_as(arg, "+-.0123456789eE") || end == arg || *end || !isfinite(value) ||
      value < low || value > high) {
    argp_error(state, "--%s: expected a number from %g to %g, found '%s'", option, low, high, arg);
    return EINVAL;
  }
  *out = value;
  return 0;
}

error_t pdt_cli_bytes(struct argp_state *state, const char *option, const char *arg,
                      pdt_bytes *out) {
  char *end;
  errno = 0;
  long long value = strtoll(arg, &end, 10);
  int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : *end == 'T' ? 40 : 0;
  if (end != arg && shift) end++;
  if (end == arg || *end || errno || value < 1 || value > INT64_MAX >> shift) {
    argp_error(state, "--%s: expected a size such as 512M or 4G, found '%s'", option, arg);
    return EINVAL;
  }
  *out = (pdt_bytes)value << shift;
  return 0;
}
