#include "protocol/merge.h"

#include <math.h>

/* Adds a stream to the order unless it is there. */
static int32_t add(pdt_stream *order, int32_t n, int32_t before, pdt_stream k) {
  for (int32_t i = 0; i < before; i++)
    if (order[i] == k) return n;
  order[n] = k;
  return n + 1;
}

void pdt_merge(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids, int32_t slots,
               bool keep_order, pdt_stream *owner, pdt_stream *order) {
  for (int32_t i = 0; i < slots; i++) {
    float best = -INFINITY;
    owner[i] = -1;
    for (pdt_stream k = 0; k < K && plan_ids[i] != 0; k++)
      if (streams[k].best_coverage[i] > best) {
        best = streams[k].best_coverage[i];
        owner[i] = k;
      }
  }
  int32_t n = 0;
  for (int32_t slot = 0; slot < slots && !keep_order; slot++)
    if (owner[slot] >= 0) n = add(order, n, n, owner[slot]);
  int32_t owners = n; /* no more of them than slots: the time is that of reading the coverage */
  for (pdt_stream k = 0; k < K; k++) n = add(order, n, owners, k);
}

/* What is looked for: the stream behind those that have their places in the order already. */
typedef struct candidates {
  const pdt_stream_state *streams;
  int32_t K;
  const bool *placed; /* [K] */
  pdt_stream one;     /* may be the next; -1: none was found yet */
  bool several;       /* so may another */
} candidates;

static void add_candidate(candidates *c, pdt_stream k) {
  if (c->one >= 0 && c->one != k) c->several = true;
  c->one = k;
}

/* Of the streams that are done, the one that covers a slot best, unless one that is not covers it
 * better already; -1: none. *covered: is the slot some stream's, however it goes on? */
static pdt_stream best_of_done(const candidates *c, int32_t slot, bool *covered) {
  float best = -INFINITY;
  pdt_stream owner = -1;
  for (pdt_stream k = 0; k < c->K; k++)
    if (c->streams[k].best_coverage[slot] > best) {
      best = c->streams[k].best_coverage[slot];
      owner = k;
    }
  *covered = owner >= 0;
  return owner >= 0 && c->streams[owner].done ? owner : -1;
}

/* Those that may own a slot become candidates, where they have no place yet. False where one of
 * them is the next for sure: no later slot has a say. */
static bool look_at_slot(candidates *c, int32_t slot) {
  bool covered, may_pass;
  pdt_stream best = best_of_done(c, slot, &covered);
  may_pass = !covered || (best >= 0 && c->placed[best]);
  if (best >= 0 && !c->placed[best]) add_candidate(c, best);
  for (pdt_stream k = 0; k < c->K; k++) {
    if (c->streams[k].done) continue;
    if (c->placed[k])
      may_pass = true;
    else
      add_candidate(c, k);
  }
  return may_pass;
}

/* The stream that comes next whatever happens; -1 where several may. */
static pdt_stream next_known(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids,
                             int32_t slots, const bool *placed) {
  candidates c = {.streams = streams, .K = K, .placed = placed, .one = -1};
  bool may_pass = true;
  for (int32_t slot = 0; slot < slots && may_pass && !c.several; slot++)
    if (plan_ids[slot] != 0) may_pass = look_at_slot(&c, slot);
  pdt_stream k = 0;
  while (placed[k]) k++; /* who owns none comes by index */
  if (may_pass) add_candidate(&c, k);
  return c.several ? -1 : c.one;
}

int32_t pdt_merge_known(const pdt_stream_state *streams, int32_t K, const int32_t *plan_ids,
                        int32_t slots, bool *placed, pdt_stream *order) {
  int32_t n = 0;
  for (pdt_stream k = 0; k < K; k++) placed[k] = false;
  for (pdt_stream next; n < K; n++) {
    next = next_known(streams, K, plan_ids, slots, placed);
    if (next < 0) break;
    order[n] = next;
    placed[next] = true;
  }
  return n;
}
