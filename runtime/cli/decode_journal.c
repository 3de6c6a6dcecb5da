#include "cli/decode_journal.h"

#include <stdlib.h>

#include "base/memory.h"
#include "pdt_version.h"

/* The requests as they were resolved, a string each. */
static int request_strings(const json_t *list, char ***strings, size_t *n, pdt_error *err) {
  *n = json_array_size(list);
  if (PDT_NEW(strings, *n, "journal", err)) return -1;
  for (size_t i = 0; i < *n; i++) {
    (*strings)[i] = json_dumps(json_array_get(list, i), JSON_COMPACT);
    if (!(*strings)[i]) return pdt_fail(err, PDT_ERROR_MEMORY, "journal: no memory");
  }
  return 0;
}

int pdt_decode_journal_header(pdt_journal *j, const pdt_decode_input *input,
                              const pdt_engine *engine, const pdt_comm *world, pdt_error *err) {
  Pdt__RunHeader header = PDT__RUN_HEADER__INIT;
  char **strings = NULL;
  uint64_t model = 0;
  int status =
      pdt_checkpoint_fingerprint(pdt_engine_checkpoint(engine), PDT_FINGERPRINT_QUICK, &model, err);
  header.version = (char *)(uintptr_t)PDT_VERSION;
  header.model_fingerprint = model;
  header.sidecar_fingerprint =
      pdt_safetensors_fingerprint(pdt_engine_sidecar_file(engine), PDT_FINGERPRINT_QUICK);
  header.ranks = (uint32_t)world->size;
  header.tensor_parallel = (uint32_t)pdt_engine_layout_of(engine).tensor_parallel;
  if (!status) status = request_strings(input->resolved, &strings, &header.n_requests_json, err);
  header.requests_json = strings;
  if (!status) status = pdt_journal_append_header(j, &header, err);
  for (size_t i = 0; strings && i < header.n_requests_json; i++) free(strings[i]);
  free(strings);
  return status;
}

int pdt_decode_journal_start(pdt_journal *j, const pdt_session *s,
                             const pdt_sidecar_config *sidecar, pdt_error *err) {
  Pdt__SessionStart start = PDT__SESSION_START__INIT;
  start.session = s->request->session;
  start.request = (uint32_t)s->index;
  start.n_plan_ids = (size_t)sidecar->plan_slots;
  start.plan_ids = s->plan.ids;
  start.n_plan_note = (size_t)sidecar->notes_dim;
  start.plan_note = s->plan.note;
  return pdt_journal_append_start(j, &start, err);
}

int pdt_decode_journal_end(pdt_journal *j, const pdt_session *s, pdt_error *err) {
  Pdt__SessionEnd end = PDT__SESSION_END__INIT;
  end.session = s->request->session;
  end.request = (uint32_t)s->index;
  end.complete = pdt_session_complete(s);
  return pdt_journal_append_end(j, &end, err);
}
