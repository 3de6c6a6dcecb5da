#include "protocol/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

int32_t pdt_stream_most_tokens(const pdt_stream_limits *limits, int32_t max_rounds) {
  int64_t written = (int64_t)max_rounds * limits->block_tokens;
  return written < limits->max_tokens ? (int32_t)written : limits->max_tokens;
}

/* Most blocks that wait for a commit: all but the newest leave room for one more below the horizon,
 * and behind a stalling stream's there is none; under policy `local` none waits. */
static int32_t most_pending(const pdt_stream_limits *limits, int32_t blocks) {
  bool one = limits->policy == PDT_STALL || limits->policy == PDT_LOCAL;
  int32_t most = one ? 1 : limits->horizon / limits->block_tokens;
  return most < 1 ? 1 : most < blocks ? most : blocks;
}

int pdt_stream_new(pdt_stream_state *s, pdt_stream index, const pdt_stream_limits *limits,
                   int32_t max_rounds, pdt_error *err) {
  int32_t tokens = pdt_stream_most_tokens(limits, max_rounds);
  int32_t blocks = tokens / limits->block_tokens + (tokens % limits->block_tokens != 0);
  int32_t pending = most_pending(limits, blocks);
  *s = (pdt_stream_state){
      .index = index, .max_tokens = tokens, .max_pending = pending, .max_blocks = blocks};
  if (PDT_NEW(&s->tokens, tokens, "stream tokens", err) ||
      PDT_NEW(&s->pending, pending, "stream blocks", err) ||
      PDT_NEW(&s->pending_coverage, (int64_t)pending * limits->slots, "stream coverage", err) ||
      PDT_NEW(&s->best_coverage, limits->slots, "stream coverage", err) ||
      PDT_NEW(&s->forced, blocks, "stream blocks", err)) {
    pdt_stream_free(s);
    return -1;
  }
  for (int32_t i = 0; i < limits->slots; i++) s->best_coverage[i] = -INFINITY;
  return 0;
}

void pdt_stream_free(pdt_stream_state *s) {
  free(s->tokens);
  free(s->pending);
  free(s->pending_coverage);
  free(s->best_coverage);
  free(s->forced);
  *s = (pdt_stream_state){0};
}

/* Makes an array of *room elements of `size` bytes hold `wanted` of them. */
static int grow(void **array, int32_t *room, int64_t wanted, size_t size, pdt_error *err) {
  if (wanted <= *room) return 0;
  int64_t larger = wanted > 2 * (int64_t)*room ? wanted : 2 * (int64_t)*room;
  void *grown = larger <= INT32_MAX ? realloc(*array, (size_t)larger * size) : NULL;
  if (!grown)
    return pdt_fail(err, PDT_ERROR_MEMORY, "stream: no memory for %lld elements",
                    (long long)larger);
  *array = grown;
  *room = (int32_t)larger;
  return 0;
}

int pdt_stream_reserve(pdt_stream_state *s, const pdt_stream_limits *limits, int32_t n_tokens,
                       pdt_error *err) {
  int32_t pending = s->max_pending; /* two arrays, one number */
  int64_t blocks = (int64_t)s->n_pending + 1, slots = limits->slots > 0 ? limits->slots : 1;
  return grow((void **)&s->tokens, &s->max_tokens, (int64_t)s->n_tokens + n_tokens,
              sizeof *s->tokens, err) ||
                 grow((void **)&s->forced, &s->max_blocks, (int64_t)s->n_forced + 1,
                      sizeof *s->forced, err) ||
                 grow((void **)&s->pending, &pending, blocks, sizeof *s->pending, err) ||
                 grow((void **)&s->pending_coverage, &s->max_pending, blocks,
                      (size_t)slots * sizeof *s->pending_coverage, err)
             ? -1
             : 0;
}

bool pdt_stream_left_out(const pdt_stream_state *s) {
  return s->done && s->n_tokens == 0;
}

bool pdt_stream_active(const pdt_stream_state *s) {
  return !s->done && !s->stalled;
}

int32_t pdt_stream_room(const pdt_stream_state *s, const pdt_stream_limits *limits) {
  int32_t left = limits->max_tokens - s->n_tokens;
  return left < limits->block_tokens ? left : limits->block_tokens;
}

/* Drops pending blocks; returns the round of the oldest, 0 when there was none. */
static pdt_round roll_back(pdt_stream_state *s) {
  pdt_round oldest = s->n_pending ? s->pending[0].round : 0;
  s->n_pending = 0;
  s->n_tokens = s->n_committed;
  s->ended = false;
  s->attempt++;
  return oldest;
}

/* Whole blocks only: so there are never more of them than there is room for. */
int pdt_stream_check(const pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                     const pdt_block_verdict *v, pdt_error *err) {
  if (!pdt_stream_active(s))
    return pdt_fail(err, PDT_ERROR_RUNTIME, "stream %d, round %d: it is %s, yet there is a block",
                    s->index, round, s->done ? "done" : "waiting");
  int32_t room = pdt_stream_room(s, limits), left = s->max_tokens - s->n_tokens;
  if (v->n_tokens > left && v->n_tokens <= room)
    return pdt_fail(err, PDT_ERROR_RUNTIME,
                    "stream %d, round %d: a block of %d tokens after the last round: room for %d",
                    s->index, round, v->n_tokens, left);
  if (v->n_tokens >= 1 && (v->ended ? v->n_tokens <= room : v->n_tokens == room)) return 0;
  return pdt_fail(err, PDT_ERROR_RUNTIME,
                  "stream %d, round %d: a block of %d tokens cannot follow %d tokens and %d "
                  "pending blocks: expected %s%d",
                  s->index, round, v->n_tokens, s->n_tokens, s->n_pending, v->ended ? "1 to " : "",
                  room);
}

