/* Do the sections of an entry, as they were written, agree with each other? Counts that add up over
 * entries, and the figures made of them. Pure, but for memory. */
#ifndef PDT_EVAL_JUDGE_H
#define PDT_EVAL_JUDGE_H

#include "eval/ratio.h"
#include "eval/rollout.h"

/* Why a name contradicts its owner's statement: the first of these that holds. */
typedef enum pdt_judge_cause {
  PDT_CAUSE_UNSEEN,    /* no note with a statement was visible when its first token was emitted; in
                          one text of all sections: it stands before the statement */
  PDT_CAUSE_WITHDRAWN, /* one was visible, but its block was rolled back later */
  PDT_CAUSE_CROWDED,   /* the statement's block states two facts */
  PDT_CAUSE_SPLIT,     /* the stated name was read in two blocks */
  PDT_CAUSE_SECOND,    /* its first token is right, a later one is wrong */
  PDT_CAUSE_NAME,      /* another name of the type */
  PDT_CAUSE_OTHER,     /* no name of it */
  PDT_JUDGE_CAUSES
} pdt_judge_cause;

/* "unseen", "withdrawn", "crowded", "split", "second", "name", "other". */
const char *pdt_judge_cause_name(pdt_judge_cause cause);

/* Sums over entries. */
typedef struct pdt_judge_counts {
  int64_t entries, sections, unfinished; /* unfinished: no end-of-section token */
  int64_t facts, missing;                /* that sections own; that theirs does not state */
  int64_t duplicates;                    /* statements of a fact that the section stated before */
  int64_t sentences, malformed;
  int64_t untitled, titled; /* sections that streams had to name; of them: named as planned */
  int64_t uses;             /* names of siblings' facts, told or used, that the owner states */
  int64_t contradictions;   /* of them: another name than the owner's first statement, or none */
  int64_t mistaken;         /* of contradictions: another name of the type; the rest are no names */
  int64_t strays;           /* part of uses and unstated: the section states a sibling's fact, in a
                               sentence that only its owner should write */
  int64_t unstated;         /* names of siblings' facts that the owner does not state */
  int64_t ownerless;        /* names of facts that no section of the entry owns */
  int64_t flawed;           /* entries in which any of the above but unstated was counted: a section
                               unfinished or not named as planned, a fact missing or stated again, a sentence
                               malformed, a           name contradicted, stray or ownerless */
  int64_t causes[PDT_JUDGE_CAUSES]; /* of contradictions */
  /* Of uses and contradictions, those of facts whose owner states a name that is held out of
   * training, and a name that the world does not list. */
  int64_t held_out_uses, held_out_contradictions, unlisted_uses, unlisted_contradictions;
  /* Of uses of facts that were lent (pdt_judge_lent), where the fact was visible: those that tell
   * what the owner states, and those that tell what was lent; the rest tell neither. */
  int64_t lent_uses, lent_own, lent_followed;
  pdt_ratio_sums contradicted; /* contradictions of uses, by entry */
} pdt_judge_counts;

/* A section as it was written. */
typedef struct pdt_judge_section {
  const pdt_rollout_text *text;
  const pdt_rollout_stream *stream; /* its blocks; NULL: it was not written in blocks under notes */
  bool unfinished;
  bool untitled; /* the stream had to write the heading, too */
  int32_t place; /* > 0: in one text of all sections, which begin by ascending places; 0: not */
} pdt_judge_section;

/* Facts of which the notes told siblings otherwise than their owner states (eval/alter.h). */
typedef struct pdt_judge_lent {
  uint32_t types;                 /* set of them */
  int32_t value[PDT_ATLAS_TYPES]; /* what was told */
} pdt_judge_lent;

/* Adds an entry with sections[owners->streams]. lent: NULL where notes told the truth. */
void pdt_judge_entry(const pdt_atlas_world *world, const pdt_rollout_owners *owners,
                     const pdt_judge_section *sections, const pdt_judge_lent *lent,
                     pdt_judge_counts *counts);

/* Contradictions as a share of uses. */
pdt_ratio pdt_judge_contradictions(const pdt_judge_counts *counts);

/* How well a set is found: members that were named, others that were named, members that were not.
 */
typedef struct pdt_judge_retrieval {
  int64_t hit, wrong, missed;
} pdt_judge_retrieval;

/* Precision is NaN where nothing was named, recall where the set is empty, F1 where both are so. */
double pdt_judge_precision(const pdt_judge_retrieval *r);
double pdt_judge_recall(const pdt_judge_retrieval *r);
double pdt_judge_f1(const pdt_judge_retrieval *r);

/* An entry's true plan beside that of its session. */
typedef struct pdt_judge_plan {
  uint64_t filled; /* slots that the session's plan fills */
  uint64_t right;  /* slots that are filled in the true plan, and alike in the session's */
  uint64_t slots[PDT_ATLAS_TYPES]; /* the true plan's slots of a type, by its owner */
  int32_t true_slots, right_slots; /* how many are filled in the true plan; alike */
} pdt_judge_plan;

/* ids[n_slots] is the session's plan; slots beyond 64 are not looked at. */
pdt_judge_plan pdt_judge_plan_of(const pdt_atlas_world *world, const pdt_data_entry *e,
                                 const pdt_rollout_owners *owners, const int32_t *ids,
                                 int32_t n_slots);

/* Adds what a stream's committed blocks say they cover, block by block and all together: the right
 * slots are the true plan's of the facts stated there; one that the session's plan has otherwise
 * can neither be found nor be right. */
void pdt_judge_coverage(const pdt_judge_plan *plan, const pdt_rollout_stream *stream,
                        pdt_judge_retrieval *blocks, pdt_judge_retrieval *sections);

/* Scores with labels, to be told apart by a threshold. A zeroed one is empty. */
typedef struct pdt_judge_score {
  float score;
  bool label, other_label;
} pdt_judge_score;
typedef struct pdt_judge_scores {
  pdt_judge_score *items;
  size_t n, room;
} pdt_judge_scores;

/* Errors: MEMORY. */
int pdt_judge_add_score(pdt_judge_scores *s, pdt_judge_score item, pdt_error *err);
void pdt_judge_scores_free(pdt_judge_scores *s);

/* What coverage says and should say, as scores: its logits of every filled slot of every committed
 * block, true where the block states the slot (as pdt_judge_coverage); and the largest of each slot
 * over all blocks of streams[n], true where one of them states it. Errors: MEMORY. */
int pdt_judge_coverage_scores(const pdt_judge_plan *plan, const pdt_rollout_stream *streams,
                              int32_t n, pdt_judge_scores *blocks, pdt_judge_scores *slots,
                              pdt_error *err);

/* How a threshold cuts scores: items above it, and the rest. */
typedef struct pdt_judge_cut {
  int64_t true_above, false_above, true_below, false_below;
} pdt_judge_cut;

/* other: by other_label. Pure. */
pdt_judge_cut pdt_judge_cut_at(const pdt_judge_scores *s, double threshold, bool other);

/* Area under the curve of precision over recall, as the sum of precision at every step of recall
 * (average precision). NaN without true items. Sorts the items. */
double pdt_judge_average_precision(pdt_judge_scores *s);

/* Area under the curve of hits over false alarms: the chance that a true item has a higher score
 * than a false one, ties counting half. NaN when all are alike. Sorts the items. other: by
 * other_label. */
double pdt_judge_auc(pdt_judge_scores *s, bool other);

#endif
