/* A session in flight on this rank: the replica that every rank keeps of it (protocol/session.h),
 * and the parts that only ranks with something to compute for it have. */
#ifndef PDT_ENGINE_RUNNING_H
#define PDT_ENGINE_RUNNING_H

#include "protocol/session.h"
#include "request/request.h"
#include "sidecar/sidecar.h"
#include "trunk/kv.h"

typedef struct pdt_running {
  pdt_request own_request; /* what `request` points to; its own */
  const pdt_request *request;
  int32_t index; /* of the request in the run; its number is request->session */
  pdt_session session;
  pdt_plan plan;         /* as coverage reads it */
  int32_t *window_notes; /* [pdt_settings_window]: this round's window, indices into bus.notes */
  pdt_note_name *window_names; /* [pdt_settings_window]: (round, stream) of each of them. Indices
                                  change when notes are published or withdrawn; these do not */
  int32_t n_window;
  pdt_window window;            /* its projections; on ranks that own a stream of the session */
  pdt_window *altered;          /* [K] what each own stream reads in place of it, where a variant
                                   alters siblings' notes (engine.h); NULL: none does */
  float *altered_notes;         /* [pdt_settings_window, dn] on every rank; likewise */
  pdt_kv_sequence prompt;       /* on ranks whose group has a stream of the session */
  pdt_kv_sequence *sequences;   /* [K]; those of streams in this group */
  pdt_kv_sequence draft_prompt; /* the same of the draft model, where there is one (draft.h); */
  pdt_kv_sequence *drafts;      /* they may lag behind, and are never ahead at a round's begin */
  int32_t n_encoded;            /* tokens of the prompt that have been read */
  double *sums;                 /* of what the planner reads, while it is read; group 0 */
  uint64_t bus_hash;            /* of its notes, as the round's boundary found them */
  int32_t slot;                 /* of this round: in the list of sessions that decode, */
  int32_t first_lane, n_lanes;  /* and in pdt_round_buffers.lanes */
  pdt_fault fault;              /* ends the session; and of which stream */
  pdt_stream fault_stream;
  int32_t logprobs; /* of every token, that are wanted; 0: none */
  bool computes;    /* this rank's group has a stream of the session */
  bool owns;        /* this rank owns one */
} pdt_running;

/* World rank that owns stream k of any session. */
static inline pdt_rank pdt_owner_of(pdt_stream k, pdt_rank ranks) {
  return k % ranks;
}

/* Streams of a session of K that ranks [begin, end) of a world own. Pure. */
int32_t pdt_streams_among(int32_t K, pdt_rank begin, pdt_rank end, pdt_rank ranks);

/* Cache pages that a session takes on the ranks of a group that holds world ranks [begin, end). */
int64_t pdt_running_pages(const pdt_request *request, pdt_rank begin, pdt_rank end, pdt_rank ranks);

/* Where this rank stands. */
typedef struct pdt_place {
  pdt_rank rank, ranks;            /* in the world */
  pdt_rank group_begin, group_end; /* world ranks of its group */
} pdt_place;

/* A session before its first round, its prompt not yet encoded; reserves its pages of the cache,
 * and as many of the draft model's, unless that is NULL. Takes the request over. Errors: MEMORY; r
 * is then to be freed, too. */
int pdt_running_new(pdt_running *r, pdt_request *request, int32_t index, const pdt_place *place,
                    pdt_sidecar *sidecar, pdt_kv_cache *kv, pdt_kv_cache *draft_kv, pdt_error *err);

/* Room for windows of each stream's own, where siblings' notes are altered. Not collective. Errors:
 * MEMORY; r is then to be freed, too. */
int pdt_running_alter(pdt_running *r, const pdt_place *place, pdt_sidecar *sidecar, pdt_error *err);

/* What stream k reads. Pure. */
const pdt_window *pdt_running_window(const pdt_running *r, pdt_stream k);
void pdt_running_free(pdt_running *r, pdt_kv_cache *kv, pdt_kv_cache *draft_kv);

#endif
