#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

typedef struct pdt_chunk {
  struct pdt_chunk *next;
  pdt_bytes used, bytes;
  unsigned char *data;
} pdt_chunk;

static const pdt_bytes least_chunk = 1 << 20;

static int add_chunk(pdt_arena *arena, pdt_bytes bytes, pdt_error *err) {
  pdt_chunk *chunk = malloc(sizeof *chunk);
  if (!chunk) return pdt_fail(err, PDT_ERROR_MEMORY, "buffers of a step: no memory");
  *chunk = (pdt_chunk){.next = arena->chunks, .bytes = bytes};
  void *data = aligned_alloc(PDT_ALIGN_BYTES, (size_t)bytes);
  if (!data) {
    free(chunk);
    return pdt_fail(err, PDT_ERROR_MEMORY,
                    "buffers of a step: no memory for %.1f MB more beside %.1f MB (hint: a smaller "
                    "batch)",
                    (double)bytes * 1e-6, (double)arena->bytes * 1e-6);
  }
  chunk->data = data;
  arena->chunks = chunk;
  arena->bytes += bytes;
  return 0;
}

int pdt_arena_take(pdt_arena *arena, void **out, int64_t count, size_t size, pdt_error *err) {
  *out = NULL;
  if (count < 0 || (count > 0 && (pdt_bytes)size > (INT64_MAX / 4) / count))
    return pdt_fail(err, PDT_ERROR_MEMORY, "buffers of a step: %lld elements of %zu bytes",
                    (long long)count, size);
  pdt_bytes bytes = (count * (pdt_bytes)size / PDT_ALIGN_BYTES + 1) * PDT_ALIGN_BYTES;
  pdt_chunk *chunk = arena->chunks;
  if (!chunk || chunk->bytes - chunk->used < bytes) {
    pdt_bytes wanted = arena->bytes > least_chunk ? arena->bytes / 2 : least_chunk;
    wanted = wanted / PDT_ALIGN_BYTES * PDT_ALIGN_BYTES;
    if (add_chunk(arena, wanted > bytes ? wanted : bytes, err)) return -1;
    chunk = arena->chunks;
  }
  *out = chunk->data + chunk->used;
  chunk->used += bytes;
  arena->used += bytes;
  return 0;
}

int pdt_arena_take_zeros(pdt_arena *arena, void **out, int64_t count, size_t size, pdt_error *err) {
  if (pdt_arena_take(arena, out, count, size, err)) return -1;
  memset(*out, 0, (size_t)count * size);
  return 0;
}

void pdt_arena_reset(pdt_arena *arena) {
  pdt_bytes used = arena->used;
  arena->used = 0;
  if (arena->chunks && !arena->chunks->next) {
    arena->chunks->used = 0;
    return;
  }
  pdt_arena_free(arena);
  /* Without memory for one piece the next step takes several again. */
  if (used > 0) add_chunk(arena, (used / PDT_ALIGN_BYTES + 1) * PDT_ALIGN_BYTES, NULL);
}

void pdt_arena_free(pdt_arena *arena) {
  for (pdt_chunk *chunk = arena->chunks; chunk;) {
    pdt_chunk *next = chunk->next;
    free(chunk->data);
    free(chunk);
    chunk = next;
  }
  *arena = (pdt_arena){0};
}
