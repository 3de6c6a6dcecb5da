/* pdt eval. */
#include <stdlib.h>

#include "base/memory.h"
#include "cli/eval_options.h"

int pdt_cmd_eval(const pdt_cli *cli, int argc, char **argv, pdt_error *err) {
  pdt_eval_options *options;
  int status = 0;
  if (!PDT_NEW(&options, 1, "options", err))
    status = pdt_eval_options_parse(options, cli, argc, argv, err);
  if (pdt_comm_agree(cli->world, err)) status = -1;
  if (status == 0) status = pdt_evaluate(cli->world, cli->name, options, err);
  if (options) pdt_eval_options_free(options);
  free(options);
  return status < 0 ? -1 : 0;
}
