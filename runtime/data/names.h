/* Candidates for facts, found without being told: names and numbers that several sections of an
 * entry have in common.
 *
 * A word is a run of letters, marks, digits and '_', with single hyphens and apostrophes inside,
 * and points and commas between digits; a final 's does not belong to it. A number is a word that
 * begins with a digit and has two characters or more. A name is a word of two characters or more
 * that begins with a capital and is no stop word, or up to four such words (numbers from the second
 * on) with single spaces between them. Of these, a text is a fact if it stands in two sections or
 * more, outside of longer ones that are facts; and neither in the prompt nor in a prefix, which
 * tell it to all; and, if it is a single name, at least once where no sentence begins (at the start
 * of a text, or behind . ! ? : ; or a line break). It is a fact of the section in which it stands
 * earliest, counted from the section's beginning, since streams write at the same time; of two
 * such, of the first. */
#ifndef PDT_DATA_NAMES_H
#define PDT_DATA_NAMES_H

#include "data/places.h"

/* Words that are no names, in small letters and in order. A zeroed one has none. */
typedef struct pdt_data_stop_words {
  char **words;
  size_t n, room;
} pdt_data_stop_words;

/* The English words that capitals and sentences make look like names. Freed by the caller, after an
 * error too. Errors: MEMORY. */
int pdt_data_stop_words_new(pdt_data_stop_words *s, pdt_error *err);
void pdt_data_stop_words_free(pdt_data_stop_words *s);

/* Adds a word of valid UTF-8. Errors: MEMORY. */
int pdt_data_stop_words_add(pdt_data_stop_words *s, const char *word, size_t bytes, pdt_error *err);

/* Is it among them, whatever its capitals? *is: the answer. Errors: MEMORY. */
int pdt_data_is_stop_word(const pdt_data_stop_words *s, const char *word, size_t bytes, bool *is,
                          pdt_error *err);

/* Makes facts of an entry that has none, the longest texts first and PDT_DATA_FACTS at most, and
 * places them. Their types are "name" and "number". Errors: MEMORY. */
int pdt_data_find_names(pdt_data_places *p, const pdt_data_stop_words *stop, pdt_error *err);

#endif
