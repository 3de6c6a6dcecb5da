/* What a run tells of itself: reports of blocks and rounds, to whom they go, and counts. */
#ifndef PDT_ENGINE_OBSERVER_H
#define PDT_ENGINE_OBSERVER_H

#include "engine/running.h"

/* One stream's block of a round, as observers see it. Pointers last for the call. In rounds whose
 * decision is recorded a block that it drops has no note, and only rank 0's own blocks that it
 * keeps have states. */
typedef struct pdt_block_report {
  pdt_stream stream;
  int32_t attempt; /* before the decision */
  pdt_action action;
  const pdt_token *tokens; /* [n_tokens] */
  int32_t n_tokens;
  float readiness;
  const float *coverage;       /* [S] */
  const float *note;           /* [dn], with details only */
  const float *states;         /* [n_tokens, d] final-norm states of its steps, with details only */
  const float *pooled;         /* [n_tokens, d] what the pool read of those steps, likewise: the
                                  states, but with a pool_layer */
  const float *embedded;       /* [n_tokens, d] what the pool's copies mixed, likewise; NULL: it has
                                  none */
  const float *last_hidden;    /* [d]: the last of the states */
  const pdt_logprob *logprobs; /* [n_tokens, running->logprobs], where those are asked for: of every
                                  token (sample.h); NULL: they are not, or the round is recorded */
} pdt_block_report;

/* One round of one session, after the decision was applied. */
typedef struct pdt_round_report {
  const pdt_running *running; /* its streams are as they are after the round; its window is still
                                 the round's */
  pdt_round round;
  bool gate;
  const pdt_block_report *blocks;
  int32_t n_blocks;
  int64_t committed_tokens; /* of all sessions of the run so far */
} pdt_round_report;

/* Told of what happens, on rank 0 only; each function may be NULL. Failing ends the run on every
 * rank, at the next boundary at the latest. */
typedef struct pdt_observer {
  void *context;
  /* A session has its plan and takes part in the next round. */
  int (*session_started)(void *context, const pdt_running *running, pdt_error *err);
  /* Called before a round is decided, for every block by session and stream, with the session as it
   * was when the block was emitted: block->action is none, note and states are NULL. It may
   * overwrite *readiness with another number from 0 to 1; the decision, the reports and the journal
   * then use the new value. Not called in rounds whose decision is recorded. */
  int (*assess)(void *context, const pdt_running *running, const pdt_block_report *block,
                float *readiness, pdt_error *err);
  /* Does nobody want the answer to request `index` any more? Asked before it is admitted, before
   * each piece of its prompt is read, and before each of its rounds is decided: there it ends as by
   * a fault, which is decided like anything else. request_failed, which must be there, is told. Not
   * asked where rounds are recorded. */
  bool (*withdrawn)(void *context, int32_t index);
  /* How many log-probabilities does the answer to request `index` want of every token: of itself,
   * and of so many of the likeliest? 0: none; at most 1 + PDT_MOST_LOGPROBS. Asked when it is
   * admitted. They cost a product with the head a token more, in its own session; tokens, and what
   * else is in flight, do not depend on it. Not asked where rounds are recorded. */
  int32_t (*logprobs)(void *context, int32_t index);
  /* Gets the bytes of a Decision that the coordinator made, before anybody acts on it: the
   * journal. */
  int (*decided)(void *context, const void *packed, pdt_bytes bytes, pdt_error *err);
  int (*round_done)(void *context, const pdt_round_report *report, pdt_error *err);
  /* All its streams are done, or it is out of rounds. */
  int (*session_ended)(void *context, const pdt_running *running, pdt_error *err);
  /* A request that can never fit, or whose session failed by itself (a number that is none, no
   * memory): it ends alone, and the run goes on. `why` names the request. Without this function the
   * run ends with that error. */
  int (*request_failed)(void *context, const pdt_request *request, int32_t index,
                        const pdt_error *why, pdt_error *err);
} pdt_observer;

/* What a run did; counts are over all sessions and the same on every rank, seconds are this rank's.
 */
typedef struct pdt_run_stats {
  int64_t boundaries, rounds;                /* rounds: of all sessions */
  int64_t commits, holds, rollbacks, forced; /* blocks */
  int64_t stalls;                            /* stream-rounds that waited */
  int64_t out_of_rounds; /* sessions that max_rounds ended before their streams were done */
  int64_t stopped;       /* 1: by a signal, before its sessions were over */
  int64_t failed;        /* sessions that ended by themselves, after they were admitted */
  int64_t committed_tokens, emitted_tokens, prompt_tokens;
  /* With a draft (draft.h): a stream's steps of the trunk, tokens that were drafted for them, and
   * those of them that were right. */
  int64_t draft_steps, drafted, drafts_right;
  double seconds;          /* from begin to end */
  double prompt_seconds;   /* of them: encoding prompts and planning */
  double round_seconds;    /* of them: rounds, boundaries included */
  double trunk_seconds;    /* products, attention, logits */
  double draft_seconds;    /* the same, and exchanges, of the draft model */
  double sidecar_seconds;  /* conditioning and heads */
  double exchange_seconds; /* inside shard groups */
  double boundary_seconds; /* notes, records, decisions */
} pdt_run_stats;

#endif
