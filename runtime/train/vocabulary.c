#include "train/vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "protocol/philox.h"

int pdt_train_vocabulary_new(pdt_train_vocabulary *v, int32_t size, int32_t sampled,
                             const pdt_train_entry *const *entries, int64_t n, pdt_error *err) {
  *v = (pdt_train_vocabulary){.size = size};
  if (PDT_NEW(&v->ids, size, "vocabulary", err) || PDT_NEW(&v->place, size, "vocabulary", err))
    return -1;
  for (int64_t i = 0; i < n; i++)
    for (int32_t k = 0; k < entries[i]->n_streams; k++)
      for (int32_t j = 0; j < entries[i]->streams[k].n_tokens; j++)
        v->place[entries[i]->streams[k].tokens[j]] = 1;
  for (int occurs = 1, at = 0; occurs >= 0; occurs--) {
    for (int32_t id = 0; id < size; id++)
      if (v->place[id] == occurs) v->ids[at++] = id;
    if (occurs) v->n_occurring = at;
  }
  int32_t others = size - v->n_occurring;
  v->sampled = sampled < others ? sampled : others;
  return 0;
}

void pdt_train_vocabulary_free(pdt_train_vocabulary *v) {
  free(v->ids);
  free(v->place);
  *v = (pdt_train_vocabulary){0};
}

int pdt_train_vocabulary_draw(pdt_train_vocabulary *v, uint64_t seed, int64_t step,
                              pdt_nn_subset *out, pdt_arena *arena, pdt_error *err) {
  int32_t others = v->size - v->n_occurring, n = v->n_occurring + v->sampled, *ids;
  pdt_real *shift, stands = (pdt_real)(v->sampled > 0 ? log((double)others / v->sampled) : 0);
  if (PDT_TAKE(arena, &ids, v->size, err) || PDT_TAKE(arena, &shift, n, err)) return -1;
  memcpy(ids, v->ids, (size_t)v->size * sizeof *ids);
  for (int32_t i = 0; i < v->sampled; i++) { /* the first cards of a shuffle */
    double u = pdt_uniform(seed, (uint32_t)i, 0, 0, (uint64_t)step);
    int32_t *a = &ids[v->n_occurring + i], *b = a + (int32_t)(u * (others - i)), kept = *a;
    *a = *b;
    *b = kept;
  }
  memset(v->place, 0xff, (size_t)v->size * sizeof *v->place);
  for (int32_t i = 0; i < n; i++) {
    v->place[ids[i]] = i;
    shift[i] = i < v->n_occurring ? 0 : stands;
  }
  *out = (pdt_nn_subset){n, ids, shift, v->place};
  return 0;
}
