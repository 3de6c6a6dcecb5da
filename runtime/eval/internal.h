/* What the files of eval/ share. */
#ifndef PDT_EVAL_INTERNAL_H
#define PDT_EVAL_INTERNAL_H

#include "eval/alter_run.h"
#include "eval/eval.h"

/* What makes an arm. */
typedef struct pdt_eval_rules {
  const char *name;
  bool plain, no_snc; /* as pdt_engine_variant */
  bool one_stream;    /* writes every section */
  bool no_plan, no_notes, no_gate;
  bool parser_gate, agree_gate;
} pdt_eval_rules;
const pdt_eval_rules *pdt_eval_rules_of(pdt_eval_arm arm);

/* One entry while it is decoded. */
typedef struct pdt_eval_session {
  int64_t entry; /* of the data */
  pdt_rollout rollout;
  pdt_rollout_block *blocks; /* [streams]: what was emitted this round */
} pdt_eval_session;

/* A run of an arm. */
typedef struct pdt_eval_trial {
  const pdt_eval *eval;
  const pdt_eval_setup *setup;
  const pdt_eval_rules *rules;
  int32_t n;                  /* entries that take part */
  int32_t *entries;           /* [n] */
  int32_t seed;               /* number of the seed at hand */
  pdt_request *requests;      /* [n] */
  pdt_eval_session *sessions; /* [n]; on rank 0, those in flight */
  pdt_alteration *alteration; /* of notes; NULL: none */
  bool recording;             /* it keeps what is written, and changes nothing */
  pdt_eval_figures *figures;
} pdt_eval_trial;

/* requests.c: picks the entries and makes a request of each. The same on every rank; not
 * collective. Errors: USAGE, INPUT, MEMORY. */
int pdt_eval_make_requests(pdt_eval_trial *t, pdt_error *err);
void pdt_eval_free_requests(pdt_eval_trial *t);

/* session.c: begins to follow entry i of the trial. */
int pdt_eval_session_begin(pdt_eval_trial *t, int32_t i, pdt_error *err);

/* What a stream has emitted, before the decision: labels it, keeps its score. coverage: logits of
 * the plan's slots; NULL without a head. */
int pdt_eval_session_block(pdt_eval_trial *t, int32_t i, const pdt_rollout_emission *emission,
                           float readiness, const float *coverage, pdt_error *err);

/* Adds what a run of the engine did to what others did. */
void pdt_eval_add_stats(pdt_run_stats *sum, const pdt_run_stats *s);

/* Judges what was written, and ends. ended[streams]: did an end-of-section token end them?
 * plan_ids[S]: the session's plan; NULL: it had none. */
int pdt_eval_session_end(pdt_eval_trial *t, int32_t i, const bool *ended, const int32_t *plan_ids,
                         pdt_error *err);

/* Judges one text of all sections, tokens[n]. */
int pdt_eval_judge_sequence(pdt_eval_trial *t, int32_t i, const pdt_token *tokens, int32_t n,
                            bool ended, pdt_error *err);
void pdt_eval_session_free(pdt_eval_session *s);

/* text_bus.c: all rounds of the arm. Collective, blocking; all ranks fail alike. */
int pdt_eval_run_text_bus(pdt_eval_trial *t, pdt_error *err);

#endif
