#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "journal/replay.h"
#include "protocol/merge.h"
#include "run/answers.h"
#include "run/view_parts.h"

/* The window of a session's next round. */
typedef struct window {
  pdt_note_name *notes; /* [n] */
  int32_t n;
} window;

typedef struct reading {
  pdt_view_stories *stories;
  const pdt_view_options *options;
  pdt_replay replay;
  window *windows; /* [n], beside the stories */
  size_t windows_room;
} reading;

static bool is_asked(const pdt_view_options *o, uint32_t request) {
  return o->request < 0 || o->request == (int64_t)request;
}

static pdt_story *story_of(const reading *r, uint32_t request) {
  return request < r->stories->n ? r->stories->list[request] : NULL;
}

/* Room for requests up to this one; the replay has seen to it that they come one by one. */
static int make_room(reading *r, uint32_t request, pdt_error *err) {
  pdt_view_stories *s = r->stories;
  while (s->n <= request) {
    if (PDT_GROW(&s->list, s->n, &s->room, err) ||
        PDT_GROW(&r->windows, s->n, &r->windows_room, err))
      return -1;
    r->windows[s->n] = (window){0};
    s->list[s->n++] = NULL;
  }
  return 0;
}

static int new_story(reading *r, uint32_t request, const pdt_request *of, bool has_texts,
                     pdt_error *err) {
  char name[PDT_REQUEST_NAME_BYTES];
  if (make_room(r, request, err)) return -1;
  pdt_request_name(name, sizeof name, of, (int32_t)request);
  const pdt_story_head head = {.name = name,
                               .request = of,
                               .tokenizer = r->stories->tokenizer,
                               .has_texts = has_texts,
                               .gamma = has_texts ? of->settings.gamma : (double)NAN};
  return pdt_story_new(&r->stories->list[request], &head, err);
}

/* ---- rounds ---- */

/* The plan's note is all that there is to read in round 1. */
static int first_window(reading *r, uint32_t request, pdt_error *err) {
  window *w = &r->windows[request];
  if (PDT_NEW(&w->notes, 1, "page", err)) return -1;
  w->notes[0] = (pdt_note_name){0, PDT_PLANNER};
  w->n = 1;
  return 0;
}

static int next_window(reading *r, uint32_t request, const pdt_session *s, pdt_error *err) {
  window *w = &r->windows[request];
  int32_t *indices;
  free(w->notes);
  *w = (window){0};
  if (PDT_NEW(&w->notes, s->bus.count, "page", err) || PDT_NEW(&indices, s->bus.count, "page", err))
    return -1;
  w->n = pdt_bus_window(&s->bus, s->round, indices);
  for (int32_t i = 0; i < w->n; i++) w->notes[i] = s->bus.notes[indices[i]].name;
  free(indices);
  return 0;
}

/* A session's part of a decision that the replay has accepted. */
static int take_round(reading *r, const Pdt__SessionDecision *d, pdt_error *err) {
  pdt_story *story = story_of(r, d->request);
  const pdt_replay_session *s = r->replay.slots[d->request].session;
  pdt_block_verdict *blocks;
  if (!story || !s || d->fault != PDT__FAULT__FAULT_NONE) return 0;
  if (PDT_NEW(&blocks, d->n_streams, "page", err)) return -1;
  for (size_t i = 0; i < d->n_streams; i++) {
    const Pdt__StreamDecision *b = d->streams[i];
    blocks[i] = (pdt_block_verdict){.stream = (pdt_stream)b->stream,
                                    .attempt = (int32_t)b->attempt,
                                    .readiness = b->readiness,
                                    .action = (pdt_action)b->action,
                                    .tokens = b->tokens,
                                    .n_tokens = (int32_t)b->n_tokens};
  }
  const window *w = &r->windows[d->request];
  const pdt_page_round round = {(pdt_round)d->round, d->gate, w->notes, w->n};
  int status = pdt_story_round(story, &round, blocks, (int32_t)d->n_streams, err);
  free(blocks);
  return status || next_window(r, d->request, &s->session, err) ? -1 : 0;
}

/* ---- ends ---- */

