#include "atlas/parse.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

/* A sentence in the making. One with more words than any pattern is malformed; of those, only as
 * many are kept as it takes to see that. */
typedef struct sentence {
  int32_t n;
  struct {
    int32_t id;
    size_t begin, end;
  } words[PDT_ATLAS_PATTERN_WORDS + 2];
} sentence;

static void add_word(const pdt_atlas_world *world, sentence *s, const char *text, size_t begin,
                     size_t end) {
  if (s->n == PDT_ATLAS_PATTERN_WORDS + 2) return;
  s->words[s->n].id = pdt_atlas_word(world, text + begin, end - begin);
  s->words[s->n].begin = begin;
  s->words[s->n++].end = end;
}

/* Index of a town by its word, -1 for other words. */
static int32_t town_of(const pdt_atlas_world *world, int32_t id) {
  for (int32_t i = 0; i < world->n_towns; i++)
    if (world->town_words[i] == id && id >= 0) return i;
  return -1;
}

/* Do words [from, from + n) of the sentence fit those of the pattern from `at` on? Towns that are
 * not `town` are counted. */
static bool fits(const pdt_atlas_world *world, const sentence *s, int32_t from, int32_t n,
                 const pdt_atlas_pattern *p, int32_t at, int32_t town, int32_t *other_towns) {
  for (int32_t i = 0; i < n; i++) {
    int32_t id = s->words[from + i].id;
    if (p->words[at + i] != PDT_ATLAS_TOWN) {
      if (p->words[at + i] != id) return false;
      continue;
    }
    int32_t found = town_of(world, id);
    if (found < 0) return false;
    *other_towns += town >= 0 && found != town;
  }
  return true;
}

static int32_t value_of(const pdt_atlas_world *world, int32_t type, int32_t first, int32_t second) {
  for (int32_t v = 0; v < world->n_values[type] && first >= 0; v++)
    if (world->name_words[type][v][0] == first && world->name_words[type][v][1] == second) return v;
  return -1;
}

/* Is the word the first of a name of two? */
static bool begins_pair(const pdt_atlas_world *world, int32_t type, int32_t word) {
  for (int32_t v = world->n_ones[type]; v < world->n_values[type] && word >= 0; v++)
    if (world->name_words[type][v][0] == word && world->name_words[type][v][1] >= 0) return true;
  return false;
}

/* Most words of a name: listed ones have two. */
static int32_t most_words(const pdt_atlas_world *world) {
  return world->pretrained ? PDT_ATLAS_UNLISTED_WORDS : 2;
}

/* The name of `words` words at the pattern's place. */
static pdt_atlas_mention mention_of(const pdt_atlas_world *world, const sentence *s,
                                    const pdt_atlas_pattern *p, int32_t words, bool closed) {
  int32_t second = words == 2 ? s->words[p->name + 1].id : PDT_ATLAS_NO_WORD;
  pdt_atlas_mention m = {.kind = p->kind, .type = p->type, .closed = closed, .value = -1};
  if (words == 1 || (words == 2 && second >= 0))
    m.value = value_of(world, p->type, s->words[p->name].id, second);
  m.begin = s->words[p->name].begin;
  m.end = s->words[p->name + words - 1].end;
  bool at_end = s->n == p->name + words;
  bool may_go_on = (words == 1 && begins_pair(world, p->type, s->words[p->name].id)) ||
                   (world->pretrained && m.value < 0 && words < most_words(world));
  m.complete = closed || !at_end || !may_go_on;
  return m;
}

/* Words of the name when the whole sentence is of this pattern; 0 without name; -1 when it is not.
 */
static int32_t match_closed(const pdt_atlas_world *world, const sentence *s,
                            const pdt_atlas_pattern *p, int32_t town, int32_t *other_towns) {
  if (p->name < 0)
    return s->n == p->n_words && fits(world, s, 0, s->n, p, 0, town, other_towns) ? 0 : -1;
  int32_t after = p->n_words - p->name - 1, words = s->n - p->name - after;
  bool same = words >= 1 && words <= most_words(world) &&
              fits(world, s, 0, p->name, p, 0, town, other_towns) &&
              fits(world, s, s->n - after, after, p, p->name + 1, town, other_towns);
  return same ? words : -1;
}

