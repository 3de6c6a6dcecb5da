#include "atlas/pools.h"

#include <string.h>

#include "base/memory.h"

/* Most tokens of a hard name, where the tokenizer decides. */
enum { MOST_NAME_TOKENS = 3 };

/* Tokens of a name. */
static int32_t name_tokens(const pdt_atlas_generator *g, int32_t type, int32_t value) {
  const int32_t *words = g->world->name_words[type][value];
  return g->costs[words[0]] + (words[1] < 0 ? 0 : g->costs[words[1]]);
}

static int leave_out(pdt_atlas_generator *g, const char *name, pdt_error *err) {
  const char *comma = g->n_left_out++ > 0 ? ", " : "";
  return pdt_buffer_put(&g->left_out, comma, strlen(comma), err) ||
                 pdt_buffer_put(&g->left_out, name, strlen(name), err)
             ? -1
             : 0;
}

/* Names of a type that may be drawn, of one token or the others. */
static int fill_pool(pdt_atlas_generator *g, int32_t type, bool other, pdt_error *err) {
  const pdt_atlas_world *w = g->world;
  pdt_atlas_pool *pool = &g->pools[type][other];
  pdt_atlas_part part = g->options.names;
  int32_t first = other ? w->n_ones[type] : 0, end = other ? w->n_values[type] : w->n_ones[type];
  int32_t most = other ? MOST_NAME_TOKENS : 1, whole = 0;
  for (int32_t v = first; v < end; v++) {
    if (w->pretrained && name_tokens(g, type, v) > most) {
      if (leave_out(g, w->names[type][v], err)) return -1;
      continue;
    }
    whole++;
    bool wanted = pdt_atlas_is_held_out(w, v) == (part == PDT_ATLAS_HELD_OUT);
    if (wanted || part == PDT_ATLAS_ALL) pool->values[pool->n++] = (int16_t)v;
  }
  if (2 * whole >= end - first && pool->n > 0) return 0;
  return pdt_fail(
      err, PDT_ERROR_INPUT,
      "of %d names of the type '%s' this tokenizer has %d in at most %d token%s: too few",
      end - first, pdt_atlas_type_name(w, type), whole, most, most > 1 ? "s" : "");
}

int pdt_atlas_pools_fill(pdt_atlas_generator *g, pdt_error *err) {
  if (PDT_NEW(&g->pools, PDT_ATLAS_TYPES, "names", err)) return -1;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int other = 0; other < (g->options.hard ? 2 : 1); other++)
      if (fill_pool(g, t, other, err)) return -1;
  return 0;
}
