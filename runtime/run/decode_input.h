/* From files, texts and flags to resolved requests, the same on every rank. */
#ifndef PDT_RUN_DECODE_INPUT_H
#define PDT_RUN_DECODE_INPUT_H

#include "request/parse.h"
#include "request/spool.h"
#include "run/decode.h"

typedef struct pdt_decode_input {
  pdt_request *requests; /* [n] */
  int32_t n;
  uint64_t fingerprint;     /* of all requests; on rank 0 */
  pdt_request_spool *spool; /* all of them once more; on rank 0 */
  pdt_tokenizer *tokenizer; /* on rank 0, NULL where the model has none */
  pdt_model_config model;
  pdt_sidecar_config sidecar;
  uint64_t config_hash;         /* of the model's config.json that was read */
  pdt_file_state sidecar_state; /* of the sidecar's file, likewise */
} pdt_decode_input;

/* Rank 0 reads and resolves, before anything heavy is loaded, and sends what it resolved in pieces;
 * every rank, rank 0 too, takes its requests from those. Memory is what the token ids take, and a
 * piece. Collective over world, blocking; all ranks fail alike. Errors: USAGE, INPUT, IO, MEMORY.
 */
int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err);

/* Requests were read by configs that the engine has loaded anew: fails when those were others. Not
 * collective. Errors: IO. */
int pdt_decode_input_check(const pdt_decode_input *in, const pdt_engine *engine, pdt_error *err);

void pdt_decode_input_free(pdt_decode_input *in);

#endif
