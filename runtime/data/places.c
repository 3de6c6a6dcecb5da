#include "data/places.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/utf8.h"

int pdt_data_places_new(pdt_data_places *p, pdt_data_entry *e, pdt_error *err) {
  *p = (pdt_data_places){.e = e};
  if (PDT_NEW(&p->sections, e->n_sections, "places", err)) return -1;
  for (pdt_stream k = 0; k < e->n_sections; k++) {
    p->sections[k].length = strlen(e->sections[k].text);
    if (PDT_NEW(&p->sections[k].taken, p->sections[k].length, "places", err)) return -1;
  }
  return 0;
}

void pdt_data_places_free(pdt_data_places *p) {
  for (pdt_stream k = 0; p->sections && k < p->e->n_sections; k++) free(p->sections[k].taken);
  free(p->sections);
  *p = (pdt_data_places){0};
}

bool pdt_data_is_of_word(int32_t c) {
  if (c == '_') return true;
  switch (utf8proc_category(c)) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
  case UTF8PROC_CATEGORY_MN:
  case UTF8PROC_CATEGORY_MC:
  case UTF8PROC_CATEGORY_ME:
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_NO:
    return true;
  default:
    return false;
  }
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* A point or comma between two digits, at this byte. */
static bool joins_digits(const char *text, size_t length, size_t at) {
  return at > 0 && at + 1 < length && (text[at] == '.' || text[at] == ',') &&
         is_digit(text[at - 1]) && is_digit(text[at + 1]);
}

/* Is there a border between words at this byte, a character's first? */
static bool is_border(const char *text, size_t length, size_t at) {
  if (at == 0 || at >= length) return true;
  size_t before = pdt_utf8_back(text, at), behind = at;
  if (joins_digits(text, length, before) || joins_digits(text, length, at)) return false;
  return !pdt_data_is_of_word(pdt_utf8_next(text, &before)) ||
         !pdt_data_is_of_word(pdt_utf8_next(text, &behind));
}

bool pdt_data_stands_alone(const char *text, size_t length, size_t begin, size_t end) {
  return is_border(text, length, begin) && is_border(text, length, end);
}

bool pdt_data_find(const char *text, size_t length, const char *value, size_t bytes, size_t *at) {
  while (*at < length && bytes > 0) {
    const char *hit = memmem(text + *at, length - *at, value, bytes);
    if (!hit) return false;
    *at = (size_t)(hit - text);
    if (pdt_data_stands_alone(text, length, *at, *at + bytes)) return true;
    ++*at;
  }
  return false;
}

bool pdt_data_is_free(const pdt_data_places *p, pdt_stream k, size_t begin, size_t end) {
  return !memchr(p->sections[k].taken + begin, 1, end - begin);
}

int pdt_data_place(pdt_data_places *p, pdt_stream k, const pdt_data_mention *m, pdt_error *err) {
  pdt_data_section *s = &p->e->sections[k];
  if (PDT_GROW(&s->mentions, (size_t)s->n_mentions, &p->sections[k].room, err)) return -1;
  s->mentions[s->n_mentions++] = *m;
  memset(p->sections[k].taken + m->begin, 1, (size_t)(m->end - m->begin));
  return 0;
}

int pdt_data_place_fact(pdt_data_places *p, int32_t fact, bool *stated, pdt_error *err) {
  const pdt_data_fact *f = &p->e->facts[fact];
  size_t bytes = strlen(f->value);
  for (pdt_stream k = 0; k < p->e->n_sections; k++)
    for (size_t at = 0;
         pdt_data_find(p->e->sections[k].text, p->sections[k].length, f->value, bytes, &at);) {
      size_t end = at + bytes;
      if (!pdt_data_is_free(p, k, at, end)) {
        at++;
        continue;
      }
      bool states = k == f->stream && !*stated;
      const pdt_data_mention m = {fact, states ? PDT_STATES : PDT_USES, (int32_t)at, (int32_t)end};
      if (pdt_data_place(p, k, &m, err)) return -1;
      *stated |= states;
      at = end;
    }
  return 0;
}

static int by_place(const void *a, const void *b) {
  int32_t x = ((const pdt_data_mention *)a)->begin, y = ((const pdt_data_mention *)b)->begin;
  return (x > y) - (x < y);
}

void pdt_data_places_sort(pdt_data_places *p) {
  for (pdt_stream k = 0; k < p->e->n_sections; k++) {
    pdt_data_section *s = &p->e->sections[k];
    if (s->n_mentions > 1) qsort(s->mentions, (size_t)s->n_mentions, sizeof *s->mentions, by_place);
  }
}
