/* From files, texts and flags to resolved requests, the same on every rank. */
#ifndef PDT_CLI_DECODE_INPUT_H
#define PDT_CLI_DECODE_INPUT_H

#include "cli/decode_options.h"

typedef struct pdt_decode_input {
  pdt_request *requests; /* [n] */
  int32_t n;
  json_t *resolved;         /* list of them as JSON, texts turned into ids */
  pdt_tokenizer *tokenizer; /* on rank 0, NULL where the model has none */
  pdt_model_config model;
  pdt_sidecar_config sidecar;
  uint32_t told; /* of how requests differ from what the sidecar was trained with */
} pdt_decode_input;

/* Rank 0 reads and resolves, before anything heavy is loaded; the others parse what it sends.
 * Collective over world, blocking; all ranks fail alike. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err);
void pdt_decode_input_free(pdt_decode_input *in);

#endif
