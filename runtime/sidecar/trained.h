/* What a sidecar was trained with: the optional object "trained" of its config, by which a request
 * that is far from it can be told (request/familiar.h). Every key may be absent: nothing is known
 * of it then; a list may be null: there were too many to list them.
 *
 *   stages        texts, in order: "0" to "3", "all", "rollouts"; none: never trained
 *   block_tokens, reveal_delay, streams, prompt_tokens   [least, most]
 *   window        notes, the plan's included; 0: all that there were
 *   notes         most notes that a block had in its window
 *   temperature   of its rollouts
 *   headings      texts of sections, up to PDT_TRAINED_TEXTS
 *   plan_texts    of plan items, as many
 *   plan_ids      of plan items, ascending, up to PDT_TRAINED_PLAN_IDS
 *   prompt        text of one prompt
 *   prompt_ids    token ids of all prompts, ascending, up to PDT_TRAINED_PROMPT_IDS
 *
 * The object is JSON, checked when it is read; keys that are not above are kept and mean nothing.
 */
#ifndef PDT_SIDECAR_TRAINED_H
#define PDT_SIDECAR_TRAINED_H

#include "base/error.h"
#include "base/types.h"

struct json_t; /* jansson's */

enum {
  PDT_TRAINED_TEXTS = 64,
  PDT_TRAINED_TEXT_BYTES = 200, /* longest text of a list or prompt */
  PDT_TRAINED_PLAN_IDS = 4096,
  PDT_TRAINED_PROMPT_IDS = 256,
};

/* Checks an object that somebody else wrote; `where` names it in errors. Errors: INPUT. */
int pdt_trained_check(const struct json_t *trained, const char *where, pdt_error *err);

/* Adds what `more` says: ranges and lists grow, the largest of what is one number counts, the first
 * prompt stays. Both are sound. Adding the same again changes nothing. Errors: MEMORY; `trained` is
 * then sound, and of no further use. */
int pdt_trained_add(struct json_t *trained, const struct json_t *more, pdt_error *err);

/* The same for a stage of training: `more` and its name. */
int pdt_trained_add_stage(struct json_t *trained, const struct json_t *more, const char *stage,
                          pdt_error *err);

/* What a sound object says; all pure. Does a list have this id, this text? True when it is not
 * known. Is this stage among its stages? Sets the ends of a range; false when it is not known. */
bool pdt_trained_has_id(const struct json_t *trained, const char *key, int64_t id);
bool pdt_trained_has_text(const struct json_t *trained, const char *key, const char *text);
bool pdt_trained_has_stage(const struct json_t *trained, const char *stage);
bool pdt_trained_range(const struct json_t *trained, const char *key, int64_t *low, int64_t *high);

#endif
