#include "run/decode_resume.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "request/message.h"
#include "run/fingerprints.h"

/* ---- what the journal was written with ---- */

/* The spool's next request as its message; NULL where it has none, or after an error. */
static Pdt__Request *next_message(const pdt_decode_input *in, pdt_error *err) {
  const char *bytes;
  size_t n;
  if (pdt_request_spool_next(in->spool, &bytes, &n, err) != 1) return NULL;
  return pdt__request__unpack(NULL, n - sizeof(uint32_t),
                              (const uint8_t *)bytes + sizeof(uint32_t));
}

/* What of a request that had started is another than in the spool, which is read up to it: *at is
 * the index of its next one. NULL: nothing. */
static const char *difference(const pdt_decode_input *in, const Pdt__SessionStart *start,
                              uint32_t *at, pdt_error *err) {
  Pdt__Request *own = NULL;
  for (; *at <= start->request; ++*at) {
    if (own) pdt__request__free_unpacked(own, NULL);
    own = next_message(in, err);
  }
  const char *what = own ? pdt_request_difference(start->resolved, own) : "kind";
  if (own) pdt__request__free_unpacked(own, NULL);
  return what;
}

/* The journal's requests are others than those at hand: says of the first that had started and is
 * another what is. */
static int tell_difference(const pdt_decode_resume *r, const pdt_decode_input *in, pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  const char *what = NULL;
  char where[64] = "";
  uint32_t at = 0;
  if (pdt_journal_reader_open(&reader, r->path, err)) return -1;
  pdt_request_spool_rewind(in->spool);
  while (!what && pdt_journal_reader_next(&reader, &entry, err) > 0) {
    const Pdt__SessionStart *start = entry.message->start;
    if (entry.message->entry_case != PDT__JOURNAL_ENTRY__ENTRY_START) continue;
    what = difference(in, start, &at, err);
    snprintf(where, sizeof where, "request %" PRIu32, start->request);
  }
  pdt_journal_reader_close(&reader);
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: journal: expected the requests and settings that it was written with, found "
                  "others: %s%s%s (hint: the same input and flags as before; --overwrite in place "
                  "of --resume starts anew)",
                  r->path, what ? where : "one that had not started", what ? " has another " : "",
                  what ? what : "");
}

static int check_requests(const pdt_decode_resume *r, const Pdt__RunHeader *h,
                          const pdt_decode_input *in, pdt_error *err) {
  if (h->requests != (uint32_t)in->n)
    return pdt_fail(err, PDT_ERROR_INPUT,
                    "%s: journal: expected the %" PRIu32 " requests that it was written with, "
                    "found %d (hint: the same input as before; --overwrite in place of --resume "
                    "starts anew)",
                    r->path, h->requests, in->n);
  return h->requests_fingerprint == in->fingerprint ? 0 : tell_difference(r, in, err);
}

static int check_header(const pdt_decode_resume *r, const Pdt__RunHeader *h,
                        const pdt_decode_options *o, const pdt_decode_input *in, pdt_error *err) {
  uint64_t model, sidecar;
  if (pdt_fingerprint_model(o->engine.model, &model, err) ||
      pdt_fingerprint_sidecar(o->engine.sidecar, &sidecar, err) ||
      pdt_fingerprint_check(r->path, "model", h->model_fingerprint, o->engine.model, model, err) ||
      pdt_fingerprint_check(r->path, "sidecar", h->sidecar_fingerprint, o->engine.sidecar, sidecar,
                            err))
    return -1;
  return check_requests(r, h, in, err);
}

/* ---- reading ---- */

/* Does the file end before a journal's first entry can? Then no run was written to it. */
static bool is_before_a_run(const char *path) {
  struct stat status;
  return stat(path, &status) || status.st_size < PDT_JOURNAL_HEAD_BYTES + PDT_JOURNAL_FRAME_BYTES;
}

/* Takes every entry, and checks the header as soon as it is there. */
static int read_entries(pdt_decode_resume *r, const pdt_decode_options *o,
                        const pdt_decode_input *in, pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  const pdt_replay_session *ended;
  int more;
  if (pdt_journal_reader_open(&reader, r->path, err)) return -1;
  while ((more = pdt_journal_reader_next(&reader, &entry, err)) > 0) {
    if (pdt_replay_entry(&r->replay, &entry, &ended, err)) {
      more = pdt_fail_in(err, "%s: journal", r->path);
      break;
    }
    if (entry.index == 0 && check_header(r, entry.message->header, o, in, err)) {
      more = -1;
      break;
    }
  }
  r->good = reader.good;
  pdt_journal_reader_close(&reader);
  return more;
}

/* A fault that nobody has told of is a failure where failures are passed over; else the run will
 * come to it again. */
static bool is_settled(const pdt_decode_resume *r, const pdt_replay_slot *slot) {
  const pdt_replay_session *s = slot->session;
  return !s || pdt_replay_is_over(s) || (r->skips && s->fault != PDT_FAULT_NONE);
}

bool pdt_decode_resume_is_settled(const pdt_decode_resume *r, int32_t index) {
  return r->on && (size_t)index < r->replay.n && is_settled(r, &r->replay.slots[index]);
}

/* Counts, and finds out where the replay begins: behind it, every boundary has a session that goes
 * on, since no session misses one before it ends. */
static void look_over(pdt_decode_resume *r) {
  r->before = r->replay.boundary;
  for (size_t i = 0; i < r->replay.n; i++) {
    const pdt_replay_slot *slot = &r->replay.slots[i];
    if (is_settled(r, slot)) {
      r->n_kept++;
      continue;
    }
    r->n_going_on++;
    if (slot->session->first > 0 && slot->session->first <= r->before)
      r->before = slot->session->first - 1;
  }
}

