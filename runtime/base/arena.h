/* Memory of one training step: taken piece by piece, given back all at once, kept for the next. */
#ifndef PDT_BASE_ARENA_H
#define PDT_BASE_ARENA_H

#include "base/error.h"
#include "base/types.h"

typedef struct pdt_arena {
  struct pdt_chunk *chunks; /* newest first; the newest is taken from */
  pdt_bytes used, bytes;    /* of all chunks */
} pdt_arena;                /* a zeroed one is empty */

/* Room for count elements, 64-byte aligned, not initialized, good until the reset. Errors: MEMORY.
 */
int pdt_arena_take(pdt_arena *arena, void **out, int64_t count, size_t size, pdt_error *err);

/* The same for a typed pointer: PDT_TAKE(arena, &p, n, err). */
#define PDT_TAKE(arena, pointer, count, err)                                                       \
  pdt_arena_take(arena, (void **)(pointer), (int64_t)(count), sizeof **(pointer), err)

/* The same with every byte zero. */
int pdt_arena_take_zeros(pdt_arena *arena, void **out, int64_t count, size_t size, pdt_error *err);

#define PDT_TAKE_ZEROS(arena, pointer, count, err)                                                 \
  pdt_arena_take_zeros(arena, (void **)(pointer), (int64_t)(count), sizeof **(pointer), err)

/* Everything taken is free again; pieces are put together into one, so that a step of the same size
 * allocates nothing. */
void pdt_arena_reset(pdt_arena *arena);

void pdt_arena_free(pdt_arena *arena);

#endif
