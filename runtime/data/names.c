#include "data/names.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/utf8.h"

enum { MOST_WORDS = 4 };

/* ---- stop words ---- */

/* Own choice: articles, pronouns, prepositions, conjunctions, auxiliaries and adverbs that begin
 * sentences or stand in headings. */
static const char *const english[] = {
    "a",       "about",   "above", "after",  "again",   "all",   "also",  "although", "an",
    "and",     "another", "any",   "are",    "as",      "at",    "be",    "because",  "been",
    "before",  "between", "both",  "but",    "by",      "can",   "do",    "does",     "during",
    "each",    "either",  "every", "few",    "for",     "from",  "has",   "have",     "he",
    "her",     "here",    "his",   "how",    "however", "if",    "in",    "into",     "is",
    "it",      "its",     "like",  "many",   "may",     "more",  "most",  "much",     "near",
    "neither", "no",      "nor",   "not",    "of",      "often", "on",    "once",     "one",
    "only",    "or",      "other", "our",    "over",    "she",   "since", "so",       "some",
    "such",    "than",    "that",  "the",    "their",   "them",  "then",  "there",    "these",
    "they",    "this",    "those", "though", "through", "to",    "today", "two",      "under",
    "until",   "up",      "upon",  "use",    "used",    "very",  "was",   "we",       "were",
    "what",    "when",    "where", "which",  "while",   "who",   "why",   "will",     "with",
    "within",  "without", "would", "yes",    "yet",     "you",   "your"};

