/* pdt decode. */
#include "cli/decode_options.h"

int pdt_cmd_decode(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_decode_options options;
  int status = pdt_decode_options_parse(&options, cli, argc, argv, err);
  if (pdt_comm_agree(cli->world, err)) status = -1;
  if (status == 0) status = pdt_decode_run(cli->world, cli->name, &options, err);
  pdt_decode_options_free(&options);
  return status < 0 ? -1 : 0;
}
