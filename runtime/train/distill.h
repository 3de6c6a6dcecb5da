/* Distillation (PROTOCOL.md, "Training", L_KD): the teacher is the plain trunk reading the same
 * entry as one sequential text, prompt and then every section behind those before it; the student's
 * rows are matched with the teacher's token by token. */
#ifndef PDT_TRAIN_DISTILL_H
#define PDT_TRAIN_DISTILL_H

#include "train/entry.h"

/* Gives the batch of n entries, laid out by pdt_train_batch with every token a target, the
 * teacher's states and weights: `share` of L, spread over totals->tokens. A text longer than the
 * trunk's positions is cut: its last tokens have weight 0. Errors: RUNTIME when targets are not the
 * entries' tokens, MEMORY. */
int pdt_train_distill(const pdt_nn_trunk *trunk, const pdt_train_entry *const *entries, int32_t n,
                      double share, const pdt_train_totals *totals, pdt_nn_sidecar_batch *batch,
                      pdt_arena *arena, pdt_error *err);

#endif
