/* One stream's progress (3.4, 3.8): tokens up to its commit point, and the pending blocks behind
 * it. Every rank holds every stream's state and applies the same decisions to it; the owner alone
 * also computes. No communication, no floating-point kernels. */
#ifndef PDT_PROTOCOL_STREAM_H
#define PDT_PROTOCOL_STREAM_H

#include "base/error.h"
#include "base/types.h"
#include "protocol/decide.h"

/* The settings of a session that bear on its streams. */
typedef struct pdt_stream_limits {
  int32_t block_tokens; /* tau */
  int32_t horizon;      /* H, tokens */
  int32_t max_tokens;   /* output of one stream */
  int32_t slots;        /* S, plan slots */
  pdt_policy policy;
} pdt_stream_limits;

/* A block between its emission and its commit or rollback. */
typedef struct pdt_pending_block {
  pdt_round round;
  int32_t tokens;
} pdt_pending_block;

typedef struct pdt_stream_state {
  pdt_stream index;
  int32_t attempt;                             /* since the commit point */
  int32_t max_tokens, max_pending, max_blocks; /* room below: the most there can be */
  pdt_token *tokens; /* [max_tokens]: n_committed committed ones, then those of pending blocks */
  int32_t n_committed, n_tokens;
  pdt_pending_block *pending; /* [max_pending] */
  int32_t n_pending;
  float *pending_coverage; /* [max_pending, slots], logits of the pending blocks */
  float *best_coverage;    /* [slots]: the largest logit of any committed block, -inf before one */
  pdt_round *forced;       /* [max_blocks]: rounds whose block was forced */
  int32_t n_forced;
  bool ended;   /* the last token ends the sequence */
  bool stalled; /* waits next round */
  bool done;    /* complete, and nothing pending; or not to write at all */
} pdt_stream_state;

/* The most tokens that a stream can write in max_rounds rounds. Pure. */
int32_t pdt_stream_most_tokens(const pdt_stream_limits *limits, int32_t max_rounds);

/* A stream before the first of at most max_rounds rounds, with room for all that it can write and
 * hold in them, whatever the limits allow beyond. Errors: MEMORY. */
int pdt_stream_new(pdt_stream_state *s, pdt_stream index, const pdt_stream_limits *limits,
                   int32_t max_rounds, pdt_error *err);
void pdt_stream_free(pdt_stream_state *s);

/* Makes room for one more block of n_tokens, where a stream was made with less. Errors: MEMORY. */
int pdt_stream_reserve(pdt_stream_state *s, const pdt_stream_limits *limits, int32_t n_tokens,
                       pdt_error *err);

/* Was there nothing for it to write? */
bool pdt_stream_left_out(const pdt_stream_state *s);

/* Does it emit a block next round? */
bool pdt_stream_active(const pdt_stream_state *s);

/* The most tokens its next block may have: tau, or what its limit leaves. */
int32_t pdt_stream_room(const pdt_stream_state *s, const pdt_stream_limits *limits);

/* What one stream emitted this round, and what was decided. action NONE: it emitted nothing. */
typedef struct pdt_block_verdict {
  pdt_stream stream;
  int32_t attempt; /* before the decision */
  float readiness; /* that it was decided by */
  pdt_action action;
  const pdt_token *tokens;
  int32_t n_tokens;
  bool ended;
  const float *coverage; /* [slots] */
} pdt_block_verdict;

/* Could the stream have emitted this block: is it active, and is the block as long as its room, or
 * ended? Errors: RUNTIME. Pure. */
int pdt_stream_check(const pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                     const pdt_block_verdict *verdict, pdt_error *err);

/* Applies a round's decision (step 2) and works out whether the stream waits or is done (3, 4).
 * Sets *withdraw_from to the first round whose note the bus must take back, or 0. A verdict that
 * cannot be is a RUNTIME error and changes nothing: one for a stream that is not active, or a block
 * that is neither as long as its room nor ended, or one after the last round. */
int pdt_stream_apply(pdt_stream_state *s, const pdt_stream_limits *limits, pdt_round round,
                     bool gate, const pdt_block_verdict *verdict, pdt_round *withdraw_from,
                     pdt_error *err);

/* Are two states the same, whatever room they have? Pure. */
bool pdt_stream_equal(const pdt_stream_state *a, const pdt_stream_state *b,
                      const pdt_stream_limits *limits);

/* Does what the state says of itself fit together: committed tokens and pending blocks, rounds that
 * ascend, nothing pending behind the end? For PDT_INVARIANT. */
bool pdt_stream_is_valid(const pdt_stream_state *s);

/* XXH3-64 over everything that pdt_stream_equal compares. Pure. */
uint64_t pdt_stream_hash(const pdt_stream_state *s, const pdt_stream_limits *limits);

#endif