/* Does a sentence that goes on fit with a name of so many words? */
static bool fits_open(const pdt_atlas_world *world, const sentence *s, const pdt_atlas_pattern *p,
                      int32_t words, int32_t town, int32_t *other_towns) {
  int32_t rest = s->n - p->name - words, after = p->n_words - p->name - 1;
  return rest >= 0 && rest <= after &&
         fits(world, s, p->name + words, rest, p, p->name + 1, town, other_towns);
}

/* As match_closed when the sentence goes on: 0 when the name has not begun. A second word belongs
 * to the name when a name of two begins so; or, as a third, when nothing else can be made of it,
 * where names need not be listed. */
static int32_t match_open(const pdt_atlas_world *world, const sentence *s,
                          const pdt_atlas_pattern *p, int32_t town, int32_t *other_towns) {
  int32_t before = p->name < 0 || s->n < p->name ? s->n : p->name;
  if (before > p->n_words || !fits(world, s, 0, before, p, 0, town, other_towns)) return -1;
  if (before == s->n) return 0;
  if (begins_pair(world, p->type, s->words[before].id) &&
      fits_open(world, s, p, 2, town, other_towns))
    return 2;
  int32_t most = world->pretrained ? most_words(world) : 1;
  for (int32_t words = 1; words <= most; words++)
    if (fits_open(world, s, p, words, town, other_towns)) return words;
  return -1;
}

/* Takes a sentence, ended or not. */
static int take(const pdt_atlas_world *world, int32_t town, const sentence *s, bool closed,
                pdt_atlas_reading *out, pdt_error *err) {
  const pdt_atlas_pattern *best = NULL;
  int32_t words = -1, towns = 0;
  for (int32_t i = 0; i < world->n_patterns && words < 1; i++) {
    int32_t other = 0;
    int32_t found =
        (closed ? match_closed : match_open)(world, s, &world->patterns[i], town, &other);
    if (found <= words) continue;
    words = found;
    towns = other;
    best = &world->patterns[i];
  }
  out->sentences += closed;
  out->malformed += closed && !best;
  out->open = !closed;
  out->open_malformed = !closed && !best;
  if (closed && best) out->other_towns += towns > 0;
  if (!best || words < 1) return 0;
  if (PDT_GROW(&out->mentions, out->n, &out->room, err)) return -1;
  out->mentions[out->n++] = mention_of(world, s, best, words, closed);
  return 0;
}

/* Bytes of the heading that begins the text, of section *section; 0: none does. */
static size_t read_heading(const char *text, size_t bytes, int32_t *section) {
  char heading[PDT_ATLAS_HEADING_BYTES];
  for (*section = 0; *section < PDT_ATLAS_SECTIONS; ++*section) {
    pdt_atlas_heading(*section, heading);
    size_t length = strlen(heading);
    if (bytes >= length && memcmp(text, heading, length) == 0) return length;
  }
  *section = -1;
  return 0;
}

int pdt_atlas_parse(const pdt_atlas_world *world, int32_t town, const char *text, size_t bytes,
                    pdt_atlas_reading *out, pdt_error *err) {
  size_t begin;
  sentence s = {.n = 0};
  *out = (pdt_atlas_reading){.mentions = out->mentions, .room = out->room};
  size_t at = read_heading(text, bytes, &out->heading);
  while (pdt_atlas_next_word(text, bytes, &at, &begin)) {
    add_word(world, &s, text, begin, at);
    if (text[begin] != '.' && text[begin] != ';') continue;
    if (take(world, town, &s, true, out, err)) return -1;
    s.n = 0;
  }
  return s.n == 0 ? 0 : take(world, town, &s, false, out, err);
}

void pdt_atlas_reading_free(pdt_atlas_reading *r) {
  free(r->mentions);
  *r = (pdt_atlas_reading){0};
}
