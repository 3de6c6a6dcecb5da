#include "atlas/names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/shuffle.h"
#include "protocol/philox.h"

/* Lists of drawn things: names of every type, then these. */
enum { TOWNS = PDT_ATLAS_TYPES, FIRST, SECOND, PAIRS, YEARS, INVENTED, WORD_PAIRS = 40 };

/* The world of syllables: names of one word of a type, of both kinds, and halves of names of two.
 */
enum { ONES = 48, VALUES = 96, PIECES = 40 };

/* The world of words: names of two words of a type, and as many invented ones. */
enum { FIRST_HALVES = 40, SECOND_HALVES = 36, EXTRAS = 100 };

enum { LARGEST_LIST = PIECES * PIECES };

typedef char name[PDT_ATLAS_NAME_BYTES];

/* Number `attempt` of item i of a list, below n: the same for ever, or the world is another. */
static int32_t draw(int32_t list, int32_t i, uint32_t attempt, uint32_t part, int32_t n) {
  const uint32_t counter[4] = {(uint32_t)i, attempt, (uint32_t)list, part};
  const uint32_t key[2] = {0x61746c61, 0x73};
  uint32_t x[4];
  pdt_philox4x32(counter, key, x);
  return (int32_t)((uint64_t)x[0] * (uint32_t)n >> 32);
}

/* Two endings that tell a reader what a name is of; in the order of types, then towns and pieces,
 * then, from INVENTED on, the types of the world of words. An empty one: the list is not made of
 * syllables. */
static const char *const endings[][2] = {
    {"an", "ira"},    {"", ""},         {"", ""},         {"ling", "ek"},    {"wen", "lis"},
    {"gard", "fell"}, {"mas", "tide"},  {"ius", "ela"},   {"otti", "ush"},   {"oy", "inka"},
    {"mond", "cour"}, {"burg", "stad"}, {"mora", "holm"}, {"a", "o"},        {"enn", "ick"},
    {"", ""},         {"", ""},         {"ard", "win"},   {"ania", "istan"}, {"urn", "oth"},
    {"ax", "orn"},    {"ora", "ane"},   {"gard", "ole"},  {"ium", "mas"},    {"ella", "ina"},
    {"otti", "ush"},  {"oy", "inka"},   {"mond", "iel"},  {"burg", "stad"},
};

/* Goods (those that are drawn), coins or emblems, dishes and drinks are common nouns. */
static bool is_lowercase(int32_t list) {
  int32_t type = list >= INVENTED ? list - INVENTED : list;
  return type == 2 || type == 3 || type == 8 || type == 9;
}

static void syllables(int32_t list, int32_t i, uint32_t attempt, name out) {
  static const char *const onsets[] = {"b", "br", "c", "d", "dr", "f",  "g",  "gr", "h", "k", "l",
                                       "m", "n",  "p", "r", "s",  "st", "th", "t",  "v", "w", "z"};
  static const char *const vowels[] = {"a", "e", "i", "o", "u"};
  static const char *const codas[] = {"l", "n", "r", "s", "v", "d", "m", "k"};
  snprintf(out, sizeof(name), "%s%s%s%s", onsets[draw(list, i, attempt, 0, 22)],
           vowels[draw(list, i, attempt, 1, 5)], codas[draw(list, i, attempt, 2, 8)],
           endings[list][draw(list, i, attempt, 3, 2)]);
  if (!is_lowercase(list)) out[0] = (char)toupper((unsigned char)out[0]);
}

static bool among(const name *names, int32_t n, const char *text) {
  for (int32_t i = 0; i < n; i++)
    if (strcmp(names[i], text) == 0) return true;
  return false;
}

/* n names of a list, none twice. Endings keep the lists apart. */
static void make_list(int32_t list, name *names, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    uint32_t attempt = 0;
    do syllables(list, i, attempt++, names[i]);
    while (among(names, i, names[i]));
  }
}

static int64_t place_in_list(void *list, int64_t i) {
  return draw(*(const int32_t *)list, (int32_t)i, 0, 0, (int32_t)i + 1);
}

/* A permutation of 0 .. n - 1, n <= LARGEST_LIST. */
static void shuffle(int32_t list, int16_t *order, int32_t n) {
  for (int32_t i = 0; i < n; i++) order[i] = (int16_t)i;
  pdt_shuffle(order, n, sizeof *order, place_in_list, &list);
}

