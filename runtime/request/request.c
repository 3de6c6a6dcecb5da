#include "request/request.h"

#include <stdio.h>
#include <stdlib.h>

void pdt_request_free(pdt_request *r) {
  if (r->block) {
    free(r->block);
  } else {
    for (pdt_stream k = 0; r->prefix && k < r->settings.streams; k++) free(r->prefix[k]);
    free(r->prefix);
    free(r->n_prefix);
    free(r->prompt);
    free(r->plan_ids);
  }
  *r = (pdt_request){0};
}

void pdt_request_name(char *text, size_t room, const pdt_request *r, int32_t index) {
  if (r->line > 0)
    snprintf(text, room, "session %llu (request %d, line %d)", (unsigned long long)r->session,
             index, r->line);
  else
    snprintf(text, room, "session %llu (request %d)", (unsigned long long)r->session, index);
}

int pdt_request_fail_in(pdt_error *err, const pdt_request *r, int32_t index) {
  char name[PDT_REQUEST_NAME_BYTES];
  pdt_request_name(name, sizeof name, r, index);
  return pdt_fail_in(err, "%s", name);
}

int pdt_request_fault(pdt_error *err, const pdt_request *r, int32_t index, pdt_round round,
                      pdt_stream stream, pdt_fault fault) {
  static const char *const what[] = {[PDT_FAULT_LOGITS] = "the logits",
                                     [PDT_FAULT_READINESS] = "readiness",
                                     [PDT_FAULT_NOTE] = "the note",
                                     [PDT_FAULT_COVERAGE] = "coverage"};
  char name[PDT_REQUEST_NAME_BYTES];
  pdt_request_name(name, sizeof name, r, index);
  if (fault == PDT_FAULT_WITHDRAWN)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "%s, round %d: it was withdrawn", name, round);
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "%s, round %d, stream %d: %s: expected finite numbers, found NaN or infinity "
                  "(hint: %s)",
                  name, round, stream, what[fault],
                  fault == PDT_FAULT_LOGITS ? "do the activations overflow?"
                                            : "does the sidecar belong to this model?");
}

int32_t pdt_request_own_tokens(const pdt_request *r, pdt_stream stream) {
  return r->n_prefix[stream] + pdt_settings_tokens(&r->settings);
}

int32_t pdt_request_positions(const pdt_request *r) {
  int32_t longest = 0;
  for (pdt_stream k = 0; k < r->settings.streams; k++)
    if (r->n_prefix[k] > longest) longest = r->n_prefix[k];
  return r->n_prompt - 1 + longest + r->settings.limits.max_tokens;
}
