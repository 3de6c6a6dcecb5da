#include "protocol/session.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/memory.h"

static int new_streams(pdt_session *s, pdt_session_room room, pdt_error *err) {
  const pdt_settings *x = &s->settings;
  int32_t rounds = room == PDT_ROOM_FOR_ALL ? x->max_rounds : 0;
  if (PDT_NEW(&s->streams, x->streams, "streams", err)) return -1;
  for (pdt_stream k = 0; k < x->streams; k++)
    if (pdt_stream_new(&s->streams[k], k, &x->limits, rounds, err)) return -1;
  return 0;
}

int pdt_session_new(pdt_session *s, const pdt_settings *settings, int32_t note_dim,
                    pdt_session_room room, pdt_error *err) {
  const pdt_window_rule rule = {settings->reveal_delay, pdt_settings_window(settings)};
  int64_t notes = room == PDT_ROOM_FOR_ALL ? pdt_settings_notes(settings) : 1;
  *s = (pdt_session){.settings = *settings, .round = 1};
  if (notes > INT32_MAX)
    return pdt_fail(err, PDT_ERROR_MEMORY, "notes bus: room for %lld notes is too much",
                    (long long)notes);
  if (PDT_NEW(&s->plan_ids, settings->limits.slots, "plan", err) ||
      pdt_bus_new(&s->bus, note_dim, rule, (int32_t)notes, err) || new_streams(s, room, err)) {
    pdt_session_free(s);
    return -1;
  }
  return 0;
}

void pdt_session_free(pdt_session *s) {
  for (pdt_stream k = 0; s->streams && k < s->settings.streams; k++)
    pdt_stream_free(&s->streams[k]);
  free(s->streams);
  free(s->plan_ids);
  pdt_bus_free(&s->bus);
  *s = (pdt_session){0};
}

/* Does the plan have something for stream k? */
static bool has_part(const pdt_settings *s, const int32_t *ids, pdt_stream k) {
  int64_t n = s->part_slots, end = (k + 1) * n;
  if (end > s->limits.slots) end = s->limits.slots;
  for (int64_t i = k * n; i < end; i++)
    if (ids[i] != 0) return true;
  return false;
}

int32_t pdt_session_writers(const pdt_settings *settings, const int32_t *ids) {
  int32_t parts = 0;
  for (pdt_stream k = 0; k < settings->streams; k++) parts += has_part(settings, ids, k);
  return parts > 0 ? parts : settings->streams;
}

void pdt_session_follow(pdt_stream_state *streams, const pdt_settings *settings,
                        const int32_t *ids) {
  if (pdt_session_writers(settings, ids) == settings->streams) return;
  for (pdt_stream k = 0; k < settings->streams; k++) streams[k].done = !has_part(settings, ids, k);
}

int pdt_session_plan(pdt_session *s, const int32_t *ids, const float *note, pdt_error *err) {
  if (pdt_bus_publish(&s->bus, 0, PDT_PLANNER, err)) return -1;
  if (note) pdt_bus_fill(&s->bus, 0, PDT_PLANNER, note);
  if (s->settings.limits.slots > 0)
    memcpy(s->plan_ids, ids, (size_t)s->settings.limits.slots * sizeof *ids);
  pdt_session_follow(s->streams, &s->settings, s->plan_ids);
  PDT_INVARIANT(pdt_session_is_valid(s));
  return 0;
}

/* ---- decisions ---- */

/* The verdict about stream k, whose turn it is at d->blocks[*next]; one of no action when it has
 * none. */
static pdt_block_verdict verdict_about(const pdt_session_decision *d, int32_t *next, pdt_stream k) {
  if (*next < d->n_blocks && d->blocks[*next].stream == k) return d->blocks[(*next)++];
  return (pdt_block_verdict){.stream = k};
}

/* Does one verdict fit the stream, and follow from its readiness? */
static int check_verdict(const pdt_session *s, const pdt_session_decision *d,
                         const pdt_block_verdict *v, pdt_error *err) {
  const pdt_stream_state *stream = &s->streams[v->stream];
  if (v->attempt != stream->attempt)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %d: expected attempt %d, found %d", v->stream,
                    stream->attempt, v->attempt);
  const pdt_vote vote = {v->stream, v->attempt, v->readiness};
  pdt_action expected = pdt_decide_block(&vote, d->gate, s->settings.gamma,
                                         s->settings.limits.policy, s->settings.max_attempts);
  if (v->action != expected)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "stream %d: a readiness of %g with a gate that %s: expected the action %s, "
                    "found %s",
                    v->stream, (double)v->readiness, d->gate ? "passed" : "failed",
                    pdt_action_name(expected), pdt_action_name(v->action));
  return pdt_stream_check(stream, &s->settings.limits, d->round, v, err);
}

/* Is it the session's next round, and does it have one? */
static int check_round(const pdt_session *s, pdt_round round, pdt_error *err) {
  if (round != s->round)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "expected round %d, found %d", s->round, round);
  if (s->round > s->settings.max_rounds)
    return pdt_fail(err, PDT_ERROR_RUNTIME, "round %d: expected at most %d", s->round,
                    s->settings.max_rounds);
  return 0;
}

int pdt_session_check_fault(const pdt_session *s, pdt_round round, pdt_stream k, pdt_error *err) {
  if (check_round(s, round, err)) return -1;
  if (k >= 0 && k < s->settings.streams && pdt_stream_active(&s->streams[k])) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "a fault of stream %d, which has no block in round %d", k,
                  round);
}

