/* From JSON to a resolved request: texts are encoded, plan items hashed, settings judged. */
#ifndef PDT_REQUEST_PARSE_H
#define PDT_REQUEST_PARSE_H

#include <jansson.h>

#include "request/request.h"
#include "sidecar/config.h"
#include "text/tokenizer.h"

/* What a request is read against. */
typedef struct pdt_request_context {
  const pdt_model_config *model;
  const pdt_sidecar_config *sidecar;
  const pdt_tokenizer *tokenizer; /* NULL: texts are refused */
} pdt_request_context;

/* Reads one request. `where` names it in errors; session is its number when it names none. Errors:
 * INPUT for a request that is wrong, USAGE for a setting that cannot be. */
int pdt_request_parse(pdt_request *r, const json_t *json, const char *where, uint64_t session,
                      const pdt_request_context *context, pdt_error *err);

#endif
