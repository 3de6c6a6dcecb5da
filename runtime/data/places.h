/* Names in the texts of an entry, by exact match at word borders: mentions in the making. Of two
 * names that overlap, the one that was placed first stays. */
#ifndef PDT_DATA_PLACES_H
#define PDT_DATA_PLACES_H

#include "data/entry.h"

/* What the texts of an entry have in them so far. */
typedef struct pdt_data_places {
  pdt_data_entry *e; /* borrowed: texts are read, mentions added */
  struct pdt_data_section_places {
    size_t length, room;  /* of the text, of the mentions */
    unsigned char *taken; /* [length]: bytes of names */
  } * sections;           /* [e->n_sections] */
} pdt_data_places;

/* Of an entry whose sections have texts, valid UTF-8, and no mentions. Freed by the caller, after
 * an error too. Errors: MEMORY. */
int pdt_data_places_new(pdt_data_places *p, pdt_data_entry *e, pdt_error *err);
void pdt_data_places_free(pdt_data_places *p);

/* Is this character part of words: a letter, a mark, a digit or '_'? Pure. */
bool pdt_data_is_of_word(int32_t c);

/* Do text[begin, end) stand between word borders? A border is where not both sides are of words; a
 * point or comma between two digits is none. Pure. */
bool pdt_data_stands_alone(const char *text, size_t length, size_t begin, size_t end);

/* The next place at or behind *at where `value` [bytes] stands alone in a text: *at is then its
 * beginning. False: there is none. Pure. */
bool pdt_data_find(const char *text, size_t length, const char *value, size_t bytes, size_t *at);

/* Is no byte of [begin, end) of section k part of a name yet? Pure. */
bool pdt_data_is_free(const pdt_data_places *p, pdt_stream k, size_t begin, size_t end);

/* Adds a mention of section k, at a place that is free. Errors: MEMORY. */
int pdt_data_place(pdt_data_places *p, pdt_stream k, const pdt_data_mention *m, pdt_error *err);

/* Places the value of a fact wherever it stands alone and free, in all sections: the first place in
 * its own section states it, unless *stated; the others, of its own section too, use it. *stated:
 * one place states it. Errors: MEMORY. */
int pdt_data_place_fact(pdt_data_places *p, int32_t fact, bool *stated, pdt_error *err);

/* Orders the mentions of all sections by place. */
void pdt_data_places_sort(pdt_data_places *p);

#endif
