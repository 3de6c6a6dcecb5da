/* What a frozen trunk computes of the entries of a dataset whatever the sidecar is: the final-norm
 * states of their prompts, and the residual stream of all texts behind the layers below the first
 * instrumented one. Computed once, by all ranks, kept in a file beside the data, and mapped by
 * every run that trains on them: stages and steps begin where the sidecar does.
 *
 * The file: a header, then entry by entry what the planner reads of its prompt, floats
 * (pdt_train_prompt_states), and rows of texts, bf16 [rows, d] (pdt_nn_lower_layers). Where
 * texts begin from it, the rounding to bf16 is part of what is trained. */
#ifndef PDT_TRAIN_STATES_H
#define PDT_TRAIN_STATES_H

#include "comm/comm.h"
#include "train/dataset.h"

typedef struct pdt_train_states {
  void *map; /* of the file */
  size_t bytes;
} pdt_train_states;

/* Called on rank 0 while entries are computed: `done` of its `all`. */
typedef struct pdt_states_observer {
  void *context;
  void (*progress)(void *context, int64_t done, int64_t all);
} pdt_states_observer;

/* Completes the entries of `data`, which was loaded without_states, from the file at `path`; makes
 * the file where it is not there yet: all its room is taken first, and it has that name when it is
 * whole. All ranks must see the same file. Collective over world, blocking; all ranks fail alike.
 * Errors: INPUT (a file of another model, sidecar or data, or a broken one), IO, MEMORY. Closed
 * by the caller, after an error too; entries must not be used afterwards. */
int pdt_train_states_open(pdt_train_states *s, const char *path, const pdt_nn_trunk *trunk,
                          const pdt_sidecar_config *config, pdt_dataset *data,
                          const pdt_comm *world, const pdt_states_observer *observer,
                          pdt_error *err);
void pdt_train_states_close(pdt_train_states *s);

#endif
