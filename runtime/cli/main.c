/* pdt: the command line. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/stack.h"
#include "base/text_safe.h"
#include "cli/cli.h"
#include "cli/version.h"

static const pdt_command commands[] = {
    {"decode", "decode prompts by parallel streams (under mpirun, or alone)", true, pdt_cmd_decode},
    {"serve", "decode over HTTP (under mpirun, or alone)", true, pdt_cmd_serve},
    {"train", "train a model (under mpirun, or alone)", true, pdt_cmd_train},
    {"eval", "decode held-out entries and judge them (under mpirun, or alone)", true, pdt_cmd_eval},
    {"perplexity", "how well a model foretells a text (under mpirun, or alone)", true,
     pdt_cmd_perplexity},
    {"doctor", "look at all ranks and machines (under mpirun, or alone)", true, pdt_cmd_doctor},
    {"plan", "forecast memory and time of a model on a cluster", false, pdt_cmd_plan},
    {"tokenize", "texts to token ids and back", false, pdt_cmd_tokenize},
    {"inspect", "show what a model, sidecar, journal or output file holds", true, pdt_cmd_inspect},
    {"view", "write the page of a finished run", false, pdt_cmd_view},
    {"model convert", "a model from GGUF to a directory, or into GGUF", false,
     pdt_cmd_model_convert},
    {"model random", "make a model with random weights", false, pdt_cmd_model_random},
    {"sidecar init", "make a fresh sidecar for a model", false, pdt_cmd_sidecar_init},
    {"sidecar describe", "tell what a sidecar was trained with", false, pdt_cmd_sidecar_describe},
    {"data atlas", "write texts whose sections share facts", false, pdt_cmd_data_atlas},
    {"data documents", "make training data of your own documents", false, pdt_cmd_data_documents},
    {"data check", "check a file of training or test data", false, pdt_cmd_data_check},
    {"data score", "what coordination buys on data of any kind", false, pdt_cmd_data_score},
    {"data tokenizer", "write the tokenizer of those texts", false, pdt_cmd_data_tokenizer},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out) {
  fprintf(out, "pdt: the runtime of the Parallel Decoder Transformer\n\n"
               "usage: pdt COMMAND [OPTION...]\n"
               "       mpirun -n RANKS pdt decode [OPTION...]\n\n"
               "commands:\n");
  for (int i = 0; i < N_COMMANDS; i++)
    fprintf(out, "  %-16s %s\n", commands[i].name, commands[i].summary);
  fprintf(out, "\n"
               "  pdt COMMAND --help tells a command's options, with examples\n"
               "  pdt --version      tells what was built in\n");
}

/* The command that argv[1..] names, and how many words its name has; NULL when there is none. */
static const pdt_command *find_command(int argc, char **argv, int *words) {
  for (int i = 0; i < N_COMMANDS; i++) {
    char two[64] = "";
    if (argc > 2) snprintf(two, sizeof two, "%s %s", argv[1], argv[2]);
    *words = strchr(commands[i].name, ' ') ? 2 : 1;
    if (strcmp(*words == 2 ? two : argv[1], commands[i].name) == 0) return &commands[i];
  }
  return NULL;
}

/* Runs one command; the exit status. Every rank gets here, rank 0 alone speaks. */
static int run_command(const pdt_comm *world, const pdt_command *command, int words, int argc,
                       char **argv) {
  char name[64];
  snprintf(name, sizeof name, "pdt %s", command->name);
  const pdt_cli cli = {name, world};
  pdt_error err = {0};
  if (!command->parallel && world->size > 1) {
    if (world->rank == 0)
      pdt_say(stderr, "%s: runs in one process, found %d ranks (hint: without mpirun)", name,
              world->size);
    return 2;
  }
  if (command->run(&cli, argc - words, argv + words, &err) == 0) return 0;
  if (world->rank == 0) pdt_say(stderr, "%s: %s", name, err.message);
  return pdt_exit_status(err.code);
}

/* Does `word` stand for a long option, whole or cut short? */
static bool begins(const char *word, const char *option) {
  return strlen(word) > 2 && strncmp(word, option, strlen(word)) == 0;
}

static bool is_help(const char *word) {
  return begins(word, "--help") || begins(word, "--usage") || strcmp(word, "help") == 0 ||
         strcmp(word, "-h") == 0 || strcmp(word, "-?") == 0;
}

/* What to do with argv, once all ranks are there; the exit status. */
static int dispatch(const pdt_comm *world, int argc, char **argv) {
  bool speaks = world->rank == 0;
  const char *first = argc > 1 ? argv[1] : "";
  if (is_help(first)) {
    if (speaks) print_help(stdout);
    return 0;
  }
  if (begins(first, "--version")) {
    if (speaks) pdt_version_print(stdout);
    return 0;
  }
  int words = 0;
  const pdt_command *command = argc > 1 ? find_command(argc, argv, &words) : NULL;
  if (command) return run_command(world, command, words, argc, argv);
  if (speaks && argc > 1)
    pdt_say(stderr, "pdt: expected a command, found '%s' (hint: pdt --help)", first);
  else if (speaks)
    fprintf(stderr, "pdt: expected a command (hint: pdt --help)\n");
  return 2;
}

/* A standard descriptor that is closed would be that of the next file opened, and what is printed
 * would land in it. It gets the null device, opened for the other direction: reading or writing
 * stays an error. */
static int open_standard_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      return -1;
  return 0;
}

/* Ends a process that is no rank yet; the status. Rank 0 speaks; another one only if it lives on,
 * since the launcher ends all when one has failed, and all may have the same to say. */
static int refuse(const pdt_error *err) {
  if (pdt_comm_told_rank() > 0) sleep(2);
  pdt_say(stderr, "pdt: %s", err->message);
  return pdt_exit_status(err->code);
}

/* What libraries do at a process's end may wait for threads that they had no memory for
 * (OpenBLAS's): where memory is limited, nothing is done there. Output must have been flushed. */
static int leave(int status) {
  if (pdt_limit_bytes("") < INT64_MAX) _exit(status);
  return status;
}

int main(int argc, char **argv) {
  pdt_comm world;
  pdt_error err = {0};
  if (open_standard_descriptors()) {
    fprintf(stderr, "pdt: /dev/null: cannot open: %s\n", strerror(errno));
    return 1;
  }
  if (pdt_stack_prepare(argv, &err) || pdt_comm_check_room(&err)) return leave(refuse(&err));
  (void)signal(SIGXFSZ, SIG_IGN); /* a file at its limit of size is an error like a full disk */
  if (pdt_comm_start(&world, &argc, &argv, &err)) {
    if (world.rank == 0) pdt_say(stderr, "pdt: %s", err.message);
    return leave(pdt_exit_status(err.code));
  }
  int status = dispatch(&world, argc, argv);
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
    fprintf(stderr, "pdt: standard output: cannot write\n");
    status = 1;
  }
  pdt_comm_finish(&world);
  return leave(status);
}