static int compare_words(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In small letters, freed by the caller. */
static int lower(const char *word, size_t bytes, char **out, pdt_error *err) {
  pdt_buffer small = {0};
  int rc = 0;
  for (size_t at = 0; at < bytes && !rc;) {
    char c[4];
    rc = pdt_buffer_put(&small, c, pdt_utf8_encode(utf8proc_tolower(pdt_utf8_next(word, &at)), c),
                        err);
  }
  if (!rc) rc = pdt_buffer_take(&small, out, NULL, err);
  pdt_buffer_free(&small);
  return rc ? -1 : 0;
}

int pdt_data_stop_words_add(pdt_data_stop_words *s, const char *word, size_t bytes,
                            pdt_error *err) {
  char *small;
  if (PDT_GROW(&s->words, s->n, &s->room, err) || lower(word, bytes, &small, err)) return -1;
  size_t at = s->n++;
  for (; at > 0 && strcmp(s->words[at - 1], small) > 0; at--) s->words[at] = s->words[at - 1];
  s->words[at] = small;
  return 0;
}

int pdt_data_stop_words_new(pdt_data_stop_words *s, pdt_error *err) {
  *s = (pdt_data_stop_words){0};
  for (size_t i = 0; i < sizeof english / sizeof *english; i++)
    if (pdt_data_stop_words_add(s, english[i], strlen(english[i]), err)) return -1;
  return 0;
}

void pdt_data_stop_words_free(pdt_data_stop_words *s) {
  for (size_t i = 0; i < s->n; i++) free(s->words[i]);
  free(s->words);
  *s = (pdt_data_stop_words){0};
}

int pdt_data_is_stop_word(const pdt_data_stop_words *s, const char *word, size_t bytes, bool *is,
                          pdt_error *err) {
  char *small;
  if (lower(word, bytes, &small, err)) return -1;
  *is = s->n > 0 && bsearch(&small, s->words, s->n, sizeof *s->words, compare_words);
  free(small);
  return 0;
}

/* ---- words ---- */

typedef struct word {
  size_t begin, end;
  bool first; /* of a sentence */
  bool name, number;
} word;

static bool is_of_word_at(const char *text, size_t length, size_t at) {
  return at < length && pdt_data_is_of_word(pdt_utf8_next(text, &at));
}

static bool is_digit_at(const char *text, size_t length, size_t at) {
  return at < length && text[at] >= '0' && text[at] <= '9';
}

/* Bytes of what may stand once inside of a word, at a byte behind a character of it; 0: nothing. */
static size_t joint_at(const char *text, size_t length, size_t at) {
  static const char quote[] = "\xe2\x80\x99"; /* U+2019 */
  if (at >= length) return 0;
  if ((text[at] == '.' || text[at] == ',') && is_digit_at(text, length, at - 1) &&
      is_digit_at(text, length, at + 1))
    return 1;
  if ((text[at] == '-' || text[at] == '\'') && is_of_word_at(text, length, at + 1)) return 1;
  return length - at > 3 && memcmp(text + at, quote, 3) == 0 && is_of_word_at(text, length, at + 3)
             ? 3
             : 0;
}

/* Without a final 's. */
static size_t without_s(const char *text, size_t begin, size_t end) {
  static const char *const tails[] = {"'s", "\xe2\x80\x99s"};
  for (int i = 0; i < 2; i++) {
    size_t n = strlen(tails[i]);
    if (end - begin > n && memcmp(text + end - n, tails[i], n) == 0) return end - n;
  }
  return end;
}

/* The next word at or behind *at, which then stands behind it; false at the end. */
static bool next_word(const char *text, size_t length, size_t *at, word *out) {
  bool first = *at == 0;
  while (*at < length && !is_of_word_at(text, length, *at)) {
    first |= strchr(".!?:;\n", text[*at]) != NULL;
    pdt_utf8_next(text, at);
  }
  size_t begin = *at, joint;
  if (begin >= length) return false;
  do {
    while (is_of_word_at(text, length, *at)) pdt_utf8_next(text, at);
    joint = joint_at(text, length, *at);
    *at += joint;
  } while (joint > 0);
  *out = (word){.begin = begin, .end = without_s(text, begin, *at), .first = first};
  return true;
}

/* What a word is, by its first character and its length. */
static int judge(const char *text, const pdt_data_stop_words *stop, word *w, pdt_error *err) {
  size_t at = w->begin;
  utf8proc_category_t kind = utf8proc_category(pdt_utf8_next(text, &at));
  if (at >= w->end) return 0; /* one character */
  w->number = is_digit_at(text, w->end, w->begin);
  if (kind != UTF8PROC_CATEGORY_LU && kind != UTF8PROC_CATEGORY_LT) return 0;
  bool stops;
  if (pdt_data_is_stop_word(stop, text + w->begin, w->end - w->begin, &stops, err)) return -1;
  w->name = !stops;
  return 0;
}

/* ---- candidates ---- */

/* A text that may be a name, where it stands. */
typedef struct candidate {
  const char *text;
  size_t bytes, begin;
  pdt_stream stream;
  bool telling; /* a number, of several words, or no sentence begins there */
} candidate;

typedef struct candidates {
  candidate *all;
  size_t n, room;
} candidates;

/* Adds what ends with the last of n words that follow each other: that word, and it with those
 * before it. */
static int add_runs(candidates *c, const char *text, pdt_stream k, const word *words, int n,
                    pdt_error *err) {
  size_t end = words[n - 1].end;
  for (int i = n - 1; i >= 0; i--) {
    const word *w = &words[i];
    if (!w->name && i < n - 1) continue; /* a number goes before nothing */
    if (PDT_GROW(&c->all, c->n, &c->room, err)) return -1;
    bool telling = w->number || i < n - 1 || !w->first;
    c->all[c->n++] = (candidate){text + w->begin, end - w->begin, w->begin, k, telling};
  }
  return 0;
}

static int gather(candidates *c, const char *text, size_t length, pdt_stream k,
                  const pdt_data_stop_words *stop, pdt_error *err) {
  word words[MOST_WORDS], w;
  int n = 0; /* words that follow each other, up to the one at hand */
  for (size_t at = 0; next_word(text, length, &at, &w);) {
    if (judge(text, stop, &w, err)) return -1;
    bool goes_on = n > 0 && w.begin == words[n - 1].end + 1 && text[w.begin - 1] == ' ';
    if (!goes_on || (!w.name && !w.number)) n = 0;
    if (!w.name && !w.number) continue;
    if (n == MOST_WORDS) memmove(words, words + 1, (size_t)--n * sizeof *words);
    words[n++] = w;
    if (add_runs(c, text, k, words, n, err)) return -1;
  }
  return 0;
}

/* The longest first, equal ones together, by stream and place. */
static int by_text(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  int order = memcmp(x->text, y->text, x->bytes);
  if (order != 0) return order;
  if (x->stream != y->stream) return x->stream < y->stream ? -1 : 1;
  return (x->begin > y->begin) - (x->begin < y->begin);
}

/* What prompt and prefixes tell everybody, in small letters, freed by the caller. */
static int lower_told(const pdt_data_entry *e, char **out, pdt_error *err) {
  pdt_buffer told = {0};
  int rc = pdt_buffer_put(&told, e->prompt, strlen(e->prompt), err);
  for (pdt_stream k = 0; k < e->n_sections && !rc; k++)
    rc = pdt_buffer_put(&told, "\n", 1, err) ||
         pdt_buffer_put(&told, e->sections[k].prefix, strlen(e->sections[k].prefix), err);
  if (!rc) rc = lower(told.data, told.bytes, out, err);
  pdt_buffer_free(&told);
  return rc ? -1 : 0;
}

/* *is: it is told everybody. */
static int is_told(const char *told, const candidate *c, bool *is, pdt_error *err) {
  char *small;
  size_t at = 0;
  if (lower(c->text, c->bytes, &small, err)) return -1;
  *is = pdt_data_find(told, strlen(told), small, strlen(small), &at);
  free(small);
  return 0;
}

/* The candidate of a group of equal ones that stands earliest where no name is yet; NULL where the
 * group is no fact. */
static const candidate *owner_of(const pdt_data_places *p, const candidate *c, size_t n) {
  const candidate *owner = NULL;
  bool several = false, telling = false;
  for (size_t i = 0; i < n; i++) {
    if (!pdt_data_is_free(p, c[i].stream, c[i].begin, c[i].begin + c[i].bytes)) continue;
    several |= owner && owner->stream != c[i].stream;
    telling |= c[i].telling;
    if (!owner || c[i].begin < owner->begin) owner = &c[i];
  }
  return several && telling ? owner : NULL;
}

/* Makes a fact of a group. */
static int keep(pdt_data_places *p, const candidate *c, size_t n, const candidate *owner,
                pdt_error *err) {
  pdt_data_fact *f = &p->e->facts[p->e->n_facts++];
  f->stream = owner->stream;
  f->value = strndup(c->text, c->bytes);
  if (!f->value) return pdt_fail(err, PDT_ERROR_MEMORY, "data: no memory for a text");
  if (pdt_data_copy(&f->type, is_digit_at(c->text, c->bytes, 0) ? "number" : "name", err))
    return -1;
  for (size_t i = 0; i < n; i++) {
    const pdt_data_mention m = {p->e->n_facts - 1, &c[i] == owner ? PDT_STATES : PDT_USES,
                                (int32_t)c[i].begin, (int32_t)(c[i].begin + c[i].bytes)};
    if (!pdt_data_is_free(p, c[i].stream, c[i].begin, c[i].begin + c[i].bytes)) continue;
    if (pdt_data_place(p, c[i].stream, &m, err)) return -1;
  }
  return 0;
}

static int choose(pdt_data_places *p, candidates *c, const char *told, pdt_error *err) {
  if (c->n > 1) qsort(c->all, c->n, sizeof *c->all, by_text);
  for (size_t first = 0, n; first < c->n && p->e->n_facts < PDT_DATA_FACTS; first += n) {
    const candidate *group = &c->all[first];
    for (n = 1; first + n < c->n && group[n].bytes == group->bytes &&
                memcmp(group[n].text, group->text, group->bytes) == 0;)
      n++;
    const candidate *owner = owner_of(p, group, n);
    bool known = false;
    if (owner && is_told(told, owner, &known, err)) return -1;
    if (owner && !known && keep(p, group, n, owner, err)) return -1;
  }
  return 0;
}

int pdt_data_find_names(pdt_data_places *p, const pdt_data_stop_words *stop, pdt_error *err) {
  candidates c = {0};
  char *told = NULL;
  int rc = PDT_NEW(&p->e->facts, PDT_DATA_FACTS, "facts", err) || lower_told(p->e, &told, err);
  for (pdt_stream k = 0; k < p->e->n_sections && !rc; k++)
    rc = gather(&c, p->e->sections[k].text, p->sections[k].length, k, stop, err);
  if (!rc) rc = choose(p, &c, told, err);
  free(c.all);
  free(told);
  return rc ? -1 : 0;
}
