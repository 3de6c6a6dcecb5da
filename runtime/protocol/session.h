/* One session as every rank of the world holds it: its streams, its notes, its plan and its round
 * (3.3, 3.8). Replicas are equal because nothing but pdt_session_apply changes them, and every rank
 * applies the same decisions in the same order; the vectors of notes, which arrive by themselves,
 * are the one exception (pdt_bus_fill). No communication, no kernels: a journal's sessions are
 * brought back by the same functions. */
#ifndef PDT_PROTOCOL_SESSION_H
#define PDT_PROTOCOL_SESSION_H

#include "protocol/bus.h"
#include "protocol/decide.h"
#include "protocol/settings.h"
#include "protocol/stream.h"

typedef struct pdt_session {
  pdt_settings settings;
  pdt_round round;           /* the next one to be decided, from 1 */
  int32_t *plan_ids;         /* [settings.limits.slots], 0: an empty slot; all 0 before the plan */
  pdt_bus bus;               /* snapshot 0, the plan's note, comes with the plan */
  pdt_stream_state *streams; /* [settings.streams] */
} pdt_session;

/* How much room a new session has. */
typedef enum pdt_session_room {
  PDT_ROOM_FOR_ALL,   /* for every round that its settings allow: applying cannot fail for memory */
  PDT_ROOM_AS_NEEDED, /* none yet: pdt_session_reserve comes before every decision */
} pdt_session_room;

/* A session before its plan and its first round, with notes of note_dim floats (0: names alone).
 * Errors: MEMORY; s is then freed. */
int pdt_session_new(pdt_session *s, const pdt_settings *settings, int32_t note_dim,
                    pdt_session_room room, pdt_error *err);
void pdt_session_free(pdt_session *s);

/* Takes the plan's ids [slots], each of 0 or more, and publishes snapshot 0, whose vector is note
 * [note_dim] (NULL: of a bus of names). With settings.part_slots n streams follow the plan: slots
 * [k n, (k + 1) n) are stream k's part, and a stream whose part is empty is done, unless all are
 * (tests/oracle/EXTENSIONS.md). Once, before the first round. Errors: RUNTIME (twice). */
int pdt_session_plan(pdt_session *s, const int32_t *ids, const float *note, pdt_error *err);

/* How many streams have something to write under a plan: all, or those that have a part of it.
 * Pure. */
int32_t pdt_session_writers(const pdt_settings *settings, const int32_t *ids);

/* What following the plan makes of streams [settings->streams] that have not begun: those for which
 * ids [settings->limits.slots] has nothing are done. Pure. */
void pdt_session_follow(pdt_stream_state *streams, const pdt_settings *settings,
                        const int32_t *ids);

/* What was decided about one round: a verdict for every stream that emitted a block, ascending.
 * Pointers are the caller's. */
typedef struct pdt_session_decision {
  pdt_round round;
  bool gate;
  const pdt_block_verdict *blocks; /* [n_blocks] */
  int32_t n_blocks;
} pdt_session_decision;

/* Can this have been decided about the session's next round? Exactly the active streams have a
 * block, each as long as it had to be; attempts are those of the streams; gate and actions follow
 * from the readiness (3.7, eq. 11). Errors: RUNTIME, naming the stream. Pure. */
int pdt_session_check(const pdt_session *s, const pdt_session_decision *d, pdt_error *err);

/* Can a fault of stream k have ended the session in this round? It must be the next one, and the
 * stream must have had a block to emit. Errors: RUNTIME. Pure. */
int pdt_session_check_fault(const pdt_session *s, pdt_round round, pdt_stream k, pdt_error *err);

/* Makes room for what the decision adds, which need not have been checked. Errors: MEMORY. */
int pdt_session_reserve(pdt_session *s, const pdt_session_decision *d, pdt_error *err);

/* The session after the decision: blocks are committed, held or dropped, notes of dropped ones
 * withdrawn and those of the others published, and the next round begins. Sets *committed to the
 * tokens that became final. A decision that pdt_session_check refuses, or for which there is no
 * room, is an error and changes nothing. Errors: RUNTIME. */
int pdt_session_apply(pdt_session *s, const pdt_session_decision *d, int64_t *committed,
                      pdt_error *err);

/* Are all its streams done? And is there no next round: all done, or all rounds had? */
bool pdt_session_complete(const pdt_session *s);
bool pdt_session_over(const pdt_session *s);

/* Are two replicas the same, notes and their vectors, streams, plan and round? Pure. */
bool pdt_session_equal(const pdt_session *a, const pdt_session *b);

/* XXH3-64 over everything that pdt_session_equal compares: the same on every rank after every
 * decision. Pure. */
uint64_t pdt_session_hash(const pdt_session *s);

/* Are bus and streams valid by themselves, is nothing on the bus of a round that is yet to come or
 * of a stream that is not, and are the notes of all pending blocks there? For PDT_INVARIANT. */
bool pdt_session_is_valid(const pdt_session *s);

#endif
