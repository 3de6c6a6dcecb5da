/* What the subcommands share: the table, option parsing, how an error leaves the program. */
#ifndef PDT_CLI_CLI_H
#define PDT_CLI_CLI_H

#include <argp.h>

#include "base/error.h"
#include "base/types.h"
#include "comm/comm.h"

/* Handed to every command. */
typedef struct pdt_cli {
  const char *name;      /* "pdt decode", for messages */
  const pdt_comm *world; /* every rank that was started; size 1 without a launcher */
} pdt_cli;

/* One subcommand. run gets argv[0] = the command's last word and returns 0, or -1 with err filled
 * in. A parallel command runs on every rank of cli->world and agrees on its errors before it
 * returns (every rank then returns -1, and rank 0 holds the message to print); the others run in
 * one process only. */
typedef struct pdt_command {
  const char *name; /* "decode", or two words as in "model random" */
  const char *summary;
  bool parallel;
  int (*run)(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
} pdt_command;

int pdt_cmd_decode(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_serve(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_train(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_eval(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_perplexity(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_plan(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_doctor(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_tokenize(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_inspect(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_view(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_model_convert(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_model_random(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_sidecar_init(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_sidecar_describe(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_data_atlas(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_data_documents(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_data_check(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_data_score(const pdt_cli *cli, int argc, char **argv, pdt_error *err);
int pdt_cmd_data_tokenizer(const pdt_cli *cli, int argc, char **argv, pdt_error *err);

/* Parses argv by argp (whose parser gets `input`; it has no children). Returns 0 to go on; 1 when
 * --help or --usage was answered on standard output of rank 0 and the command should return 0; -1
 * with a USAGE error, as when an argument that stands for a FILE, DIR or PATH is an empty string.
 * argp's parsers report bad values with pdt_cli_bad_value or argp_error. Not collective: every rank
 * parses the same arguments. */
int pdt_cli_parse(const pdt_cli *cli, const struct argp *argp, int argc, char **argv, void *input,
                  pdt_error *err);

/* An option of which nothing is asked but to be kept: its argument, or that it was given. */
typedef struct pdt_cli_kept {
  int key;
  const char **text;
  bool *given;
} pdt_cli_kept;

/* For use in an argp parser: keeps what one of n options brings. False: the key is none of them. */
bool pdt_cli_keep(const pdt_cli_kept *options, size_t n, int key, const char *arg);

/* For use in an argp parser, at ARGP_KEY_ARG: *place gets the one argument that there may be,
 * `word` in messages; a command with a place of NULL has options only. 0, or the error code that
 * the parser returns. */
error_t pdt_cli_argument(struct argp_state *state, const char *word, const char *arg,
                         const char **place);

/* For use in an argp parser: parse the argument of option --`option` as an integer in [low, high]
 * (or a finite real number in that range); 0, or the error code that the parser returns. */
error_t pdt_cli_integer(struct argp_state *state, const char *option, const char *arg, int64_t low,
                        int64_t high, int64_t *out);
error_t pdt_cli_int32(struct argp_state *state, const char *option, const char *arg, int32_t low,
                      int32_t high, int32_t *out);
error_t pdt_cli_real(struct argp_state *state, const char *option, const char *arg, double low,
                     double high, double *out);

/* The same for a size of at least 1 byte: 1048576, 512M, 4G. */
error_t pdt_cli_bytes(struct argp_state *state, const char *option, const char *arg,
                      pdt_bytes *out);

/* The same for a seed of random numbers: an integer from 0 to 2^64 - 1. */
error_t pdt_cli_seed(struct argp_state *state, const char *option, const char *arg, uint64_t *out);

#endif