int pdt_decode_resume_read(pdt_decode_resume *r, const pdt_decode_options *options,
                           const pdt_decode_input *input, pdt_error *err) {
  *r = (pdt_decode_resume){.path = options->journal, .skips = options->skip_errors};
  pdt_replay_init(&r->replay);
  if (is_before_a_run(r->path)) return 0;
  if (read_entries(r, options, input, err)) return -1;
  r->on = r->replay.have_header;
  look_over(r);
  return 0;
}

void pdt_decode_resume_free(pdt_decode_resume *r) {
  pdt_replay_free(&r->replay);
  pdt_journal_reader_close(&r->reader);
  pdt_buffer_free(&r->packed);
  *r = (pdt_decode_resume){0};
}

bool pdt_decode_resume_is_whole(const pdt_decode_resume *r, int32_t n) {
  return r->on && r->n_kept == n;
}

int pdt_decode_resume_started(const pdt_decode_resume *r, const pdt_running *s,
                              const pdt_sidecar_config *sidecar, bool *started, pdt_error *err) {
  *started = r->on && (size_t)s->index < r->replay.n;
  if (!*started) return 0;
  uint64_t own = pdt_replay_plan_hash(s->plan.ids, (size_t)sidecar->plan_slots, s->plan.note,
                                      (size_t)sidecar->notes_dim);
  if (own == r->replay.slots[s->index].session->plan) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "%s: journal: request %d: its plan is not the recorded one (hint: another layout "
                  "of ranks or machine than it was written with?)",
                  r->path, s->index);
}

/* ---- what is kept ---- */

/* The next entry of what is kept. */
static int keep_entry(const pdt_journal_entry *entry, const pdt_replay_session *ended,
                      const pdt_decode_keeper *k, pdt_error *err) {
  if (entry->message->entry_case == PDT__JOURNAL_ENTRY__ENTRY_FAILURE)
    return k->failure(k->context, entry->message->failure, err);
  return ended ? k->session(k->context, ended, true, err) : 0;
}

/* Those whose end is not told, with a fault or without. */
static int keep_untold(const pdt_decode_resume *r, const pdt_replay *replay, bool faulty,
                       const pdt_decode_keeper *k, pdt_error *err) {
  int status = 0;
  for (size_t i = 0; i < replay->n && !status; i++) {
    const pdt_replay_session *s = replay->slots[i].session;
    if (s && is_settled(r, &replay->slots[i]) && (s->fault != PDT_FAULT_NONE) == faulty)
      status = k->session(k->context, s, false, err);
  }
  return status;
}

int pdt_decode_resume_kept(const pdt_decode_resume *r, const pdt_decode_keeper *keeper,
                           pdt_error *err) {
  pdt_journal_reader reader;
  pdt_journal_entry entry;
  pdt_replay replay;
  const pdt_replay_session *ended;
  int more;
  if (pdt_journal_reader_open_part(&reader, r->path, r->good, err)) return -1;
  pdt_replay_init(&replay);
  while ((more = pdt_journal_reader_next(&reader, &entry, err)) > 0)
    if (pdt_replay_entry(&replay, &entry, &ended, err) || keep_entry(&entry, ended, keeper, err)) {
      more = -1;
      break;
    }
  if (more == 0) more = keep_untold(r, &replay, true, keeper, err);
  if (more == 0) more = keep_untold(r, &replay, false, keeper, err);
  pdt_replay_free(&replay);
  pdt_journal_reader_close(&reader);
  return more;
}

/* ---- what goes on ---- */

/* Packs a recorded decision without the sessions that are settled. */
static int pack(pdt_decode_resume *r, const Pdt__Decision *recorded, pdt_error *err) {
  Pdt__Decision d = *recorded;
  Pdt__SessionDecision **kept = NULL;
  int32_t n = 0;
  if (PDT_NEW(&kept, (int64_t)recorded->n_sessions, "decision", err)) return -1;
  d.bus_hash = 0;
  for (size_t i = 0; i < recorded->n_sessions; i++) {
    Pdt__SessionDecision *s = recorded->sessions[i];
    if (is_settled(r, &r->replay.slots[s->request])) continue;
    kept[n++] = s;
    d.bus_hash = pdt_bus_hash_add(d.bus_hash, s->bus_hash);
  }
  d.sessions = kept;
  d.n_sessions = (size_t)n;
  size_t bytes = pdt__decision__get_packed_size(&d);
  r->packed.bytes = 0;
  int status = pdt_buffer_reserve(&r->packed, bytes, err);
  if (!status) r->packed.bytes = pdt__decision__pack(&d, (uint8_t *)r->packed.data);
  free(kept);
  return status;
}

static int next_decision(void *context, const void **packed, pdt_bytes *bytes, pdt_error *err) {
  pdt_decode_resume *r = context;
  pdt_journal_entry entry;
  int more;
  while ((more = pdt_journal_reader_next(&r->reader, &entry, err)) > 0)
    if (entry.decision && entry.decision->boundary > r->before) break;
  r->replays = more > 0;
  if (more <= 0) return more;
  if (pack(r, entry.decision, err)) return -1;
  *packed = r->packed.data;
  *bytes = (pdt_bytes)r->packed.bytes;
  return 1;
}

int pdt_decode_resume_decisions(pdt_decode_resume *r, pdt_decision_source *out, pdt_error *err) {
  if (!r->on) return 0;
  if (pdt_journal_reader_open_part(&r->reader, r->path, r->good, err)) return -1;
  *out = (pdt_decision_source){
      .context = r, .next = next_decision, .resumes = true, .before = r->before};
  return 0;
}
