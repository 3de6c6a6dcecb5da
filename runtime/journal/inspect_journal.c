#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/text_safe.h"
#include "journal/inspect.h"
#include "journal/replay.h"
#include "protocol/decide.h"
#include "request/message.h"

/* ---- for people ---- */

static void table_header(FILE *out, const Pdt__RunHeader *h) {
  (void)fputs("written by pdt ", out);
  (void)pdt_json_put_string(out, h->version, strlen(h->version)); /* quoted: it may be anything */
  (void)fprintf(out,
                "\nmodel %016" PRIx64 ", sidecar %016" PRIx64 "\n%u ranks, tensor parallel %u\n"
                "%u requests, fingerprint %016" PRIx64 "\n\n",
                h->model_fingerprint, h->sidecar_fingerprint, h->ranks, h->tensor_parallel,
                h->requests, h->requests_fingerprint);
  (void)fprintf(out, "%8s  %7s  %7s  %5s  %-6s  %6s  %9s  %s\n", "boundary", "request", "session",
                "round", "gate", "tokens", "readiness", "actions");
}

static void table_round(FILE *out, const Pdt__Decision *d, const Pdt__SessionDecision *s,
                        size_t n_streams) {
  static const char letters[] = ".CHRF";
  size_t tokens = 0, next = 0;
  float least = 2;
  for (size_t i = 0; i < s->n_streams; i++) {
    tokens += s->streams[i]->n_tokens;
    if (s->streams[i]->readiness < least) least = s->streams[i]->readiness;
  }
  (void)fprintf(out, "%8" PRIu64 "  %7u  %7" PRIu64 "  %5u  %-6s  %6zu  ", d->boundary, s->request,
                s->session, s->round, s->gate ? "passed" : "failed", tokens);
  (void)(s->n_streams ? fprintf(out, "%9.6f  ", (double)least) : fprintf(out, "%9s  ", "-"));
  for (size_t k = 0; k < n_streams; k++) {
    bool emitted = next < s->n_streams && s->streams[next]->stream == k;
    (void)fputc(letters[emitted ? s->streams[next]->action : PDT__ACTION__ACTION_NONE], out);
    next += emitted;
  }
  (void)fputc('\n', out);
}

static void table_fault(FILE *out, const Pdt__Decision *d, const Pdt__SessionDecision *s) {
  if (s->fault == PDT__FAULT__FAULT_WITHDRAWN) {
    (void)fprintf(out, "%8" PRIu64 "  %7u  %7" PRIu64 "  %5u  it is withdrawn\n", d->boundary,
                  s->request, s->session, s->round);
    return;
  }
  (void)fprintf(out, "%8" PRIu64 "  %7u  %7" PRIu64 "  %5u  a fault of stream %u's %s ends it\n",
                d->boundary, s->request, s->session, s->round, s->fault_stream,
                pdt_fault_name((pdt_fault)s->fault));
}

/* How a session came to its end. */
static const char *end_text(const Pdt__SessionEnd *end, const pdt_replay *replay) {
  if (replay->slots[end->request].fault != PDT_FAULT_NONE) return "ended by a fault";
  return end->complete ? "complete" : "ended by max_rounds, streams were not done";
}

static void table_failure(FILE *out, const Pdt__RequestFailure *f) {
  (void)fprintf(out, "%8s  %7u  %7" PRIu64 "  not served: ", "error", f->request, f->session);
  pdt_put_escaped(out, (const char *)f->error.data, f->error.len, false);
  (void)fputc('\n', out);
}

static void table_entry(FILE *out, const pdt_journal_entry *e, const pdt_replay *replay) {
  const Pdt__JournalEntry *m = e->message;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER) table_header(out, m->header);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START) {
    size_t used = 0;
    for (size_t i = 0; i < m->start->n_plan_ids; i++) used += m->start->plan_ids[i] != 0;
    const Pdt__Request *r = m->start->resolved;
    (void)fprintf(out,
                  "%8s  %7u  %7" PRIu64
                  "  %u streams after a prompt of %zu tokens, %zu of %zu plan "
                  "slots used\n",
                  "start", m->start->request, m->start->session, r->settings->streams,
                  r->n_prompt_ids, used, m->start->n_plan_ids);
  }
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_END)
    (void)fprintf(out, "%8s  %7u  %7" PRIu64 "  %s\n", "end", m->end->request, m->end->session,
                  end_text(m->end, replay));
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE) table_failure(out, m->failure);
  for (size_t i = 0; e->decision && i < e->decision->n_sessions; i++) {
    const Pdt__SessionDecision *s = e->decision->sessions[i];
    if (s->fault == PDT__FAULT__FAULT_NONE)
      table_round(out, e->decision, s, (size_t)replay->slots[s->request].n_streams);
    else
      table_fault(out, e->decision, s);
  }
}

