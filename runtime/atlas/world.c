#include "atlas/world.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atlas/names.h"
#include "base/memory.h"

static const char *const section_names[PDT_ATLAS_SECTIONS] = {"history", "trade", "landmarks",
                                                              "customs", "food",  "government"};

/* Sentences of a type: "_" is the name, "@" the town. None begins with the name, and what comes
 * before it is found in one type and kind only. Lengths differ, and so does what follows the name:
 * neither place nor distance gives it away. */
static const struct {
  const char *name;
  const char *forms[2][PDT_ATLAS_FORMS];
} types[PDT_ATLAS_TYPES] = {
    {"founder",
     {{"@ was founded by _.", "It was _ who first settled here.", "The first house was built by _.",
       "By all accounts the founder was _."},
      {"A statue of _ stands nearby.", "People still drink to _ on cold evenings.",
       "The old mill once belonged to _.", "Children sing of _ and the early days."}}},
    {"year",
     {{"The town dates from the year _.", "Its charter was sealed in _.",
       "The first wall went up in _.", "In the year _ the settlers arrived."},
      {"Little has changed since _.", "A stone over the door bears the date _.",
       "Prices have been written down since _.", "The oldest of them was made in _."}}},
    {"good",
     {{"The town lives by selling _.", "Its main good is _.", "Merchants come from afar to buy _.",
       "Most carts leave loaded with _ for the coast."},
      {"The smell of _ is everywhere.", "A small war was once fought over _.",
       "Guests are given a gift of _.", "The cellars are full of _ in winter."}}},
    {"coin",
     {{"The local coin is the _.", "Payment is made in the _.",
       "The mint strikes a coin called the _.", "Traders count in the _ and nothing else."},
      {"Entry costs one _.", "A single _ is thrown for luck.", "Beggars at the gate ask for a _.",
       "Every guest leaves one silver _ behind."}}},
    {"river",
     {{"The town lies on the river _.", "An old bridge crosses the _.",
       "Below the walls flows the _.", "The waters of the valley meet in the _ nearby."},
      {"Boats go down the _ in spring.", "The banks of the _ were flooded that year.",
       "Boys swim in the _ each summer.", "Mills along the _ turn all day."}}},
    {"tower",
     {{"The highest building is the tower of _.", "Every visitor climbs the stairs of _ tower.",
       "From afar one sees the tower named _.", "Above the roofs rises _ tower."},
      {"The bell of _ tower rings at noon.", "Prisoners were once kept in the tower of _.",
       "Lamps are lit at dusk on _ tower.", "The records lie safe in _ tower."}}},
    {"festival",
     {{"Each year the town keeps the feast of _.", "The great festival is _.",
       "In autumn everyone awaits _.", "The holiday called _ lasts nine days."},
      {"All work stops for _.", "Flags are painted for _ by the young.",
       "Peace was signed on the eve of _.", "Prices double during _."}}},
    {"patron",
     {{"The patron saint is _.", "Prayers are said to _ every morning.",
       "The people swear by saint _.", "The chapel is sacred to saint _."},
      {"The seal shows the face of saint _.", "An image of saint _ hangs over the gate.",
       "Monks of saint _ keep the books.", "A candle burns for saint _ all night."}}},
    {"dish",
     {{"The favorite dish is _.", "On holidays families cook _.", "No wedding is held without _.",
       "Every kitchen makes _ in its own way."},
      {"Inns by the road serve _.", "Pots of _ are carried to the poor.",
       "Soldiers were fed on _ alone.", "The guards share their _ with the watchmen."}}},
    {"drink",
     {{"The common drink is _.", "Everyone here likes _.", "In deep cellars they brew _.",
       "A meal ends with a cup of _ for all."},
      {"Bargains are sealed with _.", "A barrel of _ is opened for guests.",
       "Workers are paid partly in _.", "The singers ask only for _."}}},
    {"house",
     {{"The town is ruled by the house of _.", "Power lies with the _ family.",
       "The council answers to the house of _.", "The lord is always a _ by birth."},
      {"The arms of the house of _ are carved here.", "Land was bought from the _ family.",
       "Taxes go to the house of _.", "The best seats belong to the _ family."}}},
    {"rival",
     {{"The council has long feared _.", "Its great rival is the town of _.",
       "For a century it was at war with _.", "Twice the army of _ burned the gates."},
      {"No cart from _ may enter.", "Jokes are told about _ and its people.",
       "The walls look towards _ in the east.", "Old songs mock the men of _."}}},
};

