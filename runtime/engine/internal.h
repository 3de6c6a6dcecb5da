/* What the files of engine/ share. */
#ifndef PDT_ENGINE_INTERNAL_H
#define PDT_ENGINE_INTERNAL_H

#include "engine/engine.h"

enum { PDT_PROMPT_ROWS = 128 }; /* prompt tokens encoded in one batch */

/* One active stream in one round. Every rank holds the list of all lanes of the world, by session
 * and stream; what is computed is the owner's alone. */
typedef struct pdt_lane {
  pdt_running *running;
  pdt_stream stream;
  pdt_rank owner;    /* world rank */
  int32_t room;      /* most tokens of this block */
  int32_t emitted;   /* tokens so far; known in the group, and after the boundary everywhere */
  bool finished;     /* the block is whole; likewise */
  bool ended;        /* by an end-of-sequence token */
  pdt_token *tokens; /* [pdt_request_block], inside pdt_round_buffers */
  int32_t states;    /* the owner's: the first of [pdt_request_block] rows of buffers.states */
  float *note;       /* [dn] */
  float *coverage;   /* [S] */
  float readiness;
  const float *emitted_states; /* [emitted, d]; with details, on rank 0 once gathered */
} pdt_lane;

/* Buffers of a round, made once for the most lanes that can be in flight. */
typedef struct pdt_round_buffers {
  int32_t max_lanes, max_own, max_group; /* of the world, this rank, this group */
  int32_t max_block, max_window;         /* tokens of a block, notes of a window */
  int32_t max_positions;                 /* longest sequence */
  int32_t max_pages;                     /* of this group's cache */
  pdt_lane *lanes;                       /* [max_lanes] */
  int32_t n_lanes;
  pdt_lane **group; /* [max_group]: lanes of this group, by owner, session, stream */
  int32_t n_group;
  pdt_lane **own; /* [max_own]: a run of `group` */
  int32_t n_own;
  pdt_token *tokens;              /* of all lanes, one after another */
  pdt_array states;               /* [tokens, d] of own lanes, likewise */
  float *told_states;             /* the same on the host, once a round is over; with details */
  float *notes;                   /* [2, max_lanes, dn]: by owner, session, stream; two in turn */
  float *coverage;                /* [max_lanes, S] */
  pdt_array hidden;               /* [max_rows, d] of one batch */
  pdt_trunk_row *rows;            /* [max_rows] */
  pdt_conditioning *conditioning; /* [max_rows] of own rows */
  pdt_lane **row_lanes;           /* [max_rows] */
  pdt_token *chosen;              /* [max_group] */
  int32_t *begin;                 /* [T+1] */
  int32_t *state_rows;            /* [max_own] where the rows of one step go in states */
  pdt_row_draw *draws;            /* [max_group] */
  pdt_block *blocks;              /* [max_own] */
  char *record;                   /* this rank's records of a boundary */
  char *records;                  /* everybody's, on rank 0 */
  pdt_bytes *record_bytes;        /* [P] */
  pdt_bytes *note_bytes;          /* [P] */
  pdt_block_verdict *verdicts;    /* [max_lanes]: of one session's decision */
  uint8_t *decision;              /* [decision_bytes]: the boundary's message */
  int64_t decision_bytes;         /* grown when a message asks for it: alike on every rank */
} pdt_round_buffers;

/* Notes on their way between ranks. */
typedef struct pdt_notes_exchange {
  bool under_way;
  pdt_comm_request request;
  int which; /* half of buffers.notes */
  int32_t n; /* lanes in it */
  struct pdt_note_target {
    int32_t request; /* index in the run */
    pdt_round round;
    pdt_stream stream;
  } * targets; /* [max_lanes], in the order of the buffer */
} pdt_notes_exchange;

struct pdt_engine {
  const pdt_comm *world;
  pdt_comm group;
  pdt_place place;
  pdt_engine_options options;
  pdt_engine_variant variant;
  pdt_model_config model;
  pdt_checkpoint *checkpoint;
  pdt_safetensors *sidecar_file;
  pdt_engine_fingerprints fingerprints;
  pdt_trunk_weights weights;
  pdt_sidecar sidecar;
  pdt_device device; /* that computes, and holds weights, cache and hidden states */
  int threads;
  pdt_rank ranks_on_node;
  /* of one run */
  pdt_kv_cache kv;
  pdt_bytes kv_bytes;
  pdt_trunk trunk;
  pdt_round_buffers buffers;
  pdt_notes_exchange exchange;
  pdt_running **sessions; /* [max_sessions] in flight, by request */
  int32_t n_sessions;
  const pdt_observer *observer;
  pdt_run_stats *stats;
  uint64_t boundary;
  pdt_error failure; /* what this rank met inside a round; told at the boundary */
};

/* survey.c: counts the ranks of this machine (ranks_on_node) and chooses this rank's threads: what
 * was asked for, or what OMP_NUM_THREADS says, or its part of the processors that it may run on. An
 * exchange over the machine's ranks. Collective over the world, blocking; all ranks fail alike. */
int pdt_survey_node(pdt_engine *e, pdt_error *err);

/* prompt.c: encodes the session's prompt in every group that decodes it, plans, and publishes
 * snapshot 0. Collective over the world, blocking; all ranks fail alike. */
int pdt_running_begin(pdt_engine *e, pdt_running *s, pdt_error *err);

/* round.c: lists the lanes of the next round and lets every one emit a block, note, coverage and
 * readiness. Collective over each group. Failures of this rank go to engine->failure. */
void pdt_round_emit(pdt_engine *e);

/* notes.c: gives every lane's note its place in the buffer of the coming exchange; starts the
 * exchange over the world; ends the one under way and fills the buses. The last two are collective;
 * only the last blocks. */
void pdt_notes_place(pdt_engine *e);
void pdt_notes_start(pdt_engine *e);
void pdt_notes_finish(pdt_engine *e);

/* boundary.c: gathers records, decides, broadcasts, applies. Collective over the world, blocking.
 * All ranks fail alike. */
int pdt_boundary(pdt_engine *e, pdt_error *err);

/* boundary.c: bytes of a lane's record of a block of at most `room` tokens. */
pdt_bytes pdt_record_bytes(const pdt_engine *e, int32_t room);

/* buffers.c: cache, trunk and buffers for the most that these requests can have in flight. Refuses
 * a cache that does not fit. Errors: MEMORY; what was made is freed by pdt_round_buffers_free. */
int pdt_round_buffers_new(pdt_engine *e, const pdt_request *requests, int32_t n_requests,
                          pdt_error *err);
void pdt_round_buffers_free(pdt_engine *e);

/* Does this token end a stream? */
bool pdt_engine_is_end(const pdt_engine *e, pdt_token token);

/* Keeps the first failure of a rank. */
void pdt_engine_note_failure(pdt_engine *e, const pdt_error *err);

#endif