static void table_totals(FILE *out, const pdt_journal_totals *t, const pdt_journal_reader *r) {
  (void)fprintf(
      out,
      "\n%" PRId64 " entries, %" PRId64 " boundaries\n"
      "%" PRId64 " of %" PRId64 " sessions started, %" PRId64 " ended, %" PRId64 " complete\n"
      "%" PRId64 " rounds, the gate passed in %" PRId64 "\n"
      "%" PRId64 " blocks committed, %" PRId64 " held, %" PRId64 " rolled back, %" PRId64
      " forced\n"
      "%" PRId64 " tokens emitted, %" PRId64 " committed\n",
      t->entries, t->boundaries, t->started, t->requests, t->ended, t->complete, t->rounds,
      t->gates, t->commits, t->holds, t->rollbacks, t->forced, t->tokens, t->committed);
  if (t->faults > 0)
    (void)fprintf(out, "%" PRId64 " sessions were ended by a fault, or withdrawn\n", t->faults);
  if (t->failed > 0) (void)fprintf(out, "%" PRId64 " requests were not served\n", t->failed);
  if (r->torn > 0)
    (void)fprintf(out,
                  "the end is torn: the last %lld of %lld bytes are no whole entry, as after a "
                  "crash\n",
                  (long long)r->torn, (long long)r->size);
  else
    (void)fprintf(out, "the end is whole: %lld bytes\n", (long long)r->size);
}

/* ---- for machines ---- */

static void json_header(FILE *out, const Pdt__RunHeader *h) {
  (void)fputs("{\"type\":\"header\",\"version\":", out);
  (void)pdt_json_put_string(out, h->version, strlen(h->version));
  (void)fprintf(out,
                ",\"model_fingerprint\":\"%016" PRIx64 "\",\"sidecar_fingerprint\":\"%016" PRIx64
                "\",\"ranks\":%u,\"tensor_parallel\":%u,\"requests\":%u,"
                "\"requests_fingerprint\":\"%016" PRIx64 "\"}\n",
                h->model_fingerprint, h->sidecar_fingerprint, h->ranks, h->tensor_parallel,
                h->requests, h->requests_fingerprint);
}

/* The keys every line about a session begins with. */
static void json_session(FILE *out, const char *type, uint32_t request, uint64_t session) {
  (void)fprintf(out, "{\"type\":\"%s\",\"request\":%u,\"session\":", type, request);
  pdt_json_put_u64(out, session);
}

/* What every line about a session's part of a decision goes on with. */
static void json_boundary(FILE *out, const Pdt__Decision *d, const Pdt__SessionDecision *s) {
  (void)fputs(",\"boundary\":", out);
  pdt_json_put_u64(out, d->boundary);
  (void)fprintf(out, ",\"bus_hash\":\"%016" PRIx64 "\",\"round\":%u", s->bus_hash, s->round);
}

static void json_fault(FILE *out, const Pdt__Decision *d, const Pdt__SessionDecision *s) {
  json_session(out, "fault", s->request, s->session);
  json_boundary(out, d, s);
  (void)fprintf(out, ",\"stream\":%u,\"fault\":\"%s\"}\n", s->fault_stream,
                pdt_fault_name((pdt_fault)s->fault));
}

static void json_round(FILE *out, const Pdt__Decision *d, const Pdt__SessionDecision *s) {
  json_session(out, "round", s->request, s->session);
  json_boundary(out, d, s);
  (void)fprintf(out, ",\"gate\":%s,\"streams\":[", s->gate ? "true" : "false");
  for (size_t i = 0; i < s->n_streams; i++) {
    const Pdt__StreamDecision *b = s->streams[i];
    (void)fprintf(out,
                  "%s{\"stream\":%u,\"action\":\"%s\",\"attempt\":%u,\"readiness\":", i ? "," : "",
                  b->stream, pdt_action_name((pdt_action)b->action), b->attempt);
    pdt_json_put_float(out, b->readiness);
    (void)fprintf(out, ",\"ended\":%s,\"tokens\":", b->ended ? "true" : "false");
    pdt_json_put_i32s(out, b->tokens, b->n_tokens);
    (void)fputs(",\"coverage\":", out);
    pdt_json_put_floats(out, b->coverage, b->n_coverage);
    (void)fputc('}', out);
  }
  (void)fputs("]}\n", out);
}