/* A session at its end, or as far as it has come: with the order that its answer has, or had. */
static int finish(pdt_story *story, const pdt_replay_session *s, const char *ended_by,
                  const char *error, pdt_error *err) {
  int32_t K = s->request.settings.streams;
  pdt_story_end end = {
      .ended_by = ended_by, .error = error, .error_bytes = error ? strlen(error) : 0};
  pdt_stream *owner = NULL, *order = NULL;
  int status = PDT_NEW(&owner, s->slots, "page", err) || PDT_NEW(&order, K, "page", err);
  if (!status && s->session.streams) {
    pdt_merge(s->session.streams, K, s->plan_ids, s->slots, s->request.settings.keep_order == 1,
              owner, order);
    end.order = order;
  }
  if (!status) status = pdt_story_finish(story, &end, err);
  free(owner);
  free(order);
  return status ? -1 : 0;
}

static int take_end(reading *r, const pdt_replay_session *s, pdt_error *err) {
  pdt_story *story = story_of(r, (uint32_t)s->index);
  if (!story) return 0;
  if (s->fault != PDT_FAULT_NONE) {
    pdt_error why = {0};
    pdt_request_fault(&why, &s->request, s->index, s->round, s->fault_stream, s->fault);
    return finish(story, s, NULL, why.message, err);
  }
  return finish(story, s, s->complete ? "complete" : "max_rounds", NULL, err);
}

/* A request that is not served: it never started, or a fault ended it. */
static int take_failure(reading *r, const Pdt__RequestFailure *f, pdt_error *err) {
  const pdt_request none = {.session = f->session, .line = (int32_t)f->line};
  const pdt_story_end end = {.error = (const char *)f->error.data, .error_bytes = f->error.len};
  if (!story_of(r, f->request) && new_story(r, f->request, &none, false, err)) return -1;
  return pdt_story_finish(r->stories->list[f->request], &end, err);
}

/* Those that the journal leaves without an end, as behind a crash. */
static int finish_others(reading *r, pdt_error *err) {
  int status = 0;
  for (size_t i = 0; i < r->stories->n && !status; i++) {
    const pdt_replay_session *s = r->replay.slots[i].session;
    if (!s || !r->stories->list[i]) continue;
    status = s->fault != PDT_FAULT_NONE
                 ? take_end(r, s, err)
                 : finish(r->stories->list[i], s, NULL, "The journal has no end of it.", err);
  }
  return status;
}

/* ---- the whole ---- */

static int take(reading *r, const pdt_journal_entry *e, const pdt_replay_session *ended,
                pdt_error *err) {
  const Pdt__JournalEntry *m = e->message;
  const pdt_view_options *o = r->options;
  int status = 0;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_HEADER && o->model)
    return pdt_answers_tokenizer(&r->stories->tokenizer, o->path, m->header->model_fingerprint,
                                 o->model, err);
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_START && is_asked(o, m->start->request))
    return new_story(r, m->start->request, &r->replay.slots[m->start->request].session->request,
                     true, err) ||
                   first_window(r, m->start->request, err)
               ? -1
               : 0;
  if (m->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE && is_asked(o, m->failure->request))
    return take_failure(r, m->failure, err);
  for (size_t i = 0; e->decision && i < e->decision->n_sessions && !status; i++)
    status = take_round(r, e->decision->sessions[i], err);
  return status || (ended && take_end(r, ended, err)) ? -1 : 0;
}

static int read_all(reading *r, pdt_journal_reader *reader, pdt_error *err) {
  pdt_journal_entry entry;
  const pdt_replay_session *ended;
  int more;
  while ((more = pdt_journal_reader_next(reader, &entry, err)) > 0) {
    if (pdt_replay_entry(&r->replay, &entry, &ended, err))
      return pdt_fail_in(err, "%s: journal", reader->name);
    if (take(r, &entry, ended, err)) return -1;
  }
  if (more < 0) return -1;
  if (r->replay.have_header) return finish_others(r, err);
  return pdt_fail(err, PDT_ERROR_INPUT, "%s: journal: it has no header", reader->name);
}

int pdt_view_journal(pdt_view_stories *s, const pdt_view_options *options, pdt_error *err) {
  reading r = {.stories = s, .options = options};
  pdt_journal_reader reader;
  if (pdt_journal_reader_open(&reader, options->path, err)) return -1;
  pdt_replay_init(&r.replay);
  int status = read_all(&r, &reader, err);
  for (size_t i = 0; i < s->n; i++) free(r.windows[i].notes);
  free(r.windows);
  pdt_replay_free(&r.replay);
  pdt_journal_reader_close(&reader);
  return status;
}
