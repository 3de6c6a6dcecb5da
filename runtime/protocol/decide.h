/* The coordinator's whole decision about one session's round (3.7, eq. 11). */
#ifndef PDT_PROTOCOL_DECIDE_H
#define PDT_PROTOCOL_DECIDE_H

#include "base/types.h"

/* What becomes of a strong block when the gate fails: it is held, the stream waiting or not, rolled
 * back too, or committed. The last is ours (tests/oracle/EXTENSIONS.md). The values are those of
 * Policy in proto/pdt.proto. */
typedef enum pdt_policy {
  PDT_SELECTIVE,
  PDT_STALL,
  PDT_GLOBAL,
  PDT_LOCAL,
  PDT_POLICIES
} pdt_policy;

/* What becomes of a stream's block. The values are those of Action in proto/pdt.proto. */
typedef enum pdt_action {
  PDT_ACTION_NONE,     /* the stream emitted nothing */
  PDT_ACTION_COMMIT,   /* the gate passed, or policy `local` and strong: its blocks are committed */
  PDT_ACTION_HOLD,     /* strong, but the gate failed: the block stays pending, its note is out */
  PDT_ACTION_ROLLBACK, /* weak: pending blocks are dropped and made again */
  PDT_ACTION_FORCE,    /* weak and out of attempts: committed and flagged */
} pdt_action;

/* What ends a session before its time: what kept a block from being one, a number that is none,
 * computed by its owner; or that nobody wants its answer any more. The values are those of Fault in
 * proto/pdt.proto. */
typedef enum pdt_fault {
  PDT_FAULT_NONE,
  PDT_FAULT_LOGITS,
  PDT_FAULT_READINESS,
  PDT_FAULT_NOTE,
  PDT_FAULT_COVERAGE,
  PDT_FAULT_WITHDRAWN,
} pdt_fault;

/* One stream that emitted a block this round. */
typedef struct pdt_vote {
  pdt_stream stream;
  int32_t attempt; /* earlier attempts since its commit point */
  float readiness;
} pdt_vote;

/* Is a block strong: above gamma? A NaN is weak. */
bool pdt_is_ready(float readiness, double gamma);

/* What becomes of one block, given the gate. Pure. */
pdt_action pdt_decide_block(const pdt_vote *vote, bool gate, double gamma, pdt_policy policy,
                            int32_t max_attempts);

/* Fills actions[n] and returns the gate: all readiness > gamma, true when nobody emitted. Pure. */
bool pdt_decide(const pdt_vote *votes, int32_t n, double gamma, pdt_policy policy,
                int32_t max_attempts, pdt_action *actions);

/* "commit", "hold", "rollback", "force", "none". */
const char *pdt_action_name(pdt_action action);

/* "logits", "readiness", "note", "coverage", "withdrawn", "none". */
const char *pdt_fault_name(pdt_fault fault);

/* "selective", "stall", "global", "local"; and back, false when unknown. */
const char *pdt_policy_name(pdt_policy policy);
bool pdt_policy_parse(const char *name, pdt_policy *out);

#endif
