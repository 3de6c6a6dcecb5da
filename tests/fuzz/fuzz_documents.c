/* Any text as a document, with facts of its own or with names found (the first byte chooses): what
 * is accepted is an entry that the reader of data files accepts, too, once it is labelled. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"
#include "data/documents.h"
#include "labels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Mentions are in order and apart; every fact is stated once, by its section. */
static void check_mentions(const pdt_data_entry *e) {
  int stated[PDT_DATA_FACTS] = {0};
  for (int32_t k = 0; k < e->n_sections; k++) {
    const pdt_data_section *s = &e->sections[k];
    int32_t length = (int32_t)strlen(s->text), at = 0;
    for (int32_t i = 0; i < s->n_mentions; i++) {
      const pdt_data_mention *m = &s->mentions[i];
      if (m->begin < at || m->begin >= m->end || m->end > length) abort();
      at = m->end;
      if (m->kind != PDT_STATES) continue;
      if (e->facts[m->fact].stream != k) abort();
      stated[m->fact]++;
    }
  }
  for (int32_t i = 0; i < e->n_facts; i++)
    if (stated[i] != 1) abort();
}

/* Labelled, it comes back as it was written. */
static void check_entry(pdt_data_entry *e, const pdt_sidecar_config *plan) {
  pdt_data_header header = {.rounds = {4, 1, 6},
                            .plan_slots = plan->plan_slots,
                            .plan_vocab_size = plan->plan_vocab_size};
  pdt_data_entry back;
  pdt_error err = {0};
  char *one, *two;
  size_t n_one, n_two;
  memcpy(header.plan_salt, plan->plan_hash_salt, PDT_SALT_BYTES);
  label_by_bytes(e, &header.rounds);
  if (pdt_data_entry_text(e, &one, &n_one, &err) ||
      pdt_data_entry_parse(&back, &header, one, n_one, "fuzz", &err) ||
      pdt_data_entry_text(&back, &two, &n_two, &err)) {
    fprintf(stderr, "%s\n", err.message);
    abort();
  }
  if (n_one != n_two || memcmp(one, two, n_one) != 0) abort();
  free(one);
  free(two);
  pdt_data_entry_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static pdt_data_stop_words stop; /* made once */
  const pdt_sidecar_config plan = {
      .plan_slots = 5, .plan_vocab_size = 65536, .plan_hash_salt = "parallel-decoder-v1"};
  pdt_data_entry e;
  pdt_error err = {0};
  if (size == 0) return 0;
  if (stop.n == 0 && pdt_data_stop_words_new(&stop, &err)) abort();
  const pdt_document_rules rules = {&plan, data[0] % 2 ? &stop : NULL};
  if (pdt_document_parse(&e, &rules, (const char *)data + 1, size - 1, "fuzz", &err)) {
    if (!*err.message || e.sections || e.facts || e.id) abort();
    return 0;
  }
  check_mentions(&e);
  if (e.n_facts > 0) check_entry(&e, &plan);
  pdt_data_entry_free(&e);
  return 0;
}