/* Real words, so that a reader sees what the town lives by. */
static void make_goods(name *names) {
  static const char *const goods[ONES] = {
      "salt",    "wool",   "amber",  "copper",   "tin",    "silk",    "linen",  "honey",
      "wax",     "timber", "iron",   "zinc",     "marble", "slate",   "clay",   "glass",
      "pottery", "felt",   "fur",    "leather",  "rope",   "paper",   "ink",    "indigo",
      "saffron", "pepper", "ginger", "cinnamon", "cloves", "sugar",   "tea",    "coffee",
      "cocoa",   "cotton", "hemp",   "flax",     "pearls", "ivory",   "coral",  "jade",
      "ebony",   "cedar",  "oil",    "soap",     "barley", "tobacco", "lumber", "granite"};
  for (int32_t i = 0; i < ONES; i++) snprintf(names[i], sizeof(name), "%s", goods[i]);
}

/* Years of three digits are one token; those of four are two, the century and the rest. */
static void make_years(name *names) {
  int16_t order[900];
  shuffle(YEARS, order, 900);
  for (int32_t i = 0; i < ONES; i++) snprintf(names[i], sizeof(name), "%d", 100 + order[i]);
  shuffle(YEARS, order, 6 * 34);
  for (int32_t i = ONES; i < VALUES; i++)
    snprintf(names[i], sizeof(name), "%d%02d", 10 + order[i] / 34, order[i] % 34 * 3);
}

void pdt_atlas_make_syllable_names(pdt_atlas_world *world) {
  name first[PIECES], second[PIECES];
  int16_t pairs[LARGEST_LIST];
  make_list(FIRST, first, PIECES);
  make_list(SECOND, second, PIECES);
  shuffle(PAIRS, pairs, LARGEST_LIST);
  const int16_t *pair = pairs;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    world->n_ones[t] = ONES;
    world->n_values[t] = VALUES;
    if (t == 1) {
      make_years(world->names[t]);
      continue;
    }
    if (t == 2)
      make_goods(world->names[t]);
    else
      make_list(t, world->names[t], ONES);
    for (int32_t i = ONES; i < VALUES; i++, pair++)
      snprintf(world->names[t][i], sizeof(name), "%.11s %.11s", first[*pair / PIECES],
               second[*pair % PIECES]);
  }
  make_list(TOWNS, world->towns, world->n_towns);
  snprintf(world->towns[0], sizeof(name), "Velmora"); /* the one that examples are about */
}

/* The words of a text, at most `most`; how many they are. */
static int32_t split(const char *text, name *names, int32_t most) {
  int32_t n = 0;
  for (; *text && n < most; n++) {
    size_t length = strcspn(text, " ");
    snprintf(names[n], sizeof(name), "%.*s", (int)length, text);
    text += length + strspn(text + length, " ");
  }
  return n;
}

/* Capitals for names of two words, unless the type's are common nouns. */
static void write_pair(int32_t type, const char *first, const char *second, name out) {
  size_t at = strlen(first) + 1;
  snprintf(out, sizeof(name), "%.11s %.11s", first, second);
  if (is_lowercase(INVENTED + type)) return;
  out[0] = (char)toupper((unsigned char)out[0]);
  out[at] = (char)toupper((unsigned char)out[at]);
}

void pdt_atlas_make_word_names(pdt_atlas_world *world) {
  name first[FIRST_HALVES], second[SECOND_HALVES];
  int16_t pairs[LARGEST_LIST];
  split(pdt_atlas_first_halves(), first, FIRST_HALVES);
  split(pdt_atlas_second_halves(), second, SECOND_HALVES);
  shuffle(WORD_PAIRS, pairs, FIRST_HALVES * SECOND_HALVES);
  const int16_t *pair = pairs;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    name *names = world->names[t];
    int32_t n = split(pdt_atlas_word_list(t), names, PDT_ATLAS_MOST_VALUES - 2 * EXTRAS);
    world->n_ones[t] = n;
    for (int32_t end = n + EXTRAS; n < end; n++, pair++)
      write_pair(t, first[*pair / SECOND_HALVES], second[*pair % SECOND_HALVES], names[n]);
    make_list(INVENTED + t, names + n, EXTRAS);
    world->n_values[t] = n + EXTRAS;
  }
  make_list(TOWNS, world->towns, world->n_towns);
  snprintf(world->towns[0], sizeof(name), "Velmora");
}
