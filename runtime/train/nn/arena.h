/* Memory of one training step: taken piece by piece, given back all at once, kept for the next. */
#ifndef PDT_TRAIN_NN_ARENA_H
#define PDT_TRAIN_NN_ARENA_H

#include "base/error.h"
#include "train/nn/real.h"

typedef struct pdt_nn_arena {
  struct pdt_nn_chunk *chunks; /* newest first; the newest is taken from */
  pdt_bytes used, bytes;       /* of all chunks */
} pdt_nn_arena;                /* a zeroed one is empty */

/* Room for count elements, 64-byte aligned, not initialized, good until the reset. Errors: MEMORY.
 */
int pdt_nn_take_bytes(pdt_nn_arena *arena, void **out, int64_t count, size_t size, pdt_error *err);

/* The same for a typed pointer: PDT_NN_TAKE(arena, &p, n, err). */
#define PDT_NN_TAKE(arena, pointer, count, err)                                                    \
  pdt_nn_take_bytes(arena, (void **)(pointer), (int64_t)(count), sizeof **(pointer), err)

/* Everything taken is free again; pieces are put together into one, so that a step of the same size
 * allocates nothing. */
void pdt_nn_arena_reset(pdt_nn_arena *arena);

void pdt_nn_arena_free(pdt_nn_arena *arena);

#endif
