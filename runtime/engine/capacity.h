/* How much can be in flight at once: declared when a run begins, and what it makes its buffers for.
 * Requests come later, one by one; one that can never fit is refused, one that does not fit yet
 * waits. Pure, but for the memory of counts. */
#ifndef PDT_ENGINE_CAPACITY_H
#define PDT_ENGINE_CAPACITY_H

#include "base/largest.h"
#include "engine/running.h"

/* What sessions take together, on whatever rank or shard group has the most of it. */
typedef struct pdt_load {
  int64_t lanes;       /* streams */
  int64_t group_lanes; /* of them, those of one shard group */
  int64_t own_lanes;   /* of one rank */
  int64_t tokens;      /* of one block of each stream */
  int64_t own_tokens;  /* of them, those of one rank */
  int64_t pages;       /* of one shard group's key/value cache */
} pdt_load;
enum { PDT_LOAD_KINDS = 6 };

typedef struct pdt_capacity {
  int32_t sessions; /* in flight at once, >= 1 */
  pdt_load load;    /* of all of them */
  /* of one session: */
  int32_t positions;    /* of its longest sequence */
  int32_t block_tokens; /* of its longest block */
  int32_t window;       /* notes of its window */
} pdt_capacity;

/* How streams are spread: stream k belongs to rank k mod `ranks`, ranks of a group are consecutive.
 */
typedef struct pdt_spread {
  pdt_rank ranks, group_size;
} pdt_spread;

/* What one request takes. Pure. */
pdt_load pdt_load_of(const pdt_request *request, pdt_spread spread);

/* Makes the capacity that lets any max_sessions of the requests that are added run at once. */
typedef struct pdt_capacity_maker {
  pdt_spread spread;
  int32_t positions, block_tokens, window;
  pdt_largest kinds[PDT_LOAD_KINDS]; /* of load, in its order: of each the max_sessions largest */
} pdt_capacity_maker;

/* Nothing added yet. Memory grows with the requests that are added, up to max_sessions of them. */
pdt_capacity_maker pdt_capacity_maker_of(int32_t max_sessions, pdt_spread spread);

/* Errors: MEMORY. */
int pdt_capacity_maker_add(pdt_capacity_maker *m, const pdt_request *request, pdt_error *err);

/* For what was added so far; for nothing, one session at once that takes nothing. */
pdt_capacity pdt_capacity_made(const pdt_capacity_maker *m);
void pdt_capacity_maker_free(pdt_capacity_maker *m);

/* Can the request ever run within the capacity? Errors: USAGE, saying what is too much of it. */
int pdt_capacity_check(const pdt_capacity *capacity, const pdt_request *request, pdt_spread spread,
                       pdt_error *err);

/* What is in flight, rank by rank. */
typedef struct pdt_ledger {
  pdt_spread spread;
  int32_t sessions;
  int64_t lanes, tokens;
  int64_t *rank_lanes, *rank_tokens; /* [ranks] */
  int64_t *group_pages;              /* [groups] */
} pdt_ledger;

/* An empty one. Errors: MEMORY. */
int pdt_ledger_new(pdt_ledger *l, pdt_spread spread, pdt_error *err);
void pdt_ledger_free(pdt_ledger *l);

/* Adds the request if everything in flight then fits the capacity; false, and nothing is changed,
 * when it does not. */
bool pdt_ledger_add(pdt_ledger *l, const pdt_capacity *capacity, const pdt_request *request);

/* Takes away what was added. */
void pdt_ledger_remove(pdt_ledger *l, const pdt_request *request);

#endif
