/* pdt doctor. */
#include <errno.h>

#include "cli/cli.h"
#include "run/doctor.h"

static error_t parse(int key, char *arg, struct argp_state *state) {
  pdt_doctor_options *o = state->input;
  const pdt_cli_kept kept[] = {
      {'m', &o->model, NULL}, {'s', &o->sidecar, NULL}, {'j', NULL, &o->json}};
  if (pdt_cli_keep(kept, sizeof kept / sizeof *kept, key, arg)) return 0;
  if (key == 't') return pdt_cli_real(state, "timeout", arg, 0, 1e6, &o->timeout_seconds);
  if (key == ARGP_KEY_ARG) return pdt_cli_argument(state, "argument", arg, NULL);
  return key == ARGP_KEY_END ? 0 : ARGP_ERR_UNKNOWN;
}

int pdt_cmd_doctor(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  static const struct argp_option table[] = {
      {"model", 'm', "DIR", 0, "is it the same on every machine?", 0},
      {"sidecar", 's', "FILE", 0, "likewise", 0},
      {"json", 'j', NULL, 0, "one JSON object in place of a table", 0},
      {"timeout", 't', "SECONDS", 0,
       "end all ranks where one is not heard for so long, or no exchange gets on (6; 0: never)", 0},
      {0}};
  static const struct argp argp = {
      table,
      parse,
      NULL,
      "Look at all ranks and their machines before anything is loaded: cores, memory and its "
      "limits, MPI, GPUs, clocks, networks, this program, model and sidecar; time exchanges of all "
      "ranks; and name whoever is not as the others. Ends with status 1 where something must not "
      "stay so."
      "\vExamples:\n"
      "  launch/mpirun --hosts a,b --per-host 4 --interface eth1 \\\n"
      "      pdt doctor --model DIR --sidecar FILE\n"
      "  srun --mpi=pmix pdt doctor --json\n"
      "  pdt doctor\n",
      NULL,
      NULL,
      NULL};
  pdt_doctor_options o = {.timeout_seconds = PDT_USUAL_EXCHANGE_SECONDS};
  int status = pdt_cli_parse(cli, &argp, argc, argv, &o, err);
  if (pdt_comm_agree(cli->world, err)) status = -1;
  if (status == 0) status = pdt_doctor(cli->world, &o, err);
  return status < 0 ? -1 : 0;
}