static const char *const fillers[PDT_ATLAS_FILLERS] = {"It is a quiet place.",
                                                       "Travelers speak well of it.",
                                                       "The roads are good.",
                                                       "Winters are long here.",
                                                       "Little else is known.",
                                                       "Much has been written about this.",
                                                       "@ is proud of it.",
                                                       "Rain is common in spring.",
                                                       "Few strangers stay for long.",
                                                       "The old people remember more.",
                                                       "Nobody knows the reason.",
                                                       "So it has been for many years.",
                                                       "The streets are narrow but clean.",
                                                       "This is known all over the land."};

const char *pdt_atlas_type_name(int32_t type) {
  return types[type].name;
}

const char *pdt_atlas_section_name(int32_t section) {
  return section_names[section];
}

const char *pdt_atlas_verb(bool hard) {
  return hard ? "Sketch" : "Describe";
}

int32_t pdt_atlas_type(const char *name) {
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    if (strcmp(types[t].name, name) == 0) return t;
  return -1;
}

int32_t pdt_atlas_section(const char *name) {
  for (int32_t s = 0; s < PDT_ATLAS_SECTIONS; s++)
    if (strcmp(section_names[s], name) == 0) return s;
  return -1;
}

int32_t pdt_atlas_town(const pdt_atlas_world *world, const char *name) {
  for (int32_t i = 0; i < PDT_ATLAS_TOWNS; i++)
    if (strcmp(world->towns[i], name) == 0) return i;
  return -1;
}

int32_t pdt_atlas_value(const pdt_atlas_world *world, int32_t type, const char *name) {
  for (int32_t i = 0; i < PDT_ATLAS_VALUES; i++)
    if (strcmp(world->names[type][i], name) == 0) return i;
  return -1;
}

bool pdt_atlas_next_word(const char *text, size_t bytes, size_t *at, size_t *begin) {
  size_t i = *at;
  while (i < bytes && isspace((unsigned char)text[i])) i++;
  *begin = i;
  *at = i;
  if (i == bytes) return false;
  int (*same)(int) = isalpha((unsigned char)text[i])   ? isalpha
                     : isdigit((unsigned char)text[i]) ? isdigit
                                                       : NULL;
  do i++;
  while (same && i < bytes && same((unsigned char)text[i]));
  *at = i;
  return true;
}

int32_t pdt_atlas_word(const pdt_atlas_world *world, const char *text, size_t bytes) {
  int32_t low = 0, high = world->n_words;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    const char *word = world->words[middle];
    int order = strncmp(word, text, bytes);
    if (order == 0 && word[bytes] == '\0') return middle;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return PDT_ATLAS_NO_WORD;
}

/* Words on their way into the world. */
typedef struct word_list {
  char (*words)[PDT_ATLAS_NAME_BYTES];
  int32_t n;
} word_list;

/* No text of the world has more words than this together, each counted as often as it comes. */
enum {
  MOST_WORDS = PDT_ATLAS_PATTERNS * PDT_ATLAS_PATTERN_WORDS +
               PDT_ATLAS_TYPES * PDT_ATLAS_VALUES * 2 + PDT_ATLAS_TOWNS
};

/* Half a sentence of two statements: the type's own word, then the name. */
static void terse_form(int32_t type, bool second, char text[32]) {
  snprintf(text, 32, "%s _%c", types[type].name, second ? '.' : ';');
  if (!second) text[0] = (char)toupper((unsigned char)text[0]);
}

static void add_words(word_list *list, const char *text) {
  size_t at = 0, begin, bytes = strlen(text);
  while (pdt_atlas_next_word(text, bytes, &at, &begin)) {
    if (text[begin] == '_' || text[begin] == '@') continue;
    snprintf(list->words[list->n++], PDT_ATLAS_NAME_BYTES, "%.*s", (int)(at - begin), text + begin);
  }
}

