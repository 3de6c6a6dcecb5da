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

static int descending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

int64_t pdt_most_at_once(int64_t *amounts, int32_t n, int32_t max_sessions) {
  int64_t sum = 0;
  qsort(amounts, (size_t)n, sizeof *amounts, descending);
  for (int32_t i = 0; i < n && i < max_sessions; i++) sum += amounts[i];
  return sum;
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
