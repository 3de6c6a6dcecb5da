#include "run/decode_journal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "pdt_version.h"
#include "request/message.h"

/* More than tags, lengths and small numbers of a message take. */
enum { MESSAGE_BYTES = 64 };

/* Bytes of a number below `end` as a varint. */
static int64_t varint_bytes(int64_t end) {
  int64_t bytes = 1;
  while ((end >>= 7) > 0) bytes++;
  return bytes;
}

/* The most bytes of a session's part of a decision. */
static int64_t decision_bytes(const pdt_decode_input *in, const pdt_request *r) {
  int64_t token = varint_bytes(in->model.vocab_size);
  int64_t block =
      MESSAGE_BYTES + pdt_settings_block(&r->settings) * token + in->sidecar.plan_slots * 4;
  return MESSAGE_BYTES + r->settings.streams * block;
}

/* A request's start fits into an entry. */
static int check_start(const pdt_decode_input *in, const pdt_request *r, int32_t index,
                       pdt_error *err) {
  char name[PDT_REQUEST_NAME_BYTES];
  pdt_request_message m;
  int status = pdt_request_message_new(&m, r, err);
  int64_t bytes = status ? 0 : (int64_t)pdt__request__get_packed_size(&m.message);
  pdt_request_message_free(&m);
  bytes += 2 * MESSAGE_BYTES + (in->sidecar.plan_slots + in->sidecar.notes_dim) * (int64_t)5;
  if (status || bytes <= PDT_JOURNAL_MAX_ENTRY_BYTES) return status;
  pdt_request_name(name, sizeof name, r, index);
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "--journal: %s would be an entry of up to %lld bytes: expected at most %d (hint: "
                  "a shorter request, or no journal)",
                  name, (long long)bytes, PDT_JOURNAL_MAX_ENTRY_BYTES);
}

int pdt_decode_journal_check(const pdt_decode_input *in, const pdt_request *r, int32_t index,
                             pdt_largest *decisions, pdt_error *err) {
  if (check_start(in, r, index, err) || pdt_largest_add(decisions, decision_bytes(in, r), err))
    return -1;
  int64_t most = MESSAGE_BYTES + decisions->sum;
  if (most <= PDT_JOURNAL_MAX_ENTRY_BYTES) return 0;
  return pdt_fail(err, PDT_ERROR_USAGE,
                  "--journal: a decision would be an entry of up to %lld bytes: expected at most "
                  "%d (hint: fewer --max-sessions, streams or block_tokens, or no journal)",
                  (long long)most, PDT_JOURNAL_MAX_ENTRY_BYTES);
}

int pdt_decode_journal_header(pdt_journal *j, const pdt_decode_input *input,
                              const pdt_engine *engine, const pdt_comm *world, pdt_error *err) {
  Pdt__RunHeader header = PDT__RUN_HEADER__INIT;
  header.version = (char *)(uintptr_t)PDT_VERSION;
  header.model_fingerprint = pdt_engine_loaded(engine)->fingerprints.model;
  header.sidecar_fingerprint = pdt_engine_loaded(engine)->fingerprints.sidecar;
  header.ranks = (uint32_t)world->size;
  header.tensor_parallel = (uint32_t)pdt_engine_layout_of(engine).tensor_parallel;
  header.requests = (uint32_t)input->n;
  header.requests_fingerprint = input->fingerprint;
  return pdt_journal_append_header(j, &header, err);
}

/* ---- in the order of requests ---- */

void pdt_journal_order_free(pdt_journal_order *order) {
  for (size_t i = 0; i < order->n; i++) free(order->waiting[i].error.data);
  free(order->waiting);
  *order = (pdt_journal_order){0};
}

/* Appends the failures whose turn it is. */
static int pass_on(pdt_journal *j, pdt_journal_order *o, pdt_error *err) {
  size_t n = 0;
  int status = 0;
  while (n < o->n && o->waiting[n].request == (uint32_t)o->next && !status) {
    status = pdt_journal_append_failure(j, &o->waiting[n], err);
    free(o->waiting[n++].error.data);
    o->next++;
  }
  if (n == 0) return 0;
  o->n -= n;
  memmove(o->waiting, o->waiting + n, o->n * sizeof *o->waiting);
  return status;
}

int pdt_decode_journal_failure(pdt_journal *j, pdt_journal_order *o,
                               const Pdt__RequestFailure *failure, pdt_error *err) {
  if (failure->request < (uint32_t)o->next) return pdt_journal_append_failure(j, failure, err);
  if (PDT_GROW(&o->waiting, o->n, &o->room, err)) return -1;
  Pdt__RequestFailure copy = *failure;
  copy.error.data = malloc(failure->error.len + 1);
  if (!copy.error.data) return pdt_fail(err, PDT_ERROR_MEMORY, "journal: no memory");
  memcpy(copy.error.data, failure->error.data, failure->error.len);
  size_t at = o->n++;
  for (; at > 0 && o->waiting[at - 1].request > copy.request; at--)
    o->waiting[at] = o->waiting[at - 1];
  o->waiting[at] = copy;
  return pass_on(j, o, err);
}

static int append_start(pdt_journal *j, const pdt_running *s, const pdt_sidecar_config *sidecar,
                        pdt_error *err) {
  pdt_request_message m;
  Pdt__SessionStart start = PDT__SESSION_START__INIT;
  start.session = s->request->session;
  start.request = (uint32_t)s->index;
  start.n_plan_ids = (size_t)sidecar->plan_slots;
  start.plan_ids = s->plan.ids;
  start.n_plan_note = (size_t)sidecar->notes_dim;
  start.plan_note = s->plan.note;
  int status = pdt_request_message_new(&m, s->request, err);
  start.resolved = &m.message;
  if (!status) status = pdt_journal_append_start(j, &start, err);
  pdt_request_message_free(&m);
  return status;
}

int pdt_decode_journal_start(pdt_journal *j, pdt_journal_order *order, const pdt_running *s,
                             const pdt_sidecar_config *sidecar, pdt_error *err) {
  if (append_start(j, s, sidecar, err)) return -1;
  order->next = s->index + 1;
  return pass_on(j, order, err);
}

int pdt_decode_journal_end(pdt_journal *j, const pdt_request *r, int32_t index, bool complete,
                           pdt_error *err) {
  Pdt__SessionEnd end = PDT__SESSION_END__INIT;
  end.session = r->session;
  end.request = (uint32_t)index;
  end.complete = complete;
  return pdt_journal_append_end(j, &end, err);
}
