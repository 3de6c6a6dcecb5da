#include "text/jinja/arena.h"

#include <stdlib.h>

enum { CHUNK_BYTES = 16 << 10, ALIGN = 16 };

struct pdt_jinja_arena_chunk {
  pdt_jinja_arena_chunk *next;
  size_t used, room;
  _Alignas(ALIGN) char bytes[];
};

int pdt_jinja_arena_is_full(const pdt_jinja_arena *a, size_t bytes) {
  return bytes > a->limit || a->used > a->limit - bytes;
}

/* What does not fit into a chunk gets one of its own, behind the one in use. */
static pdt_jinja_arena_chunk *add_chunk(pdt_jinja_arena *a, size_t bytes) {
  size_t room = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
  pdt_jinja_arena_chunk *c = calloc(1, sizeof *c + room);
  if (!c) return NULL;
  c->room = room;
  if (a->chunks && bytes > CHUNK_BYTES) {
    c->next = a->chunks->next;
    a->chunks->next = c;
  } else {
    c->next = a->chunks;
    a->chunks = c;
  }
  return c;
}

void *pdt_jinja_arena_new(pdt_jinja_arena *a, size_t bytes) {
  if (pdt_jinja_arena_is_full(a, bytes)) return NULL;
  size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  pdt_jinja_arena_chunk *c = a->chunks;
  if (!c || rounded > c->room - c->used) c = add_chunk(a, rounded);
  if (!c) return NULL;
  void *out = c->bytes + c->used;
  c->used += rounded;
  a->used += rounded;
  return out;
}

void pdt_jinja_arena_free(pdt_jinja_arena *a) {
  for (pdt_jinja_arena_chunk *c = a->chunks, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  a->chunks = NULL;
  a->used = 0;
}