int pdt_session_check(const pdt_session *s, const pdt_session_decision *d, pdt_error *err) {
  int32_t next = 0;
  bool gate = true;
  if (check_round(s, d->round, err)) return -1;
  for (pdt_stream k = 0; k < s->settings.streams; k++) {
    pdt_block_verdict v = verdict_about(d, &next, k);
    bool emitted = v.action != PDT_ACTION_NONE;
    if (!emitted && pdt_stream_active(&s->streams[k]))
      return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %d: expected a block, found none", k);
    if (emitted && check_verdict(s, d, &v, err)) return -1;
    gate = gate && (!emitted || pdt_is_ready(v.readiness, s->settings.gamma));
  }
  if (next < d->n_blocks)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "block %d, of stream %d: expected streams below %d, ascending, that did "
                    "something",
                    next, d->blocks[next].stream, s->settings.streams);
  if (gate == d->gate) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "the gate %s, but %s", d->gate ? "passed" : "failed",
                  gate ? "no block was weak" : "a block was weak");
}

int pdt_session_reserve(pdt_session *s, const pdt_session_decision *d, pdt_error *err) {
  for (int32_t i = 0; i < d->n_blocks; i++) {
    const pdt_block_verdict *v = &d->blocks[i];
    if (v->stream < 0 || v->stream >= s->settings.streams) continue; /* not for the check to miss */
    if (pdt_stream_reserve(&s->streams[v->stream], &s->settings.limits, v->n_tokens, err))
      return -1;
  }
  return pdt_bus_reserve(&s->bus, d->n_blocks, err);
}

/* Room for the notes that will be published, those withdrawn first left out of account. */
static int check_room(const pdt_session *s, const pdt_session_decision *d, pdt_error *err) {
  int32_t published = 0;
  for (int32_t i = 0; i < d->n_blocks; i++) published += d->blocks[i].action != PDT_ACTION_ROLLBACK;
  if (s->bus.count + published <= s->bus.capacity) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME, "notes bus: %d notes and %d new ones: room for %d",
                  s->bus.count, published, s->bus.capacity);
}

int pdt_session_apply(pdt_session *s, const pdt_session_decision *d, int64_t *committed,
                      pdt_error *err) {
  int32_t next = 0;
  *committed = 0;
  if (pdt_session_check(s, d, err) || check_room(s, d, err)) return -1;
  for (pdt_stream k = 0; k < s->settings.streams; k++) {
    pdt_stream_state *stream = &s->streams[k];
    pdt_block_verdict v = verdict_about(d, &next, k);
    int32_t before = stream->n_committed;
    pdt_round withdraw_from;
    /* nothing below can fail: it has been checked */
    if (pdt_stream_apply(stream, &s->settings.limits, d->round, d->gate, &v, &withdraw_from, err))
      return -1;
    if (withdraw_from > 0) pdt_bus_withdraw(&s->bus, k, withdraw_from);
    bool published = v.action != PDT_ACTION_NONE && v.action != PDT_ACTION_ROLLBACK;
    if (published && pdt_bus_publish(&s->bus, d->round, k, err)) return -1;
    *committed += stream->n_committed - before;
  }
  s->round++;
  PDT_INVARIANT(pdt_session_is_valid(s));
  return 0;
}

bool pdt_session_complete(const pdt_session *s) {
  for (pdt_stream k = 0; k < s->settings.streams; k++)
    if (!s->streams[k].done) return false;
  return true;
}

bool pdt_session_over(const pdt_session *s) {
  return s->round > s->settings.max_rounds || pdt_session_complete(s);
}

bool pdt_session_equal(const pdt_session *a, const pdt_session *b) {
  bool same = a->settings.streams == b->settings.streams && a->round == b->round &&
              a->settings.limits.slots == b->settings.limits.slots &&
              pdt_bus_hash(&a->bus) == pdt_bus_hash(&b->bus);
  for (int32_t i = 0; same && i < a->settings.limits.slots; i++)
    same = a->plan_ids[i] == b->plan_ids[i];
  for (pdt_stream k = 0; same && k < a->settings.streams; k++)
    same = pdt_stream_equal(&a->streams[k], &b->streams[k], &a->settings.limits);
  return same;
}

uint64_t pdt_session_hash(const pdt_session *s) {
  uint64_t hash = pdt_bus_hash(&s->bus) + (uint64_t)s->round;
  int32_t slots = s->settings.limits.slots;
  if (slots > 0)
    hash = XXH3_64bits_withSeed(s->plan_ids, (size_t)slots * sizeof *s->plan_ids, hash);
  for (pdt_stream k = 0; k < s->settings.streams; k++) {
    const uint64_t words[2] = {hash, pdt_stream_hash(&s->streams[k], &s->settings.limits)};
    hash = XXH3_64bits(words, sizeof words);
  }
  return hash;
}

/* Is there a note of this round and stream on the bus? */
static bool has_note(const pdt_bus *bus, pdt_round round, pdt_stream k) {
  bool has = false;
  for (int32_t i = 0; i < bus->count; i++)
    has = has || (bus->notes[i].name.round == round && bus->notes[i].name.stream == k);
  return has;
}

bool pdt_session_is_valid(const pdt_session *s) {
  if (s->round < 1 || !pdt_bus_is_valid(&s->bus)) return false;
  for (int32_t i = 0; i < s->bus.count; i++) {
    pdt_note_name name = s->bus.notes[i].name;
    if (name.round >= s->round || name.stream >= s->settings.streams) return false;
  }
  for (pdt_stream k = 0; k < s->settings.streams; k++) {
    const pdt_stream_state *stream = &s->streams[k];
    if (stream->index != k || !pdt_stream_is_valid(stream)) return false;
    for (int32_t i = 0; i < stream->n_pending; i++)
      if (!has_note(&s->bus, stream->pending[i].round, k)) return false;
  }
  return true;
}
