#include "journal/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "request/message.h"

void pdt_replay_init(pdt_replay *r) {
  *r = (pdt_replay){0};
  pdt_journal_check_init(&r->check);
}

static void free_session(pdt_replay_session *s) {
  if (!s) return;
  for (pdt_stream k = 0; s->streams && k < s->request.settings.streams; k++)
    pdt_stream_free(&s->streams[k]);
  free(s->streams);
  free(s->plan_ids);
  pdt_request_free(&s->request);
  free(s);
}

void pdt_replay_free(pdt_replay *r) {
  for (size_t i = 0; i < r->n; i++) free_session(r->sessions[i]);
  free(r->sessions);
  free_session(r->ended);
  pdt_journal_check_free(&r->check);
  pdt_replay_init(r);
}

static int start(pdt_replay *r, const Pdt__SessionStart *m, pdt_error *err) {
  pdt_replay_session *s;
  if (PDT_GROW(&r->sessions, r->n, &r->room, err) || PDT_NEW(&s, 1, "session", err)) return -1;
  r->sessions[r->n++] = s;
  s->index = (int32_t)m->request;
  s->slots = (int32_t)m->n_plan_ids;
  if (pdt_request_from_message(&s->request, m->resolved, "request", NULL, err) ||
      PDT_NEW(&s->plan_ids, s->slots, "session", err))
    return -1;
  s->request.settings.limits.slots = s->slots;
  if (s->slots > 0) memcpy(s->plan_ids, m->plan_ids, m->n_plan_ids * sizeof *s->plan_ids);
  return 0;
}

/* Its streams, with no room yet: it grows with what the journal has. */
static int first_round(pdt_replay_session *s, pdt_error *err) {
  int32_t K = s->request.settings.streams;
  if (PDT_NEW(&s->streams, K, "session", err)) return -1;
  for (pdt_stream k = 0; k < K; k++)
    if (pdt_stream_new(&s->streams[k], k, &s->request.settings.limits, 0, err)) return -1;
  return 0;
}

/* A round of one session. That it fits the rounds before has been checked. */
static int apply(pdt_replay_session *s, const Pdt__SessionDecision *d, pdt_error *err) {
  const pdt_stream_limits *limits = &s->request.settings.limits;
  size_t next = 0;
  if (d->round == 1 && first_round(s, err)) return -1;
  for (pdt_stream k = 0; k < s->request.settings.streams; k++) {
    pdt_block_verdict v = {0};
    pdt_round withdrawn;
    if (next < d->n_streams && d->streams[next]->stream == (uint32_t)k) {
      const Pdt__StreamDecision *b = d->streams[next++];
      v = (pdt_block_verdict){.action = (pdt_action)b->action,
                              .tokens = b->tokens,
                              .n_tokens = (int32_t)b->n_tokens,
                              .ended = b->ended,
                              .coverage = b->coverage};
      if (pdt_stream_reserve(&s->streams[k], limits, v.n_tokens, err)) return -1;
    }
    if (pdt_stream_apply(&s->streams[k], limits, (pdt_round)d->round, d->gate, &v, &withdrawn,
                         err)) {
      err->code = PDT_ERROR_INPUT; /* what was written cannot be, not what this program does */
      return -1;
    }
  }
  return 0;
}

/* A session leaves the list. */
static int end(pdt_replay *r, const Pdt__SessionEnd *m, pdt_error *err) {
  pdt_replay_session *s = r->ended = r->sessions[m->request];
  r->sessions[m->request] = NULL;
  s->complete = s->streams != NULL;
  for (pdt_stream k = 0; s->complete && k < s->request.settings.streams; k++)
    s->complete = s->streams[k].done;
  if (s->streams && s->complete == (m->complete != 0)) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT, "request %u: it ends %s, but its streams are %s",
                  m->request, m->complete ? "complete" : "before its streams are done",
                  !s->streams   ? "without a round"
                  : s->complete ? "done"
                                : "not done");
}

static int take(pdt_replay *r, const pdt_journal_entry *entry, pdt_error *err) {
  const Pdt__JournalEntry *m = entry->message;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START) return start(r, m->start, err);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_END) return end(r, m->end, err);
  for (size_t i = 0; entry->decision && i < entry->decision->n_sessions; i++) {
    const Pdt__SessionDecision *d = entry->decision->sessions[i];
    if (apply(r->sessions[d->request], d, err))
      return pdt_fail_in(err, "request %u, round %u", d->request, d->round);
  }
  return 0;
}

int pdt_replay_entry(pdt_replay *r, const pdt_journal_entry *entry,
                     const pdt_replay_session **ended, pdt_error *err) {
  free_session(r->ended);
  r->ended = NULL;
  *ended = NULL;
  if (pdt_journal_check_entry(&r->check, entry, err)) return -1;
  if (take(r, entry, err))
    return pdt_fail_in(err, "entry %lld at byte %lld", (long long)entry->index,
                       (long long)entry->offset);
  *ended = r->ended;
  return 0;
}
