/* Speculation: a smaller model drafts the next tokens of every stream, one after another, and the
 * trunk computes them as rows of one batch. What the trunk itself chooses in their place stays the
 * answer: as many as it finds right, and the one behind them, come of one step of it. A row's bits
 * do not depend on its batch, so tokens, notes and decisions are those of a run without a draft,
 * whatever the draft proposes (Leviathan et al., arXiv:2211.17192, with the draws of the protocol
 * in place of rejection: a token is right where both models draw it by the same number). */
#ifndef PDT_ENGINE_DRAFT_H
#define PDT_ENGINE_DRAFT_H

#include "engine/bare.h"
#include "trunk/trunk.h"

/* Tokens that are drafted at once: where nothing is said, and at most. */
enum { PDT_USUAL_DRAFT_TOKENS = 4, PDT_MOST_DRAFT_TOKENS = 64 };

struct pdt_run;
struct pdt_lane;

/* What a run needs for it. Rows: of one batch. */
typedef struct pdt_draft {
  int32_t tokens; /* most that are drafted at once; 0: there is no draft */
  pdt_kv_cache kv;
  pdt_trunk trunk;
  int32_t max_rows;
  pdt_array hidden;        /* [max_rows, d] of own rows */
  pdt_trunk_row *rows;     /* [max_rows] by owner */
  struct pdt_lane **lanes; /* [max_rows]: a row's */
  int32_t *begin;          /* [T + 1]: a rank's rows */
  pdt_row_draw *draws;     /* [max_rows] */
  pdt_token *chosen;       /* [max_rows] */
  pdt_bytes *counts;       /* [T] */
} pdt_draft;

/* Buffers and trunk for so many lanes of a group, prompts read in pieces of prompt_rows, sequences
 * of so many positions. Not collective. Errors: MEMORY. */
int pdt_draft_new(pdt_draft *d, const pdt_bare_model *model, pdt_machine *machine, int32_t tokens,
                  int32_t lanes, const pdt_trunk_limits *limits, pdt_error *err);
void pdt_draft_free(pdt_draft *d, pdt_device *device);

/* Drafts tokens for every lane of the group whose block is not whole: lane->drafted of them, behind
 * those that are emitted in lane->tokens. Collective over the group, blocking; its ranks fail
 * alike. Errors: RUNTIME. */
int pdt_draft_propose(struct pdt_run *run, pdt_error *err);

#endif
