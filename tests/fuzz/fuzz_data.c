/* Any text as a data file's header, as one of its entries, or as text that facts are read from:
 * what is accepted keeps its promises. The first byte chooses. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atlas/parse.h"
#include "data/data.h"
#include "labels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_header(const char *text, size_t bytes) {
  pdt_data_header h, back;
  pdt_error err = {0};
  char *again;
  size_t length;
  if (pdt_data_header_parse(&h, text, bytes, "fuzz", &err)) {
    if (!*err.message) abort();
    return;
  }
  if (pdt_data_header_text(&h, &again, &length, &err)) abort();
  if (pdt_data_header_parse(&back, again, length, "fuzz", &err)) abort();
  if (back.rounds.block_tokens != h.rounds.block_tokens || !back.world != !h.world) abort();
  free(again);
  pdt_data_header_free(&h);
  pdt_data_header_free(&back);
}

static void fuzz_entry(const char *text, size_t bytes) {
  pdt_data_header header = {.rounds = {6, 1, 0},
                            .plan_slots = 16,
                            .plan_vocab_size = 65536,
                            .plan_salt = "parallel-decoder-v1"};
  pdt_data_entry e, back;
  pdt_error err = {0};
  char *one, *two;
  size_t n_one, n_two;
  if (pdt_data_entry_parse(&e, &header, text, bytes, "fuzz", &err)) {
    if (!*err.message || e.sections || e.facts || e.id) abort();
    return;
  }
  if (pdt_data_entry_text(&e, &one, &n_one, &err) ||
      pdt_data_entry_parse(&back, &header, one, n_one, "fuzz", &err) ||
      pdt_data_entry_text(&back, &two, &n_two, &err))
    abort();
  if (n_one != n_two || memcmp(one, two, n_one) != 0) abort();
  label_by_bytes(&e, &(pdt_data_rounds){4, 1, 6});
  free(one);
  free(two);
  pdt_data_entry_free(&e);
  pdt_data_entry_free(&back);
}

static void fuzz_reading(pdt_atlas_kind kind, const char *text, size_t bytes) {
  static pdt_atlas_world *worlds[PDT_ATLAS_KINDS]; /* made once: they take longer than a text */
  pdt_atlas_reading r = {0};
  pdt_error err = {0};
  if (!worlds[kind] && pdt_atlas_world_new(&worlds[kind], kind, &err)) abort();
  const pdt_atlas_world *world = worlds[kind];
  if (pdt_atlas_parse(world, 3, text, bytes, &r, &err)) abort();
  size_t at = 0;
  for (size_t i = 0; i < r.n; i++) {
    const pdt_atlas_mention *m = &r.mentions[i];
    if (m->begin < at || m->begin >= m->end || m->end > bytes) abort();
    at = m->end;
    if (m->value < -1 || m->value >= world->n_values[m->type]) abort();
    if (m->value < 0) continue;
    const char *name = world->names[m->type][m->value];
    if (text[m->begin] != name[0] || text[m->end - 1] != name[strlen(name) - 1]) abort();
  }
  if (r.malformed > r.sentences || r.n > (size_t)r.sentences + 1) abort();
  pdt_atlas_reading_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const char *text = (const char *)data + 1;
  switch (data[0] % 3) {
  case 0:
    fuzz_header(text, size - 1);
    break;
  case 1:
    fuzz_entry(text, size - 1);
    break;
  default:
    fuzz_reading((pdt_atlas_kind)(data[0] / 3 % PDT_ATLAS_KINDS), text, size - 1);
  }
  return 0;
}
