/* One round: the active streams of all sessions in flight, and buffers that are made once for the
 * most of them that a run's capacity allows. */
#ifndef PDT_ENGINE_ROUND_H
#define PDT_ENGINE_ROUND_H

#include "engine/loaded.h"
#include "trunk/trunk.h"

/* Most rows of a batch, where lanes are not more; most prompt tokens read between two rounds. */
enum { PDT_BATCH_ROWS = 128, PDT_ROWS_BETWEEN_ROUNDS = 512 };

/* What details tell of the steps of a block. */
typedef enum pdt_told {
  PDT_TOLD_STATES,   /* final-norm states */
  PDT_TOLD_POOLED,   /* what the pool reads, with a pool_layer: else it reads the states */
  PDT_TOLD_EMBEDDED, /* what its copies mix, where it has some */
  PDT_TOLD
} pdt_told;

/* One active stream in one round. Every rank holds the list of all lanes of the world, by session
 * and stream; what is computed is the owner's alone. */
typedef struct pdt_lane {
  pdt_running *running;
  pdt_stream stream;
  pdt_rank owner;    /* world rank */
  int32_t room;      /* most tokens of this block */
  int32_t emitted;   /* tokens so far; known in the group, and after the boundary everywhere */
  int32_t begun;     /* steps of the block; may be ahead of its tokens, in the group */
  int32_t drafted;   /* tokens behind those, in the group: proposed, and not yet found right */
  bool missed;       /* of a step's tokens, one was not as drafted: those behind it are nothing */
  bool finished;     /* the block is whole; likewise */
  bool ended;        /* by an end-of-sequence token */
  pdt_fault fault;   /* known to the owner, and after the boundary to rank 0 */
  pdt_token *tokens; /* [pdt_settings_block], inside pdt_round */
  int32_t states;    /* the owner's: row of round.states where those of its block begin */
  float *note;       /* [dn] */
  float *coverage;   /* [S] */
  float readiness;
  const pdt_logprob *logprobs; /* [emitted, running->logprobs]; on rank 0 once gathered, or NULL */
  const float *told[PDT_TOLD]; /* [emitted, d] each; with details, on rank 0 once gathered */
} pdt_lane;

typedef struct pdt_round_buffers {
  int32_t n_lanes;
  pdt_lane *lanes;      /* [capacity.load.lanes]: those of a session stand together, by stream */
  pdt_lane **by_owner;  /* the same lanes by owner, session and stream; rank r's are */
  int32_t *owner_begin; /* [ranks + 1]: owner_begin[r] .. owner_begin[r + 1] */
  pdt_token *tokens;    /* of all lanes, one after another */
  pdt_array states;     /* [own tokens, d]: hidden states of own lanes' steps, likewise */
  pdt_array pooled;     /* [own tokens, d]: what the pool reads of them, where that is not those */
  pdt_array embedded;   /* [own tokens, d]: what its copies mix of them, where it has some */
  float *told;          /* with details: what is told of own lanes' steps, on the host; [own tokens,
                           d] of each that a sidecar has, in the order of pdt_told */
  float *notes;         /* [2, lanes, dn] in the order of by_owner; two halves: one may still be in
                           flight while the next round fills the other */
  float *coverage;      /* [lanes, S] */
  /* of one batch of rows: */
  int32_t max_rows;               /* of lanes */
  int32_t prompt_rows;            /* of a prompt */
  pdt_chosen *ahead;              /* [own tokens] by state row, where steps run ahead of their
                                     tokens: a rank by itself, on a device that does; else NULL */
  int32_t *reads;                 /* [max_rows]: where in them the token is that a row reads */
  int32_t *steps;                 /* [max_rows]: a row's, of its lane's block */
  pdt_array hidden;               /* [the larger, d] of own rows */
  pdt_array inner;                /* the same of what the pool reads, where that is not those */
  pdt_array inner_embedded;       /* the same of what its copies mix */
  pdt_trunk_row *rows;            /* [the larger], by owner */
  pdt_lane **row_lanes;           /* [max_rows] */
  int32_t *state_rows;            /* [max_rows] of own rows: where in `states` theirs go */
  pdt_conditioning *conditioning; /* [max_rows] of own rows */
  int32_t *begin;                 /* [T + 1]: a rank's rows */
  pdt_token *chosen;              /* [max_rows] */
  pdt_row_draw *draws;            /* [max_rows]: how they are chosen */
  pdt_block *blocks;              /* [own lanes] that are closed */
  pdt_array prompt_states; /* [prompt_rows, d]: those of a piece of a prompt, of all owners */
  pdt_array prompt_inner, prompt_read; /* the same of what the planner reads in order, of this rank
                                          and of all owners; none without orders */
  pdt_bytes *counts;                   /* [ranks]: bytes of each rank in a gather */
} pdt_round_buffers;

#endif
