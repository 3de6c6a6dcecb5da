/* From files, texts and flags to resolved requests, and from them to a run. */
#ifndef PDT_RUN_DECODE_INPUT_H
#define PDT_RUN_DECODE_INPUT_H

#include "engine/engine.h"
#include "request/parse.h"
#include "request/spool.h"
#include "run/decode.h"

typedef struct pdt_decode_input {
  int32_t n;                    /* requests; on rank 0, as the next four */
  uint64_t fingerprint;         /* of all requests */
  pdt_request_spool *spool;     /* all of them */
  pdt_request request;          /* the one that was handed out last */
  Pdt__RequestFailure *failure; /* why the last one was not, but passed over; NULL: it was */
  pdt_tokenizer *tokenizer;     /* NULL where the model has none */
  pdt_model_config model;
  pdt_sidecar_config sidecar;
  uint64_t config_hash;         /* of the model's config.json that was read */
  pdt_file_state sidecar_state; /* of the sidecar's file, likewise */
} pdt_decode_input;

/* Rank 0 reads, resolves and checks all requests, before anything heavy is loaded, and keeps them
 * in a spool, whose memory does not grow with them. Of many, those that are wrong are kept as
 * failures where the options say so, and are the error else. Collective over world, blocking; all
 * ranks fail alike. Errors: USAGE, INPUT, IO, MEMORY. */
int pdt_decode_input_read(pdt_decode_input *in, const pdt_comm *world,
                          const pdt_decode_options *options, pdt_error *err);

/* Rank 0: what a run of any max_sessions of them at once needs. Errors: IO, MEMORY. */
int pdt_decode_input_capacity(pdt_decode_input *in, int32_t max_sessions, pdt_spread spread,
                              pdt_capacity *out, pdt_error *err);

/* Rank 0: hands the requests out, one at a time, once; those that are wrong are passed over, and
 * `failure` says why. */
pdt_request_source pdt_decode_input_source(pdt_decode_input *in);

/* Requests were read by configs that the engine has loaded anew: fails when those were others. Not
 * collective. Errors: IO. */
int pdt_decode_input_check(const pdt_decode_input *in, const pdt_engine *engine, pdt_error *err);

void pdt_decode_input_free(pdt_decode_input *in);

#endif