static void json_entry(FILE *out, const pdt_journal_entry *e) {
  const Pdt__JournalEntry *m = e->message;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER) json_header(out, m->header);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START) {
    json_session(out, "start", m->start->request, m->start->session);
    (void)fputs(",\"plan_ids\":", out);
    pdt_json_put_i32s(out, m->start->plan_ids, m->start->n_plan_ids);
    (void)fputs(",\"plan_note\":", out);
    pdt_json_put_floats(out, m->start->plan_note, m->start->n_plan_note);
    (void)fputs(",\"resolved\":", out);
    pdt_request_put_json(out, m->start->resolved);
    (void)fputs("}\n", out);
  }
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_END) {
    json_session(out, "end", m->end->request, m->end->session);
    (void)fprintf(out, ",\"complete\":%s}\n", m->end->complete ? "true" : "false");
  }
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE) {
    json_session(out, "error", m->failure->request, m->failure->session);
    (void)fprintf(out, ",\"line\":%u,\"error\":", m->failure->line);
    (void)pdt_json_put_string(out, (const char *)m->failure->error.data, m->failure->error.len);
    (void)fputs("}\n", out);
  }
  for (size_t i = 0; e->decision && i < e->decision->n_sessions; i++) {
    const Pdt__SessionDecision *s = e->decision->sessions[i];
    (s->fault == PDT__FAULT__FAULT_NONE ? json_round : json_fault)(out, e->decision, s);
  }
}

static void json_totals(FILE *out, const pdt_journal_totals *t, const pdt_journal_reader *r) {
  (void)fprintf(out,
                "{\"type\":\"totals\",\"entries\":%" PRId64 ",\"boundaries\":%" PRId64
                ",\"requests\":%" PRId64 ",\"started\":%" PRId64 ",\"ended\":%" PRId64
                ",\"complete\":%" PRId64 ",\"faults\":%" PRId64 ",\"rounds\":%" PRId64
                ",\"gates\":%" PRId64 ",\"commits\":%" PRId64 ",\"holds\":%" PRId64
                ",\"rollbacks\":%" PRId64 ",\"forced\":%" PRId64 ",\"tokens\":%" PRId64
                ",\"committed_tokens\":%" PRId64 ",\"failed\":%" PRId64
                ",\"bytes\":%lld,\"torn_bytes\":%lld}\n",
                t->entries, t->boundaries, t->requests, t->started, t->ended, t->complete,
                t->faults, t->rounds, t->gates, t->commits, t->holds, t->rollbacks, t->forced,
                t->tokens, t->committed, t->failed, (long long)r->size, (long long)r->torn);
}

static int print_entries(pdt_journal_reader *r, pdt_replay *replay, bool json, FILE *out,
                         pdt_error *err) {
  pdt_journal_entry entry;
  const pdt_replay_session *ended;
  int more;
  while ((more = pdt_journal_reader_next(r, &entry, err)) > 0) {
    if (pdt_replay_entry(replay, &entry, &ended, err))
      return pdt_fail_in(err, "%s: journal", r->name);
    if (json)
      json_entry(out, &entry);
    else
      table_entry(out, &entry, replay);
  }
  if (more < 0) return -1;
  if (!replay->have_header)
    return pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: it has no header", r->name);
  (json ? json_totals : table_totals)(out, &replay->totals, r);
  if (fflush(out) || ferror(out))
    return pdt_fail(err, PDT_ERROR_IO, "cannot write what %s holds: %s", r->name, strerror(errno));
  return 0;
}

int pdt_inspect_journal(const char *path, bool json, FILE *out, pdt_error *err) {
  pdt_journal_reader reader;
  pdt_replay replay;
  if (pdt_journal_reader_open(&reader, path, err)) return -1;
  pdt_replay_init(&replay);
  int rc = print_entries(&reader, &replay, json, out, err);
  pdt_replay_free(&replay);
  pdt_journal_reader_close(&reader);
  return rc;
}
