#include "atlas/any_words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

enum {
  LEAST_LETTERS = 3,
  LEAST_WORDS = 1000, /* of either kind: fewer are a list to learn by heart, too */
  HELD_OUT = 10,      /* one in so many */
};

bool pdt_atlas_any_capital(const pdt_atlas_world *world, int32_t type) {
  return isupper((unsigned char)world->names[type][0][0]);
}

/* Letters, all of them small but the first. */
static bool is_plain(const char *word, size_t bytes) {
  if (bytes < LEAST_LETTERS || bytes >= PDT_ATLAS_NAME_BYTES || !isalpha((unsigned char)*word))
    return false;
  for (size_t i = 1; i < bytes; i++)
    if (!islower((unsigned char)word[i])) return false;
  return true;
}

bool pdt_atlas_any_is_word(const pdt_atlas_world *world, int32_t type, const char *name) {
  return is_plain(name, strlen(name)) &&
         !isupper((unsigned char)*name) == !pdt_atlas_any_capital(world, type);
}

/* Is the word of the part that is held out of training? The world's own names say so themselves. */
static bool is_held_out(const pdt_atlas_world *world, const char *word) {
  if (pdt_atlas_word(world, word, strlen(word)) >= 0)
    for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
      int32_t value = pdt_atlas_value(world, t, word);
      if (value >= 0 && pdt_atlas_is_held_out(world, value)) return true;
    }
  return XXH64(word, strlen(word), 0) % HELD_OUT == 0;
}

/* The word that a token is behind another word, into `word`. *found: it is one, and written in this
 * token. */
static int word_of(const pdt_tokenizer *tokenizer, pdt_token before, pdt_token id,
                   char word[PDT_ATLAS_NAME_BYTES], bool *found, pdt_error *err) {
  char *text;
  size_t bytes;
  pdt_token *ids = NULL;
  int32_t n = 0;
  *found = false;
  if (pdt_tokenizer_decode_after(tokenizer, before, &id, 1, &text, &bytes, err)) return -1;
  int rc = 0;
  if (bytes > 1 && *text == ' ' && is_plain(text + 1, bytes - 1)) {
    rc = pdt_tokenizer_encode_middle(tokenizer, 'e', text, bytes, &ids, &n, err);
    *found = !rc && n == 1 && ids[0] == id;
    if (*found) memcpy(word, text + 1, bytes);
  }
  free(ids);
  free(text);
  return rc;
}

int pdt_atlas_any_new(pdt_atlas_any *any, const pdt_atlas_world *world,
                      const pdt_tokenizer *tokenizer, bool held_out, pdt_error *err) {
  int32_t size = pdt_tokenizer_size(tokenizer), n;
  pdt_token *before;
  for (int capital = 0; capital < 2; capital++)
    if (PDT_NEW(&any->words[capital], size, "words", err)) return -1;
  if (pdt_tokenizer_encode(tokenizer, " the", 4, false, &before, &n, err)) return -1;
  pdt_token last = n > 0 ? before[n - 1] : 0;
  free(before);
  for (pdt_token id = 0; id < size; id++) {
    char word[PDT_ATLAS_NAME_BYTES];
    bool found;
    if (word_of(tokenizer, last, id, word, &found, err)) return -1;
    if (!found || is_held_out(world, word) != held_out) continue;
    int capital = isupper((unsigned char)*word) != 0;
    memcpy(any->words[capital][any->n[capital]++], word, sizeof word);
  }
  int32_t least = held_out ? LEAST_WORDS / HELD_OUT : LEAST_WORDS;
  if (any->n[0] >= least && any->n[1] >= least) return 0;
  return pdt_fail(err, PDT_ERROR_INPUT,
                  "names from anywhere: this tokenizer has %d words in small letters and %d with a "
                  "capital one: expected at least %d of either (hint: --model, a pretrained one)",
                  any->n[0], any->n[1], least);
}

void pdt_atlas_any_free(pdt_atlas_any *any) {
  for (int capital = 0; capital < 2; capital++) free(any->words[capital]);
  *any = (pdt_atlas_any){0};
}
