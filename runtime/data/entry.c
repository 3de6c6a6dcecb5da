#include "data/entry.h"

#include <stdlib.h>
#include <string.h>

void pdt_data_entry_free(pdt_data_entry *e) {
  for (int32_t k = 0; e->sections && k < e->n_sections; k++) {
    pdt_data_section *s = &e->sections[k];
    free(s->name);
    free(s->prefix);
    free(s->text);
    free(s->mentions);
    free(s->blocks);
  }
  for (int32_t i = 0; e->facts && i < e->n_facts; i++) {
    free(e->facts[i].type);
    free(e->facts[i].value);
  }
  for (int32_t i = 0; e->plan && i < e->n_plan; i++) free(e->plan[i].text);
  free(e->sections);
  free(e->facts);
  free(e->plan);
  free(e->id);
  free(e->prompt);
  *e = (pdt_data_entry){0};
}

int pdt_data_copy(char **out, const char *text, pdt_error *err) {
  *out = strdup(text);
  return *out ? 0 : pdt_fail(err, PDT_ERROR_MEMORY, "data: no memory for a text");
}

static const char *const kind_names[] = {"states", "uses", "misreads"};

const char *pdt_mention_kind_name(pdt_mention_kind kind) {
  return kind_names[kind];
}

bool pdt_mention_kind_parse(const char *name, pdt_mention_kind *out) {
  for (int kind = 0; kind <= PDT_MISREADS; kind++) {
    if (strcmp(name, kind_names[kind]) != 0) continue;
    *out = (pdt_mention_kind)kind;
    return true;
  }
  return false;
}
