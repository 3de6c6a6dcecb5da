/* pdt train for the sidecar's stages. */
#ifndef PDT_CLI_TRAIN_SIDECAR_H
#define PDT_CLI_TRAIN_SIDECAR_H

#include "cli/cli.h"
#include "train/pretrain.h"

typedef struct pdt_train_sidecar_args {
  int32_t stage;
  const char *data, *model, *sidecar, *out;
  const pdt_pretrain_options *run; /* steps, rates, batch, seed and the like */
} pdt_train_sidecar_args;

/* Trains one stage. Collective over cli->world; all ranks fail alike. */
int pdt_train_sidecar(const pdt_cli *cli, const pdt_train_sidecar_args *args, pdt_error *err);

#endif