static void append_block(pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                         const pdt_block_verdict *v) {
  memcpy(s->tokens + s->n_tokens, v->tokens, (size_t)v->n_tokens * sizeof *v->tokens);
  memcpy(s->pending_coverage + (int64_t)s->n_pending * limits->slots, v->coverage,
         (size_t)limits->slots * sizeof *v->coverage);
  s->n_tokens += v->n_tokens;
  s->pending[s->n_pending++] = (pdt_pending_block){round, v->n_tokens};
  s->ended = v->ended;
}

static void commit(pdt_stream_state *s, int32_t slots) {
  for (int32_t b = 0; b < s->n_pending; b++)
    for (int32_t i = 0; i < slots; i++)
      s->best_coverage[i] = fmaxf(s->best_coverage[i], s->pending_coverage[(int64_t)b * slots + i]);
  s->n_committed = s->n_tokens;
  s->n_pending = 0;
  s->attempt = 0;
}

int pdt_stream_apply(pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                     bool gate, const pdt_block_verdict *verdict, pdt_round *withdraw_from,
                     pdt_error *err) {
  *withdraw_from = 0;
  if (verdict->action != PDT_ACTION_NONE && pdt_stream_check(s, limits, round, verdict, err))
    return -1;
  if (verdict->action == PDT_ACTION_ROLLBACK)
    *withdraw_from = roll_back(s);
  else if (verdict->action != PDT_ACTION_NONE)
    append_block(s, limits, round, verdict);
  bool forced = verdict->action == PDT_ACTION_FORCE;
  if (forced) s->forced[s->n_forced++] = round;
  bool all = gate || forced || verdict->action == PDT_ACTION_COMMIT;
  if (s->n_pending > 0 && all) commit(s, limits->slots);

  bool complete = s->n_tokens > 0 && (s->ended || s->n_tokens >= limits->max_tokens);
  bool at_horizon = s->n_tokens - s->n_committed + limits->block_tokens > limits->horizon;
  s->done = s->done || (complete && s->n_pending == 0); /* what was never to write stays so */
  s->stalled = s->n_pending > 0 && (complete || at_horizon || limits->policy == PDT_STALL);
  return 0;
}

/* The same n elements of `size` bytes? */
static bool same_list(const void *a, const void *b, int64_t n, size_t size) {
  return n == 0 || memcmp(a, b, (size_t)n * size) == 0;
}

bool pdt_stream_equal(const pdt_stream_state *a, const pdt_stream_state *b,
                      const pdt_stream_limits *limits) {
  return a->index == b->index && a->attempt == b->attempt && a->n_committed == b->n_committed &&
         a->n_tokens == b->n_tokens && a->n_pending == b->n_pending && a->n_forced == b->n_forced &&
         a->ended == b->ended && a->stalled == b->stalled && a->done == b->done &&
         same_list(a->tokens, b->tokens, a->n_tokens, sizeof *a->tokens) &&
         same_list(a->pending, b->pending, a->n_pending, sizeof *a->pending) &&
         same_list(a->forced, b->forced, a->n_forced, sizeof *a->forced) &&
         same_list(a->pending_coverage, b->pending_coverage, (int64_t)a->n_pending * limits->slots,
                   sizeof *a->pending_coverage) &&
         same_list(a->best_coverage, b->best_coverage, limits->slots, sizeof *a->best_coverage);
}

bool pdt_stream_is_valid(const pdt_stream_state *s) {
  int64_t tokens = s->n_committed;
  if (s->n_committed < 0 || s->n_tokens > s->max_tokens || s->attempt < 0) return false;
  if (s->n_pending < 0 || s->n_pending > s->max_pending) return false;
  if (s->n_forced < 0 || s->n_forced > s->max_blocks) return false;
  for (int32_t i = 0; i < s->n_pending; i++) {
    if (s->pending[i].tokens < 1 || s->pending[i].round < 1) return false;
    if (i > 0 && s->pending[i].round <= s->pending[i - 1].round) return false;
    tokens += s->pending[i].tokens;
  }
  for (int32_t i = 0; i < s->n_forced; i++)
    if (s->forced[i] <= (i ? s->forced[i - 1] : 0)) return false;
  if (s->done && (s->n_pending > 0 || s->stalled)) return false;
  return tokens == s->n_tokens && (!s->stalled || s->n_pending > 0);
}

/* A list of n elements, behind what was hashed before. */
static uint64_t hash_list(uint64_t before, const void *list, int64_t n, size_t size) {
  return n > 0 ? XXH3_64bits_withSeed(list, (size_t)n * size, before) : before;
}

uint64_t pdt_stream_hash(const pdt_stream_state *s, const pdt_stream_limits *limits) {
  const int32_t numbers[] = {s->index,    s->attempt, s->n_committed, s->n_tokens, s->n_pending,
                             s->n_forced, s->ended,   s->stalled,     s->done};
  uint64_t hash = XXH3_64bits(numbers, sizeof numbers);
  hash = hash_list(hash, s->tokens, s->n_tokens, sizeof *s->tokens);
  hash = hash_list(hash, s->pending, s->n_pending, sizeof *s->pending);
  hash = hash_list(hash, s->forced, s->n_forced, sizeof *s->forced);
  hash = hash_list(hash, s->pending_coverage, (int64_t)s->n_pending * limits->slots,
                   sizeof *s->pending_coverage);
  return hash_list(hash, s->best_coverage, limits->slots, sizeof *s->best_coverage);
}
