/* Memory that is taken piece by piece and given back at once. A zeroed one with a limit is empty.
 */
#ifndef PDT_TEXT_JINJA_ARENA_H
#define PDT_TEXT_JINJA_ARENA_H

#include <stddef.h>

typedef struct pdt_jinja_arena_chunk pdt_jinja_arena_chunk;

typedef struct pdt_jinja_arena {
  pdt_jinja_arena_chunk *chunks; /* the one in use first */
  size_t used, limit;            /* bytes of all */
} pdt_jinja_arena;

/* Zeroed, aligned for anything; NULL beyond the limit and without memory. */
void *pdt_jinja_arena_new(pdt_jinja_arena *a, size_t bytes);

/* Would so many bytes more be beyond the limit? Tells the reason of a NULL. */
int pdt_jinja_arena_is_full(const pdt_jinja_arena *a, size_t bytes);

void pdt_jinja_arena_free(pdt_jinja_arena *a);

#endif
