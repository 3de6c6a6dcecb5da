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
  PDT_EVAL_AGREE_GATE,  /* the same, which also asks that names agree with what is visible: what a
                           gate could do at best */
  PDT_EVAL_ARMS
} pdt_eval_arm;

/* "sequential", "one-stream", "blind", "plan-only", "notes", "system", "no-snc", "text-bus",
 * "parser-gate", "agree-gate"; and back, false when unknown. */
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

/* An entry as it was written and judged. */
typedef struct pdt_eval_written {
  const pdt_data_entry *entry;
  uint64_t seed;                     /* of the request */
  const pdt_judge_section *sections; /* [entry->n_sections] */
  int64_t uses, contradictions;
} pdt_eval_written;

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
  /* NULL, or told of every entry, on rank 0. Failing ends the run. */
  int (*written)(void *context, const pdt_eval_written *written, pdt_error *err);
  void *written_context;
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
  int32_t seeds;          /* every entry is decoded so many times (0: once), with the seed of the
                             settings, that and 2^32, that and 2 * 2^32 ... */
} pdt_eval_setup;

/* An entry's part, over all seeds. */
typedef struct pdt_eval_tally {
  bool taken;
  double uses, contradictions;
} pdt_eval_tally;

/* What came out; on rank 0. */
typedef struct pdt_eval_figures {
  pdt_judge_counts counts;    /* an entry counts once a seed; intervals take its seeds as one */
  pdt_eval_tally *tally;      /* [entries of the data] */
  pdt_judge_scores readiness; /* of blocks emitted; labels: ready; ready and agrees */
  pdt_judge_scores block_scores, slot_scores; /* of coverage (pdt_judge_coverage_scores) */
  pdt_judge_retrieval block_coverage, section_coverage; /* committed blocks; none without notes */
  int64_t true_slots, right_slots; /* of the planner; 0 where it did not plan */
  int64_t labelled, ready;         /* blocks emitted; those that the parser calls ready */
  double auc, auc_agrees; /* of readiness: the label `ready`; ready and agrees. NaN without */
  double coverage_auc, coverage_precision; /* of block_scores: average precision. NaN without */
  pdt_run_stats stats;                     /* summed over engine runs */
  int64_t rounds;                          /* of all entries */
  pdt_settings settings;                   /* of the first request */
} pdt_eval_figures;

void pdt_eval_figures_free(pdt_eval_figures *f);

/* The contradictions of one run less those of another on the same data, over the entries that both
 * took. Errors: MEMORY. */
int pdt_eval_difference(const pdt_eval_figures *a, const pdt_eval_figures *b, int64_t n,
                        pdt_ratio *out, pdt_error *err);

/* Decodes and judges. *out is the caller's to free, after an error too. Collective over the world,
 * blocking; all ranks fail alike. Errors: USAGE for a setting that cannot be, or when no entry has
 * so many sections; INPUT for an entry that the model or the sidecar has no room for; those of
 * pdt_engine_run. */
int pdt_eval_run(const pdt_eval *eval, const pdt_eval_setup *setup, pdt_eval_figures *out,
                 pdt_error *err);

#endif