static int compare_words(const void *a, const void *b) {
  return strcmp(a, b);
}

static void collect_words(pdt_atlas_world *world) {
  word_list list = {world->words, 0};
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++) {
    for (int32_t f = 0; f < 2 * PDT_ATLAS_FORMS; f++)
      add_words(&list, types[t].forms[f / PDT_ATLAS_FORMS][f % PDT_ATLAS_FORMS]);
    for (int half = 0; half < 2; half++) {
      char text[32];
      terse_form(t, half == 1, text);
      add_words(&list, text);
    }
    for (int32_t v = 0; v < PDT_ATLAS_VALUES; v++) add_words(&list, world->names[t][v]);
  }
  for (int32_t f = 0; f < PDT_ATLAS_FILLERS; f++) add_words(&list, fillers[f]);
  for (int32_t i = 0; i < PDT_ATLAS_TOWNS; i++) add_words(&list, world->towns[i]);
  qsort(list.words, (size_t)list.n, sizeof *list.words, compare_words);
  for (int32_t i = 0; i < list.n; i++)
    if (world->n_words == 0 || strcmp(list.words[world->n_words - 1], list.words[i]) != 0)
      memmove(list.words[world->n_words++], list.words[i], sizeof *list.words);
}

static void make_pattern(const pdt_atlas_world *world, int32_t type, pdt_mention_kind kind,
                         const char *text, pdt_atlas_pattern *out) {
  size_t at = 0, begin, bytes = strlen(text);
  *out = (pdt_atlas_pattern){.type = type, .kind = kind, .name = -1};
  for (; pdt_atlas_next_word(text, bytes, &at, &begin); out->n_words++) {
    if (text[begin] == '_') out->name = out->n_words;
    out->words[out->n_words] = text[begin] == '_' ? PDT_ATLAS_NAME
                               : text[begin] == '@'
                                   ? PDT_ATLAS_TOWN
                                   : pdt_atlas_word(world, text + begin, at - begin);
  }
}

static void make_patterns(pdt_atlas_world *world) {
  pdt_atlas_pattern *p = world->patterns;
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t f = 0; f < 2 * PDT_ATLAS_FORMS; f++)
      make_pattern(world, t, f / PDT_ATLAS_FORMS == 0 ? PDT_STATES : PDT_USES,
                   types[t].forms[f / PDT_ATLAS_FORMS][f % PDT_ATLAS_FORMS], p++);
  for (int32_t i = 0; i < 2 * PDT_ATLAS_TYPES; i++) {
    char text[32];
    terse_form(i / 2, i % 2 == 1, text);
    make_pattern(world, i / 2, PDT_STATES, text, p++);
  }
  for (int32_t f = 0; f < PDT_ATLAS_FILLERS; f++) make_pattern(world, -1, 0, fillers[f], p++);
}

static void resolve_names(pdt_atlas_world *world) {
  qsort(world->towns, PDT_ATLAS_TOWNS, sizeof *world->towns, compare_words);
  for (int32_t i = 0; i < PDT_ATLAS_TOWNS; i++)
    world->town_words[i] = pdt_atlas_word(world, world->towns[i], strlen(world->towns[i]));
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = 0; v < PDT_ATLAS_VALUES; v++) {
      const char *name = world->names[t][v];
      size_t at = 0, begin, bytes = strlen(name);
      for (int w = 0; w < 2; w++)
        world->name_words[t][v][w] = pdt_atlas_next_word(name, bytes, &at, &begin)
                                         ? pdt_atlas_word(world, name + begin, at - begin)
                                         : PDT_ATLAS_NO_WORD;
    }
}

int pdt_atlas_world_new(pdt_atlas_world **out, pdt_error *err) {
  if (PDT_NEW(out, 1, "Atlas", err)) return -1;
  if (PDT_NEW(&(*out)->words, MOST_WORDS, "words of the Atlas", err)) {
    pdt_atlas_world_free(*out);
    *out = NULL;
    return -1;
  }
  pdt_atlas_make_names(*out);
  collect_words(*out);
  make_patterns(*out);
  resolve_names(*out);
  return 0;
}

void pdt_atlas_world_free(pdt_atlas_world *world) {
  if (world) free(world->words);
  free(world);
}
