/* What a trained system is worth: held-out entries decoded with the real engine, under the system
 * and under what it is compared with, and judged by what was written. */
#ifndef PDT_EVAL_EVAL_H
#define PDT_EVAL_EVAL_H

#include <jansson.h>

#include "engine/engine.h"
#include "eval/alter.h"
#include "eval/entries.h"
#include "eval/judge.h"
#include "request/chat.h"

/* Ways of decoding. */
typedef enum pdt_eval_arm {
  PDT_EVAL_SEQUENTIAL,  /* one stream writes all sections: the plain trunk after the prompt */
  PDT_EVAL_ONE_STREAM,  /* the same with the sidecar's first adapter, as pdt data atlas
                           --one-stream trains it */
  PDT_EVAL_BLIND,       /* no plan, no notes, no gate */
  PDT_EVAL_PLAN_ONLY,   /* the planner's plan; no notes, no gate */
  PDT_EVAL_NOTES,       /* notes; no gate */
  PDT_EVAL_SYSTEM,      /* everything */
  PDT_EVAL_NO_SNC,      /* the system with the gates of SNC closed */
  PDT_EVAL_TEXT_BUS,    /* plain trunks that read their siblings' text again every round */
  PDT_EVAL_PARSER_GATE, /* the system, with the parser's label in place of readiness */
  PDT_EVAL_ARMS
} pdt_eval_arm;

/* "sequential", "one-stream", "blind", "plan-only", "notes", "system", "no-snc", "text-bus",
 * "parser-gate"; and back, false when unknown. */
const char *pdt_eval_arm_name(pdt_eval_arm arm);
bool pdt_eval_arm_parse(const char *name, pdt_eval_arm *out);

/* Does it decode under notes as training has them, so that teacher-forced figures stand beside it?
 */
bool pdt_eval_arm_is_trained(pdt_eval_arm arm);

/* Do its streams read each other's notes? */
bool pdt_eval_arm_has_notes(pdt_eval_arm arm);

/* A block that a stream has emitted, with what the parser says of it and what was decided. */
typedef struct pdt_eval_heard {
  const pdt_data_entry *entry;
  const pdt_rollout_owners *owners;
  const pdt_running *running; /* its window is still the round's */
  const pdt_block_report *report;
  const pdt_rollout_block *block;
} pdt_eval_heard;

/* What all arms share; everything is borrowed, and the same on every rank. */
typedef struct pdt_eval {
  const pdt_comm *world;
  pdt_engine *engine;
  const pdt_atlas_world *atlas;
  const pdt_tokenizer *tokenizer;
  const pdt_eval_entries *data;
  pdt_request_chat *chat; /* NULL, or how prompts become conversations */
  /* NULL, or told of every block, on rank 0. Failing ends the run. */
  int (*listen)(void *context, const pdt_eval_heard *heard, pdt_error *err);
  void *context;
  /* Where settings or entries are far from what the sidecar was trained with, told on rank 0 once a
   * kind (request/familiar.h); NULL: nobody listens. */
  uint32_t *told;
  pdt_notices *notices;
} pdt_eval;

/* One row of an evaluation. */
typedef struct pdt_eval_setup {
  pdt_eval_arm arm;
  const json_t *settings; /* of every request (PROTOCOL.md); an arm overrides what makes it one.
                             Without max_tokens: 128 a section, 700 for all in one stream, or what
                             the model's positions leave */
  int32_t streams;        /* > 0: entries of so many sections alone */
  pdt_alter_mode alter;   /* what is done to notes; of an arm that has some */
} pdt_eval_setup;

/* What came out; on rank 0. */
typedef struct pdt_eval_figures {
  pdt_judge_counts counts;
  pdt_judge_retrieval block_coverage, section_coverage; /* committed blocks; none without notes */
  int64_t true_slots, right_slots; /* of the planner; 0 where it did not plan */
  int64_t labelled, ready;         /* blocks emitted; those that the parser calls ready */
  double auc, auc_agrees; /* of readiness: the label `ready`; ready and agrees. NaN without */
  pdt_run_stats stats;    /* summed over engine runs */
  int64_t rounds;         /* of all entries */
  pdt_settings settings;  /* of the first request */
} pdt_eval_figures;

/* Decodes and judges. Collective over the world, blocking; all ranks fail alike. Errors: USAGE for
 * a setting that cannot be, or when no entry has so many sections; INPUT for an entry that the
 * model or the sidecar has no room for; those of pdt_engine_run. */
int pdt_eval_run(const pdt_eval *eval, const pdt_eval_setup *setup, pdt_eval_figures *out,
                 pdt_error *err);

#endif
