#include "atlas/world.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atlas/script.h"
#include "base/memory.h"

static const char *const section_names[PDT_ATLAS_SECTIONS] = {"history", "trade", "landmarks",
                                                              "customs", "food",  "government"};

static const pdt_atlas_script *script_of(pdt_atlas_kind kind) {
  return kind == PDT_ATLAS_WORDS ? pdt_atlas_script_words() : pdt_atlas_script_syllables();
}

const char *pdt_atlas_kind_name(pdt_atlas_kind kind) {
  return script_of(kind)->name;
}

const char *pdt_atlas_kind_option(pdt_atlas_kind kind) {
  return script_of(kind)->option;
}

bool pdt_atlas_kind_named(const char *name, pdt_atlas_kind *out) {
  for (*out = 0; *out < PDT_ATLAS_KINDS; ++*out)
    if (strcmp(name, script_of(*out)->name) == 0) return true;
  return false;
}

bool pdt_atlas_kind_parse(const char *option, pdt_atlas_kind *out) {
  for (*out = 0; *out < PDT_ATLAS_KINDS; ++*out)
    if (strcmp(option, script_of(*out)->option) == 0) return true;
  return false;
}

bool pdt_atlas_is_held_out(const pdt_atlas_world *world, int32_t value) {
  return world->held_out > 0 && value % world->held_out == world->held_out - 1;
}

const char *pdt_atlas_type_name(const pdt_atlas_world *world, int32_t type) {
  return script_of(world->kind)->types[type].name;
}

const char *pdt_atlas_section_name(int32_t section) {
  return section_names[section];
}

void pdt_atlas_heading(int32_t section, char heading[PDT_ATLAS_HEADING_BYTES]) {
  const char *name = section_names[section];
  snprintf(heading, PDT_ATLAS_HEADING_BYTES, "\n%c%s:", toupper((unsigned char)name[0]), name + 1);
}

const char *pdt_atlas_verb(bool hard) {
  return hard ? "Sketch" : "Describe";
}

int32_t pdt_atlas_type(const pdt_atlas_world *world, const char *name) {
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    if (strcmp(pdt_atlas_type_name(world, t), name) == 0) return t;
  return -1;
}

int32_t pdt_atlas_section(const char *name) {
  for (int32_t s = 0; s < PDT_ATLAS_SECTIONS; s++)
    if (strcmp(section_names[s], name) == 0) return s;
  return -1;
}

int32_t pdt_atlas_town(const pdt_atlas_world *world, const char *name) {
  for (int32_t i = 0; i < world->n_towns; i++)
    if (strcmp(world->towns[i], name) == 0) return i;
  return -1;
}

int32_t pdt_atlas_value(const pdt_atlas_world *world, int32_t type, const char *name) {
  for (int32_t i = 0; i < world->n_values[type]; i++)
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

/* No texts of a world have more words than this together, each counted as often as it comes. */
enum {
  MOST_WORDS = PDT_ATLAS_MOST_PATTERNS * PDT_ATLAS_PATTERN_WORDS +
               PDT_ATLAS_TYPES * PDT_ATLAS_MOST_VALUES * 2 + PDT_ATLAS_MOST_TOWNS
};

/* Half a sentence of two statements: the type's own word, then the name. */
static void terse_form(const char *type, bool second, char text[32]) {
  snprintf(text, 32, "%s _%c", type, second ? '.' : ';');
  if (!second) text[0] = (char)toupper((unsigned char)text[0]);
}

/* Text number i of a world, in the order of patterns. */
static const char *pattern_text(const pdt_atlas_world *world, int32_t i, char room[32]) {
  const pdt_atlas_script *s = script_of(world->kind);
  if (i >= world->filler) return s->fillers[i - world->filler];
  if (i >= world->terse) {
    terse_form(s->types[(i - world->terse) / 2].name, (i - world->terse) % 2 == 1, room);
    return room;
  }
  int32_t row = i / s->n_forms;
  return s->types[row / 2].forms[row % 2][i % s->n_forms];
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
  char room[32];
  for (int32_t i = 0; i < world->n_patterns; i++) add_words(&list, pattern_text(world, i, room));
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = 0; v < world->n_values[t]; v++) add_words(&list, world->names[t][v]);
  for (int32_t i = 0; i < world->n_towns; i++) add_words(&list, world->towns[i]);
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
  char room[32];
  for (int32_t i = 0; i < world->n_patterns; i++) {
    int32_t row = i / world->n_forms, type = row / 2;
    pdt_mention_kind kind = row % 2 == 0 ? PDT_STATES : PDT_USES;
    if (i >= world->terse) {
      type = i >= world->filler ? -1 : (i - world->terse) / 2;
      kind = PDT_STATES;
    }
    make_pattern(world, type, kind, pattern_text(world, i, room), &world->patterns[i]);
  }
}

static void resolve_names(pdt_atlas_world *world) {
  qsort(world->towns, (size_t)world->n_towns, sizeof *world->towns, compare_words);
  for (int32_t i = 0; i < world->n_towns; i++)
    world->town_words[i] = pdt_atlas_word(world, world->towns[i], strlen(world->towns[i]));
  for (int32_t t = 0; t < PDT_ATLAS_TYPES; t++)
    for (int32_t v = 0; v < world->n_values[t]; v++) {
      const char *name = world->names[t][v];
      size_t at = 0, begin, bytes = strlen(name);
      for (int w = 0; w < 2; w++)
        world->name_words[t][v][w] = pdt_atlas_next_word(name, bytes, &at, &begin)
                                         ? pdt_atlas_word(world, name + begin, at - begin)
                                         : PDT_ATLAS_NO_WORD;
    }
}

int pdt_atlas_world_new(pdt_atlas_world **out, pdt_atlas_kind kind, pdt_error *err) {
  const pdt_atlas_script *s = script_of(kind);
  if (PDT_NEW(out, 1, "Atlas", err)) return -1;
  pdt_atlas_world *w = *out;
  if (PDT_NEW(&w->words, MOST_WORDS, "words of the Atlas", err)) {
    pdt_atlas_world_free(w);
    *out = NULL;
    return -1;
  }
  w->kind = kind;
  w->tangled = s->tangled;
  w->pretrained = s->pretrained;
  w->held_out = s->held_out;
  w->n_towns = s->n_towns;
  w->n_forms = s->n_forms;
  w->n_fillers = s->n_fillers;
  w->terse = PDT_ATLAS_TYPES * 2 * s->n_forms;
  w->filler = w->terse + (s->tangled ? 2 * PDT_ATLAS_TYPES : 0);
  w->n_patterns = w->filler + s->n_fillers;
  s->make_names(w);
  collect_words(w);
  make_patterns(w);
  resolve_names(w);
  return 0;
}

void pdt_atlas_world_free(pdt_atlas_world *world) {
  if (world) free(world->words);
  free(world);
}
