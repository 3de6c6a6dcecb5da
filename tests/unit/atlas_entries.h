/* Entries of a world of the Atlas, and what drawing them takes: for the tests of each world. */
#ifndef PDT_TESTS_ATLAS_ENTRIES_H
#define PDT_TESTS_ATLAS_ENTRIES_H

#include <stdlib.h>

#include <cmocka.h>

#include "atlas/generate.h"
#include "scratch.h"

/* What every test needs: made once. */
typedef struct fixture {
  scratch *files;
  pdt_atlas_world *world;
  pdt_tokenizer *tokenizer; /* the world's own */
  uint64_t fingerprint;
  pdt_error err;
} fixture;

static inline int atlas_setup(void **state, pdt_atlas_kind kind) {
  fixture *f = calloc(1, sizeof *f);
  void *files = NULL;
  if (!f) return -1;
  *state = f;
  if (scratch_setup(&files)) return -1;
  f->files = files;
  return pdt_atlas_world_new(&f->world, kind, &f->err) ||
         pdt_atlas_tokenizer(f->world, &f->tokenizer, &f->fingerprint, &f->err);
}

static inline int atlas_teardown(void **state) {
  fixture *f = *state;
  void *files = f->files;
  pdt_tokenizer_free(f->tokenizer);
  pdt_atlas_world_free(f->world);
  free(f);
  return scratch_teardown(&files);
}

/* Entries of up to six sections in blocks of tau tokens. */
static inline pdt_atlas_options options_of(int32_t tau, bool hard, pdt_atlas_split split,
                                           uint64_t seed) {
  return (pdt_atlas_options){.seed = seed,
                             .split = split,
                             .hard = hard,
                             .min_sections = 2,
                             .max_sections = 6,
                             .min_tokens = 30,
                             .max_tokens = 90,
                             .rounds = {tau, 1, 0},
                             .plan_slots = 16,
                             .plan_vocab_size = 65536,
                             .plan_salt = "parallel-decoder-v1"};
}

static inline pdt_atlas_generator generator_of(fixture *f, const pdt_tokenizer *tokenizer,
                                               const pdt_atlas_options *options) {
  pdt_atlas_generator g;
  if (pdt_atlas_generator_init(&g, f->world, tokenizer, options, &f->err))
    fail_msg("%s", f->err.message);
  return g;
}

static inline pdt_data_entry draw(fixture *f, pdt_atlas_generator *g, uint32_t index) {
  pdt_data_entry e = {0};
  if (pdt_atlas_generate(g, index, &e, &f->err)) fail_msg("%s", f->err.message);
  return e;
}

#endif
